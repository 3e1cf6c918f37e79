/*
 * params.c - lays the tensors of a family out in the flat space and finds them by their names on
 * disk; see params.h.
 */
#include "model/params.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/family.h"

enum { TENSOR_ALIGN = 64 }; /* elements: 256 bytes, what device copies and vector loads want */

static const struct family *const families[] = {
    &family_bert,      &family_distilbert, &family_roberta,   &family_xlm_roberta,
    &family_camembert, &family_electra,    &family_deberta_v2};

const struct family *family_find(const char *model_type)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i]->model_type, model_type) == 0)
            return families[i];
    return NULL;
}

const char *family_list(void)
{
    return "bert, distilbert, roberta, xlm-roberta, camembert, electra and deberta-v2";
}

static int64_t extent_of(enum extent extent, const struct encoder_config *encoder,
                         const struct head_config *head)
{
    switch (extent) {
    case EXTENT_NONE:
        return 1;
    case EXTENT_VOCAB:
        return encoder->vocab_size;
    case EXTENT_POSITIONS:
        return encoder->max_positions;
    case EXTENT_TYPES:
        return encoder->type_vocab;
    case EXTENT_EMBEDDING:
        return encoder->embedding;
    case EXTENT_HIDDEN:
        return encoder->hidden;
    case EXTENT_QKV:
        return 3 * (int64_t)encoder->hidden;
    case EXTENT_RELATIVE_TABLE:
        return 2 * (int64_t)encoder->relative.span;
    case EXTENT_RELATIVE:
        return (int64_t)encoder->hidden *
               (encoder->relative.content_to_position + encoder->relative.position_to_content);
    case EXTENT_CONV:
        return (int64_t)encoder->hidden * encoder->conv_taps;
    case EXTENT_INTERMEDIATE:
        return encoder->intermediate;
    case EXTENT_OUTPUTS:
        return head->outputs;
    }
    return 0;
}

/* Copy a rule's name, '#' replaced by the layer's number. */
static enum status expand_name(const char *pattern, int layer, char out[PARAM_NAME])
{
    const char *hash = strchr(pattern, '#');
    int n = hash == NULL ? snprintf(out, PARAM_NAME, "%s", pattern)
                         : snprintf(out, PARAM_NAME, "%.*s%d%s", (int)(hash - pattern), pattern,
                                    layer, hash + 1);
    if (n < 0 || n >= PARAM_NAME)
        return status_fail(STATUS_INTERNAL, "the tensor name %s has %d characters, at most %d fit",
                           pattern, n, PARAM_NAME - 1);
    return STATUS_OK;
}

static bool in_model(const struct tensor_rule *rule, const struct encoder_config *encoder,
                     const struct head_config *head)
{
    if (rule->part == PART_POOLER)
        return head->pooling == POOL_POOLER;
    switch (rule->slot) {
    case SLOT_EMBED_PROJECT_WEIGHT:
    case SLOT_EMBED_PROJECT_BIAS:
        return encoder->embedding != encoder->hidden;
    case SLOT_POSITION:
        return !encoder->any_length;
    case SLOT_TYPE:
        return encoder->type_vocab > 0;
    case SLOT_RELATIVE_TABLE:
        return encoder->relative.span > 0;
    case SLOT_RELATIVE_GAMMA:
    case SLOT_RELATIVE_BETA:
        return encoder->relative.span > 0 && encoder->relative.norm;
    case SLOT_RELATIVE_WEIGHT:
    case SLOT_RELATIVE_BIAS:
        return encoder->relative.span > 0 && !encoder->relative.shared;
    case SLOT_CONV_WEIGHT:
    case SLOT_CONV_BIAS:
    case SLOT_CONV_GAMMA:
    case SLOT_CONV_BETA:
        return encoder->conv_taps > 0;
    default:
        return true;
    }
}

/* The rule's tensors on disk. Of the table's projections (to queries, to keys) those that there
 * are. */
static int file_tensors(const struct tensor_rule *rule, const struct encoder_config *encoder,
                        const char *name[TENSOR_PARTS])
{
    const bool relative = rule->slot == SLOT_RELATIVE_WEIGHT || rule->slot == SLOT_RELATIVE_BIAS;
    const bool have[TENSOR_PARTS] = {!relative || encoder->relative.position_to_content,
                                     !relative || encoder->relative.content_to_position, true};
    int n = 0;
    for (int i = 0; i < TENSOR_PARTS && rule->file[i] != NULL; i++)
        if (have[i])
            name[n++] = rule->file[i];
    return n;
}

/* Append the tensor of one rule; the arrays are large enough. */
static enum status add_tensor(const struct tensor_rule *rule, int layer,
                              const struct encoder_config *encoder, const struct head_config *head,
                              struct param_table *table, struct param_index *index)
{
    struct param *p = &table->params[table->count];
    TRY(expand_name(rule->name, layer, p->name));
    p->rank = rule->columns == EXTENT_NONE ? 1 : 2;
    p->shape[0] = extent_of(rule->rows, encoder, head);
    p->shape[1] = extent_of(rule->columns, encoder, head);
    p->offset = table->total;
    p->elements = p->shape[0] * p->shape[1];
    p->role = rule->role;
    p->part = rule->part;
    p->layer = rule->part == PART_LAYER ? layer : -1;
    p->fixed = rule->slot == SLOT_POSITION && encoder->sinusoidal;
    p->outside = strncmp(rule->file[0], table->prefix, strlen(table->prefix)) != 0;

    const char *name[TENSOR_PARTS];
    const int tensors = file_tensors(rule, encoder, name);
    const bool conv = rule->columns == EXTENT_CONV;
    if (tensors == 0 || p->shape[0] % tensors != 0)
        return status_fail(STATUS_INTERNAL, "%s has %lld rows and %d tensors on disk", p->name,
                           (long long)p->shape[0], tensors);
    for (int i = 0; i < tensors; i++) {
        struct param_file_name *f = &table->file[table->names++];
        TRY(expand_name(name[i], layer, f->name));
        f->param = table->count;
        f->rank = conv ? 3 : p->rank;
        f->shape[0] = p->shape[0] / tensors;
        f->shape[1] = conv ? encoder->hidden : p->shape[1];
        f->shape[2] = conv ? encoder->conv_taps : 1;
        f->elements = p->elements / tensors;
        f->first = f->elements * i;
    }
    if (index->first[rule->slot] < 0)
        index->first[rule->slot] = table->count;
    table->used += p->elements;
    table->total = round_up(p->offset + p->elements, TENSOR_ALIGN);
    table->count++;
    return STATUS_OK;
}

enum status params_build(const struct family *family, const struct encoder_config *encoder,
                         const struct head_config *head, struct param_table *table,
                         struct param_index *index)
{
    enum status st = STATUS_OK;
    *table = (struct param_table){.ignored = family->ignored};
    for (int i = 0; i < SLOT_COUNT; i++)
        index->first[i] = -1;
    index->per_layer = 0;
    (void)snprintf(table->prefix, sizeof table->prefix, "%s", family->prefix);
    size_t most = (size_t)family->count * (size_t)encoder->layers + (size_t)family->count;
    TRY_GOTO(fail, mem_alloc(most, sizeof *table->params, "the parameter table", &table->params));
    TRY_GOTO(fail,
             mem_alloc(most * TENSOR_PARTS, sizeof *table->file, "the tensor names", &table->file));
    static const enum param_part order[] = {PART_EMBEDDINGS, PART_LAYER, PART_POOLER, PART_HEAD};
    for (size_t part = 0; part < sizeof order / sizeof order[0]; part++) {
        int layers = order[part] == PART_LAYER ? encoder->layers : 1;
        for (int layer = 0; layer < layers; layer++) {
            int before = table->count;
            for (int i = 0; i < family->count; i++) {
                const struct tensor_rule *rule = &family->rules[i];
                if (rule->part == order[part] && in_model(rule, encoder, head))
                    TRY_GOTO(fail, add_tensor(rule, layer, encoder, head, table, index));
            }
            if (order[part] == PART_LAYER)
                index->per_layer = table->count - before;
        }
    }
    table->total = round_up(table->total, PARAM_BLOCK);
    return STATUS_OK;
fail:
    params_release(table);
    return st;
}

static const struct param_file_name *find_exact(const struct param_table *table, const char *name)
{
    for (int i = 0; i < table->names; i++)
        if (strcmp(table->file[i].name, name) == 0)
            return &table->file[i];
    return NULL;
}

/* TensorFlow's names of a norm's two vectors, which old PyTorch files kept. */
static void modern_name(const char *name, char out[PARAM_NAME])
{
    static const char *const old[][2] = {{"LayerNorm.gamma", "LayerNorm.weight"},
                                         {"LayerNorm.beta", "LayerNorm.bias"}};
    (void)snprintf(out, PARAM_NAME, "%s", name);
    size_t n = strlen(name);
    for (int i = 0; i < 2; i++) {
        size_t tail = strlen(old[i][0]);
        if (n >= tail && strcmp(name + n - tail, old[i][0]) == 0)
            (void)snprintf(out, PARAM_NAME, "%.*s%s", (int)(n - tail), name, old[i][1]);
    }
}

const struct param_file_name *params_match(const struct param_table *table, const char *name,
                                           bool *skip)
{
    size_t prefix = strlen(table->prefix);
    *skip = false;
    const struct param_file_name *found = NULL;
    if (strlen(name) + prefix + 2 <
        PARAM_NAME) { /* 2: "weight" is longer than "gamma" and "beta" by at most 2 */
        char plain[PARAM_NAME], prefixed[2 * PARAM_NAME];
        modern_name(name, plain);
        found = find_exact(table, plain);
        if (found == NULL) {
            (void)snprintf(prefixed, sizeof prefixed, "%s%s", table->prefix, plain);
            found = find_exact(table, prefixed);
        }
    }
    if (found == NULL && table->ignored != NULL) {
        const char *bare = strncmp(name, table->prefix, prefix) == 0 ? name + prefix : name;
        for (const char *const *p = table->ignored; *p != NULL; p++)
            if (strncmp(bare, *p, strlen(*p)) == 0)
                *skip = true;
    }
    return found;
}

void params_release(struct param_table *table)
{
    mem_free(table->params);
    mem_free(table->file);
    *table = (struct param_table){0};
}
