/*
 * main.c - cohort: find the command, read the configuration, run, and turn a status into an exit
 * code (sysexits.h).
 *
 * Every rank does all of this; rank 0 speaks. A status that only one rank has is agreed on at the
 * end, so that all leave with the same code and one sentence is printed.
 */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "base/threads.h"
#include "launcher/command.h"
#include "launcher/config.h"
#include "launcher/keys.h"

static enum status usage(struct str *out)
{
    TRY(str_addf(out, "usage: cohort <command> [config.cfg] [key=value ...]\n\n"));
    for (int i = 0; i < command_count; i++)
        TRY(str_addf(out, "  %-10s %s\n", commands[i].name, commands[i].summary));
    return str_addf(out,
                    "\ncohort <command> --help explains one; cohort help keys lists all keys.\n"
                    "Run alone, or on several ranks: mpirun -n 8 cohort train ...\n");
}

static enum status print(struct comm *world, const struct str *text)
{
    return comm_rank(world) == 0 ? session_write("-", text->p, text->n) : STATUS_OK;
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static enum status unknown_command(const char *name)
{
    const char *names[16];
    for (int i = 0; i < command_count && i < 16; i++)
        names[i] = commands[i].name;
    const char *near = nearest_name(name, names, (size_t)command_count);
    return status_fail(STATUS_USAGE, "there is no command \"%s\"%s%s%s", name,
                       near == NULL ? "; cohort help lists them" : ", did you mean ",
                       near == NULL ? "" : near, near == NULL ? "" : "?");
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static bool ends_in_cfg(const char *argument)
{
    size_t n = strlen(argument);
    return n > 4 && strcmp(argument + n - 4, ".cfg") == 0;
}

/*
 * Arguments: key=value, words of a command that takes any, and one configuration file. A file named
 * *.cfg is one before it is a word, except to a command whose words are paths; a file of any other
 * name is one where no word is taken.
 */
static enum status read_arguments(int argc, char **argv, const struct command *command,
                                  struct session *session, const char **words)
{
    static const enum log_level levels[] = {LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    char **overrides = calloc((size_t)argc + 1, sizeof *overrides);
    const char *file = NULL;
    int count = 0;
    enum status st = overrides == NULL ? status_fail(STATUS_NOMEM, "no memory for the arguments")
                                       : STATUS_OK;
    for (int i = 0; i < argc && st == STATUS_OK; i++) {
        int taken = session->verb == NULL ? 0 : 1 + session->word_count;
        bool cfg = ends_in_cfg(argv[i]) && command->words <= 1;
        bool keys = command->run == command_help && strncmp(argv[i], "keys=", 5) == 0;
        if (argv[i][0] == '-' && argv[i][1] != '\0')
            st = status_fail(STATUS_USAGE, "there is no option \"%s\"; settings are key=value",
                             argv[i]);
        else if (strchr(argv[i], '=') != NULL && !keys)
            overrides[count++] = argv[i];
        else if (!cfg && taken == 0 && command->words > 0)
            session->verb = argv[i];
        else if (!cfg && taken < command->words)
            words[session->word_count++] = argv[i];
        else if (!cfg && (!file_exists(argv[i]) || file_is_folder(argv[i])))
            st = status_fail(
                STATUS_USAGE,
                "\"%s\" is neither key=value nor a configuration file; cohort %s --help "
                "says what is wanted",
                argv[i], command->name);
        else if (file != NULL)
            st = status_fail(STATUS_USAGE,
                             "\"%s\" is a second configuration file beside \"%s\", wanted one",
                             argv[i], file);
        else
            file = argv[i];
    }
    if (st == STATUS_OK)
        st = config_load(file, overrides, count, &session->config);
    if (st == STATUS_OK) {
        log_setup(levels[session->config.log.level], comm_rank(session->world),
                  comm_size(session->world));
        if (session->config.log.screen != CONFIG_SCREEN_AUTO)
            log_redraw(session->config.log.screen == CONFIG_SCREEN_REDRAW);
    }
    free(overrides);
    session->words = words;
    return st;
}

static enum status run(int argc, char **argv, struct session *session, const char **words)
{
    struct str text = {0};
    enum status st = STATUS_OK;
    const char *name = argc > 1 ? argv[1] : "--help";
    bool help = is_help(name);
    if (help || strcmp(name, "--version") == 0) {
        st = help ? usage(&text) : str_addf(&text, "cohort " COHORT_VERSION "\n");
        if (st == STATUS_OK)
            st = print(session->world, &text);
        str_release(&text);
        return st != STATUS_OK || argc > 1 ? st : status_fail(STATUS_USAGE, "no command given");
    }
    const struct command *command = find_command(name);
    if (command == NULL)
        return unknown_command(name);
    for (int i = 2; i < argc; i++) {
        if (!is_help(argv[i]))
            continue;
        st = str_addf(&text, "cohort %s - %s\n\n%s", command->name, command->summary,
                      command->usage);
        if (st == STATUS_OK)
            st = print(session->world, &text);
        str_release(&text);
        return st;
    }
    TRY(comm_agree(session->world, read_arguments(argc - 2, argv + 2, command, session, words)));
    return command->run(session);
}

int main(int argc, char **argv)
{
    static struct session
        session; /* holds the configuration: too large for a stack with many ranks' limits */
    enum status st;
    threads_tame_spinning(argv);
    (void)setlocale(LC_ALL, "C");
    log_setup(LOG_INFO, 0, 1);
    st = comm_start(&session.world);
    if (st != STATUS_OK) {
        log_line(LOG_ERROR, "%s", status_message());
        return status_exit_code(st);
    }
    log_setup(LOG_INFO, comm_rank(session.world), comm_size(session.world));
    (void)signal(SIGXFSZ,
                 SIG_IGN); /* a write beyond the limit on file sizes fails, as on a full disk */
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    st = words == NULL ? status_fail(STATUS_NOMEM, "no memory for the arguments")
                       : fault_setup(comm_rank(session.world));
    if (st == STATUS_OK)
        st = run(argc, argv, &session, words);
    if (st != STATUS_OK && comm_broken())
        comm_abort(status_message(), status_exit_code(st));
    st = comm_agree(session.world, st);
    if (st == STATUS_REQUEUE && comm_rank(session.world) == 0)
        log_info("%s", status_message());
    else if (st != STATUS_OK && comm_rank(session.world) == 0)
        log_line(LOG_ERROR, "%s", status_message());
    /* Where MPI is not finalized, the launcher ends all ranks with the first: rank 0 speaks before.
     */
    if (st != STATUS_OK && comm_barrier(session.world) != STATUS_OK)
        log_line(LOG_DEBUG, "%s", status_message());
    comm_mark(-1, "end");
    device_close(session.device);
    free(words);
    comm_end(session.world);
    return status_exit_code(st);
}
