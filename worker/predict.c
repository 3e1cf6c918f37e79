/* predict.c - see predict.h. */
#include "worker/predict.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "data/text.h"
#include "worker/ensemble.h"
#include "worker/scoring.h"
#include "worker/source.h"

enum { WINDOW_ROWS = 8192, WINDOW_BYTES = 64 << 20 };

/* ---- rows in memory ---- */

enum status part_source_open(const struct dataset_part *part, const struct tokenizer_info *info,
                             int max_length, const struct chunk_rule *chunks,
                             struct part_source *out)
{
    *out = (struct part_source){
        .part = part, .info = info, .max_length = max_length, .chunks = *chunks};
    TRY(mem_alloc_raw((size_t)part->rows + 1, sizeof *out->offset, "row offsets", &out->offset));
    out->offset[0] = 0;
    for (int64_t r = 0; r < part->rows; r++)
        out->offset[r + 1] = out->offset[r] + part->lengths[r];
    if (chunks->size == 0)
        return STATUS_OK;
    TRY(mem_alloc_raw((size_t)part->rows + 1, sizeof *out->unit, "the chunks of rows", &out->unit));
    out->unit[0] = 0;
    for (int64_t r = 0; r < part->rows; r++) {
        if (part->split[r] != UINT32_MAX)
            return status_fail(STATUS_CONFIG,
                               "data.pair=... makes pairs of texts, and data.long=chunk splits "
                               "single ones; wanted data.long=truncate");
        out->unit[r + 1] = out->unit[r] + chunk_count(chunks, part->lengths[r]);
    }
    return STATUS_OK;
}

void part_source_close(struct part_source *source)
{
    mem_free(source->offset);
    mem_free(source->unit);
    source->offset = source->unit = NULL;
}

/* Tokens of the first and second text; second < 0: none. */
static void text_lengths(const struct part_source *s, int64_t row, int64_t *first, int64_t *second)
{
    bool single = s->part->split[row] == UINT32_MAX;
    *first = single ? s->part->lengths[row] : s->part->split[row];
    *second = single ? -1 : s->part->lengths[row] - *first;
}

static int64_t part_first_unit(void *self, int64_t row)
{
    const struct part_source *s = self;
    return s->unit[row];
}

/* What a unit has of its row: tokens [*from, *from + *first) of the first text, *second of the
 * second. */
static void unit_at(const struct part_source *s, int64_t unit, int64_t *row, int64_t *chunk,
                    int64_t *from, int64_t *first, int64_t *second)
{
    *row = unit;
    *chunk = *from = 0;
    if (s->unit != NULL) {
        *row = chunk_row(s->unit, s->part->rows, unit);
        *chunk = unit - s->unit[*row];
    }
    text_lengths(s, *row, first, second);
    if (s->unit != NULL)
        chunk_at(&s->chunks, *first, *chunk, from, first);
}

static int part_length(void *self, int64_t unit)
{
    const struct part_source *s = self;
    int64_t row, chunk, from, first, second;
    unit_at(s, unit, &row, &chunk, &from, &first, &second);
    return tokenizer_length(s->info, first, second, s->max_length);
}

static enum status part_read(void *self, const int64_t *units, int count, struct batch *batch)
{
    const struct part_source *s = self;
    int64_t tokens = 0;
    for (int i = 0; i < count; i++)
        tokens += part_length(self, units[i]);
    TRY(batch_reserve(batch, (size_t)tokens, (size_t)count));
    batch->rows = count;
    batch->tokens = tokens;
    batch->max_row = 0;
    batch->begin[0] = 0;
    for (int i = 0; i < count; i++) {
        int64_t row, chunk, from, first, second;
        int32_t at = batch->begin[i];
        unit_at(s, units[i], &row, &chunk, &from, &first, &second);
        const int32_t *ids = s->part->tokens.p + s->offset[row] + from;
        int n = tokenizer_join(s->info, ids, first, second < 0 ? NULL : ids + first, second,
                               s->max_length, batch->ids + at, batch->types + at);
        batch->begin[i + 1] = at + n;
        batch->row[i] = row;
        batch->chunk[i] = (int32_t)chunk;
        batch->max_row = n > batch->max_row ? n : batch->max_row;
    }
    return STATUS_OK;
}

struct row_source part_source_rows(struct part_source *source)
{
    return (struct row_source){.self = source,
                               .length = part_length,
                               .read = part_read,
                               .first_unit = source->unit == NULL ? NULL : part_first_unit,
                               .pooling = source->chunks.pooling};
}

/* ---- the task of a trained folder ---- */

/* The metric that the model was trained for, if it is one of the task. */
static void take_metric(const struct model_source *source, struct task_spec *task)
{
    const char *name = json_string_value(json_object_get(source->cohort, "metric"));
    enum metric metric;
    task->metric = metric_default(task->task);
    if (name != NULL && metric_find(name, &metric) &&
        metric_is_of(metric, task->task, task->classes))
        task->metric = metric;
}

enum status predict_task(const struct model_source *source, struct task_spec *out)
{
    const char *problem = json_string_value(json_object_get(source->config, "problem_type"));
    enum status st = STATUS_OK;
    *out = (struct task_spec){.task = TASK_CLASSES, .head_from_model = true};
    if (problem != NULL && strcmp(problem, "multi_label_classification") == 0)
        out->task = TASK_MULTI_LABEL;
    else if ((problem != NULL && strcmp(problem, "regression") == 0) || source->label_count == 1)
        out->task = TASK_REGRESSION;
    out->outputs = source->label_count;
    out->loss = (struct loss_opts){.kind = out->task == TASK_CLASSES       ? LOSS_CROSS_ENTROPY
                                           : out->task == TASK_MULTI_LABEL ? LOSS_BCE
                                                                           : LOSS_MSE,
                                   .outputs = out->outputs};
    take_metric(source, out);
    if (out->task == TASK_REGRESSION)
        return STATUS_OK;
    TRY(mem_alloc((size_t)source->label_count, sizeof *out->labels, "the labels", &out->labels));
    for (int i = 0; i < source->label_count && st == STATUS_OK; i++) {
        out->classes = i + 1;
        st = mem_strdup(source->labels[i], &out->labels[i]);
    }
    int64_t outputs = json_integer_value(json_object_get(source->cohort, "outputs"));
    if (st == STATUS_OK && outputs == 1 &&
        out->classes == 2) { /* trained with one logit for two classes */
        out->outputs = 1;
        out->loss = (struct loss_opts){.kind = LOSS_BCE, .outputs = 1};
    }
    take_metric(source, out);
    if (st != STATUS_OK)
        task_release(out);
    return st;
}

/* ---- windows of text ---- */

/* Texts are kept only for the id column. */
enum status predict_next_window(struct text_reader *reader, const struct tokenizer *tokenizer,
                                struct dataset_part *part)
{
    struct text_row row;
    bool more = true;
    int64_t bytes = 0;
    while (part->rows < WINDOW_ROWS && bytes < WINDOW_BYTES) {
        TRY(text_next(reader, &row, &more));
        if (!more)
            break;
        TRY(dataset_part_add(part, tokenizer, &row, false));
        bytes += (int64_t)row.text.n;
        if (text_waits(reader)) /* behind a pipe, what is there is answered */
            break;
    }
    return STATUS_OK;
}

static int winner(const struct task_spec *task, const float *logits)
{
    int best = 0;
    if (task->outputs == 1)
        return logits[0] > 0.0f;
    for (int c = 1; c < task->outputs; c++)
        best = logits[c] > logits[best] ? c : best;
    return best;
}

/* Names of the labels whose probability is at least one half, joined by commas. */
static enum status multi_names(const struct task_spec *task, const float *probability,
                               struct str *out)
{
    str_clear(out);
    TRY(str_add(out, "", 0));
    for (int c = 0; c < task->outputs; c++) {
        if (probability[c] >= 0.5f)
            TRY(str_addf(out, "%s%s", out->n == 0 ? "" : ",", task->labels[c]));
    }
    return STATUS_OK;
}

static struct text_field field(const char *p, size_t n)
{
    return (struct text_field){p, n};
}

/* Write a window's rows; bytes of part hold the ids (text and pair were not kept). */
static enum status write_rows(const struct predict_opts *opts, struct text_writer *writer,
                              const struct dataset_part *part, const float *logits,
                              const float *probability)
{
    const struct task_spec *task = opts->task;
    const char *column = opts->config->predict.score_column,
               *p = part->bytes.p == NULL ? "" : part->bytes.p;
    struct str names = {0};
    enum status st = STATUS_OK;
    for (int64_t r = 0; r < part->rows && st == STATUS_OK; r++) {
        const float *z = logits + r * task->outputs, *s = probability + r * task->outputs;
        struct text_cell cells[6];
        int n = 0;
        struct text_field id = {0};
        for (int f = 0; f < PART_FIELDS; f++) {
            int64_t length = part->byte_lengths[r * PART_FIELDS + f];
            if (f == PART_ID && length >= 0)
                id = field(p, (size_t)length);
            p += length > 0 ? length : 0;
        }
        if (column[0] == '\0')
            cells[n++] =
                (struct text_cell){.name = "row", .kind = CELL_INT, .integer = part->source_row[r]};
        if (opts->config->data.id[0] != '\0')
            cells[n++] = (struct text_cell){.name = "id", .kind = CELL_TEXT, .text = id};
        if (column[0] != '\0') { /* N4: id and the score of the last label */
            cells[n++] = (struct text_cell){
                .name = column, .kind = CELL_FLOATS, .floats = s + task->outputs - 1, .n = 1};
        } else {
            if (task->task == TASK_MULTI_LABEL) {
                st = multi_names(task, s, &names);
                cells[n++] = (struct text_cell){
                    .name = "label", .kind = CELL_TEXT, .text = field(names.p, names.n)};
            } else if (task->task == TASK_CLASSES) {
                const char *name = task->labels[winner(task, z)];
                cells[n++] = (struct text_cell){
                    .name = "label", .kind = CELL_TEXT, .text = field(name, strlen(name))};
            }
            cells[n++] = (struct text_cell){
                .name = "scores", .kind = CELL_FLOATS, .floats = s, .n = task->outputs};
            cells[n++] = (struct text_cell){
                .name = "logits", .kind = CELL_FLOATS, .floats = z, .n = task->outputs};
        }
        if (st == STATUS_OK)
            st = text_writer_row(writer, cells, n);
    }
    str_release(&names);
    return st;
}

/* Collective: score one window and let rank 0 write it. */
static enum status do_window(const struct predict_opts *opts, const struct dataset_part *part,
                             struct text_writer *writer)
{
    struct part_source source = {0};
    int64_t *rows = NULL;
    float *logits = NULL, *probability = NULL;
    size_t n = (size_t)part->rows, outputs = (size_t)opts->task->outputs;
    int64_t tokens = score_tokens(opts->config, opts->max_length);
    enum status st = part_source_open(part, &opts->source->tokenizer_info, opts->max_length,
                                      opts->chunks, &source);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n, sizeof *rows, "row ids", &rows);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n * outputs, sizeof *logits, "logits", &logits);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n * outputs, sizeof *probability, "scores", &probability);
    TRY_GOTO(done, comm_agree(opts->comm, st));
    for (size_t i = 0; i < n; i++)
        rows[i] = (int64_t)i;
    struct row_source in_memory = part_source_rows(&source);
    TRY_GOTO(done, ensemble_score(opts->comm, opts->model, opts->members, opts->member_count,
                                  &opts->task->loss, &in_memory, rows, part->rows, tokens, logits));
    if (writer != NULL) {
        loss_probabilities(&opts->task->loss, (int)part->rows, logits, probability);
        st = write_rows(opts, writer, part, logits, probability);
    }
    st = comm_agree(opts->comm, st);
done:
    mem_free(rows);
    mem_free(logits);
    mem_free(probability);
    part_source_close(&source);
    return st;
}

enum status predict_run(const struct predict_opts *opts, int64_t *rows)
{
    struct text_opts text;
    struct text_reader *reader = NULL;
    struct text_writer *writer = NULL;
    struct dataset_part part = {0};
    const struct run_config *config = opts->config;
    bool leader = comm_rank(opts->comm) == 0;
    double started = clock_s();
    enum status st = STATUS_OK, end;
    *rows = 0;
    source_text_opts(config, config->data.input, &text);
    /* only what is shown is asked of the file */
    text.label = text.group = text.weight = text.time = text.fold = NULL;
    if (strcmp(config->data.input, "-") == 0 && comm_size(opts->comm) > 1)
        st = status_fail(
            STATUS_CONFIG,
            "data.input=- reaches rank 0 only; run predict on one rank, or name a file");
    if (st == STATUS_OK)
        st = text_open(&text, &reader);
    if (st == STATUS_OK && leader)
        st = text_writer_open(config->out[0] == '\0' ? "-" : config->out, &writer);
    TRY_GOTO(done, comm_agree(opts->comm, st));
    for (;;) {
        dataset_part_release(&part);
        TRY_GOTO(done, comm_agree(opts->comm,
                                  predict_next_window(reader, opts->source->tokenizer, &part)));
        if (part.rows == 0)
            break;
        TRY_GOTO(done, do_window(opts, &part, writer));
        *rows += part.rows;
        log_progress("%lld rows, %.0f a second", (long long)*rows,
                     (double)*rows / (clock_s() - started));
    }
done:
    log_progress("%s", "");
    end = text_writer_close(writer, st == STATUS_OK);
    st = comm_agree(opts->comm, st == STATUS_OK ? end : st);
    text_close(reader);
    dataset_part_release(&part);
    return st;
}

enum status predict_encode(const struct run_config *config, const struct model_source *source,
                           int max_length, int64_t *rows)
{
    struct text_opts text;
    struct text_reader *reader = NULL;
    struct text_writer *writer = NULL;
    struct dataset_part part = {0};
    struct part_source in_memory = {0};
    const struct chunk_rule whole = {0};
    int32_t *ids = NULL;
    enum status st = STATUS_OK, end;
    *rows = 0;
    source_text_opts(config, config->data.input, &text);
    text.label = text.group = text.weight = text.time = text.fold = NULL;
    TRY_GOTO(done, mem_alloc_raw((size_t)max_length, sizeof *ids, "a row's ids", &ids));
    TRY_GOTO(done, text_open(&text, &reader));
    TRY_GOTO(done, text_writer_open(config->out[0] == '\0' ? "-" : config->out, &writer));
    for (;;) {
        dataset_part_release(&part);
        TRY_GOTO(done, predict_next_window(reader, source->tokenizer, &part));
        if (part.rows == 0)
            break;
        TRY_GOTO(done,
                 part_source_open(&part, &source->tokenizer_info, max_length, &whole, &in_memory));
        for (int64_t r = 0; r < part.rows; r++) {
            int64_t first, second;
            const int32_t *own = part.tokens.p + in_memory.offset[r];
            text_lengths(&in_memory, r, &first, &second);
            int n = tokenizer_join(&source->tokenizer_info, own, first,
                                   second < 0 ? NULL : own + first, second, max_length, ids, NULL);
            struct text_cell cells[] = {
                {.name = "row", .kind = CELL_INT, .integer = part.source_row[r]},
                {.name = "ids", .kind = CELL_INTS, .ints = ids, .n = n},
            };
            TRY_GOTO(done, text_writer_row(writer, cells, 2));
        }
        *rows += part.rows;
        part_source_close(&in_memory);
    }
done:
    end = text_writer_close(writer, st == STATUS_OK);
    st = st == STATUS_OK ? end : st;
    part_source_close(&in_memory);
    text_close(reader);
    dataset_part_release(&part);
    mem_free(ids);
    return st;
}
