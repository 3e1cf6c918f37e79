/* embed.c - see embed.h. */
#include "worker/embed.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/scores.h"
#include "worker/scoring.h"
#include "worker/source.h"

/* Where vectors go. Rank 0 has one of the two. */
struct sink {
    struct text_writer *writer;
    bool is_h5;
    struct vectors_table all; /* what has come so far */
    float *vectors;
    int64_t *row;
    char **id;
    size_t vector_capacity, row_capacity, id_capacity;
};

static bool ends_in_h5(const char *path)
{
    const size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".h5") == 0;
}

static void sink_release(struct sink *sink)
{
    for (int64_t i = 0; sink->id != NULL && i < sink->all.rows; i++)
        mem_free(sink->id[i]);
    mem_free(sink->id);
    mem_free(sink->row);
    mem_free(sink->vectors);
}

/* The id of the next row; *p is where its bytes begin in the part. */
static struct text_field next_id(const struct dataset_part *part, int64_t r, const char **p)
{
    struct text_field id = {0};
    for (int f = 0; f < PART_FIELDS; f++) {
        const int64_t length = part->byte_lengths[r * PART_FIELDS + f];
        if (f == PART_ID && length >= 0)
            id = (struct text_field){*p, (size_t)length};
        *p += length > 0 ? length : 0;
    }
    return id;
}

static enum status write_lines(struct sink *sink, const struct dataset_part *part, bool ids,
                               int width, const float *vectors)
{
    const char *p = part->bytes.p == NULL ? "" : part->bytes.p;
    for (int64_t r = 0; r < part->rows; r++) {
        struct text_cell cells[3];
        int n = 0;
        const struct text_field id = next_id(part, r, &p);
        cells[n++] =
            (struct text_cell){.name = "row", .kind = CELL_INT, .integer = part->source_row[r]};
        if (ids)
            cells[n++] = (struct text_cell){.name = "id", .kind = CELL_TEXT, .text = id};
        cells[n++] = (struct text_cell){
            .name = "vector", .kind = CELL_FLOATS, .floats = vectors + r * width, .n = width};
        TRY(text_writer_row(sink->writer, cells, n));
    }
    return STATUS_OK;
}

static enum status keep_rows(struct sink *sink, const struct dataset_part *part, bool ids,
                             int width, const float *vectors)
{
    const char *p = part->bytes.p == NULL ? "" : part->bytes.p;
    const size_t rows = (size_t)(sink->all.rows + part->rows);
    TRY(mem_grow(&sink->row, &sink->row_capacity, rows, sizeof *sink->row, "vectors"));
    TRY(mem_grow(&sink->vectors, &sink->vector_capacity, rows * (size_t)width,
                 sizeof *sink->vectors, "vectors"));
    if (ids)
        TRY(mem_grow(&sink->id, &sink->id_capacity, rows, sizeof *sink->id, "vectors"));
    memcpy(sink->vectors + sink->all.rows * width, vectors,
           (size_t)part->rows * (size_t)width * sizeof *vectors);
    for (int64_t r = 0; r < part->rows; r++) {
        const struct text_field id = next_id(part, r, &p);
        if (ids)
            TRY(mem_strndup(id.p == NULL ? "" : id.p, id.n, &sink->id[sink->all.rows]));
        sink->row[sink->all.rows++] = part->source_row[r];
    }
    return STATUS_OK;
}

/* To length 1; a vector of zeros stays. */
static void normalize(float *vectors, int64_t rows, int width)
{
    for (int64_t r = 0; r < rows; r++) {
        float *v = vectors + r * width;
        double square = 0.0;
        for (int c = 0; c < width; c++)
            square += (double)v[c] * (double)v[c];
        for (int c = 0; c < width && square > 0.0; c++)
            v[c] = (float)((double)v[c] / sqrt(square));
    }
}

static enum status do_window(const struct predict_opts *opts, const struct dataset_part *part,
                             bool leader, struct sink *sink)
{
    const struct run_config *config = opts->config;
    const int width = opts->source->encoder.hidden;
    const bool ids = config->data.id[0] != '\0';
    struct part_source source = {0};
    int64_t *rows = NULL;
    float *vectors = NULL;
    const size_t n = (size_t)part->rows;
    enum status st = part_source_open(part, &opts->source->tokenizer_info, opts->max_length,
                                      opts->chunks, &source);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n, sizeof *rows, "row ids", &rows);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n * (size_t)width, sizeof *vectors, "vectors", &vectors);
    TRY_GOTO(done, comm_agree(opts->comm, st));
    for (size_t i = 0; i < n; i++)
        rows[i] = (int64_t)i;
    struct row_source in_memory = part_source_rows(&source);
    TRY_GOTO(done, embed_rows(opts->comm, opts->model, &in_memory, rows, part->rows, width,
                              score_tokens(config, opts->max_length), SCORE_ROWS, vectors));
    if (config->embed.normalize)
        normalize(vectors, part->rows, width);
    if (leader)
        st = sink->is_h5 ? keep_rows(sink, part, ids, width, vectors)
                         : write_lines(sink, part, ids, width, vectors);
    st = comm_agree(opts->comm, st);
done:
    mem_free(rows);
    mem_free(vectors);
    part_source_close(&source);
    return st;
}

static enum status finish(struct sink *sink, const struct run_config *config, int width,
                          bool leader, enum status st)
{
    enum status end = STATUS_OK;
    if (leader && sink->is_h5 && st == STATUS_OK) {
        sink->all.width = width;
        sink->all.row = sink->row;
        sink->all.vectors = sink->vectors;
        sink->all.id = (const char *const *)sink->id;
        end = vectors_write(config->out, &sink->all);
    }
    if (sink->writer != NULL)
        end = text_writer_close(sink->writer, st == STATUS_OK);
    return st == STATUS_OK ? end : st;
}

enum status embed_run(const struct predict_opts *opts, int64_t *rows)
{
    const struct run_config *config = opts->config;
    const bool leader = comm_rank(opts->comm) == 0;
    struct text_opts text;
    struct text_reader *reader = NULL;
    struct dataset_part part = {0};
    struct sink sink = {.is_h5 = ends_in_h5(config->out)};
    double started = clock_s();
    enum status st = STATUS_OK;
    *rows = 0;
    source_text_opts(config, config->data.input, &text);
    text.label = text.group = text.weight = text.time = text.fold = NULL;
    if (strcmp(config->data.input, "-") == 0 && comm_size(opts->comm) > 1)
        st = status_fail(STATUS_CONFIG,
                         "data.input=- reaches rank 0 only; run embed on one rank, or name a file");
    if (st == STATUS_OK)
        st = text_open(&text, &reader);
    if (st == STATUS_OK && leader && !sink.is_h5)
        st = text_writer_open(config->out[0] == '\0' ? "-" : config->out, &sink.writer);
    TRY_GOTO(done, comm_agree(opts->comm, st));
    for (;;) {
        dataset_part_release(&part);
        TRY_GOTO(done, comm_agree(opts->comm,
                                  predict_next_window(reader, opts->source->tokenizer, &part)));
        if (part.rows == 0)
            break;
        TRY_GOTO(done, do_window(opts, &part, leader, &sink));
        *rows += part.rows;
        log_progress("%lld rows, %.0f a second", (long long)*rows,
                     (double)*rows / (clock_s() - started));
    }
done:
    log_progress("%s", "");
    st = finish(&sink, config, opts->source->encoder.hidden, leader, st);
    st = comm_agree(opts->comm, st);
    text_close(reader);
    dataset_part_release(&part);
    sink_release(&sink);
    return st;
}
