/* fold_table.c - what fold.c and split.c share; see fold_internal.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "data/fold_internal.h"

enum { MOST_PARTS = 20, MOST_MISSING = 6 };

void fold_shuffle64(uint64_t key, int64_t *p, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)random_below(key, (uint64_t)i, (uint64_t)i + 1), kept = p[i];
        p[i] = p[j];
        p[j] = kept;
    }
}

int64_t fold_run_begin(int64_t n, int64_t k, int64_t f)
{
    int64_t longer = n % k;
    return f * (n / k) + (f < longer ? f : longer);
}

static int by_number(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

enum status dense_numbers(const int32_t *number, int64_t n, int32_t *dense, int64_t *count)
{
    int32_t *sorted;
    *count = 0;
    TRY(mem_alloc_raw((size_t)n, sizeof *sorted, "the groups of rows", &sorted));
    if (n > 0) {
        memcpy(sorted, number, (size_t)n * sizeof *sorted);
        qsort(sorted, (size_t)n, sizeof *sorted, by_number);
    }
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || sorted[i] != sorted[i - 1])
            sorted[(*count)++] = sorted[i];
    }
    for (int64_t i = 0; i < n; i++) {
        const int32_t *found =
            bsearch(&number[i], sorted, (size_t)*count, sizeof *sorted, by_number);
        dense[i] = (int32_t)(found - sorted);
    }
    mem_free(sorted);
    return STATUS_OK;
}

/* ---- the table ---- */

enum status class_table_make(struct class_table *table, int parts, int classes,
                             const char *const *names)
{
    *table = (struct class_table){.parts = parts, .classes = classes, .names = names};
    return mem_alloc((size_t)parts * ((size_t)classes + 1), sizeof *table->counts,
                     "the table of folds", &table->counts);
}

void class_table_release(struct class_table *table)
{
    mem_free(table->counts);
    *table = (struct class_table){0};
}

void class_table_count(struct class_table *table, int part, int32_t label)
{
    int64_t *counts = table->counts + (int64_t)part * (table->classes + 1);
    counts[table->classes]++;
    if (label >= 0)
        counts[label]++;
}

static int64_t count_of(const struct class_table *t, int part, int label)
{
    return t->counts[(int64_t)part * (t->classes + 1) + label];
}

/* Rows of the class; *lacking: the first part without any, or -1. */
static int64_t total_of(const struct class_table *t, int label, int *lacking)
{
    int64_t total = 0;
    *lacking = -1;
    for (int p = t->parts; p-- > 0;) {
        total += count_of(t, p, label);
        if (count_of(t, p, label) == 0)
            *lacking = p;
    }
    return total;
}

bool class_table_lacks(const struct class_table *table, int *label, int *part)
{
    for (*label = 0; *label < table->classes; (*label)++) {
        if (total_of(table, *label, part) > 0 && *part >= 0)
            return true;
    }
    return false;
}

const char *class_table_name(const struct class_table *table, int label, char number[16])
{
    if (table->names != NULL)
        return table->names[label];
    (void)snprintf(number, 16, "%d", label);
    return number;
}

static enum status print_header(const struct class_table *t, int wide, int parts, struct str *out)
{
    char number[32];
    TRY(str_addf(out, "%-*s  %8s", wide, "class", "rows"));
    for (int p = 0; p < parts; p++) {
        (void)snprintf(number, sizeof number, "fold %d", p);
        TRY(str_addf(out, "%11s", t->part_names != NULL ? t->part_names[p] : number));
    }
    return str_addf(out, "%s\n", parts < t->parts ? "  ..." : "");
}

enum status class_table_print(const struct class_table *t, bool only_missing, struct str *out)
{
    int parts = t->parts < MOST_PARTS ? t->parts : MOST_PARTS, wide = 5, shown = 0, lacking;
    char number[16];
    for (int label = 0; label < t->classes; label++) {
        int n = (int)strnlen(class_table_name(t, label, number), 40);
        wide = n > wide ? n : wide;
    }
    TRY(print_header(t, wide, parts, out));
    for (int label = 0; label <= t->classes; label++) {
        int64_t total = total_of(t, label, &lacking);
        if (only_missing && (lacking < 0 || total == 0 || label == t->classes))
            continue;
        if (only_missing && ++shown > MOST_MISSING) {
            TRY(str_addf(out, "... and more classes\n"));
            break;
        }
        TRY(str_addf(out, "%-*.40s  %8lld", wide,
                     label == t->classes ? "all" : class_table_name(t, label, number),
                     (long long)total));
        for (int p = 0; p < parts; p++)
            TRY(str_addf(out, "%11lld", (long long)count_of(t, p, label)));
        TRY(str_addf(out, "%s\n", parts < t->parts ? "  ..." : ""));
    }
    return STATUS_OK;
}
