/*
 * cmd_tokenizer_train.c - tokenizer train: text to the files of a new tokenizer.
 *
 * Rank 0 alone does it: reading is a small part of the time, and the rest is threads' work.
 */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_train.h"
#include "launcher/command.h"
#include "worker/source.h"

/* data.input: one path, or several joined by commas where there is no file of the whole name.
 * *paths (owned) is list with its commas made NULs. */
static enum status split_inputs(const char *list, char **paths, int *count)
{
    TRY(mem_strdup(list, paths));
    *count = 1;
    if (file_exists(list))
        return STATUS_OK;
    for (char *p = *paths; *p != '\0'; p++) {
        if (*p != ',')
            continue;
        *p = '\0';
        ++*count;
    }
    return STATUS_OK;
}

static enum status read_opts(const struct run_config *config, const char *path,
                             struct text_opts *out)
{
    if (path[0] == '\0')
        return status_fail(STATUS_CONFIG,
                           "data.input is \"%s\": a path between two commas is empty", config->data.input);
    if (strcmp(path, "-") != 0 && source_is_prepared(path))
        return status_fail(STATUS_CONFIG, "%s is a prepared file, wanted text to train on", path);
    if (config->data.text[0] == '\0' && config->data.template[0] == '\0' && !file_is_folder(path))
        return status_fail(STATUS_CONFIG, "%s: name its column of text with data.text", path);
    source_text_opts(config, path, out);
    out->label = out->group = out->id = out->weight = NULL; /* not read here */
    return STATUS_OK;
}

/* What stands in out already: a tokenizer is replaced on request only. */
static enum status check_out(const struct run_config *config)
{
    char *path;
    TRY(session_need("out", config->out, "the folder to write the tokenizer to"));
    TRY(path_join(config->out, "tokenizer.json", &path));
    bool there = file_exists(path);
    mem_free(path);
    if (there && !config->overwrite)
        return status_fail(STATUS_CONFIG,
                           "out=%s holds a tokenizer already; overwrite=true replaces it", config->out);
    return STATUS_OK;
}

static void say(const struct run_config *config, const struct tokenizer_train_report *report,
                double seconds)
{
    log_info("%s: %lld pieces (%lld characters), %.2f a word", config->out,
             (long long)report->vocab_size, (long long)report->alphabet, report->pieces_a_word);
    log_info("%.1f MB in %.1f s (%.1f MB a second)", (double)report->bytes / 1e6, seconds,
             (double)report->bytes / 1e6 / (seconds > 0 ? seconds : 1e-9));
}

enum status tokenizer_train_verb(struct session *session)
{
    static const enum train_model models[] = {TRAIN_WORDPIECE, TRAIN_BPE, TRAIN_UNIGRAM};
    static const enum train_words words[] = {TRAIN_WORDS_AUTO,  TRAIN_WORDS_WHITESPACE,
                                             TRAIN_WORDS_SPLIT, TRAIN_WORDS_BERT,
                                             TRAIN_WORDS_BYTES, TRAIN_WORDS_METASPACE};
    const struct run_config *config = &session->config;
    struct tokenizer_train_opts opts = {.model = models[config->tokenizer.model],
                                        .words = words[config->tokenizer.pre_tokenizer],
                                        .normalizer = config->tokenizer.normalizer,
                                        .special_tokens = config->tokenizer.special_tokens,
                                        .vocab_size = config->tokenizer.vocab_size,
                                        .min_frequency = config->tokenizer.min_frequency,
                                        .limit_alphabet = config->tokenizer.limit_alphabet,
                                        .max_piece = config->tokenizer.max_piece_length,
                                        .max_length = config->data.max_length,
                                        .max_words = config->tokenizer.max_words};
    struct tokenizer_train_report report;
    struct text_opts *inputs = NULL;
    char *paths = NULL;
    int count = 0;
    double started = clock_s();
    TRY(session_need("data.input", config->data.input, "the text to train on"));
    TRY(check_out(config));
    session_threads(session);
    enum status st = split_inputs(config->data.input, &paths, &count);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)count, sizeof *inputs, "input files", &inputs);
    const char *path = paths;
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        st = read_opts(config, path, &inputs[i]);
        path += strlen(path) + 1;
    }
    if (st == STATUS_OK)
        st = tokenizer_train(&opts, inputs, count, config->out, &report);
    if (st == STATUS_OK)
        say(config, &report, clock_s() - started);
    mem_free(inputs);
    mem_free(paths);
    return st;
}
