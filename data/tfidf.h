/*
 * tfidf.h - texts as TF-IDF vectors of word n-grams, as scikit-learn's TfidfVectorizer makes them,
 * fitted on any subset of the rows.
 *
 * All rows are read once and counted by n-gram. A fit (the training rows of a fold) then only
 * decides which n-grams are in its vocabulary, their idf, and the rows' norms: the counts are
 * shared by all fits, nothing is read again. An n-gram that no training row has is in no
 * vocabulary, whoever else has it.
 *
 *     words       data/words.h, of the lowercased text
 *     terms       n-grams of ngram_min to ngram_max neighbouring words, joined by a space
 *     vocabulary  terms that min_df to max_df of the fit's rows have, sorted bytewise;
 *                 max_features: the most frequent of them
 *     idf         ln((1 + n) / (1 + df)) + 1
 *     value       (1 + ln count, or count) * idf; each row divided by its Euclidean norm;
 *                 a row without a term is zero
 *
 * The matrix X of a fit is never stored: a fit keeps four bytes a term and the counts are kept by
 * column, so that X X^T can be applied in one pass over them, which is all that a linear model with
 * an L2 penalty needs (model/linear.h).
 *
 * Memory: 4 bytes a word of the texts, 6 a pair of row and term, 13 a term; while tfidf_finish()
 * runs 8 + 4 ngrams more a word. docs/baselines.md has what that comes to.
 *
 * Local: knows nothing of ranks. Results do not depend on the number of threads.
 */
#ifndef COHORT_DATA_TFIDF_H
#define COHORT_DATA_TFIDF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

enum { TFIDF_MAX_NGRAM = 8 };

struct tfidf_opts {
    int ngram_min, ngram_max; /* 1 <= ngram_min <= ngram_max <= TFIDF_MAX_NGRAM */
    bool lowercase;
};

struct tfidf; /* opaque */

struct tfidf_info {
    int64_t rows, words; /* words: all of the texts */
    int64_t terms;       /* different n-grams of all rows */
    int64_t pairs;       /* of a row and a term that it has */
    int64_t bytes;       /* of memory */
};

/* Begin without rows. *out is owned (tfidf_destroy). STATUS_ARG, STATUS_NOMEM. */
NODISCARD enum status tfidf_create(const struct tfidf_opts *opts, struct tfidf **out);
/* The next row: n bytes of valid UTF-8. STATUS_DATA: more than 2^31 - 1 n-grams in all. */
NODISCARD enum status tfidf_add(struct tfidf *tfidf, const char *text, size_t n);
/* Count; no row is added afterwards. */
NODISCARD enum status tfidf_finish(struct tfidf *tfidf);
void tfidf_destroy(struct tfidf *tfidf);
void tfidf_get_info(const struct tfidf *tfidf, struct tfidf_info *info);

struct tfidf_fit_opts {
    double min_df,
        max_df; /* below 1 (max_df: 1 or below): share of the rows; else a number of rows */
    int64_t max_features; /* 0: all; ties go to the terms that sort first */
    bool sublinear;       /* 1 + ln count instead of count */
};

struct tfidf_fit; /* opaque */

/*
 * Fit on rows[0..n), all different. tfidf is borrowed and must outlive *out, which is owned
 * (tfidf_fit_destroy). STATUS_DATA: no term is left, and why; STATUS_CONFIG: max_df is below
 * min_df; STATUS_ARG: a row out of range.
 */
NODISCARD enum status tfidf_fit_create(const struct tfidf *tfidf, const struct tfidf_fit_opts *opts,
                                       const int64_t *rows, int64_t n, struct tfidf_fit **out);
void tfidf_fit_destroy(struct tfidf_fit *fit);
/* Terms in the vocabulary. */
int64_t tfidf_fit_features(const struct tfidf_fit *fit);

/* z (n, k) = X X^T a (n, k), over the fit's rows in the order they were given. Each of the k
 * columns is computed by itself. STATUS_NOMEM. */
NODISCARD enum status tfidf_gram(struct tfidf_fit *fit, int k, const double *a, double *z);
/* z (count, k) = Y X^T a (n, k), Y being the vectors of rows that the fit does not have
 * (STATUS_ARG). */
NODISCARD enum status tfidf_cross(struct tfidf_fit *fit, const int64_t *rows, int64_t count, int k,
                                  const double *a, double *z);
/*
 * The weights X^T a of every term of the vocabulary, in the terms' order: visit(arg, term, w (k)).
 * Stops at the first status that is not STATUS_OK and returns it.
 */
NODISCARD enum status tfidf_weights(struct tfidf_fit *fit, int k, const double *a,
                                    enum status (*visit)(void *arg, int64_t term, const double *w),
                                    void *arg);
/* Append a term, its words joined by a space. term is in [0, terms). */
NODISCARD enum status tfidf_name(const struct tfidf *tfidf, int64_t term, struct str *out);

#endif
