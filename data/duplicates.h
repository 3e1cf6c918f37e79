/*
 * duplicates.h - rows that say the same or nearly the same, and whether such rows stand on both
 * sides of a split.
 *
 * Rows are compared as the model reads them: token ids with special tokens, cut to the dataset's
 * max_length. So it works for every prepared file, what a tokenizer ignores (case, white space)
 * does not hide a copy, and texts that differ only behind the cut are equal. Labels are not looked
 * at. Rows without any token of their own are equal to each other.
 *
 * Equal: XXH3-128 of the ids. Nearly equal: Jaccard similarity of the sets of shingles, that is of
 * runs of DUPLICATES_SHINGLE ids (a row shorter than that is one shingle), found by MinHash and
 * banding (Broder, "On the resemblance and containment of documents", 1997; Leskovec, Rajaraman,
 * Ullman, "Mining of Massive Datasets", chapter 3) and then computed exactly: every pair that is
 * reported has the similarity. A pair just at the threshold is found with a probability of at least
 * 0.98, a more similar one with more. In a band a row is compared with at most
 * DUPLICATES_COMPARED earlier ones, so time is linear in rows whatever they say; in a large group
 * rows hang together by way of others.
 *
 * Local. A function of the rows and the threshold alone: no seed, the same for any number of
 * threads and ranks.
 */
#ifndef COHORT_DATA_DUPLICATES_H
#define COHORT_DATA_DUPLICATES_H

#include <stdint.h>

#include "base/status.h"
#include "data/dataset.h"
#include "data/split.h"

enum { DUPLICATES_SHINGLE = 3, DUPLICATES_HASHES = 96, DUPLICATES_COMPARED = 4 };

/* The sets' rows are numbered through, set after set: row r of set 1 is sets[0]'s rows + r. */
struct duplicates_opts {
    struct dataset *const *sets; /* borrowed */
    int count;                   /* >= 1 */
    double near;        /* least similarity of nearly equal rows, in [0.5, 1]; 1: equal rows only */
    void (*mark)(void); /* called now and then, at least every few seconds; or NULL */
};

struct duplicates {
    int64_t rows;   /* of all sets, at most 2^31 - 1 */
    int32_t *same;  /* (rows), owned: the first row that equals this one; itself if none before */
    int32_t *like;  /* (rows), owned: the first row of those that hang together by being equal or
                       nearly equal; like[i] <= same[i] */
    int64_t copies; /* rows that equal an earlier one */
    int64_t near_copies; /* further rows that hang together with an earlier one */
    int64_t compared;    /* pairs whose similarity was computed */
};

/*
 * Find them. Besides the result (8 bytes a row) it takes about 140 bytes a row, 45 where near is 1,
 * and a block of at most about 2^20 tokens; computed by the process's threads. STATUS_ARG: near out
 * of range, too many rows; else as dataset_read(). *out is empty on failure (duplicates_release is
 * fine).
 */
NODISCARD enum status duplicates_find(const struct duplicates_opts *opts, struct duplicates *out);
void duplicates_release(struct duplicates *duplicates);

/* Jaccard similarity of two rows' shingles, exact; opts->near is not looked at. STATUS_ARG: no such
 * row; else as dataset_read(). */
NODISCARD enum status duplicates_similarity(const struct duplicates_opts *opts, int64_t a,
                                            int64_t b, double *similarity);

/*
 * Groups that keep copies together: rows of the same like[] or, where group (rows, >= 0) is given,
 * of the same group are of one group, directly or by way of others. out is (rows): numbers from 0
 * by first appearance; *count of them. STATUS_ARG: a negative group.
 */
NODISCARD enum status duplicates_groups(const struct duplicates *duplicates, const int32_t *group,
                                        int32_t *out, int32_t *count);

/* A row that a split scores while another one of its group trains. */
struct split_leak {
    int64_t rows;            /* rows that are, in any split; each counts once */
    int64_t split;           /* the first such split, -1: none; in it */
    int64_t scored, trained; /* the first such row, and the first row of its group that trains */
};

/*
 * Look for them in all splits of a plan. group is (rows of the plan), in [0, rows): same[] or
 * like[], or group numbers. Rows with skip[row] != 0 are not counted (NULL: all are); leaks[row]
 * becomes 1 where the row is counted, else 0 (NULL: not wanted). One pass over the rows for each
 * repeat of a partition, for each split of other plans. STATUS_ARG: a group out of range;
 * STATUS_NOMEM.
 */
NODISCARD enum status split_leak_find(struct split_plan *plan, const int32_t *group,
                                      const uint8_t *skip, uint8_t *leaks, struct split_leak *out);

#endif
