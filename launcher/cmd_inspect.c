/*
 * cmd_inspect.c - inspect: what is in a prepared dataset, a model folder, a checkpoint or a run.
 *
 * Nothing is computed and nothing is changed. What is found is printed even where part of it is
 * damaged; damage is then the command's status, so that scripts see it. Names and texts come from
 * files nobody has checked: they are printed without control characters, which could drive a
 * terminal.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "ckpt/hf.h"
#include "ckpt/safetensors.h"
#include "data/dataset.h"
#include "data/tokenizer.h"
#include "launcher/command.h"
#include "launcher/config.h"
#include "launcher/keys.h"
#include "worker/source.h"

enum { LABEL_LINES = 50, TEXT_LINES = 3, TEXT_WIDTH = 60, JSON_LIMIT = 64 << 20, UNCUT = 1 << 22 };

/* One path: what is said about it, and the first damage that was found. */
struct report {
    struct str out;
    enum status damage;
    char sentence[1024];
};

/* Note what status_message() says and go on. */
static void note_damage(struct report *report, enum status st)
{
    if (report->damage == STATUS_OK) {
        report->damage = st;
        (void)snprintf(report->sentence, sizeof report->sentence, "%s", status_message());
    }
}

/* At most `width` characters of text, control characters as blanks; "..." where more would follow.
 */
static enum status add_clean(struct str *out, const char *text, size_t n, int width)
{
    size_t valid = utf8_valid_prefix(text, n), at = 0;
    for (int i = 0; at < valid && i < width; i++) {
        uint32_t c;
        size_t length = (size_t)utf8_decode(text + at, valid - at, &c);
        bool control = c < 0x20 || (c >= 0x7F && c < 0xA0);
        TRY(control ? str_add(out, " ", 1) : str_add(out, text + at, length));
        at += length;
    }
    return at < n ? str_addf(out, "...") : STATUS_OK;
}

static enum status add_name(struct str *out, const char *name)
{
    return add_clean(out, name, strlen(name), TEXT_WIDTH);
}

/* ---- prepared datasets ---- */

static int compare_ints(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static enum status add_lengths(struct str *out, const struct dataset *ds, int64_t rows)
{
    int *length;
    if (rows == 0)
        return STATUS_OK;
    TRY(mem_alloc_raw((size_t)rows, sizeof *length, "row lengths", &length));
    for (int64_t i = 0; i < rows; i++)
        length[i] = dataset_length(ds, i);
    qsort(length, (size_t)rows, sizeof *length, compare_ints);
    int64_t p95 = (int64_t)ceil(0.95 * (double)rows) - 1; /* nearest rank */
    enum status st = str_addf(
        out, "  length       min %d, median %d, p95 %d, max %d tokens with special tokens\n",
        length[0], length[(rows - 1) / 2], length[p95], length[rows - 1]);
    mem_free(length);
    return st;
}

static enum status add_class_counts(struct str *out, const struct dataset_info *info,
                                    const int64_t *count)
{
    for (int c = 0; c < info->classes && c < LABEL_LINES; c++) {
        TRY(str_addf(out, "    %8lld  ", (long long)count[c]));
        TRY(add_name(out, info->names[c]));
        TRY(str_add(out, "\n", 1));
    }
    return info->classes > LABEL_LINES
               ? str_addf(out, "    ... and %d more\n", info->classes - LABEL_LINES)
               : STATUS_OK;
}

static enum status add_labels(struct str *out, const struct dataset *ds,
                              const struct dataset_info *info)
{
    int64_t *count = NULL, without = 0;
    enum status st = STATUS_OK;
    if (info->label_kind == LABEL_NONE)
        return str_addf(out, "  labels       none\n");
    if (info->label_kind == LABEL_VALUE) {
        const float *value = dataset_values(ds);
        double sum = 0.0, low = INFINITY, high = -INFINITY;
        for (int64_t i = 0; i < info->rows; i++) {
            sum += (double)value[i];
            low = fmin(low, (double)value[i]);
            high = fmax(high, (double)value[i]);
        }
        return str_addf(out, "  labels       numbers, min %g, mean %g, max %g\n", low,
                        sum / (double)info->rows, high);
    }
    TRY(mem_alloc((size_t)info->classes, sizeof *count, "label counts", &count));
    if (info->label_kind == LABEL_CLASS) {
        const int32_t *label = dataset_classes(ds);
        for (int64_t i = 0; i < info->rows; i++)
            count[label[i]]++;
        st = str_addf(out, "  labels       %d class%s\n", info->classes,
                      info->classes == 1 ? "" : "es");
    } else {
        const int64_t *begin = dataset_multi_begin(ds);
        const int32_t *label = dataset_multi(ds);
        for (int64_t i = 0; i < info->rows; i++)
            without += begin[i] == begin[i + 1];
        for (int64_t i = 0; i < begin[info->rows]; i++)
            count[label[i]]++;
        st = str_addf(out, "  labels       %d, any number a row; %lld rows without\n",
                      info->classes, (long long)without);
    }
    if (st == STATUS_OK)
        st = add_class_counts(out, info, count);
    mem_free(count);
    return st;
}

static enum status add_texts(struct report *report, struct dataset *ds,
                             const struct dataset_info *info)
{
    struct str text = {0}, pair = {0};
    enum status st = STATUS_OK;
    for (int64_t i = 0; i < info->rows && i < TEXT_LINES && st == STATUS_OK; i++) {
        str_clear(&text);
        str_clear(&pair);
        st = dataset_row_text(ds, i, &text, &pair);
        if (st == STATUS_FORMAT) {
            note_damage(report, st);
            st = str_addf(&report->out, "  row %lld        damaged: %s\n", (long long)i,
                          report->sentence);
            continue;
        }
        if (st == STATUS_OK)
            st = str_addf(&report->out, "  row %lld        ", (long long)i);
        if (st == STATUS_OK && text.n > 0)
            st = add_clean(&report->out, text.p, text.n, TEXT_WIDTH);
        if (st == STATUS_OK && pair.n > 0)
            st = str_addf(&report->out, " | ");
        if (st == STATUS_OK && pair.n > 0)
            st = add_clean(&report->out, pair.p, pair.n, TEXT_WIDTH);
        if (st == STATUS_OK)
            st = str_add(&report->out, "\n", 1);
    }
    str_release(&text);
    str_release(&pair);
    return st;
}

static enum status describe_dataset(struct report *report, struct dataset *ds)
{
    struct str *out = &report->out;
    struct dataset_info info;
    dataset_get_info(ds, &info);
    TRY(str_addf(out, "prepared dataset, written by "));
    TRY(add_name(out, info.tool));
    TRY(str_addf(out, "\n  source       "));
    TRY(add_name(out, info.source));
    TRY(str_addf(out, "\n  rows         %lld\n  tokens       %lld without special tokens\n",
                 (long long)info.rows, (long long)info.tokens));
    TRY(add_lengths(out, ds, info.rows));
    TRY(add_labels(out, ds, &info));
    TRY(str_addf(out, "  columns      text%s%s%s%s", info.has_pairs ? ", pair" : "",
                 info.label_kind == LABEL_NONE ? "" : ", label", info.has_ids ? ", id" : "",
                 info.has_weights ? ", weight" : ""));
    if (info.has_groups)
        TRY(str_addf(out, ", group (%d groups)", dataset_group_count(ds)));
    if (info.has_times)
        TRY(str_addf(out, ", time"));
    if (info.has_folds)
        TRY(str_addf(out, ", fold (%d values)", dataset_fold_name_count(ds)));
    TRY(str_addf(out, "%s\n  tokenizer    ", info.has_text ? "" : "; texts are not stored"));
    TRY(add_name(out, info.tokenizer_kind));
    if (info.cls < 0)
        TRY(str_addf(out, ", %d ids, no [CLS] and [SEP], [PAD] %d", info.vocab_size, info.pad));
    else
        TRY(str_addf(out, ", %d ids, [CLS] %d, [SEP] %d, [PAD] %d", info.vocab_size, info.cls,
                     info.sep, info.pad));
    if (info.model_max_length > 0)
        TRY(str_addf(out, ", at most %d tokens", info.model_max_length));
    TRY(str_addf(out, "\n  hashes       content %016llx, source %016llx, tokenizer %016llx\n",
                 (unsigned long long)info.content_hash, (unsigned long long)info.source_hash,
                 (unsigned long long)info.tokenizer_hash));
    enum status st = dataset_verify(ds);
    if (st != STATUS_OK && st != STATUS_FORMAT)
        return st;
    if (st == STATUS_FORMAT)
        note_damage(report, st);
    TRY(str_addf(out, "  verified     %s%s\n",
                 st == STATUS_OK ? "yes: every token, and the content hash" : "NO: ",
                 st == STATUS_OK ? "" : report->sentence));
    return info.has_text ? add_texts(report, ds, &info) : STATUS_OK;
}

static enum status inspect_dataset(struct report *report, const char *path)
{
    struct dataset_opts opts = {.path = path, .max_length = UNCUT}; /* more than any text has */
    struct dataset *ds;
    TRY(dataset_open(&opts, &ds));
    enum status st = describe_dataset(report, ds);
    dataset_close(ds);
    return st;
}

/* ---- model folders ---- */

/* What a part says that could not be read, in place of what it holds. */
static enum status add_unread(struct report *report, enum status st, const char *what)
{
    if (st == STATUS_NOMEM || st == STATUS_IO)
        return st;
    TRY(str_addf(&report->out, "  %-12s NO: %s\n", what, status_message()));
    if (st == STATUS_FORMAT)
        note_damage(report, st);
    return STATUS_OK;
}

static enum status add_weights(struct report *report, const char *folder)
{
    static const char *const names[] = {"F32", "F16", "BF16", "F64", "I64",
                                        "I32", "I16", "I8",   "U8",  "BOOL"};
    enum { TYPES = sizeof names / sizeof names[0] };
    struct safetensors *file;
    int64_t elements[TYPES] = {0}, tensors[TYPES] = {0}, bytes = 0;
    bool first = true;
    enum status st = safetensors_open_folder(folder, &file);
    if (st != STATUS_OK)
        return add_unread(report, st, "weights");
    for (int64_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor_info *tensor = safetensors_at(file, i);
        elements[tensor->dtype] += tensor->elements;
        tensors[tensor->dtype]++;
        bytes += tensor->size_bytes;
    }
    st = str_addf(&report->out, "  parameters   ");
    for (int i = 0; i < TYPES && st == STATUS_OK; i++) {
        if (tensors[i] == 0)
            continue;
        st = str_addf(&report->out, "%s%s %lld in %lld tensor%s", first ? "" : ", ", names[i],
                      (long long)elements[i], (long long)tensors[i], tensors[i] == 1 ? "" : "s");
        first = false;
    }
    if (st == STATUS_OK)
        st = str_addf(&report->out, "%s; %.1f MB\n", first ? "none" : "", (double)bytes / 1e6);
    safetensors_close(file);
    return st;
}

static enum status add_encoder(struct report *report, const json_t *config, const char *where)
{
    struct encoder_config e;
    enum status st = encoder_config_read(config, where, &e);
    if (st != STATUS_OK)
        return add_unread(report, st, "encoder");
    return str_addf(&report->out,
                    "  family       %s\n  encoder      %d layers, hidden %d, heads %d, "
                    "intermediate %d, vocabulary %d, "
                    "at most %d tokens\n",
                    e.model_type, e.layers, e.hidden, e.heads, e.intermediate, e.vocab_size,
                    e.max_positions);
}

static enum status add_model_labels(struct report *report, const json_t *config)
{
    struct str *out = &report->out;
    char **names;
    int count;
    bool generic;
    enum status st = hf_labels(config, &names, &count, &generic);
    if (st != STATUS_OK)
        return add_unread(report, st, "labels");
    st = str_addf(out, "  labels       %d%s: ", count, generic ? ", unnamed" : "");
    for (int i = 0; i < count && i < LABEL_LINES && st == STATUS_OK; i++) {
        st = str_add(out, ", ", i == 0 ? 0 : 2);
        if (st == STATUS_OK)
            st = add_name(out, names[i]);
    }
    if (st == STATUS_OK)
        st = str_addf(out, "%s\n", count > LABEL_LINES ? ", ..." : "");
    hf_labels_free(names, count);
    return st;
}

static enum status add_cohort(struct str *out, const json_t *config)
{
    const json_t *own = json_object_get(config, "cohort");
    const char *pooling = json_string_value(json_object_get(own, "pooling"));
    if (pooling == NULL)
        return STATUS_OK;
    TRY(str_addf(out, "  trained by   cohort: pooling "));
    TRY(add_name(out, pooling));
    TRY(str_addf(out, ", %lld tokens a row",
                 (long long)json_integer_value(json_object_get(own, "max_length"))));
    const json_t *chunks = json_object_get(own, "chunks");
    if (json_is_object(chunks))
        TRY(str_addf(out, "; texts in chunks of %lld, one every %lld",
                     (long long)json_integer_value(json_object_get(chunks, "size")),
                     (long long)json_integer_value(json_object_get(chunks, "stride"))));
    return str_add(out, "\n", 1);
}

static enum status add_tokenizer(struct report *report, const char *folder)
{
    struct tokenizer *tokenizer;
    struct tokenizer_info info;
    enum status st = tokenizer_open(folder, &tokenizer);
    if (st != STATUS_OK)
        return add_unread(report, st, "tokenizer");
    tokenizer_get_info(tokenizer, &info);
    st = str_addf(&report->out, "  tokenizer    %s, %s, %d ids, hash %016llx\n", info.kind,
                  info.lowercase ? "lower case" : "cased", info.vocab_size,
                  (unsigned long long)info.hash);
    tokenizer_close(tokenizer);
    return st;
}

/* The lines that a model folder and a checkpoint share. */
static enum status add_model(struct report *report, const char *folder)
{
    struct str where = {0};
    json_t *config = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, hf_read_config(folder, &config));
    TRY_GOTO(done, str_addf(&where, "%s/config.json", folder));
    TRY_GOTO(done, add_encoder(report, config, where.p));
    TRY_GOTO(done, add_weights(report, folder));
    TRY_GOTO(done, add_model_labels(report, config));
    TRY_GOTO(done, add_cohort(&report->out, config));
    st = add_tokenizer(report, folder);
done:
    json_decref(config);
    str_release(&where);
    return st;
}

/* ---- checkpoints ---- */

static enum status read_json(const char *folder, const char *name, json_t **out)
{
    char *path;
    *out = NULL;
    TRY(path_join(folder, name, &path));
    enum status st = json_read_file(path, JSON_LIMIT, out);
    mem_free(path);
    return st;
}

static bool has(const char *folder, const char *name)
{
    char *path;
    if (path_join(folder, name, &path) != STATUS_OK)
        return false;
    bool there = file_exists(path);
    mem_free(path);
    return there;
}

static long long whole(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static enum status add_number(struct str *out, const json_t *value)
{
    if (json_is_integer(value))
        return str_addf(out, "%lld", (long long)json_integer_value(value));
    return json_is_real(value) ? str_addf(out, "%.6g", json_real_value(value))
                               : str_addf(out, "undefined");
}

static enum status add_state(struct report *report, const char *folder)
{
    struct str *out = &report->out;
    json_t *state, *history;
    enum status st = read_json(folder, "state.json", &state);
    if (st != STATUS_OK)
        return add_unread(report, st, "state");
    const char *metric = json_string_value(json_object_get(state, "metric"));
    metric = metric == NULL ? "score" : metric;
    TRY_GOTO(
        done,
        str_addf(out,
                 "  step         %lld of %lld: %lld epochs and %lld steps; %lld tokens, %.1f s\n",
                 whole(state, "step"), whole(state, "steps"), whole(state, "epoch"),
                 whole(state, "step_in_epoch"), whole(state, "tokens"),
                 json_number_value(json_object_get(state, "seconds"))));
    history = json_object_get(state, "history");
    for (size_t i = 0; i < json_array_size(history); i++) {
        const json_t *one = json_array_get(history, i);
        TRY_GOTO(done, str_addf(out, "    step %8lld  ", whole(one, "step")));
        TRY_GOTO(done, add_name(out, metric));
        TRY_GOTO(done, str_add(out, " ", 1));
        TRY_GOTO(done, add_number(out, json_object_get(one, "score")));
        TRY_GOTO(done, str_add(out, "  loss ", 7));
        TRY_GOTO(done, add_number(out, json_object_get(one, "loss")));
        TRY_GOTO(done, str_addf(out, "%s\n",
                                whole(one, "step") == whole(state, "best_step") ? "  best" : ""));
    }
done:
    json_decref(state);
    return st;
}

/* Verify NAME in folder down to the last byte; *good and, where it is not, the damage noted. */
static enum status verify(struct report *report, const char *folder, const char *name, bool *good)
{
    enum status st = checkpoint_verify(folder, name, true);
    *good = st == STATUS_OK;
    if (st == STATUS_NOMEM)
        return st;
    if (st != STATUS_OK)
        note_damage(report, st == STATUS_ARG ? STATUS_DATA : st);
    return STATUS_OK;
}

static enum status inspect_checkpoint(struct report *report, const char *path)
{
    struct str *out = &report->out;
    char *real = realpath(path, NULL), *slash;
    json_t *manifest = NULL;
    bool good;
    enum status st = STATUS_OK;
    if (real == NULL)
        return status_fail(STATUS_NOINPUT, "%s cannot be found", path);
    slash = strrchr(real, '/');
    *slash = '\0';
    const char *parent = slash == real ? "/" : real, *name = slash + 1;
    TRY_GOTO(done, str_addf(out, "checkpoint\n"));
    if (has(path, "state.json"))
        TRY_GOTO(done, add_state(report, path));
    TRY_GOTO(done, verify(report, parent, name, &good));
    if (good)
        TRY_GOTO(done, checkpoint_manifest(parent, name, &manifest));
    if (good && json_object_get(manifest, "source") != NULL) {
        const char *source = json_string_value(json_object_get(manifest, "source"));
        TRY_GOTO(done, str_addf(out, "  published    from "));
        TRY_GOTO(done, add_name(out, source == NULL ? "?" : source));
        TRY_GOTO(done, str_addf(out, ", step %lld\n", whole(manifest, "step")));
    }
    TRY_GOTO(done, str_addf(out, "  manifest     %s%s\n",
                            good ? "verified: size and hash of every file" : "NO: ",
                            good ? "" : report->sentence));
    st = add_model(report, path);
done:
    json_decref(manifest);
    free(real);
    return st;
}

static enum status inspect_model(struct report *report, const char *path)
{
    TRY(str_addf(&report->out, "Hugging Face model\n"));
    return add_model(report, path);
}

/* ---- runs ---- */

static enum status add_settings(struct report *report, const char *folder)
{
    static struct run_config config, defaults;
    struct str *out = &report->out, a = {0}, b = {0};
    char *path;
    TRY(config_defaults(&defaults));
    TRY(path_join(folder, "run.cfg", &path));
    enum status st = config_load(path, NULL, 0, &config);
    mem_free(path);
    if (st != STATUS_OK)
        return add_unread(report, st, "run.cfg");
    st = str_addf(out, "  run.cfg, where it differs from the defaults\n");
    for (size_t i = 0; i < keys_count && st == STATUS_OK; i++) {
        str_clear(&a);
        str_clear(&b);
        st = key_get(&config, &keys[i], &a);
        if (st == STATUS_OK)
            st = key_get(&defaults, &keys[i], &b);
        if (st != STATUS_OK || (a.n == b.n && memcmp(a.p, b.p, a.n) == 0))
            continue;
        st = str_addf(out, "    %s = ", keys[i].name);
        if (st == STATUS_OK)
            st = add_clean(out, a.p, a.n, CONFIG_TEXT);
        if (st == STATUS_OK)
            st = str_add(out, "\n", 1);
    }
    str_release(&a);
    str_release(&b);
    return st;
}

/* Objects, and lists of single values, on one line; false for what has more than that inside: a
 * confusion matrix. */
static bool is_flat(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        if (json_is_array(one) || json_is_object(one))
            return false;
    }
    return true;
}

static enum status add_value(struct str *out, const json_t *value)
{
    if (json_is_string(value))
        return add_name(out, json_string_value(value));
    if (json_is_boolean(value))
        return str_addf(out, "%s", json_is_true(value) ? "true" : "false");
    if (!json_is_array(value))
        return add_number(out, value);
    TRY(str_add(out, "[", 1));
    for (size_t i = 0; i < json_array_size(value) && i < LABEL_LINES; i++) {
        TRY(str_add(out, ", ", i == 0 ? 0 : 2));
        TRY(add_value(out, json_array_get(value, i)));
    }
    return str_addf(out, "%s]", json_array_size(value) > LABEL_LINES ? ", ..." : "");
}

static enum status add_object(struct str *out, json_t *object)
{
    const char *key, *between = "";
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (json_is_object(value) || !is_flat(value))
            continue;
        TRY(str_addf(out, "%s", between));
        TRY(add_name(out, key));
        TRY(str_add(out, " ", 1));
        TRY(add_value(out, value));
        between = ", ";
    }
    return str_add(out, "\n", 1);
}

static enum status add_results(struct report *report, const char *folder)
{
    struct str *out = &report->out;
    json_t *results, *value;
    const char *key;
    enum status st = read_json(folder, "results.json", &results);
    if (st != STATUS_OK)
        return add_unread(report, st, "results.json");
    TRY_GOTO(done, str_addf(out, "  results.json\n    "));
    TRY_GOTO(done, add_object(out, results));
    json_object_foreach(results, key, value)
    {
        bool list = json_is_array(value) && !is_flat(value) &&
                    json_is_object(json_array_get(value, 0));
        for (size_t i = 0; list && i < json_array_size(value); i++) {
            TRY_GOTO(done, str_addf(out, "    "));
            TRY_GOTO(done, add_object(out, json_array_get(value, i)));
        }
        if (json_is_object(value)) {
            TRY_GOTO(done, str_addf(out, "    "));
            TRY_GOTO(done, add_name(out, key));
            TRY_GOTO(done, str_addf(out, ": "));
            TRY_GOTO(done, add_object(out, value));
        }
    }
done:
    json_decref(results);
    return st;
}

static bool is_checkpoint_name(const char *name)
{
    const char *digits = name + 11;
    return strcmp(name, "best") == 0 || (strncmp(name, "checkpoint-", 11) == 0 && *digits != '\0' &&
                                         strspn(digits, "0123456789") == strlen(digits));
}

/* Checkpoints of one trial: the run's folder, or one of a fold. */
static enum status add_checkpoints(struct report *report, const char *folder, const char *label)
{
    struct str *out = &report->out;
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        json_t *manifest = NULL;
        bool good;
        if (!is_checkpoint_name(names[i]))
            continue;
        st = verify(report, folder, names[i], &good);
        if (st == STATUS_OK && good)
            st = checkpoint_manifest(folder, names[i], &manifest);
        if (st == STATUS_OK && good)
            st = str_addf(out, "  %s%-20s step %lld, verified\n", label, names[i],
                          whole(manifest, "step"));
        else if (st == STATUS_OK)
            st = str_addf(out, "  %s%-20s NO: %s\n", label, names[i], status_message());
        json_decref(manifest);
    }
    folder_list_free(names, count);
    return st;
}

static bool is_fold_name(const char *name)
{
    return strncmp(name, "fold-", 5) == 0 && name[5] != '\0' &&
           strspn(name + 5, "0123456789") == strlen(name + 5);
}

static enum status inspect_run(struct report *report, const char *path)
{
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    TRY(str_addf(&report->out, "run\n"));
    if (has(path, "run.cfg"))
        TRY(add_settings(report, path));
    if (has(path, "results.json"))
        TRY(add_results(report, path));
    else
        TRY(str_addf(&report->out, "  results.json is not there: the run is not finished\n"));
    TRY(add_checkpoints(report, path, ""));
    TRY(folder_list(path, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        struct str label = {0};
        char *fold = NULL;
        if (!is_fold_name(names[i]))
            continue;
        st = path_join(path, names[i], &fold);
        if (st == STATUS_OK)
            st = str_addf(&label, "%s/", names[i]);
        if (st == STATUS_OK)
            st = add_checkpoints(report, fold, label.p);
        str_release(&label);
        mem_free(fold);
    }
    folder_list_free(names, count);
    return st;
}

/* ---- the command ---- */

static bool holds_checkpoints(const char *folder)
{
    char **names;
    size_t count;
    bool found = false;
    if (folder_list(folder, &names, &count) != STATUS_OK)
        return false;
    for (size_t i = 0; i < count; i++)
        found = found || is_checkpoint_name(names[i]) || is_fold_name(names[i]);
    folder_list_free(names, count);
    return found;
}

static enum status describe(struct report *report, const char *path)
{
    TRY(str_addf(&report->out, "%s: ", path));
    if (!file_exists(path))
        return status_fail(STATUS_NOINPUT, "%s is not there", path);
    if (!file_is_folder(path)) {
        if (source_is_prepared(path))
            return inspect_dataset(report, path);
        return status_fail(
            STATUS_DATA,
            "%s is no prepared dataset (it does not begin as HDF5 does); inspect looks for "
            "those, and for folders of a model, checkpoint or run",
            path);
    }
    if (has(path, "run.cfg") || has(path, "results.json"))
        return inspect_run(report, path);
    if (has(path, "config.json"))
        return has(path, "manifest.json") ? inspect_checkpoint(report, path)
                                          : inspect_model(report, path);
    if (holds_checkpoints(path))
        return inspect_run(report, path);
    return status_fail(
        STATUS_DATA,
        "%s holds neither run.cfg (a run), config.json (a model, or a checkpoint if "
        "manifest.json is there too) nor folders named checkpoint-<step>, best or fold-<k>",
        path);
}

static enum status inspect(const char *path)
{
    struct report report = {0};
    enum status st = describe(&report, path);
    if (st == STATUS_OK)
        st = session_write("-", report.out.p, report.out.n);
    if (st == STATUS_OK && report.damage != STATUS_OK)
        st = status_fail(report.damage, "%s", report.sentence);
    str_release(&report.out);
    return st;
}

enum status command_inspect(struct session *session)
{
    enum status first = STATUS_OK;
    char sentence[1024] = "";
    if (session->verb == NULL)
        return status_fail(
            STATUS_USAGE,
            "inspect needs a path: a prepared .h5 file, a model folder, a checkpoint or a "
            "run");
    if (comm_rank(session->world) != 0)
        return STATUS_OK;
    for (int i = -1; i < session->word_count; i++) { /* damage in one path does not hide the next */
        enum status st = inspect(i < 0 ? session->verb : session->words[i]);
        if (st == STATUS_OK)
            continue;
        if (first != STATUS_OK) {
            log_warning("%s", status_message());
            continue;
        }
        first = st;
        (void)snprintf(sentence, sizeof sentence, "%s", status_message());
    }
    return first == STATUS_OK ? STATUS_OK : status_fail(first, "%s", sentence);
}
