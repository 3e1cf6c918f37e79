/*
 * source.c - see source.h.
 *
 * Preparing: every rank parses the text (parsing is cheap), tokenizes its run of rows, and the
 * parts are gathered in rank order, so the rows come in file order for any number of ranks. The
 * first pass only counts rows.
 */
#include "worker/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

/* rows tokenized at a time, by all threads; fields of a row of text */
enum { BLOCK_ROWS = 1024, ROW_FIELDS = 8 };

static const char *or_null(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

void source_text_opts(const struct run_config *config, const char *path, struct text_opts *out)
{
    static const enum text_format formats[] = {TEXT_AUTO,  TEXT_TSV,  TEXT_CSV,
                                               TEXT_JSONL, TEXT_ARFF, TEXT_FOLDER};
    *out = (struct text_opts){.path = path,
                              .format = formats[config->data.format],
                              .header = config->data.header,
                              .text = config->data.text,
                              .template = or_null(config->data.template),
                              .pair = or_null(config->data.pair),
                              .label = or_null(config->data.label),
                              .group = or_null(config->data.group),
                              .id = or_null(config->data.id),
                              .weight = or_null(config->data.weight),
                              .time = or_null(config->data.time),
                              .fold = or_null(config->data.fold),
                              .where = or_null(config->data.where),
                              .rows = or_null(config->data.rows),
                              .limit = config->data.limit,
                              .max_words = (int)config->data.max_words};
}

bool source_is_prepared(const char *path)
{
    static const unsigned char magic[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char first[8] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool same = read(fd, first, sizeof first) == (ssize_t)sizeof first &&
                memcmp(first, magic, sizeof magic) == 0;
    (void)close(fd);
    return same;
}

/* ---- one rank's rows ---- */

static enum status count_rows(const struct text_opts *opts, int64_t *seen, int64_t *rows)
{
    struct text_reader *reader;
    struct text_row row;
    bool more = true;
    enum status st = text_open(opts, &reader);
    *seen = *rows = 0;
    for (int64_t i = 0; st == STATUS_OK && more; i++) {
        st = text_next(reader, &row, &more);
        if (i % 65536 == 0)
            comm_mark(-1, "counting rows");
    }
    if (st == STATUS_OK)
        text_counts(reader, seen, rows);
    text_close(reader);
    return st;
}

/* Rows of one block, copied out of the reader. */
struct block {
    struct text_row rows[BLOCK_ROWS];
    int count;
    struct str bytes;
    size_t offset[BLOCK_ROWS][ROW_FIELDS];
};

static struct text_field *field_of(struct text_row *row, int i)
{
    struct text_field *fields[ROW_FIELDS] = {&row->text, &row->pair,   &row->label, &row->group,
                                             &row->id,   &row->weight, &row->time,  &row->fold};
    return fields[i];
}

static enum status block_add(struct block *block, const struct text_row *row)
{
    struct text_row *copy = &block->rows[block->count];
    *copy = *row;
    for (int i = 0; i < ROW_FIELDS; i++) {
        const struct text_field *field = field_of(copy, i);
        block->offset[block->count][i] = block->bytes.n;
        if (field->p != NULL)
            TRY(str_add(&block->bytes, field->p, field->n));
    }
    block->count++;
    return STATUS_OK;
}

static enum status block_flush(struct block *block, const struct tokenizer *tokenizer,
                               bool keep_text, struct dataset_part *part)
{
    for (int r = 0; r < block->count; r++) { /* only now: the bytes move while they grow */
        for (int i = 0; i < ROW_FIELDS; i++) {
            struct text_field *field = field_of(&block->rows[r], i);
            if (field->p != NULL)
                field->p = (block->bytes.p == NULL ? "" : block->bytes.p) + block->offset[r][i];
        }
    }
    enum status st = dataset_part_add_many(part, tokenizer, block->rows, block->count, keep_text);
    block->count = 0;
    str_clear(&block->bytes);
    return st;
}

/* Tokenize selected rows [first, last). */
static enum status tokenize_run(const struct text_opts *opts, const struct tokenizer *tokenizer,
                                bool keep_text, int64_t first, int64_t last,
                                struct dataset_part *part)
{
    struct text_reader *reader = NULL;
    struct block *block = NULL;
    struct text_row row;
    bool more = first < last;
    enum status st = STATUS_OK;
    if (!more)
        return STATUS_OK;
    TRY_GOTO(done, mem_alloc(1, sizeof *block, "a block of rows", &block));
    TRY_GOTO(done, text_open(opts, &reader));
    for (int64_t selected = 0; more && selected < last; selected++) {
        TRY_GOTO(done, text_next(reader, &row, &more));
        if (!more || selected < first)
            continue;
        TRY_GOTO(done, block_add(block, &row));
        if (block->count == BLOCK_ROWS) {
            TRY_GOTO(done, block_flush(block, tokenizer, keep_text, part));
            comm_mark(-1, "preparing");
        }
    }
    st = block_flush(block, tokenizer, keep_text, part);
done:
    if (block != NULL)
        str_release(&block->bytes);
    mem_free(block);
    text_close(reader);
    return st;
}

/* ---- labels ---- */

/* Whether every label of the part is among the model's. */
static bool model_knows_labels(const struct dataset_part *part, const struct model_source *model)
{
    const char *p = part->bytes.p;
    if (model->label_count == 0 || part->rows == 0)
        return false;
    for (int64_t r = 0; r < part->rows; r++) {
        for (int f = 0; f < PART_FIELDS; f++) {
            int64_t n = part->byte_lengths[r * PART_FIELDS + f];
            bool known = f != PART_LABEL;
            for (int i = 0; !known && n >= 0 && i < model->label_count; i++)
                known = strlen(model->labels[i]) == (size_t)n &&
                        memcmp(model->labels[i], p, (size_t)n) == 0;
            if (!known)
                return false;
            p += n > 0 ? n : 0;
        }
    }
    return true;
}

static enum status write_parts(const struct run_config *config, const struct model_source *model,
                               const char *path, uint64_t source_hash, const char *out,
                               const struct dataset_part *part)
{
    bool labelled = config->data.label[0] != '\0';
    enum config_task task = config->data.task;
    struct dataset_write_opts opts = {.path = out,
                                      .source = path_base(path),
                                      .source_hash = source_hash,
                                      .label_kind = !labelled                         ? LABEL_NONE
                                                    : task == CONFIG_TASK_REGRESSION  ? LABEL_VALUE
                                                    : task == CONFIG_TASK_MULTI_LABEL ? LABEL_MULTI
                                                                                      : LABEL_CLASS,
                                      .label_separator = or_null(config->data.label_separator),
                                      .tokenizer = &model->tokenizer_info,
                                      .keep_text = config->data.keep_text};
    if (opts.label_kind == LABEL_CLASS && model_knows_labels(part, model)) {
        opts.names = (const char *const *)model->labels;
        opts.classes = model->label_count;
    }
    TRY(fault_here("data.write"));
    return dataset_write(&opts, part);
}

static enum status gather_parts(struct comm *comm, struct dataset_part *part)
{
    struct str packed = {0};
    int ranks = comm_size(comm);
    char *all = NULL;
    int64_t *begin = NULL;
    enum status st = STATUS_OK;
    if (ranks == 1)
        return STATUS_OK;
    st = dataset_part_pack(part, &packed);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)ranks + 1, sizeof *begin, "the parts", &begin);
    TRY_GOTO(done, comm_agree(comm, st));
    TRY_GOTO(done, comm_gather(comm, packed.p, (int64_t)packed.n, 0, &all, begin));
    for (int r = 1; st == STATUS_OK && comm_rank(comm) == 0 && r < ranks; r++) {
        struct dataset_part theirs = {0};
        st = dataset_part_unpack(all + begin[r], (size_t)(begin[r + 1] - begin[r]), &theirs);
        if (st == STATUS_OK)
            st = dataset_part_append(part, &theirs);
        dataset_part_release(&theirs);
    }
    st = comm_agree(comm, st);
done:
    str_release(&packed);
    mem_free(all);
    mem_free(begin);
    return st;
}

enum status source_prepare(struct comm *comm, const struct run_config *config,
                           const struct model_source *model, const char *path, const char *out,
                           struct prepare_report *report)
{
    struct text_opts opts;
    struct dataset_part part = {0};
    uint64_t source_hash = 0;
    int64_t bytes;
    enum status st = STATUS_OK;
    int rank = comm_rank(comm), ranks = comm_size(comm);
    *report = (struct prepare_report){0};
    source_text_opts(config, path, &opts);
    if (config->data.text[0] == '\0' && config->data.template[0] == '\0' && !file_is_folder(path))
        st = status_fail(STATUS_CONFIG,
                         "%s: name its column of text with data.text, or several with "
                         "data.template",
                         path);
    if (st == STATUS_OK && strcmp(path, "-") == 0)
        st = status_fail(
            STATUS_CONFIG,
            "standard input cannot be prepared: it is read more than once; save it first");
    if (st == STATUS_OK && rank == 0 && !file_is_folder(path))
        st = hash_file(path, &source_hash, &bytes);
    if (st == STATUS_OK)
        st = count_rows(&opts, &report->seen, &report->rows);
    TRY_GOTO(done, comm_agree(comm, st));
    if (report->rows == 0)
        st = status_fail(STATUS_DATA, "%s: no rows%s", path,
                         report->seen > 0 ? " left after selection" : "");
    else
        st = tokenize_run(&opts, model->tokenizer, config->data.keep_text,
                          report->rows * rank / ranks, report->rows * (rank + 1) / ranks, &part);
    TRY_GOTO(done, comm_agree(comm, st));
    TRY_GOTO(done, gather_parts(comm, &part));
    if (rank == 0)
        st = write_parts(config, model, path, source_hash, out, &part);
    report->tokens = (int64_t)part.tokens.n;
    st = comm_agree(comm, st);
done:
    dataset_part_release(&part);
    return st;
}

/* ---- the cache ---- */

static enum status folder_hash(const char *path, uint64_t *hash)
{
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    TRY(folder_list(path, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        char *inner = NULL;
        int64_t bytes;
        uint64_t one = 0;
        st = path_join(path, names[i], &inner);
        if (st == STATUS_OK)
            st = file_is_folder(inner) ? folder_hash(inner, &one) : hash_file(inner, &one, &bytes);
        *hash = hash_combine(hash_combine(*hash, hash_bytes(names[i], strlen(names[i]))), one);
        mem_free(inner);
    }
    folder_list_free(names, count);
    return st;
}

/* A name for what preparing path would write: content, selection, columns, tokenizer, task. */
static enum status cache_key(const struct run_config *config, const struct model_source *model,
                             const char *path, uint64_t *key)
{
    const char *const texts[] = {config->data.text,
                                 config->data.pair,
                                 config->data.label,
                                 config->data.group,
                                 config->data.id,
                                 config->data.weight,
                                 config->data.time,
                                 config->data.fold,
                                 config->data.where,
                                 config->data.rows,
                                 config->data.label_separator,
                                 config->data.template};
    const int64_t numbers[] = {(int64_t)config->data.format, config->data.header,
                               (int64_t)config->data.task,   config->data.limit,
                               config->data.max_words,       config->data.keep_text};
    int64_t bytes;
    *key = 2; /* of the rules that make these files */
    if (file_is_folder(path)) {
        TRY(folder_hash(path, key));
    } else {
        uint64_t content;
        TRY(hash_file(path, &content, &bytes));
        *key = hash_combine(*key, content);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        *key = hash_combine(*key, hash_bytes(texts[i], strlen(texts[i])));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        *key = hash_combine(*key, (uint64_t)numbers[i]);
    for (int i = 0; i < model->label_count; i++)
        *key = hash_combine(*key, hash_bytes(model->labels[i], strlen(model->labels[i])));
    *key = hash_combine(*key, model->tokenizer_info.hash);
    return STATUS_OK;
}

/* Path of the cached file, made by rank 0 if it is not there yet. Collective; *file is owned by the
 * caller. */
static enum status cached_file(struct comm *comm, const struct run_config *config,
                               const struct model_source *model, const char *path,
                               const char *folder, char **file)
{
    struct prepare_report report = {0};
    uint64_t key = 0;
    char name[40];
    struct dataset *ds = NULL;
    struct dataset_opts opts;
    int64_t found = 0;
    enum status st = comm_rank(comm) == 0 ? cache_key(config, model, path, &key) : STATUS_OK;
    double started = clock_s();
    TRY(comm_agree(comm, st));
    TRY(comm_broadcast(comm, &key, sizeof key, 0));
    (void)snprintf(name, sizeof name, "%016llx.h5", (unsigned long long)key);
    st = path_join(folder, name, file);
    if (st == STATUS_OK && comm_rank(comm) == 0) {
        st = folder_make(folder);
        opts = (struct dataset_opts){.path = *file, .max_length = 64};
        if (st == STATUS_OK && file_exists(*file)) {
            if (dataset_open(&opts, &ds) == STATUS_OK)
                found = 1;
            else
                log_warning("%s; it is made again", status_message());
            dataset_close(ds);
        }
    }
    TRY(comm_agree(comm, st));
    TRY(comm_broadcast(comm, &found, sizeof found, 0));
    if (found)
        return STATUS_OK;
    TRY(source_prepare(comm, config, model, path, *file, &report));
    if (comm_rank(comm) == 0)
        log_info("prepared %s: %lld rows in %.1f s", path, (long long)report.rows,
                 clock_s() - started);
    return STATUS_OK;
}

/* What selects rows of text cannot reach into a prepared file: there the choice was made when it
 * was prepared. */
static enum status refuse_selection(const struct run_config *config, const char *path)
{
    const char *key = config->data.limit != 0         ? "data.limit selects"
                      : config->data.where[0] != '\0' ? "data.where selects"
                      : config->data.rows[0] != '\0'  ? "data.rows selects"
                      : config->data.max_words != 0   ? "data.max_words cuts"
                                                      : NULL;
    if (key == NULL)
        return STATUS_OK;
    return status_fail(STATUS_CONFIG, "%s rows of text; %s is prepared: select when preparing", key,
                       path);
}

enum status source_open(struct comm *comm, const struct run_config *config,
                        const struct model_source *model, const char *key, const char *path,
                        const char *cache_folder, int max_length, const struct chunk_rule *chunks,
                        struct dataset **out)
{
    struct dataset_info info;
    char *file = NULL;
    enum status st = STATUS_OK;
    *out = NULL;
    if (!file_exists(path))
        st = status_fail(STATUS_NOINPUT, "%s=%s: there is no such file or folder", key, path);
    else if (source_is_prepared(path))
        st = refuse_selection(config, path);
    TRY(comm_agree(comm, st));
    if (source_is_prepared(path))
        st = mem_strdup(path, &file);
    else
        st = cached_file(comm, config, model, path, cache_folder, &file);
    TRY_GOTO(done, comm_agree(comm, st));
    struct dataset_opts opts = {.path = file, .max_length = max_length, .chunks = *chunks};
    st = dataset_open(&opts, out);
    if (st == STATUS_OK) {
        dataset_get_info(*out, &info);
        if (model->tokenizer != NULL && info.tokenizer_hash != model->tokenizer_info.hash)
            st =
                status_fail(STATUS_DATA,
                            "%s=%s was prepared with another tokenizer than that of model.path=%s; "
                            "prepare it again",
                            key, path, model->path);
    }
    st = comm_agree(comm, st);
done:
    if (st != STATUS_OK) {
        dataset_close(*out);
        *out = NULL;
    }
    mem_free(file);
    return st;
}
