/*
 * tokenizer_parts.h - how a tokenizer is made: the steps that tokenizer.c runs and the readers that
 * fill them in.
 *
 * A text goes through: added tokens cut out of the raw text, normalize steps over what is between
 * them, added tokens cut out of the normalized text, split steps that cut the rest into words, and
 * a model that makes ids of each word. Readers turn files into these parts and refuse what has no
 * part here: tokenizer_json.c (tokenizer.json), tokenizer_vocab.c (vocab.txt), tokenizer_files.c
 * (vocab.json with merges.txt, and the choice of a family), tokenizer_spm_read.c (SentencePiece).
 * Another model is another struct tokenizer_model; another normalizer or pre-tokenizer another kind
 * of step.
 *
 * Internal to data/.
 */
#ifndef COHORT_DATA_TOKENIZER_PARTS_H
#define COHORT_DATA_TOKENIZER_PARTS_H

#include "base/json.h"
#include "data/tokenizer.h"
#include "data/tokenizer_charsmap.h"
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

enum normalize_kind {
    NORMALIZE_PASS,     /* the bits above */
    NORMALIZE_FORM,     /* NFC, NFKC, NFKD: form */
    NORMALIZE_CHARSMAP, /* Precompiled, as tokenizers applies it: charsmap */
    NORMALIZE_REPLACE,  /* each text from by text to */
    NORMALIZE_SPACES,   /* runs of white space by text to */
    NORMALIZE_STRIP,    /* white space at the ends */
    NORMALIZE_PREPEND,  /* text to before a text that is not empty */
    NORMALIZE_NMT,      /* controls away, odd spaces to spaces */
    NORMALIZE_SPM       /* SentencePiece's own normalizer: charsmap and spm */
};

struct normalize_step {
    enum normalize_kind kind;
    unsigned bits;            /* of enum normalize_bit */
    unsigned char ascii[128]; /* what becomes of an ASCII byte; NORMALIZE_GONE: nothing */
    struct {
        bool compat, compose;
    } form;
    struct charsmap charsmap; /* count 0: maps nothing */
    char *from, *to;          /* owned */
    size_t from_n, to_n;
    struct {
        bool any;    /* any white space; else only ' ' */
        bool breaks; /* a lone tab or line break counts, too */
        int least;   /* characters of a run */
    } spaces;
    struct {
        bool left, right;
    } strip;
    struct {
        bool dummy_prefix, remove_extra, escape,
            suffix; /* NormalizerSpec, and white space behind words */
    } spm;
};

#define NORMALIZE_GONE 0xFF

void normalize_step_init(struct normalize_step *step, unsigned bits);
/* Run one step of kind NORMALIZE_PASS over n bytes; to holds TOKENIZER_EXPANSION * n bytes.
 * STATUS_NOMEM (thousands of marks in a row). */
NODISCARD enum status normalize_run(const struct normalize_step *step, const char *from, size_t n,
                                    char *to, size_t *to_n);
struct tokenizer;
/*
 * Run a step of any kind over *text: afterwards *text and *n are what came out, which is a view of
 * the text itself or lies in to (whose old content the text must not be). Valid UTF-8 stays valid.
 * limit: text_limit() of the text that the first step was given. STATUS_NOMEM.
 */
NODISCARD enum status normalize_apply(const struct tokenizer *t, const struct normalize_step *step,
                                      size_t limit, const char **text, size_t *n, struct str *to);
void normalize_step_release(struct normalize_step *step);

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

enum split_kind {
    SPLIT_WORDS,     /* words */
    SPLIT_METASPACE, /* spaces become mark, and words begin at each */
    SPLIT_BYTES, /* ByteLevel; the last step: the model is given bytes, not its letters for them */
    SPLIT_DIGITS /* digits apart from the rest */
};

struct split_step {
    enum split_kind kind;
    struct word_rules words;
    char mark[5]; /* SPLIT_METASPACE: one character */
    size_t mark_n;
    enum { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend; /* mark before the first word */
    bool cut;          /* SPLIT_METASPACE: at marks; SPLIT_BYTES: by GPT-2's expression */
    bool prefix_space; /* SPLIT_BYTES: a space before a text that begins with none */
    bool each;         /* SPLIT_DIGITS: each digit by itself, else runs of digits */
};

#define TOKENIZER_MAX_SPLITS 8

/* What one call of tokenizer_encode() works with. */
struct encoding {
    const struct tokenizer *t;
    struct str buffers[2];                   /* of the normalize steps */
    struct str splits[TOKENIZER_MAX_SPLITS]; /* of the split steps */
    struct str scratch;                      /* of the model */
    struct id_list *ids;
    bool first; /* the text being split begins where the whole text begins */
};

/* Cut normalized text into words and append the model's ids of each. STATUS_NOMEM. */
NODISCARD enum status split_encode(struct encoding *e, const char *text, size_t n);

/* WordPiece: the longest piece first, from the left; a word that cannot be made of pieces is one
 * unk. */
struct wordpiece {
    char *prefix;     /* owned; of a piece inside a word: "##" */
    uint32_t inside;  /* the vocabulary's node after the prefix; 0: no piece begins with it */
    int64_t max_word; /* longer words, in characters, are unk */
};

/* BPE: the pair with the least rank is merged first, the leftmost of equal ones. */
struct bpe {
    struct bpe_merge {
        int32_t left, right, merged; /* ids; left -1: free */
        uint32_t rank;
    } * merges;     /* owned; a hash table */
    unsigned shift; /* 64 - log2 of its size */
    size_t merge_count;
    bool byte_level;    /* words are bytes */
    bool byte_fallback; /* unknown characters become bytes ("<0x0A>") where all of theirs are there
                         */
    bool fuse_unk;      /* unknown characters in a row are one unk */
    bool ignore_merges; /* a word that is a piece is not taken apart */
    int32_t bytes[256]; /* ids of byte_level's or byte_fallback's pieces; -1: none */
};

/* Unigram: the pieces with the greatest sum of scores. */
struct unigram {
    double *scores; /* owned; by id */
    size_t score_capacity;
    double unk_score;
    bool byte_fallback;
    int32_t bytes[256];
};

/* SentencePiece's own models, which take a whole text at once. */
enum spm_type {
    SPM_NORMAL = 1,
    SPM_UNKNOWN = 2,
    SPM_CONTROL = 3,
    SPM_USER = 4,
    SPM_UNUSED = 5,
    SPM_BYTE = 6
};

struct spm {
    float *scores; /* owned; by id */
    float *gains;  /* owned; by id: what the search adds up. NAN: not looked for; HUGE_VALF: a
                      user-defined piece, whose length counts */
    unsigned char *types;  /* owned; enum spm_type by id */
    float least, greatest; /* scores of normal pieces */
    bool byte_fallback;
    int32_t bytes[256];
    struct trie user; /* user-defined pieces: never normalized, never cut */
    bool punct_alone; /* each punctuation character is a text of its own */
};

struct tokenizer_model {
    const char *kind;
    /* Append the ids of one word of n > 0 bytes. STATUS_NOMEM. */
    enum status (*encode)(struct encoding *e, const char *word, size_t n);
};

extern const struct tokenizer_model tokenizer_wordpiece, tokenizer_bpe, tokenizer_unigram,
    tokenizer_spm_unigram, tokenizer_spm_bpe;

/* The letter that stands for a byte in byte-level pieces, and back (-1: stands for none). */
uint32_t byte_letter(unsigned char byte);
int letter_byte(uint32_t c);

/* Set the rank of a pair; said again, the last word counts. STATUS_NOMEM. */
NODISCARD enum status bpe_add_merge(struct bpe *bpe, int32_t left, int32_t right, int32_t merged,
                                    uint32_t rank);
/* Once the vocabulary is whole: the ids of bytes. */
void bpe_finish(struct tokenizer *t);
/* The merge "left right" of pieces. where and line name it in sentences. STATUS_FORMAT: a piece is
 * not in the vocabulary. */
NODISCARD enum status bpe_add_pair(struct tokenizer *t, const char *where, int64_t line,
                                   const char *left, size_t left_n, const char *right,
                                   size_t right_n, uint32_t rank);
/* The ids of "<0x00>" to "<0xFF>", -1 where there is none. */
void byte_pieces(const struct tokenizer *t, int32_t ids[256]);

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
#define TOKENIZER_FILES 11
enum tokenizer_file {
    FILE_TOKENIZER,
    FILE_VOCAB,
    FILE_CONFIG,
    FILE_SPECIAL,
    FILE_ADDED,
    FILE_VOCAB_JSON,
    FILE_MERGES,
    FILE_SPM,         /* DeBERTa's name */
    FILE_SPM_XLM,     /* XLM-R's and CamemBERT's */
    FILE_SPM_ALBERT,  /* ALBERT's */
    FILE_MODEL_CONFIG /* config.json: asked for model_type, not saved */
};
extern const char *const tokenizer_file_names[TOKENIZER_FILES];

struct tokenizer {
    struct tokenizer_info info;
    struct normalize_step steps[TOKENIZER_MAX_STEPS];
    int step_count;
    struct split_step splits[TOKENIZER_MAX_SPLITS];
    int split_count;
    const struct tokenizer_model *model;
    struct trie vocab; /* the model's pieces to ids */
    int32_t unk;       /* the model's; -1: unknown characters are left out */
    struct wordpiece wordpiece;
    struct bpe bpe;
    struct unigram unigram;
    struct spm spm;
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

    struct decode_step {
        enum decode_kind {
            DECODE_WORDPIECE, /* from: the prefix; cleanup. The only step */
            DECODE_BYTES,     /* ByteLevel */
            DECODE_MARK, /* Metaspace: from the mark to a space, none before the first word if drop
                          */
            DECODE_REPLACE,  /* from by to */
            DECODE_FALLBACK, /* "<0x0A>" to its byte */
            DECODE_FUSE,
            DECODE_STRIP /* from (one character) at most left and right times at the ends */
        } kind;
        char *from, *to; /* owned */
        size_t from_n, to_n;
        bool cleanup, drop;
        int left, right;
    } decoder[TOKENIZER_MAX_STEPS]; /* none: pieces are joined with spaces */
    int decoder_count;
    const char *save_class; /* for tokenizer_config.json where there was none; NULL: it has all */
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
    const json_t *config, *special, *added, *model; /* borrowed; NULL: no such file */
    char *where[TOKENIZER_FILES];                   /* owned; paths for sentences */
};

/* The text of "cls_token" and the like; NULL where it is null; fallback where nothing is said.
 * Borrowed. */
NODISCARD enum status config_token_text(const struct tokenizer_config *c, const char *key,
                                        const char *fallback, const char **out);

/* Special tokens that have a name, where nothing is said; NULL: no such token. */
#define NAMED_COUNT 7
enum { NAMED_BOS, NAMED_EOS, NAMED_UNK, NAMED_SEP, NAMED_PAD, NAMED_CLS, NAMED_MASK };
extern const char *const named_keys[NAMED_COUNT];
extern const char *const bert_names[NAMED_COUNT];

/* The text of each named token. */
NODISCARD enum status config_names(const struct tokenizer_config *c,
                                   const char *const defaults[NAMED_COUNT],
                                   const char *names[NAMED_COUNT]);
/* Added tokens in the order that transformers gives new ids: listed ones by id, named ones,
 * additional ones; those that are there already stay as they are. raw: none of them is looked for
 * in normalized text. */
NODISCARD enum status config_add_tokens(struct tokenizer *t, const struct tokenizer_config *c,
                                        const char *const defaults[NAMED_COUNT], bool raw);
/* Find the ids of cls and sep by their names. STATUS_FORMAT: they are not in the vocabulary. */
NODISCARD enum status tokenizer_named_ends(struct tokenizer *t, const char *where,
                                           const struct tokenizer_config *config,
                                           const char *const defaults[NAMED_COUNT]);

/* How transformers' class of a folder treats a tokenizer.json: classes with rules of their own make
 * some of its parts anew from the configuration, others leave it alone. By tokenizer_class, or
 * config.json's model_type where there is none. */
enum tokenizer_class {
    CLASS_OTHER, /* or none is named: the file as it is */
    CLASS_BERT,
    CLASS_ROBERTA,
    CLASS_DEBERTA,
    CLASS_XLM_ROBERTA, /* and CamemBERT's */
    CLASS_ALBERT
};
NODISCARD enum status tokenizer_class_of(const struct tokenizer_config *c,
                                         enum tokenizer_class *out);
/* The ends that a class places where tokenizer.json places none: by their names, or none.
 * STATUS_FORMAT: they are not in the vocabulary. */
NODISCARD enum status tokenizer_ends_of_class(struct tokenizer *t, const char *where,
                                              const struct tokenizer_config *c);
/* What the other files say beside a tokenizer.json that was read: obeyed as transformers does, or
 * refused. */
NODISCARD enum status tokenizer_obey_config(struct tokenizer *t, const char *where,
                                            const struct tokenizer_config *c);
/* BERT's normalizer, from the configuration. */
NODISCARD enum status config_bert_normalizer(struct tokenizer *t, const struct tokenizer_config *c);

/* A new step of a kind, zeroed. STATUS_FORMAT: there are too many; where names the file. */
NODISCARD enum status tokenizer_add_step(struct tokenizer *t, const char *where,
                                         enum normalize_kind kind, struct normalize_step **out);
NODISCARD enum status tokenizer_add_split(struct tokenizer *t, const char *where,
                                          enum split_kind kind, struct split_step **out);
NODISCARD enum status tokenizer_add_decoder(struct tokenizer *t, const char *where,
                                            enum decode_kind kind, struct decode_step **out);
/* Set the mark of a SPLIT_METASPACE step and its decoder: U+2581. */
NODISCARD enum status tokenizer_add_metaspace(struct tokenizer *t, const char *where, bool prepend);
/* Read count scores again from the bytes of tokenizer.json, rounded as tokenizers does. */
void unigram_round_scores(double *scores, size_t count, const char *bytes, size_t n);
/* Set the score of a piece that Unigram has. */
NODISCARD enum status unigram_set_score(struct unigram *unigram, int32_t id, double score);

/* Fill a zeroed tokenizer from the bytes of one file; config entries may be NULL. STATUS_FORMAT,
 * STATUS_NOMEM. */
NODISCARD enum status tokenizer_read_json(struct tokenizer *t, const char *bytes, size_t n,
                                          const char *where, const struct tokenizer_config *config);
NODISCARD enum status tokenizer_read_vocab(struct tokenizer *t, const char *bytes, size_t n,
                                           const char *where,
                                           const struct tokenizer_config *config);
/* From vocab.json and merges.txt, which t holds. */
NODISCARD enum status tokenizer_read_merges(struct tokenizer *t,
                                            const struct tokenizer_config *config);
/* From a SentencePiece model, by the rules of a family. */
enum spm_family { SPM_DEBERTA, SPM_XLM_ROBERTA, SPM_CAMEMBERT, SPM_ALBERT };
NODISCARD enum status tokenizer_read_spm(struct tokenizer *t, const char *bytes, size_t n,
                                         const char *where, enum spm_family family,
                                         const struct tokenizer_config *config);
/* From whatever files t holds beside tokenizer.json; *where (borrowed from config) names the one
 * that has the pieces. */
NODISCARD enum status tokenizer_read_files(struct tokenizer *t,
                                           const struct tokenizer_config *config,
                                           const char **where);
/*
 * Open from files in memory; files[i] may be NULL. folder is used in sentences. This is
 * tokenizer_open() without the disk, and what the fuzzers call.
 */
NODISCARD enum status tokenizer_open_memory(const char *folder,
                                            const char *const files[TOKENIZER_FILES],
                                            const size_t sizes[TOKENIZER_FILES],
                                            struct tokenizer **out);

#endif
