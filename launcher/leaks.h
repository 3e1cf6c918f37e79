/*
 * leaks.h - rows that a model is scored on although it trained on a copy of them: found, told,
 * refused, or kept in one fold (cv.duplicates, cv.similarity). What a copy is: data/duplicates.h.
 *
 * Use: leaks_find() once the dataset is open. To keep copies together, leaks_group() before the
 * plan of splits is made. Then leaks_count() on the plan, and leaks_say() or leaks_refuse().
 */
#ifndef COHORT_LAUNCHER_LEAKS_H
#define COHORT_LAUNCHER_LEAKS_H

#include "base/json.h"
#include "base/str.h"
#include "comm/comm.h"
#include "data/duplicates.h"

/* Start with {0}; owned by the caller (leaks_release). */
struct leaks {
    double similarity; /* from which rows are nearly equal; 1: equal ones only */
    struct duplicates found;
    /* Of the plan that leaks_count() was called for, or between two sets: */
    struct split_leak equal; /* rows scored while an equal row trains */
    struct split_leak near;  /* further rows, scored while a nearly equal one trains */
    double likeness;         /* similarity of near's two rows; NaN without any. It may be below
                                `similarity` where they hang together by way of others */
};

/*
 * Look for copies among the rows of ds; a few seconds for a million short rows (docs/metrics.md).
 * Rank 0 of comm looks, the others wait and get what it found: 8 bytes a row. similarity in
 * [0.5, 1]. Collective; statuses of duplicates_find(), the same on all ranks, with out empty then.
 */
NODISCARD enum status leaks_find(struct comm *comm, struct dataset *ds, double similarity,
                                 struct leaks *out);
void leaks_release(struct leaks *leaks);

/*
 * What to give to split_plan_open() so that copies stay in one fold: *group is (rows), owned by the
 * caller (mem_free), and *kind becomes one that keeps groups together: kfold -> group, stratified
 * -> stratified_group, leave_one_out -> leave_one_group_out; the other kinds that know groups stay.
 * given: the data's groups or NULL; they count where the kind as it was keeps them together, and
 * then rows of one group, of copies, or both by way of others become one group. STATUS_CONFIG: the
 * kind cannot (leave_p_out, rolling, blocked, column); *group is NULL then. Local.
 */
NODISCARD enum status leaks_group(const struct leaks *leaks, const int32_t *given,
                                  enum split_kind *kind, int32_t **group);

/* Fill equal, near and likeness for the plan of ds's rows. Local; statuses of split_leak_find() and
 * duplicates_similarity(). */
NODISCARD enum status leaks_count(struct leaks *leaks, struct split_plan *plan, struct dataset *ds);
bool leaks_any(const struct leaks *leaks); /* whether a counted row leaks */

/*
 * A sentence for people, appended to out without a newline, after leaks_count():
 *   duplicates: none
 *   duplicates: 12 rows equal an earlier one, 3 more nearly do (similarity 0.8); no model is scored
 *   on a copy of what it trained on
 *   duplicates: 24 of 1000 rows are scored by a model that trained on an equal row (first: row 17,
 *   equal to row 3, in fold 0), 6 more on a nearly equal one (first: row 40, 0.91 like row 12, in
 *   fold 2)
 * Rows are named by number, and by their id where the data has ids. Local.
 */
NODISCARD enum status leaks_say(const struct leaks *leaks, const struct split_plan *plan,
                                struct dataset *ds, struct str *out);
/* STATUS_DATA with that sentence and what to do, where leaks_any(); for cv.duplicates=refuse. */
NODISCARD enum status leaks_refuse(const struct leaks *leaks, const struct split_plan *plan,
                                   struct dataset *ds);
/* {"similarity", "copies", "near_copies", "scored_on_copies", "scored_on_near_copies"}; new
 * reference, NULL when memory ran out. */
json_t *leaks_json(const struct leaks *leaks);

/*
 * Rows of `scored` (data.eval, data.test) that equal, or nearly equal, a row of `trains`: counts in
 * out->equal and out->near, whose rows are numbers in their own sets and whose split is 0 where
 * there are any. out->found holds trains' rows, then scored's. Collective as leaks_find().
 */
NODISCARD enum status leaks_between(struct comm *comm, struct dataset *trains,
                                    struct dataset *scored, double similarity, struct leaks *out);
/* The sentence for those: "duplicates: 5 of 200 rows of data.eval equal a row of data.train (first:
 * row 4, equal to row 90), 1 more nearly (...)", or "duplicates: no row of data.eval equals one of
 * data.train". */
NODISCARD enum status leaks_between_say(const struct leaks *leaks, struct dataset *trains,
                                        const char *trains_name, struct dataset *scored,
                                        const char *scored_name, struct str *out);

#endif
