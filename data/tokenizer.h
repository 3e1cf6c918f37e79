/*
 * tokenizer.h - text to ids and back, as the model's own tokenizer files say.
 *
 * From tokenizer.json: WordPiece, BPE (by bytes or characters) and Unigram, with the normalizers,
 * pre-tokenizers, post-processors and decoders that the families use. Without one, by the rules of
 * the family: vocab.txt (BERT, DistilBERT, ELECTRA), vocab.json with merges.txt (RoBERTa), and
 * SentencePiece models (spm.model of DeBERTa-v2/v3, sentencepiece.bpe.model of XLM-R and CamemBERT,
 * spiece.model of ALBERT). The family is tokenizer_class in tokenizer_config.json, else model_type
 * in config.json, else that which uses such a file.
 *
 * Ids equal those of Hugging Face's tokenizers for tokenizer.json; of transformers for the other
 * files, but for spm.model: there SentencePiece itself is the model, as it was when DeBERTa was
 * trained (transformers 5 leaves out its normalizer and byte pieces), and for spiece.model, whose
 * user-defined pieces are no added tokens, as they are none in ALBERT's tokenizer.json. truncation
 * and padding inside tokenizer.json are ignored. Added and special tokens found in the text are
 * matched as there.
 *
 * A tokenizer is read-only after it was opened: any number of threads may encode with one at the
 * same time. Local.
 */
#ifndef COHORT_DATA_TOKENIZER_H
#define COHORT_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

struct tokenizer; /* opaque */

struct tokenizer_info {
    const char *kind;                 /* "WordPiece", "BPE" or "Unigram"; borrowed */
    int vocab_size;                   /* ids are below this */
    int32_t cls, sep, pad, unk, mask; /* ids; -1 where there is none */
    uint64_t hash;                    /* of everything that decides ids */
    bool lowercase;
    int model_max_length; /* from tokenizer_config.json; 0: not said */
    /* How pairs are joined; both false: [CLS] a [SEP] b [SEP] with types 0 and 1. */
    bool two_separators; /* <s> a </s></s> b </s> */
    bool one_type;       /* all types are 0 */
    bool no_ends;        /* no [CLS] and [SEP]: a, or a b with types 0 and 1; cls and sep are -1 */
    bool no_pairs;       /* its template places nothing around pairs: they are refused */
};

/* Ids that grow; start with {0}. */
struct id_list {
    int32_t *p;
    size_t n, capacity;
};

/*
 * Open the tokenizer of a Hugging Face directory. *out is owned by the caller (tokenizer_close).
 * STATUS_NOINPUT none of the files above is there (tokenizer.json goes before the others);
 * STATUS_FORMAT a file is broken, or asks for a normalizer, pre-tokenizer, model, decoder
 * or special tokens that cohort does not know (named), or gives no unknown, first or last token.
 */
NODISCARD enum status tokenizer_open(const char *folder, struct tokenizer **out);
void tokenizer_close(struct tokenizer *tokenizer);
void tokenizer_get_info(const struct tokenizer *tokenizer, struct tokenizer_info *info);

/* Append the ids of n bytes of valid UTF-8, without special tokens around. Thread-safe on one
 * tokenizer. */
NODISCARD enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text,
                                       size_t n, struct id_list *ids);
/* Append the text of ids as Hugging Face's decode(skip_special_tokens=False) gives it. STATUS_ARG:
 * an id too large. */
NODISCARD enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids,
                                       int64_t count, struct str *out);
/* The piece with this id ("##ing"), borrowed from the tokenizer; NULL if there is none. */
const char *tokenizer_piece(const struct tokenizer *tokenizer, int32_t id);
/* The id of a piece, or -1. */
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *piece);

/*
 * Write the files that transformers reads into folder, as they were when they were opened (their
 * folder may be gone); beside a vocabulary that came without a configuration, a
 * tokenizer_config.json that names its class. STATUS_IO.
 */
NODISCARD enum status tokenizer_save(const struct tokenizer *tokenizer, const char *folder);

void id_list_release(struct id_list *ids);

/*
 * Put special tokens around content ids and cut to max_length: [CLS] a [SEP], pairs and what has no
 * ends as info says, cut longest first (as Hugging Face's longest_first). Returns the length
 * written; out and types hold max_length. nb < 0: a single text. types may be NULL. A max_length
 * below what the special tokens need cuts these, too.
 */
int tokenizer_join(const struct tokenizer_info *info, const int32_t *a, int64_t na,
                   const int32_t *b, int64_t nb, int max_length, int32_t *out, int32_t *types);
/* The length tokenizer_join() would write, without writing. */
int tokenizer_length(const struct tokenizer_info *info, int64_t na, int64_t nb, int max_length);

#endif
