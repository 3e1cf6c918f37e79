/*
 * tokenizer_spm_read.c - the parts of a tokenizer from a SentencePiece model: the protocol buffer,
 * and what the families make of its pieces.
 *
 * Only the fields that decide ids are read; the wire format lets the others be skipped. Nothing is
 * believed: every length is checked against what is left of the message around it.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"

/* ---- The wire format ---- */

struct message {
    const unsigned char *p, *end;
};

struct field {
    uint32_t number;
    enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 } wire;
    uint64_t value;         /* WIRE_VARINT, WIRE_32 */
    struct message message; /* WIRE_BYTES */
};

static bool read_varint(struct message *m, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && m->p < m->end; shift += 7) {
        unsigned char byte = *m->p++;
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* The next field; false if the message is broken. */
static bool next_field(struct message *m, struct field *f)
{
    uint64_t tag, n = 0;
    if (!read_varint(m, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return false;
    *f = (struct field){.number = (uint32_t)(tag >> 3)};
    switch (tag & 7) {
    case WIRE_VARINT:
        f->wire = WIRE_VARINT;
        return read_varint(m, &f->value);
    case WIRE_64:
        f->wire = WIRE_64;
        n = 8;
        break;
    case WIRE_32:
        f->wire = WIRE_32;
        n = 4;
        break;
    case WIRE_BYTES:
        f->wire = WIRE_BYTES;
        if (!read_varint(m, &n))
            return false;
        break;
    default:
        return false;
    }
    if (n > (uint64_t)(m->end - m->p))
        return false;
    f->message = (struct message){m->p, m->p + n};
    if (f->wire == WIRE_32)
        f->value = (uint64_t)m->p[0] | (uint64_t)m->p[1] << 8 | (uint64_t)m->p[2] << 16 |
                   (uint64_t)m->p[3] << 24;
    m->p += n;
    return true;
}

/* ---- The model ---- */

struct piece {
    const char *text; /* borrowed from the file */
    size_t n;
    float score;
    int type; /* enum spm_type */
};

struct model {
    const char *where;
    struct piece *pieces; /* owned */
    size_t count, capacity;
    int64_t kind; /* 1 Unigram, 2 BPE */
    bool byte_fallback, suffix, dummy_prefix, remove_extra, escape;
    struct message charsmap;
};

static enum status broken(const struct model *m, const char *what)
{
    return status_fail(STATUS_FORMAT, "%s: not a SentencePiece model: %s is broken or cut off",
                       m->where, what);
}

static enum status read_piece(struct model *m, struct message in)
{
    struct field f;
    struct piece piece = {.text = "", .type = SPM_NORMAL};
    while (in.p < in.end) {
        if (!next_field(&in, &f))
            return broken(m, "a piece");
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            piece.text = (const char *)f.message.p;
            piece.n = (size_t)(f.message.end - f.message.p);
        } else if (f.number == 2 && f.wire == WIRE_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece.score, &bits, sizeof bits);
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            piece.type = f.value >= SPM_NORMAL && f.value <= SPM_BYTE ? (int)f.value : 0;
        }
    }
    if (piece.n == 0 || utf8_valid_prefix(piece.text, piece.n) < piece.n ||
        memchr(piece.text, '\0', piece.n) != NULL)
        return status_fail(STATUS_FORMAT, "%s: piece %zu is empty or not UTF-8 text", m->where,
                           m->count);
    if (piece.type == 0 || !isfinite(piece.score))
        return status_fail(STATUS_FORMAT,
                           "%s: piece %zu, \"%.*s\": its type or score is out of range", m->where,
                           m->count, (int)(piece.n < 60 ? piece.n : 60), piece.text);
    if (m->count >= TOKENIZER_ID_LIMIT)
        return status_fail(STATUS_FORMAT, "%s: more than %d pieces", m->where, TOKENIZER_ID_LIMIT);
    TRY(mem_grow(&m->pieces, &m->capacity, m->count + 1, sizeof *m->pieces, "pieces"));
    m->pieces[m->count++] = piece;
    return STATUS_OK;
}

static enum status read_trainer(struct model *m, struct message in)
{
    struct field f;
    while (in.p < in.end) {
        if (!next_field(&in, &f))
            return broken(m, "the trainer's specification");
        if (f.wire != WIRE_VARINT)
            continue;
        if (f.number == 3)
            m->kind = f.value <= 4 ? (int64_t)f.value : 0;
        else if (f.number == 24)
            m->suffix = f.value != 0;
        else if (f.number == 35)
            m->byte_fallback = f.value != 0;
    }
    return STATUS_OK;
}

static enum status read_normalizer(struct model *m, struct message in)
{
    struct field f;
    while (in.p < in.end) {
        if (!next_field(&in, &f))
            return broken(m, "the normalizer's specification");
        if (f.number == 2 && f.wire == WIRE_BYTES)
            m->charsmap = f.message;
        else if (f.number == 3 && f.wire == WIRE_VARINT)
            m->dummy_prefix = f.value != 0;
        else if (f.number == 4 && f.wire == WIRE_VARINT)
            m->remove_extra = f.value != 0;
        else if (f.number == 5 && f.wire == WIRE_VARINT)
            m->escape = f.value != 0;
    }
    return STATUS_OK;
}

static enum status read_model(struct model *m, const char *bytes, size_t n)
{
    struct message in = {(const unsigned char *)bytes, (const unsigned char *)bytes + n};
    struct field f;
    while (in.p < in.end) {
        if (!next_field(&in, &f))
            return broken(m, "the file");
        if (f.wire != WIRE_BYTES)
            continue;
        if (f.number == 1)
            TRY(read_piece(m, f.message));
        else if (f.number == 2)
            TRY(read_trainer(m, f.message));
        else if (f.number == 3)
            TRY(read_normalizer(m, f.message));
    }
    if (m->count == 0)
        return status_fail(STATUS_FORMAT, "%s: not a SentencePiece model: it has no pieces",
                           m->where);
    if (m->kind != 1 && m->kind != 2)
        return status_fail(STATUS_FORMAT, "%s: a model of type %lld, wanted 1 (Unigram) or 2 (BPE)",
                           m->where, (long long)m->kind);
    return STATUS_OK;
}

/* ---- SentencePiece's own rules ---- */

static enum status check_bytes(const struct model *m, const struct tokenizer *t)
{
    for (int b = 0; m->byte_fallback && b < 256; b++)
        if (t->spm.bytes[b] < 0 || t->spm.types[t->spm.bytes[b]] != SPM_BYTE)
            return status_fail(STATUS_FORMAT,
                               "%s: byte_fallback without the byte piece \"<0x%02X>\"", m->where,
                               b);
    return STATUS_OK;
}

static enum status add_native(struct tokenizer *t, const struct model *m)
{
    struct normalize_step *step = NULL;
    struct spm *spm = &t->spm;
    t->model = m->kind == 1 ? &tokenizer_spm_unigram : &tokenizer_spm_bpe;
    spm->byte_fallback = m->byte_fallback;
    spm->least = FLT_MAX;
    spm->greatest = FLT_MIN;
    TRY(mem_alloc(m->count, sizeof *spm->scores, "the scores of pieces", &spm->scores));
    TRY(mem_alloc(m->count, sizeof *spm->gains, "the scores of pieces", &spm->gains));
    TRY(mem_alloc(m->count, sizeof *spm->types, "the types of pieces", &spm->types));
    for (size_t i = 0; i < m->count; i++) {
        const struct piece *p = &m->pieces[i];
        if (trie_find(&t->vocab, p->text, p->n) >= 0)
            return status_fail(STATUS_FORMAT, "%s: piece %zu, \"%.*s\", is there twice", m->where,
                               i, (int)(p->n < 60 ? p->n : 60), p->text);
        TRY(tokenizer_add_piece(t, m->where, p->text, p->n, (int64_t)i));
        spm->scores[i] = p->score;
        spm->gains[i] = p->type == SPM_NORMAL ? p->score : p->type == SPM_USER ? HUGE_VALF : NAN;
        spm->types[i] = (unsigned char)p->type;
        if (p->type == SPM_UNKNOWN && t->unk >= 0)
            return status_fail(STATUS_FORMAT, "%s: two unknown pieces, %d and %zu", m->where,
                               t->unk, i);
        if (p->type == SPM_UNKNOWN)
            t->unk = (int32_t)i;
        if (p->type == SPM_USER)
            TRY(trie_insert(&spm->user, p->text, p->n, (int32_t)i));
        if (p->type == SPM_NORMAL) {
            spm->least = p->score < spm->least ? p->score : spm->least;
            spm->greatest = p->score > spm->greatest ? p->score : spm->greatest;
        }
    }
    if (t->unk < 0)
        return status_fail(STATUS_FORMAT, "%s: no piece is the unknown one", m->where);
    byte_pieces(t, spm->bytes);
    TRY(check_bytes(m, t));
    TRY(tokenizer_add_step(t, m->where, NORMALIZE_SPM, &step));
    step->spm.dummy_prefix = m->dummy_prefix;
    step->spm.remove_extra = m->remove_extra;
    step->spm.escape = m->escape;
    step->spm.suffix = m->suffix;
    return charsmap_read(&step->charsmap, (const char *)m->charsmap.p,
                         (size_t)(m->charsmap.end - m->charsmap.p), m->where);
}

/* DeBERTa's options: lowercase first, and each punctuation character encoded by itself. */
static enum status read_deberta(struct tokenizer *t, const struct model *m,
                                const struct tokenizer_config *config,
                                const char *const names[NAMED_COUNT])
{
    const char *where = config->where[FILE_CONFIG];
    struct normalize_step *step = NULL;
    struct decode_step *decoder = NULL;
    bool lowercase;
    TRY(json_bool_or(config->config, "do_lower_case", where, false, &lowercase));
    TRY(json_bool_or(config->config, "split_by_punct", where, false, &t->spm.punct_alone));
    if (lowercase) {
        TRY(tokenizer_add_step(t, where, NORMALIZE_PASS, &step));
        normalize_step_init(step, NORMALIZE_LOWERCASE);
    }
    TRY(add_native(t, m));
    TRY(tokenizer_add_decoder(t, where, DECODE_FALLBACK, &decoder));
    TRY(tokenizer_add_decoder(t, where, DECODE_MARK, &decoder));
    decoder->drop = m->dummy_prefix;
    decoder->from_n = 3;
    TRY(mem_strdup("\xE2\x96\x81", &decoder->from));
    /* found in the text as it comes, as SentencePiece knows nothing of them */
    TRY(config_add_tokens(t, config, names, true));
    return STATUS_OK;
}

/* ---- The rules of transformers for XLM-R, CamemBERT and ALBERT ---- */

/* Pieces of the family before those of the model, and how many of the model's they stand for. */
struct front {
    const char *text;
    double score;
};

static enum status add_scored(struct tokenizer *t, const char *where, const char *text, size_t n,
                              double score)
{
    int64_t id = (int64_t)t->model_pieces;
    TRY(tokenizer_add_piece(t, where, text, n, id));
    return unigram_set_score(&t->unigram, (int32_t)id, score);
}

/* As transformers numbers them: the family's pieces, the model's but for the first few, the mask.
 */
static enum status add_numbered(struct tokenizer *t, const struct model *m,
                                const struct front *front, size_t fronts, size_t skipped,
                                const char *mask, int32_t unk)
{
    double least = HUGE_VAL;
    for (size_t i = 0; i < fronts; i++)
        TRY(add_scored(t, m->where, front[i].text, strlen(front[i].text), front[i].score));
    for (size_t i = skipped; i < m->count; i++)
        TRY(add_scored(t, m->where, m->pieces[i].text, m->pieces[i].n, (double)m->pieces[i].score));
    if (mask != NULL)
        TRY(add_scored(t, m->where, mask, strlen(mask), 0));
    for (size_t i = 0; i < t->model_pieces; i++)
        least = t->unigram.scores[i] < least ? t->unigram.scores[i] : least;
    if ((size_t)unk >= t->model_pieces)
        return status_fail(STATUS_FORMAT, "%s: %zu pieces, wanted more", m->where, t->model_pieces);
    t->model = &tokenizer_unigram;
    t->unk = unk;
    t->unigram.unk_score = least - 10;
    return STATUS_OK;
}

static enum status add_charsmap(struct tokenizer *t, const struct model *m)
{
    struct normalize_step *step = NULL;
    if (m->charsmap.end == m->charsmap.p)
        return STATUS_OK;
    TRY(tokenizer_add_step(t, m->where, NORMALIZE_CHARSMAP, &step));
    return charsmap_read(&step->charsmap, (const char *)m->charsmap.p,
                         (size_t)(m->charsmap.end - m->charsmap.p), m->where);
}

static enum status add_replace(struct tokenizer *t, const char *where, const char *from,
                               const char *to)
{
    struct normalize_step *step = NULL;
    TRY(tokenizer_add_step(t, where, NORMALIZE_REPLACE, &step));
    step->from_n = strlen(from);
    step->to_n = strlen(to);
    TRY(mem_strdup(from, &step->from));
    return mem_strdup(to, &step->to);
}

static enum status add_albert_steps(struct tokenizer *t, const struct tokenizer_config *config)
{
    const char *where = config->where[FILE_CONFIG];
    struct normalize_step *step = NULL;
    bool lowercase, accents;
    TRY(json_bool_or(config->config, "do_lower_case", where, true, &lowercase));
    TRY(json_bool_or(config->config, "keep_accents", where, false, &accents));
    TRY(add_replace(t, where, "``", "\""));
    TRY(add_replace(t, where, "''", "\""));
    if (!accents) {
        TRY(tokenizer_add_step(t, where, NORMALIZE_FORM, &step));
        step->form.compat = true;
    }
    if (!accents || lowercase) {
        TRY(tokenizer_add_step(t, where, NORMALIZE_PASS, &step));
        normalize_step_init(step, (accents ? 0u : NORMALIZE_MARKS) |
                                      (lowercase ? NORMALIZE_LOWERCASE : 0u));
    }
    return STATUS_OK;
}

static enum status read_fairseq(struct tokenizer *t, const struct model *m, enum spm_family family,
                                const struct tokenizer_config *config,
                                const char *const names[NAMED_COUNT],
                                const char *const defaults[NAMED_COUNT])
{
    const struct front xlm[] = {
        {names[NAMED_BOS], 0}, {names[NAMED_PAD], 0}, {names[NAMED_EOS], 0}, {names[NAMED_UNK], 0}};
    const struct front camembert[] = {{"<s>NOTUSED", 0},
                                      {names[NAMED_PAD], 0},
                                      {"</s>NOTUSED", 0},
                                      {names[NAMED_UNK], 0},
                                      {"<unk>NOTUSED", -100}};
    struct split_step *split = NULL;
    bool prefix;
    if (m->kind != 1)
        return status_fail(STATUS_FORMAT, "%s: a BPE model, wanted Unigram for this family",
                           m->where);
    for (int i = 0; i < NAMED_COUNT; i++)
        if (names[i] == NULL)
            return status_fail(STATUS_FORMAT, "%s: \"%s\" is null", config->where[FILE_CONFIG],
                               named_keys[i]);
    if (family == SPM_XLM_ROBERTA)
        TRY(add_numbered(t, m, xlm, 4, 3, names[NAMED_MASK], 3));
    else if (family == SPM_CAMEMBERT)
        TRY(add_numbered(t, m, camembert, 5, 1, names[NAMED_MASK], 3));
    else
        TRY(add_numbered(t, m, NULL, 0, 0, NULL, 1));
    if (family == SPM_ALBERT)
        TRY(add_albert_steps(t, config));
    TRY(add_charsmap(t, m));
    TRY(tokenizer_add_split(t, m->where, SPLIT_WORDS, &split));
    word_rules_init(&split->words, WORDS_SPACE);
    TRY(json_bool_or(config->config, "add_prefix_space", config->where[FILE_CONFIG], true,
                     &prefix));
    TRY(tokenizer_add_metaspace(t, m->where, prefix));
    t->info.two_separators = t->info.one_type = family != SPM_ALBERT;
    /* Controls of the model are added tokens, too, and so are its user-defined pieces, but not
     * ALBERT's: those are "(", "-", "." and the like, and what stands behind an added token gets a
     * mark, which pretraining did not see. */
    TRY(config_add_tokens(t, config, defaults, false));
    for (size_t i = 0; i < m->count; i++) {
        const struct piece *p = &m->pieces[i];
        char *text;
        if ((p->type != SPM_CONTROL && (p->type != SPM_USER || family == SPM_ALBERT)) ||
            trie_find(&t->added_by_content, p->text, p->n) >= 0)
            continue;
        TRY(mem_strndup(p->text, p->n, &text));
        enum status st =
            tokenizer_add_token(t, m->where, &(struct added_token){.content = text}, -1);
        mem_free(text);
        TRY(st);
    }
    return STATUS_OK;
}

enum status tokenizer_read_spm(struct tokenizer *t, const char *bytes, size_t n, const char *where,
                               enum spm_family family, const struct tokenizer_config *config)
{
    static const char *const deberta[NAMED_COUNT] = {"[CLS]", "[SEP]", "[UNK]", "[SEP]",
                                                     "[PAD]", "[CLS]", "[MASK]"};
    static const char *const xlm[NAMED_COUNT] = {"<s>",   "</s>", "<unk>", "</s>",
                                                 "<pad>", "<s>",  "<mask>"};
    static const char *const albert[NAMED_COUNT] = {"[CLS]", "[SEP]", "<unk>", "[SEP]",
                                                    "<pad>", "[CLS]", "[MASK]"};
    static const struct {
        const char *const *names;
        const char *class;
    } families[] = {[SPM_DEBERTA] = {deberta, "DebertaV2Tokenizer"},
                    [SPM_XLM_ROBERTA] = {xlm, "XLMRobertaTokenizer"},
                    [SPM_CAMEMBERT] = {xlm, "CamembertTokenizer"},
                    [SPM_ALBERT] = {albert, "AlbertTokenizer"}};
    const char *names[NAMED_COUNT];
    struct model m = {
        .where = where, .kind = 1, .dummy_prefix = true, .remove_extra = true, .escape = true};
    enum status st;
    t->save_class = config->config == NULL ? families[family].class : NULL;
    TRY_GOTO(out, config_names(config, families[family].names, names));
    TRY_GOTO(out, read_model(&m, bytes, n));
    if (family == SPM_DEBERTA)
        TRY_GOTO(out, read_deberta(t, &m, config, families[family].names));
    else
        TRY_GOTO(out, read_fairseq(t, &m, family, config, names, families[family].names));
    TRY_GOTO(out, tokenizer_named_ends(t, where, config, families[family].names));
out:
    mem_free(m.pieces);
    return st;
}
