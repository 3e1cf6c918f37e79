/*
 * fuzz_arguments.c - each line of the input as one key=value of the command line.
 *
 * Beyond the sanitizers it holds: what is accepted reads back as it would be typed, to the same value; what is refused
 * has a sentence and leaves every other key alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/config.h"
#include "launcher/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "fuzz_arguments: %s: %s\n", what, status_message());
    abort();
}

static void set(struct run_config *config, const char *argument)
{
    static struct run_config again;
    struct str typed = {0}, twice = {0};
    char name[64];
    if (config_set_argument(config, argument) != STATUS_OK) {
        require(status_message()[0] != '\0', "a refusal without a sentence");
        return;
    }
    (void)snprintf(name, sizeof name, "%.*s", (int)(strchr(argument, '=') - argument), argument);
    const struct key *key = key_find(name);
    require(key != NULL, "an unknown key was accepted");
    require(config_defaults(&again) == STATUS_OK && key_get(config, key, &typed) == STATUS_OK, "read");
    require(key_set(&again, key, typed.p, "again") == STATUS_OK, "its own value is refused");
    require(key_get(&again, key, &twice) == STATUS_OK && strcmp(typed.p, twice.p) == 0, "another value");
    str_release(&typed);
    str_release(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run_config config;
    char *text = malloc(size + 1);
    require(text != NULL && config_defaults(&config) == STATUS_OK, "defaults");
    memcpy(text, data, size);
    text[size] = '\0';
    for (char *line = text; line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        set(&config, line);
        line = end;
    }
    free(text);
    return 0;
}
