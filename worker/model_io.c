/* model_io.c - see model_io.h. */
#include "worker/model_io.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "ckpt/hf.h"
#include "ckpt/safetensors.h"

enum { STAGING = 1 << 20 };     /* floats moved between a file and the device at a time */
enum { LONGEST_ROW = 1 << 20 }; /* where the model itself sets no limit */

/* A model with one logit for two classes keeps their names under "cohort": transformers would ask
 * for two logits. */
static enum status stored_labels(struct model_source *source, const char *where)
{
    const json_t *labels = json_object_get(source->cohort, "labels");
    size_t n = json_array_size(labels);
    int64_t outputs;
    TRY(json_int_or(source->cohort, "outputs", where, 1, 1000000, source->label_count, &outputs));
    source->head_outputs = (int)outputs;
    if (n == 0)
        return STATUS_OK;
    hf_labels_free(source->labels, source->label_count);
    source->label_count = 0;
    TRY(mem_alloc(n, sizeof *source->labels, "the labels", &source->labels));
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(labels, i));
        if (name == NULL)
            return status_fail(STATUS_FORMAT, "%s: \"cohort\" has a label that is no string",
                               where);
        TRY(mem_strdup(name, &source->labels[i]));
        source->label_count = (int)i + 1;
    }
    return STATUS_OK;
}

/* The names in id2label; LABEL_0, ... where they are no names of 0 to n - 1, as transformers would
 * go on, too: training brings names of its own. */
static enum status read_labels(struct model_source *source, const char *where)
{
    bool generic;
    enum status st = hf_labels(source->config, &source->labels, &source->label_count, &generic);
    if (st != STATUS_FORMAT)
        return st;
    const json_t *given = json_object_get(source->config, "id2label");
    const json_int_t count = json_is_object(given) && json_object_size(given) > 0
                                 ? (json_int_t)json_object_size(given)
                                 : 2;
    log_warning("%s (%s); the model's labels are called LABEL_0, LABEL_1, ...", status_message(),
                where);
    json_t *plain = json_pack("{s:I}", "num_labels", count);
    if (plain == NULL)
        return status_fail(STATUS_NOMEM, "no memory for the labels");
    st = hf_labels(plain, &source->labels, &source->label_count, &generic);
    json_decref(plain);
    return st;
}

static enum status check_pooling(const struct model_source *source, const char *where)
{
    const json_t *stored = json_object_get(source->cohort, "pooling");
    const char *name = json_string_value(stored);
    if (stored == NULL)
        return STATUS_OK;
    for (int i = 0; name != NULL && i < 4; i++)
        if (strcmp(name, pooling_name((enum pooling)i)) == 0)
            return STATUS_OK;
    return status_fail(STATUS_FORMAT,
                       "%s: \"cohort\" has the pooling \"%.20s\", wanted cls, pooler, mean or max",
                       where, name == NULL ? "?" : name);
}

/* The class that saved a classifier of tokens or choices, whose tensors may be called as a text
 * classifier's; NULL: not such. */
static const char *is_other_task(const json_t *config)
{
    static const char *const ends[] = {"ForTokenClassification", "ForMultipleChoice",
                                       "ForNextSentencePrediction", "ForQuestionAnswering"};
    const char *name =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    size_t n = name == NULL ? 0 : strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t tail = strlen(ends[i]);
        if (n >= tail && strcmp(name + n - tail, ends[i]) == 0)
            return name;
    }
    return NULL;
}

/* The tokenizer has more ids than the model. */
static enum status grow_vocabulary(struct model_source *source, bool grow)
{
    const int have = source->encoder.vocab_size, want = source->tokenizer_info.vocab_size;
    if (!grow)
        return status_fail(STATUS_FORMAT,
                           "%s: the tokenizer has %d ids, the model's vocabulary only %d; "
                           "model.resize_embeddings=true adds embeddings for the others",
                           source->path, want, have);
    source->encoder.vocab_size = want;
    if (json_object_set_new(source->config, "vocab_size", json_integer(want)) != 0)
        return status_fail(STATUS_NOMEM, "no memory for config.json");
    return STATUS_OK;
}

enum status model_source_open(const char *path, bool grow, struct model_source *out)
{
    enum status st = STATUS_OK;
    struct str where = {0};
    *out = (struct model_source){0};
    if (path[0] == '\0')
        return status_fail(STATUS_CONFIG,
                           "model.path is not given; wanted a Hugging Face model folder");
    if (!file_is_folder(path))
        return status_fail(STATUS_NOINPUT,
                           "model.path=%s is no folder; wanted one with config.json and "
                           "model.safetensors",
                           path);
    TRY_GOTO(fail, mem_strdup(path, &out->path));
    TRY_GOTO(fail, hf_read_config(path, &out->config));
    TRY_GOTO(fail, str_addf(&where, "%s/config.json", path));
    TRY_GOTO(fail, encoder_config_read(out->config, where.p, &out->encoder));
    TRY_GOTO(fail, read_labels(out, where.p));
    TRY_GOTO(fail, tokenizer_open(path, &out->tokenizer));
    tokenizer_get_info(out->tokenizer, &out->tokenizer_info);
    if (out->tokenizer_info.vocab_size > out->encoder.vocab_size)
        TRY_GOTO(fail, grow_vocabulary(out, grow));
    out->cohort = json_object_get(out->config, "cohort");
    TRY_GOTO(fail, check_pooling(out, where.p));
    TRY_GOTO(fail, stored_labels(out, where.p));
    out->other_task = is_other_task(out->config);
    if (out->other_task != NULL)
        out->head_outputs = 0;
    str_release(&where);
    return STATUS_OK;
fail:
    str_release(&where);
    model_source_close(out);
    return st;
}

void model_source_none(struct model_source *out)
{
    *out = (struct model_source){
        .tokenizer_info = {.kind = "none", .vocab_size = 1, .unk = -1, .mask = -1}};
}

void model_source_close(struct model_source *source)
{
    hf_labels_free(source->labels, source->label_count);
    tokenizer_close(source->tokenizer);
    json_decref(source->config);
    mem_free(source->path);
    *source = (struct model_source){0};
}

enum status model_max_length(const struct model_source *source, int64_t wanted, int *out)
{
    const int usual = source->encoder.max_positions - source->encoder.first_position;
    const int limit = source->encoder.any_length ? LONGEST_ROW : usual;
    *out = usual;
    if (wanted > limit)
        return status_fail(STATUS_CONFIG,
                           "data.max_length=%lld is more than the %d positions of %s",
                           (long long)wanted, limit, source->path);
    if (wanted > 0) {
        *out = (int)wanted;
    } else if (source->cohort != NULL) {
        int64_t stored;
        TRY(json_int_or(source->cohort, "max_length", source->path, 4, limit, usual, &stored));
        *out = (int)stored;
    }
    return STATUS_OK;
}

static enum status check_chunks(const struct chunk_rule *rule, int room, const char *where)
{
    if (rule->size < 1 || rule->size > room)
        return status_fail(STATUS_CONFIG,
                           "%s data.chunk_size=%d, wanted 1 to %d: data.max_length less special "
                           "tokens",
                           where, rule->size, room);
    if (rule->stride < 1 || rule->stride > rule->size)
        return status_fail(STATUS_CONFIG,
                           "%s data.stride=%d, wanted 1 to data.chunk_size=%d: tokens between "
                           "chunks would be lost",
                           where, rule->stride, rule->size);
    if (rule->least < 1 || rule->least > rule->size)
        return status_fail(STATUS_CONFIG, "%s data.min_chunk=%d, wanted 1 to data.chunk_size=%d",
                           where, rule->least, rule->size);
    return STATUS_OK;
}

/* What the model was trained with, as model_save_files() stores it. */
static enum status stored_chunks(const struct model_source *source, const json_t *stored, int room,
                                 struct chunk_rule *out)
{
    const char *where = source->path,
               *pooling = json_string_value(json_object_get(stored, "pooling"));
    int64_t size, stride, least, most;
    TRY(json_int_or(stored, "size", where, 1, INT32_MAX, 0, &size));
    TRY(json_int_or(stored, "stride", where, 1, INT32_MAX, size, &stride));
    TRY(json_int_or(stored, "min", where, 1, INT32_MAX, 1, &least));
    TRY(json_int_or(stored, "max_text_length", where, 0, INT64_MAX, 0, &most));
    if (pooling == NULL || (strcmp(pooling, "mean") != 0 && strcmp(pooling, "max") != 0))
        return status_fail(STATUS_FORMAT,
                           "%s/config.json: \"cohort\" has chunks pooled by %s, wanted mean or max",
                           where, pooling == NULL ? "nothing" : pooling);
    *out = (struct chunk_rule){
        .size = (int)size,
        .stride = (int)stride,
        .least = (int)least,
        .max_text = most,
        .skip_tail = json_is_true(json_object_get(stored, "skip_contained_tail")),
        .pooling = strcmp(pooling, "max") == 0 ? CHUNK_MAX : CHUNK_MEAN};
    return check_chunks(out, room, "the model was trained with");
}

struct chunk_rule model_chunk_keys(const struct run_config *config, int room)
{
    const int64_t size = config->data.chunk_size > 0 ? config->data.chunk_size : room;
    const int64_t stride = config->data.stride > 0 ? config->data.stride : size;
    return (struct chunk_rule){
        .size = (int)size,
        .stride = (int)stride,
        .least = (int)config->data.min_chunk,
        .max_text = config->data.max_text_length,
        .skip_tail = config->data.skip_contained_tail,
        .pooling = config->model.chunk_pooling == CONFIG_CHUNK_MAX ? CHUNK_MAX : CHUNK_MEAN};
}

enum status model_chunks(const struct model_source *source, const struct run_config *config,
                         int max_length, struct chunk_rule *out)
{
    const json_t *stored = json_object_get(source->cohort, "chunks");
    const int room = max_length - tokenizer_length(&source->tokenizer_info, 0, -1, max_length);
    const char *unused = config->data.chunk_size > 0        ? "data.chunk_size"
                         : config->data.stride > 0          ? "data.stride"
                         : config->data.max_text_length > 0 ? "data.max_text_length"
                         : config->data.skip_contained_tail ? "data.skip_contained_tail"
                                                            : NULL;
    *out = (struct chunk_rule){0};
    if (config->data.long_text == CONFIG_LONG_CHUNK) {
        *out = model_chunk_keys(config, room);
        TRY(check_chunks(out, room, "the configuration has"));
    } else if (unused != NULL) {
        return status_fail(STATUS_CONFIG,
                           "%s is given, but texts are not read in chunks: add "
                           "data.long=chunk",
                           unused);
    } else if (config->data.long_text == CONFIG_LONG_AUTO && stored != NULL) {
        TRY(stored_chunks(source, stored, room, out));
    }
    if (config->model.chunk_pooling != CONFIG_CHUNK_AUTO)
        out->pooling = config->model.chunk_pooling == CONFIG_CHUNK_MAX ? CHUNK_MAX : CHUNK_MEAN;
    return STATUS_OK;
}

enum pooling model_pooling(const struct model_source *source, enum config_pooling wanted)
{
    const char *stored = source->cohort == NULL
                             ? NULL
                             : json_string_value(json_object_get(source->cohort, "pooling"));
    switch (wanted) {
    case CONFIG_POOLING_CLS:
        return POOL_CLS;
    case CONFIG_POOLING_POOLER:
        return POOL_POOLER;
    case CONFIG_POOLING_MEAN:
        return POOL_MEAN;
    case CONFIG_POOLING_MAX:
        return POOL_MAX;
    case CONFIG_POOLING_AUTO:
        break;
    }
    for (int i = 0; stored != NULL && i < 4; i++) {
        if (strcmp(stored, pooling_name((enum pooling)i)) == 0)
            return (enum pooling)i;
    }
    return POOL_POOLER; /* as transformers' classes for sequence classification */
}

/* ---- loading ---- */

/* "12, 36"; what does not fit is left out. */
static void shape_text(const int64_t *shape, int rank, char *out, size_t size)
{
    out[0] = '\0';
    for (int i = 0; i < rank; i++) {
        const size_t n = strlen(out);
        (void)snprintf(out + n, size - n, "%s%lld", i == 0 ? "" : ", ", (long long)shape[i]);
    }
}

/* Where grow is true a table of words may have fewer rows than the model. */
static enum status load_tensor(struct model *model, const struct safetensors *file,
                               const struct tensor_info *tensor, const struct param_file_name *name,
                               bool grow, uint64_t seed, float *staging, struct load_report *report)
{
    const struct param_table *table = model_params(model);
    struct device *device = model_device(model);
    float *to = model_weights(model) + table->params[name->param].offset + name->first;
    bool same = tensor->rank == name->rank;
    for (int i = 0; same && i < name->rank; i++)
        same = tensor->shape[i] == name->shape[i];
    /* Parameter 0 is the table of words. */
    if (!same && grow && name->param == 0 && tensor->rank == 2 &&
        tensor->shape[0] < name->shape[0] && tensor->shape[1] == name->shape[1]) {
        report->new_ids = name->shape[0] - tensor->shape[0];
        TRY(model_init(model, name->param, 1, seed)); /* and what the file has goes over it */
        same = true;
    }
    if (!same) {
        char has[80], wants[80];
        shape_text(tensor->shape, tensor->rank, has, sizeof has);
        shape_text(name->shape, name->rank, wants, sizeof wants);
        return status_fail(STATUS_FORMAT, "%s has the shape [%s], the configuration wants [%s]",
                           tensor->name, has, wants);
    }
    for (int64_t first = 0; first < tensor->elements; first += STAGING) {
        int64_t n = tensor->elements - first < STAGING ? tensor->elements - first : STAGING;
        TRY(safetensors_read(file, tensor, first, n, staging));
        TRY(device_put(device, to + first, staging, (size_t)n * sizeof *staging));
    }
    return STATUS_OK;
}

/* Every parameter is there, or may be drawn: the head, and the pooler of a file that has none. */
static enum status settle_missing(struct model *model, const bool *have, uint64_t seed,
                                  struct load_report *report)
{
    const struct param_table *table = model_params(model);
    for (int i = 0; i < table->names; i++) {
        const struct param *param = &table->params[table->file[i].param];
        if (have[i])
            continue;
        if (param->part != PART_HEAD && param->part != PART_POOLER)
            return status_fail(STATUS_FORMAT, "the weights lack %s", table->file[i].name);
        TRY(model_init(model, table->file[i].param, 1, seed));
        report->drawn++;
        const bool head = param->part == PART_HEAD;
        if (report->missing == NULL || (head && !report->head_drawn))
            report->missing = table->file[i].name;
        report->head_drawn = report->head_drawn || head;
    }
    return STATUS_OK;
}

enum status model_load(struct model *model, const char *folder, bool load_head, bool grow,
                       uint64_t seed, struct load_report *report)
{
    const struct param_table *table = model_params(model);
    struct safetensors *file = NULL;
    bool *have = NULL;
    float *staging = NULL;
    enum status st = STATUS_OK;
    *report = (struct load_report){0};
    TRY_GOTO(done, safetensors_open_folder(folder, &file));
    TRY_GOTO(done, mem_alloc((size_t)table->names, sizeof *have, "loaded tensors", &have));
    TRY_GOTO(done, mem_alloc_raw(STAGING, sizeof *staging, "a staging buffer", &staging));
    for (int64_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor_info *tensor = safetensors_at(file, i);
        bool skip;
        const struct param_file_name *name = params_match(table, tensor->name, &skip);
        if (name == NULL && !skip) {
            st = status_fail(STATUS_FORMAT, "the weights hold %s, which this model does not have",
                             tensor->name);
            goto done;
        }
        if (name == NULL || (!load_head && table->params[name->param].part == PART_HEAD)) {
            report->skipped++;
            continue;
        }
        TRY_GOTO(done, load_tensor(model, file, tensor, name, grow, seed, staging, report));
        have[name - table->file] = true;
        report->loaded++;
    }
    TRY_GOTO(done, settle_missing(model, have, seed, report));
    st = model_weights_changed(model);
done:
    if (st != STATUS_OK && file != NULL)
        st = status_prefix(st, "%s", folder);
    safetensors_close(file);
    mem_free(have);
    mem_free(staging);
    return st;
}

enum status model_load_trained(struct model *model, const char *folder)
{
    struct load_report report;
    TRY(model_load(model, folder, true, false, 0, &report));
    if (report.head_drawn)
        return status_fail(
            STATUS_DATA,
            "%s has no classification head (%s is missing): it was not trained for a "
            "task; cohort train makes one",
            folder, report.missing);
    if (report.drawn > 0)
        return status_fail(
            STATUS_DATA,
            "%s lacks %s, which its head reads: it was saved by a model with another "
            "head; say which with model.pooling, or train it",
            folder, report.missing);
    return STATUS_OK;
}

/* ---- saving ---- */

struct model_writer {
    struct safetensors_writer *file;
    float *staging;
};

enum status model_save_create(const struct model *model, const char *folder, bool create,
                              struct model_writer **out)
{
    const struct param_table *table = model_params(model);
    struct safetensors_entry *entries = NULL;
    struct model_writer *writer = NULL;
    char *path = NULL;
    enum status st = STATUS_OK;
    *out = NULL;
    TRY_GOTO(done, mem_alloc(1, sizeof *writer, "a model writer", &writer));
    TRY_GOTO(done,
             mem_alloc_raw(STAGING, sizeof *writer->staging, "a staging buffer", &writer->staging));
    TRY_GOTO(done, mem_alloc((size_t)table->names, sizeof *entries, "tensor names", &entries));
    for (int i = 0; i < table->names; i++) {
        const struct param_file_name *name = &table->file[i];
        entries[i] =
            (struct safetensors_entry){.name = name->name, .dtype = TENSOR_F32, .rank = name->rank};
        for (int d = 0; d < name->rank; d++)
            entries[i].shape[d] = name->shape[d];
    }
    TRY_GOTO(done, path_join(folder, "model.safetensors", &path));
    TRY_GOTO(done, safetensors_create(path, entries, table->names, NULL, create, &writer->file));
    *out = writer;
done:
    if (st != STATUS_OK && writer != NULL) {
        mem_free(writer->staging);
        mem_free(writer);
    }
    mem_free(entries);
    mem_free(path);
    return st;
}

enum status model_save_write(struct model_writer *writer, struct model *model, int64_t begin,
                             int64_t end)
{
    const struct param_table *table = model_params(model);
    for (int i = 0; i < table->names; i++) {
        const struct param_file_name *name = &table->file[i];
        int64_t low = table->params[name->param].offset + name->first, high = low + name->elements;
        int64_t from = begin > low ? begin : low, to = end < high ? end : high;
        for (; from < to; from += STAGING) {
            int64_t n = to - from < STAGING ? to - from : STAGING;
            TRY(device_get(model_device(model), writer->staging, model_weights(model) + from,
                           (size_t)n * sizeof *writer->staging));
            TRY(safetensors_write(writer->file, i, from - low, n, writer->staging));
        }
    }
    return STATUS_OK;
}

enum status model_save_finish(struct model_writer *writer)
{
    if (writer == NULL)
        return STATUS_OK;
    enum status st = safetensors_finish(writer->file);
    mem_free(writer->staging);
    mem_free(writer);
    return st;
}

enum status model_save_files(const struct model_source *source, const struct task_spec *task,
                             enum pooling pooling, int max_length, const struct chunk_rule *chunks,
                             const char *folder)
{
    static const char *const problems[] = {"single_label_classification",
                                           "multi_label_classification", "regression"};
    json_t *config = NULL, *cohort = NULL;
    char *path = NULL;
    struct str split_text = {0};
    enum status st = STATUS_OK;
    bool one_logit = task->task == TASK_CLASSES && task->outputs == 1;
    TRY_GOTO(done,
             hf_make_config(source->config, one_logit ? NULL : (const char *const *)task->labels,
                            one_logit ? 0 : task->classes, problems[task->task],
                            encoder_class_name(&source->encoder), task->outputs, &config));
    cohort = json_pack("{s:s, s:i, s:i, s:s}", "pooling", pooling_name(pooling), "max_length",
                       max_length, "outputs", task->outputs, "metric", metric_name(task->metric));
    json_t *labels = one_logit ? json_pack("[s, s]", task->labels[0], task->labels[1]) : NULL;
    json_t *split = chunks->size == 0
                        ? NULL
                        : json_pack("{s:i, s:i, s:i, s:I, s:b, s:s}", "size", chunks->size,
                                    "stride", chunks->stride, "min", chunks->least,
                                    "max_text_length", (json_int_t)chunks->max_text,
                                    "skip_contained_tail", chunks->skip_tail, "pooling",
                                    chunk_pooling_name(chunks->pooling));
    if (cohort == NULL || (chunks->size > 0 && json_object_set_new(cohort, "chunks", split) != 0) ||
        (one_logit && json_object_set_new(cohort, "labels", labels) != 0) ||
        json_object_set(config, "cohort", cohort) != 0) {
        st = status_fail(STATUS_NOMEM, "no memory for config.json");
        goto done;
    }
    TRY_GOTO(done, path_join(folder, "config.json", &path));
    TRY_GOTO(done, json_write_file(path, config));
    TRY_GOTO(done, tokenizer_save(source->tokenizer, folder));
    struct hf_card card = {.problem_type = problems[task->task],
                           .architecture = encoder_class_name(&source->encoder),
                           .labels = (const char *const *)task->labels,
                           .count = task->classes,
                           .pooling = pooling_name(pooling),
                           .native = pooling == POOL_POOLER && !one_logit,
                           .classifier = encoder_classifier_name(&source->encoder),
                           .score = NAN};
    if (chunks->size > 0) {
        TRY_GOTO(done,
                 str_addf(&split_text,
                          "chunks of up to %d tokens, special tokens not counted, that begin "
                          "every %d tokens; the logits of a text's chunks are pooled by their "
                          "%s",
                          chunks->size, chunks->stride,
                          chunks->pooling == CHUNK_MAX ? "maximum" : "mean"));
        card.chunks = split_text.p;
    }
    st = hf_write_readme(folder, &card);
done:
    str_release(&split_text);
    json_decref(cohort);
    json_decref(config);
    mem_free(path);
    return st;
}
