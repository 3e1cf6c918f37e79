/*
 * fold_internal.h - what the files behind fold.h and split.h share: keys, permutations, dense
 * numbers, and the table of class counts.
 */
#ifndef COHORT_DATA_FOLD_INTERNAL_H
#define COHORT_DATA_FOLD_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* What a key of RANDOM_FOLD is for (its a; the launcher uses small a of its own with b 1 and 0, so
 * later ones lie far above). Stored folds depend on the values. */
enum fold_purpose {
    FOLD_KEY_ROWS = 1,
    FOLD_KEY_CLASS_ROWS = 2,
    FOLD_KEY_GROUPS = 3,
    FOLD_KEY_STRATIFIED_GROUPS = 4,
    FOLD_KEY_HOLDOUT_ROWS = 5,
    FOLD_KEY_HOLDOUT_GROUPS = 6,
    FOLD_KEY_LABEL_UNITS = 1 << 30,
    FOLD_KEY_REPEAT
};

/* Fisher and Yates, i from n - 1 down to 1, j = random_below(key, i, i + 1). */
void fold_shuffle64(uint64_t key, int64_t *p, int64_t n);

/* n things in k runs, the first n mod k one longer: where run f begins. */
int64_t fold_run_begin(int64_t n, int64_t k, int64_t f);

/* The places of number[0..n) among the different ones, ascending, from 0, into dense (n); *count
 * how many there are. */
NODISCARD enum status dense_numbers(const int32_t *number, int64_t n, int32_t *dense,
                                    int64_t *count);

/* Rows of each class in each part: a fold, or a side of a split. Start with class_table_make(). */
struct class_table {
    int parts, classes;            /* classes 0: rows have none */
    const char *const *names;      /* (classes), or NULL: their numbers */
    const char *const *part_names; /* (parts), or NULL: "fold 0", ... */
    int64_t *counts;               /* (parts, classes + 1), the last of a part being all its rows */
};
NODISCARD enum status class_table_make(struct class_table *table, int parts, int classes,
                                       const char *const *names);
void class_table_release(struct class_table *table);
/* One row; label < 0: it has none. */
void class_table_count(struct class_table *table, int part, int32_t label);
/* The first class that has rows, and the first part that has none of them; false where there is
 * none. */
bool class_table_lacks(const struct class_table *table, int *label, int *part);
const char *class_table_name(const struct class_table *table, int label, char number[16]);
/*
 * "class, rows, rows of each part" appended to out, one line a class and a last one for all rows,
 * each ended by a newline; of more than 20 parts the first 20. only_missing: the header and the
 * classes that some part lacks, as many as fit a sentence.
 */
NODISCARD enum status class_table_print(const struct class_table *table, bool only_missing,
                                        struct str *out);

#endif
