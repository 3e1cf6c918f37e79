/*
 * tokenizer_train.h - a tokenizer made from text: BPE, WordPiece or Unigram.
 *
 * Rows are normalized and cut into words exactly as the finished tokenizer will do it (its own
 * tokenizer.json, still without pieces, is opened for that), distinct words are counted, and a
 * vocabulary is made of the counts:
 *
 *   BPE        the most frequent pair of neighbours becomes a piece, again and again.
 *   WordPiece  the same with f(ab) / (f(a) f(b)) in place of the pair's frequency f(ab): what the
 *              merge adds to the likelihood of the text for each time it is used. Pieces inside
 *              words begin with "##". (The trainer that Hugging Face calls WordPiece is BPE.)
 *   Unigram    frequent substrings, thinned out by expectation maximization until as many are left
 *              as were asked for, those first whose loss costs the likelihood least.
 *
 * Ids: special tokens in the order given, then characters by code point (WordPiece: then those
 * inside words), then pieces in the order of their making (Unigram: all by score). Equal scores are
 * settled by the greater count, then by the smaller ids of the left and the right piece; for BPE
 * that is the rule of Hugging Face's tokenizers. So the files depend on the rows and the options
 * alone: not on threads, ranks, the order of rows or of files, unless max_words had to cut, which
 * looks at the rows in their order.
 *
 * Local.
 */
#ifndef COHORT_DATA_TOKENIZER_TRAIN_H
#define COHORT_DATA_TOKENIZER_TRAIN_H

#include <stdint.h>

#include "base/status.h"
#include "data/text.h"

enum train_model { TRAIN_WORDPIECE, TRAIN_BPE, TRAIN_UNIGRAM };

enum train_words {
    TRAIN_WORDS_AUTO,       /* bert for WordPiece, bytelevel for BPE, metaspace for Unigram */
    TRAIN_WORDS_WHITESPACE, /* white space separates; runs of \w and of other characters */
    TRAIN_WORDS_SPLIT,      /* white space separates */
    TRAIN_WORDS_BERT,       /* white space separates; each punctuation character is a word */
    TRAIN_WORDS_BYTES,      /* GPT-2's words, as bytes; BPE only */
    TRAIN_WORDS_METASPACE   /* words begin with U+2581; BPE and Unigram */
};

struct tokenizer_train_opts {
    enum train_model model;
    enum train_words words;
    /* Joined by commas, applied in this order: nfc nfd nfkc nfkd nmt lowercase strip_accents spaces
     * (runs become one) bert bert_cased; "none"; "auto": bert, none or nmt,nfkc,spaces for the
     * three models. */
    const char *normalizer;
    /* Joined by commas: ids 0, 1, ... Their parts are known by their names: [UNK] or <unk>, [PAD]
     * or <pad>, [CLS] or <s>, [SEP] or </s>, [MASK] or <mask>; other ones are additional. */
    const char *special_tokens;
    int64_t vocab_size;     /* pieces and special tokens, at most 1 << 22 */
    int64_t min_frequency;  /* pairs seen less often are not merged; Unigram: substrings of fewer
                               words are no candidates */
    int64_t limit_alphabet; /* keep so many characters, the most frequent; 0: all */
    int64_t max_piece;      /* Unigram: characters of a piece at most */
    int64_t max_length;     /* model_max_length in tokenizer_config.json; 0: not said */
    int64_t max_words;      /* distinct words kept while counting; the rarest are cut beyond */
};

struct tokenizer_train_report {
    int64_t rows, bytes;    /* read: rows with a text, bytes of their texts */
    int64_t words;          /* words in them */
    int64_t distinct;       /* of those, distinct and kept */
    int64_t cuts, cut_most; /* how often max_words cut, and the greatest count that was cut off */
    int64_t long_words;     /* left out as too long for the model */
    int64_t alphabet;       /* characters */
    int64_t vocab_size;     /* what was reached */
    double pieces_a_word;   /* of the words that were kept, by the new pieces */
};

/*
 * Train on the rows of count inputs (their text and pair columns) and write the files that
 * transformers and tokenizer_open() read into folder, which is made if need be: tokenizer.json,
 * tokenizer_config.json, special_tokens_map.json, and vocab.txt (WordPiece) or vocab.json with
 * merges.txt (BPE whose pieces hold no white space); other vocabulary files of these names are
 * removed. Uses threads_count() threads.
 * STATUS_CONFIG an option is out of range or does not fit another (named); vocab_size is below what
 * special tokens and characters need. STATUS_DATA no words in the inputs; statuses of text_open()
 * and text_next(); STATUS_IO, STATUS_NOMEM.
 */
NODISCARD enum status tokenizer_train(const struct tokenizer_train_opts *opts,
                                      const struct text_opts *inputs, int count, const char *folder,
                                      struct tokenizer_train_report *report);

#endif
