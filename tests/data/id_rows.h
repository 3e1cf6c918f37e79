/* id_rows.h - prepared files out of token ids, without a tokenizer: for tests and timing programs. */
#ifndef COHORT_TESTS_DATA_ID_ROWS_H
#define COHORT_TESTS_DATA_ID_ROWS_H

#include <math.h>

#include "base/status.h"
#include "data/dataset.h"

enum { ID_CLS = 1, ID_SEP = 2, ID_FIRST = 4, ID_VOCAB = 32000 };

/* Append a row of n ids, special tokens not among them. */
static inline enum status id_rows_add(struct dataset_part *part, const int32_t *ids, size_t n)
{
    int64_t length = (int64_t)n, row = part->rows, offset = 0, fields[PART_FIELDS];
    uint32_t split = UINT32_MAX;
    float weight = NAN;
    for (int i = 0; i < PART_FIELDS; i++)
        fields[i] = -1;
    struct dataset_part one = {.rows = 1, .tokens = {(int32_t *)(uintptr_t)ids, n, n}, .lengths = &length,
                               .split = &split, .source_row = &row, .source_offset = &offset, .weight = &weight,
                               .byte_lengths = fields};
    return dataset_part_append(part, &one);
}

static inline enum status id_rows_write(const char *path, const struct dataset_part *part)
{
    const struct tokenizer_info tokenizer = {.kind = "WordPiece", .vocab_size = ID_VOCAB, .cls = ID_CLS, .sep = ID_SEP,
                                             .pad = 0, .unk = 3, .mask = -1, .model_max_length = 512};
    const struct dataset_write_opts opts = {.path = path, .source = "ids", .label_kind = LABEL_NONE,
                                            .tokenizer = &tokenizer};
    return dataset_write(&opts, part);
}

#endif
