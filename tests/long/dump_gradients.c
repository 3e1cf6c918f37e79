/*
 * dump_gradients.c - gradients of one batch as a safetensors file, for tests/long/gradients.py.
 *
 *     long_dump_gradients MODEL_FOLDER ROWS.jsonl OUT.safetensors [PRECISION] [recompute]
 *
 * ROWS.jsonl: {"ids":[...],"types":[...],"label":n} a line. Mean cross-entropy of all rows in one pass, no dropout, the
 * folder's own head; PRECISION: fp32 (as without), bf16 or fp16. Prints the loss. Built three times: with the CPU kernels, with
 * those for AVX-512 by AVX2 (_wide), and, defining DUMP_ON_CUDA, with the CUDA kernels in emulation (_cuda).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/safetensors.h"
#include "model/loss.h"
#include "model/model.h"
#include "worker/model_io.h"

enum { ROWS_MOST = 64 };

struct rows_in {
    struct model_input input;
    int32_t *ids, *types;
    int32_t begin[ROWS_MOST + 1], label[ROWS_MOST];
    int64_t row[ROWS_MOST];
};

static enum status add_row(struct rows_in *in, const json_t *line)
{
    const json_t *ids = json_object_get(line, "ids"), *types = json_object_get(line, "types");
    int b = in->input.rows;
    size_t n = json_array_size(ids), at = (size_t)in->input.tokens;
    if (b == ROWS_MOST || n == 0 || json_array_size(types) != n)
        return status_fail(STATUS_DATA, "row %d: more than %d rows, no ids, or as many types as ids", b, ROWS_MOST);
    for (size_t i = 0; i < n; i++) {
        in->ids[at + i] = (int32_t)json_integer_value(json_array_get(ids, i));
        in->types[at + i] = (int32_t)json_integer_value(json_array_get(types, i));
    }
    in->label[b] = (int32_t)json_integer_value(json_object_get(line, "label"));
    in->row[b] = b;
    in->input.rows = b + 1;
    in->input.tokens += (int64_t)n;
    in->begin[b + 1] = (int32_t)in->input.tokens;
    in->input.max_row = (int)n > in->input.max_row ? (int)n : in->input.max_row;
    return STATUS_OK;
}

static enum status read_rows(const char *path, struct rows_in *in)
{
    char *bytes;
    size_t n;
    TRY(file_read(path, (size_t)1 << 24, &bytes, &n));
    enum status st = mem_alloc(n, sizeof *in->ids, "ids", &in->ids); /* an id takes at least one byte of the file */
    if (st == STATUS_OK)
        st = mem_alloc(n, sizeof *in->types, "types", &in->types);
    for (size_t from = 0; from < n && st == STATUS_OK;) {
        const char *end = memchr(bytes + from, '\n', n - from);
        size_t length = end == NULL ? n - from : (size_t)(end - bytes) - from;
        json_t *line = NULL;
        st = json_parse(bytes + from, length, path, &line);
        if (st == STATUS_OK)
            st = add_row(in, line);
        json_decref(line);
        from += length + 1;
    }
    mem_free(bytes);
    in->input.ids = in->ids;
    in->input.types = in->types;
    in->input.begin = in->begin;
    in->input.row = in->row;
    return st;
}

/* fp16 gradients of a small batch vanish unless they are scaled, as worker/scaler does. */
static double scale_of(enum precision precision)
{
    return precision == PRECISION_FP16 ? 1024.0 : 1.0;
}

static enum status compute(struct model *model, const struct rows_in *in, int outputs, double scale)
{
    const struct loss_opts loss_opts = {.kind = LOSS_CROSS_ENTROPY, .outputs = outputs};
    const struct loss_target target = {.label = in->label};
    int B = in->input.rows;
    int32_t token[2] = {0, (int32_t)in->input.tokens}, row[2] = {0, B}, to[1] = {0}, merge[2] = {0};
    bool add[1] = {false};
    float *buffer[1] = {model_gradient(model, 0)}, *logits, *dlogits;
    double loss[ROWS_MOST], sum = 0.0;
    struct grad_cut cut = {.pieces = 1, .token = token, .row = row, .to = to, .add = add, .merge_begin = merge,
                           .buffer = buffer};
    TRY(mem_alloc((size_t)(B * outputs), sizeof *logits, "logits", &logits));
    enum status st = mem_alloc((size_t)(B * outputs), sizeof *dlogits, "gradients of logits", &dlogits);
    TRY_GOTO(done, st);
    TRY_GOTO(done, model_forward(model, &in->input, true, 0, logits));
    TRY_GOTO(done, loss_compute(&loss_opts, &target, B, logits, B, scale, loss, dlogits));
    TRY_GOTO(done, model_backward(model, dlogits, &cut, NULL, NULL));
    for (int b = 0; b < B; b++)
        sum += loss[b] / B;
    printf("%.9g\n", sum);
done:
    mem_free(logits);
    mem_free(dlogits);
    return st;
}

static enum status write_gradients(struct model *model, double scale, const char *path)
{
    const struct param_table *table = model_params(model);
    struct safetensors_entry *entries;
    struct safetensors_writer *file = NULL;
    float *gradient;
    TRY(mem_alloc((size_t)table->total, sizeof *gradient, "gradients", &gradient));
    enum status st = mem_alloc((size_t)table->names, sizeof *entries, "tensor names", &entries);
    TRY_GOTO(done, st);
    TRY_GOTO(done, device_get(model_device(model), gradient, model_gradient(model, 0), (size_t)table->total * sizeof *gradient));
    for (int64_t i = 0; i < table->total; i++)
        gradient[i] /= (float)scale;
    for (int i = 0; i < table->names; i++) {
        const struct param_file_name *name = &table->file[i];
        entries[i] = (struct safetensors_entry){.name = name->name, .dtype = TENSOR_F32, .rank = name->rank};
        for (int d = 0; d < name->rank; d++)
            entries[i].shape[d] = name->shape[d];
    }
    TRY_GOTO(done, safetensors_create(path, entries, table->names, NULL, true, &file));
    for (int i = 0; i < table->names; i++) {
        const struct param_file_name *name = &table->file[i];
        TRY_GOTO(done, safetensors_write(file, i, 0, name->elements,
                                         gradient + table->params[name->param].offset + name->first));
    }
    st = safetensors_finish(file);
    file = NULL;
done:
    if (file != NULL)
        safetensors_abandon(file);
    mem_free(entries);
    mem_free(gradient);
    return st;
}

static enum status run(char **argv, enum precision precision, bool recompute)
{
#ifdef DUMP_ON_CUDA
    const struct kernels *kernels = kernels_cuda();
    const enum device_kind kind = DEVICE_CUDA;
#else
    const struct kernels *kernels = kernels_cpu();
    const enum device_kind kind = DEVICE_CPU;
#endif
    struct model_source source;
    struct load_report report;
    struct device *device = NULL;
    struct model *model = NULL;
    struct rows_in in = {0};
    TRY(model_source_open(argv[1], false, &source));
    enum status st = device_open(kind, 0, &device);
    TRY_GOTO(done, st);
    TRY_GOTO(done, read_rows(argv[2], &in));
    struct model_opts opts = {
        .encoder = source.encoder,
        .head = {.pooling = model_pooling(&source, CONFIG_POOLING_AUTO), .outputs = source.label_count, .dropout = 0.0f},
        .precision = precision,
        .max_tokens = in.input.tokens,
        .max_rows = in.input.rows,
        .training = true,
        .recompute = recompute,
        .grad_buffers = 1,
        .dropout = 0.0f,
        .device = device,
        .kernels = kernels,
    };
    TRY_GOTO(done, model_create(&opts, &model));
    TRY_GOTO(done, model_load(model, argv[1], true, false, 0, &report));
    TRY_GOTO(done, compute(model, &in, source.label_count, scale_of(precision)));
    st = write_gradients(model, scale_of(precision), argv[3]);
done:
    model_destroy(model);
    device_close(device);
    model_source_close(&source);
    mem_free(in.ids);
    mem_free(in.types);
    return st;
}

int main(int argc, char **argv)
{
    enum precision precision = PRECISION_FP32;
    bool recompute = argc > 4 && strcmp(argv[argc - 1], "recompute") == 0;
    int words = argc - recompute;
    if (words == 5 && strcmp(argv[4], "bf16") == 0)
        precision = PRECISION_BF16;
    else if (words == 5 && strcmp(argv[4], "fp16") == 0)
        precision = PRECISION_FP16;
    else if (words != 4 && !(words == 5 && strcmp(argv[4], "fp32") == 0)) {
        fprintf(stderr, "usage: %s MODEL_FOLDER ROWS.jsonl OUT.safetensors [fp32|bf16|fp16] [recompute]\n", argv[0]);
        return 64;
    }
    if (fault_setup(0) != STATUS_OK)
        return 64;
    enum status st = run(argv, precision, recompute);
    if (st != STATUS_OK)
        fprintf(stderr, "%s\n", status_message());
    return status_exit_code(st);
}
