/*
 * chunk.h - long texts as overlapping windows of tokens, each of which the encoder reads for
 * itself.
 *
 * A text of n content tokens (special tokens not counted), cut to max_text first, has windows that
 * begin at 0, stride, 2 * stride ... below n and hold up to `size` tokens. Where there are several,
 * those shorter than `least` are dropped, but the first stays. An empty text is one empty window.
 * The rule, its default, and the example lengths in the tests are those of BELT
 * (github.com/mim-solutions/bert_for_longer_texts), which can drop all of them; here one is kept.
 *
 * Pure functions; local.
 */
#ifndef COHORT_DATA_CHUNK_H
#define COHORT_DATA_CHUNK_H

#include <stdbool.h>
#include <stdint.h>

/* How the logits of a text's chunks become one: their mean, or the largest of each output. */
enum chunk_pooling { CHUNK_MEAN, CHUNK_MAX };
const char *chunk_pooling_name(enum chunk_pooling pooling);

struct chunk_rule {
    int size;         /* content tokens of a window; 0: texts are cut, not split */
    int stride;       /* 1 to size */
    int least;        /* 1 to size */
    int64_t max_text; /* content tokens of a text, the others are left out; 0: all */
    bool skip_tail;   /* drop windows that lie wholly inside the one before */
    enum chunk_pooling pooling;
};

/* Windows of a text of n content tokens; at least 1, also without a rule. */
int64_t chunk_count(const struct chunk_rule *rule, int64_t n);
/* The k-th of them: *length content tokens from *first on. */
void chunk_at(const struct chunk_rule *rule, int64_t n, int64_t k, int64_t *first, int64_t *length);

/* The row of a unit, where units of rows follow each other and begin[row] are those before it (rows
 * + 1). unit in [0, begin[rows]). */
int64_t chunk_row(const int64_t *begin, int64_t rows, int64_t unit);

/* What splitting did to texts, summed over those added. Start with {0}. */
struct chunk_tally {
    int64_t texts, split; /* seen, and those of several chunks */
    int64_t chunks, most; /* all, and of the text that has most */
    int64_t tokens;       /* content tokens of the texts */
    int64_t lost;     /* of these, in no chunk: behind max_text, or in a window that was dropped */
    int64_t repeated; /* positions in chunks beyond one for each token: overlaps */
};
void chunk_tally_add(struct chunk_tally *tally, const struct chunk_rule *rule, int64_t n);

/*
 * Logits (or vectors) of texts from those of their chunks. begin[i] .. begin[i + 1] are the chunks
 * of text i in chunk (.., width); text is (texts, width). winner, (texts, width), may be NULL with
 * CHUNK_MEAN: the chunk that gave each maximum, the first of equal ones. Sums in double, in the
 * order of chunks.
 */
void chunk_pool(enum chunk_pooling pooling, const int64_t *begin, int64_t texts, int width,
                const float *chunk, float *text, int64_t *winner);
/* The gradient: (texts, width) to (chunks, width). A mean gives each chunk its share, a maximum all
 * to the winner. */
void chunk_pool_backward(enum chunk_pooling pooling, const int64_t *begin, int64_t texts, int width,
                         const float *dtext, const int64_t *winner, float *dchunk);

#endif
