/* dataset_content.c - see dataset_internal.h. */
#include <limits.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "data/dataset_internal.h"

const char *const dataset_label_kinds[4] = {"none", "class", "value", "multi"};

/* ---- names ---- */

/* The slot that holds the name, or the free one where it belongs. */
static size_t slot_of(const struct name_list *list, const char *name, size_t n)
{
    size_t at = (size_t)hash_bytes(name, n) & (list->nslots - 1);
    while (list->slots[at] != 0) {
        const char *found = list->names[list->slots[at] - 1];
        if (strncmp(found, name, n) == 0 && found[n] == '\0')
            break;
        at = (at + 1) & (list->nslots - 1);
    }
    return at;
}

int32_t name_list_find(const struct name_list *list, const char *name, size_t n)
{
    if (list->nslots == 0 || memchr(name, '\0', n) != NULL)
        return -1;
    return list->slots[slot_of(list, name, n)] - 1;
}

/* At most half full, so that chains stay short. */
static enum status grow_slots(struct name_list *list)
{
    size_t wanted = list->nslots == 0 ? 64 : list->nslots * 4;
    int32_t *old = list->slots, *fresh;
    TRY(mem_alloc(wanted, sizeof *fresh, "a list of names", &fresh));
    list->slots = fresh;
    list->nslots = wanted;
    for (size_t i = 0; i < list->count; i++)
        list->slots[slot_of(list, list->names[i], strlen(list->names[i]))] = (int32_t)i + 1;
    mem_free(old);
    return STATUS_OK;
}

enum status name_list_add(struct name_list *list, const char *name, size_t n, int32_t *number)
{
    if (list->count >= list->nslots / 2)
        TRY(grow_slots(list));
    size_t at = slot_of(list, name, n);
    if (list->slots[at] == 0) {
        if (list->count >= INT32_MAX / 4)
            return status_fail(STATUS_DATA, "more than %zu different names", list->count);
        TRY(mem_grow(&list->names, &list->capacity, list->count + 1, sizeof *list->names,
                     "a list of names"));
        TRY(mem_strndup(name, n, &list->names[list->count]));
        list->count++;
        list->slots[at] = (int32_t)list->count;
    }
    *number = list->slots[at] - 1;
    return STATUS_OK;
}

void name_list_release(struct name_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mem_free(list->names[i]);
    mem_free(list->names);
    mem_free(list->slots);
    *list = (struct name_list){0};
}

/* ---- content hash ---- */

uint64_t content_hash_tokens(uint64_t so_far, const int32_t *tokens, int64_t n)
{
    return hash_combine(so_far, hash_bytes(tokens, (size_t)n * sizeof *tokens));
}

/* What is hashed before the columns that a file may have beyond those of every file. */
enum { CONTENT_TIMES = 1, CONTENT_FOLDS = 2 };

/* A missing column and one without values differ. */
static uint64_t add(uint64_t so_far, const void *values, int64_t n, size_t size)
{
    so_far = hash_combine(so_far, values == NULL ? UINT64_MAX : (uint64_t)n);
    return values == NULL || n == 0 ? so_far
                                    : hash_combine(so_far, hash_bytes(values, (size_t)n * size));
}

uint64_t content_hash(uint64_t tokens, const struct content *c)
{
    uint64_t h = tokens;
    h = add(h, c->offsets, c->rows + 1, sizeof *c->offsets);
    h = add(h, c->split, c->rows, sizeof *c->split);
    h = hash_combine(h, (uint64_t)c->label_kind);
    h = add(h, c->classes, c->rows, sizeof *c->classes);
    h = add(h, c->values, c->rows, sizeof *c->values);
    h = add(h, c->multi_begin, c->rows + 1, sizeof *c->multi_begin);
    h = add(h, c->multi, c->multi_begin == NULL ? 0 : c->multi_begin[c->rows], sizeof *c->multi);
    h = add(h, c->weights, c->rows, sizeof *c->weights);
    h = add(h, c->groups, c->rows, sizeof *c->groups);
    for (int i = 0; i < c->nnames; i++)
        h = add(h, c->names[i], (int64_t)strlen(c->names[i]), 1);
    /* These came later: a file without them keeps its hash. */
    if (c->times != NULL)
        h = add(hash_combine(h, CONTENT_TIMES), c->times, c->rows, sizeof *c->times);
    if (c->folds != NULL)
        h = add(hash_combine(h, CONTENT_FOLDS), c->folds, c->rows, sizeof *c->folds);
    for (int i = 0; c->folds != NULL && i < c->nfold_names; i++)
        h = add(h, c->fold_names[i], (int64_t)strlen(c->fold_names[i]), 1);
    return h;
}
