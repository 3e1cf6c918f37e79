/*
 * tokenizer_parts.h - how a tokenizer is made: the steps that tokenizer.c runs and the readers that
 * fill them in.
 *
 * A text goes through: added tokens cut out of the raw text, normalize steps over what is between
 * them, added tokens cut out of the normalized text, words (struct word_rules), and a model that
 * makes ids of each word. Readers (tokenizer_json.c, tokenizer_vocab.c) turn files into these parts
 * and refuse what has no part here. A model of another kind (byte-level BPE, Unigram) is another
 * struct tokenizer_model; another normalizer is another bit.
 *
 * Internal to data/.
 */
#ifndef COHORT_DATA_TOKENIZER_PARTS_H
#define COHORT_DATA_TOKENIZER_PARTS_H

#include "base/json.h"
#include "data/tokenizer.h"
#include "data/tokenizer_trie.h"

#define TOKENIZER_ID_LIMIT (1 << 24) /* ids are below: tables are as long as the largest id */
#define TOKENIZER_MAX_STEPS 16
#define TOKENIZER_FILE_LIMIT ((size_t)128 << 20)

/* What one pass over a text does, in this order. */
enum normalize_bit {
    NORMALIZE_CLEAN = 1,     /* remove controls, unassigned and the like; white space becomes ' ' */
    NORMALIZE_CJK = 2,       /* spaces around ideographs */
    NORMALIZE_DECOMPOSE = 4, /* NFD */
    NORMALIZE_NONSPACING = 8, /* remove nonspacing marks (BertNormalizer's strip_accents) */
    NORMALIZE_MARKS = 16,     /* remove all marks (StripAccents) */
    NORMALIZE_LOWERCASE = 32
};

#define TOKENIZER_EXPANSION                                                                        \
    3 /* a pass makes at most so many bytes of one; scripts/generate-unicode checks it */

struct normalize_step {
    unsigned bits;            /* of enum normalize_bit */
    unsigned char ascii[128]; /* what becomes of an ASCII byte; NORMALIZE_GONE: nothing */
};

#define NORMALIZE_GONE 0xFF

void normalize_step_init(struct normalize_step *step, unsigned bits);
/* Run one step over n bytes; to holds TOKENIZER_EXPANSION * n bytes. STATUS_NOMEM (thousands of
 * marks in a row). */
NODISCARD enum status normalize_run(const struct normalize_step *step, const char *from, size_t n,
                                    char *to, size_t *to_n);

/* How words are cut; rules add up, as pre-tokenizers in a Sequence do. */
enum word_rule {
    WORDS_SPACE = 1, /* white space separates and is removed */
    WORDS_PUNCT = 2, /* each punctuation character is a word */
    WORDS_KIND = 4   /* \w next to another character is a boundary */
};

enum word_kind { WORD_LETTER, WORD_OTHER, WORD_ALONE, WORD_GAP };

struct word_rules {
    unsigned bits;            /* of enum word_rule; 0: the whole text is one word */
    unsigned char ascii[128]; /* enum word_kind of an ASCII byte */
};

void word_rules_init(struct word_rules *rules, unsigned bits);
/* Cut normalized text into words and append the model's ids of each. STATUS_NOMEM. */
NODISCARD enum status words_encode(const struct tokenizer *t, const char *text, size_t n,
                                   struct id_list *ids);

/* WordPiece: the longest piece first, from the left; a word that cannot be made of pieces is one
 * unk. */
struct wordpiece {
    struct trie pieces; /* text to id */
    char *prefix;       /* owned; of a piece inside a word: "##" */
    uint32_t inside;    /* the trie's node after the prefix; 0: no piece begins with it */
    int64_t max_word;   /* longer words, in characters, are unk */
    int32_t unk;
};

struct tokenizer_model {
    const char *kind;
    /* Append the ids of one word of n > 0 bytes. STATUS_NOMEM. */
    enum status (*encode)(const struct tokenizer *t, const char *word, size_t n,
                          struct id_list *ids);
};

extern const struct tokenizer_model tokenizer_wordpiece;

struct added_token {
    const char *content; /* owned by the tokenizer once added */
    int32_t id;
    bool single_word;    /* matched only where no \\w is beside it */
    bool lstrip, rstrip; /* white space on that side belongs to it */
    bool normalized;     /* looked for in normalized text, and itself normalized */
};

/* Finds added tokens: leftmost first, the longest of those that begin there. Empty: finds nothing.
 */
struct token_matcher {
    struct trie patterns; /* to an index of tokenizer.added */
    size_t count;
    unsigned char first[256]; /* whether a pattern begins with this byte */
    int only_first;           /* the byte all patterns begin with, or -1 */
};

/* The files of a tokenizer, kept so that it can be saved when its folder has gone. */
#define TOKENIZER_FILES 5
enum tokenizer_file { FILE_TOKENIZER, FILE_VOCAB, FILE_CONFIG, FILE_SPECIAL, FILE_ADDED };
extern const char *const tokenizer_file_names[TOKENIZER_FILES];

struct tokenizer {
    struct tokenizer_info info;
    struct normalize_step steps[TOKENIZER_MAX_STEPS];
    int step_count;
    struct word_rules words;
    const struct tokenizer_model *model;
    struct wordpiece wordpiece;
    size_t model_pieces; /* distinct pieces of the model: ids of added tokens are counted from here,
                            as there */

    struct added_token *added; /* owned */
    size_t added_count, added_capacity;
    size_t added_new;             /* those of them that the model does not have */
    struct trie added_by_content; /* to an index of added */
    struct token_matcher raw,
        normalized; /* for the text as it comes, and after the normalize steps */

    struct str pieces;     /* all pieces by id, each with a NUL behind it */
    uint32_t *piece_begin; /* (info.vocab_size) into pieces; NO_PIECE: no piece has this id */
    size_t piece_capacity;

    bool has_decoder, cleanup; /* WordPiece's decoder; without one pieces are joined with spaces */
    char *decoder_prefix;      /* owned */
    struct {
        char *bytes; /* owned; NULL: not there */
        size_t n;
    } files[TOKENIZER_FILES];
};

#define NO_PIECE UINT32_MAX

/* Give the model a piece. where and its row or key name it in sentences. STATUS_FORMAT: an id out
 * of range. */
NODISCARD enum status tokenizer_add_piece(struct tokenizer *t, const char *where, const char *piece,
                                          size_t n, int64_t id);
/*
 * Add or replace an added token, after all pieces and steps; content is copied. Its id is that of
 * the same text in the model, else the next free one: what the file says (file_id, -1: nothing) is
 * ignored, as tokenizers does, with a warning. STATUS_FORMAT: nothing is left of it after
 * normalizing, or the next free id is a piece's.
 */
NODISCARD enum status tokenizer_add_token(struct tokenizer *t, const char *where,
                                          const struct added_token *token, int64_t file_id);
/* The id of an added token or piece, or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n);

/* Special tokens and options of tokenizer_config.json, special_tokens_map.json and
 * added_tokens.json. */
struct tokenizer_config {
    const json_t *config, *special, *added; /* borrowed; NULL: no such file */
    char *where[TOKENIZER_FILES];           /* owned; paths for sentences */
};

/* The text of "cls_token" and the like; NULL where it is null; fallback where nothing is said.
 * Borrowed. */
NODISCARD enum status config_token_text(const struct tokenizer_config *c, const char *key,
                                        const char *fallback, const char **out);

/* Find the ids of cls and sep by their names. STATUS_FORMAT: they are not in the vocabulary. */
NODISCARD enum status tokenizer_named_ends(struct tokenizer *t, const char *where,
                                           const struct tokenizer_config *config);

/* Fill a zeroed tokenizer from the bytes of one file; config entries may be NULL. STATUS_FORMAT,
 * STATUS_NOMEM. */
NODISCARD enum status tokenizer_read_json(struct tokenizer *t, const char *bytes, size_t n,
                                          const char *where, const struct tokenizer_config *config);
NODISCARD enum status tokenizer_read_vocab(struct tokenizer *t, const char *bytes, size_t n,
                                           const char *where,
                                           const struct tokenizer_config *config);
/*
 * Open from files in memory; files[i] may be NULL. folder is used in sentences. This is
 * tokenizer_open() without the disk, and what the fuzzers call.
 */
NODISCARD enum status tokenizer_open_memory(const char *folder,
                                            const char *const files[TOKENIZER_FILES],
                                            const size_t sizes[TOKENIZER_FILES],
                                            struct tokenizer **out);

#endif
