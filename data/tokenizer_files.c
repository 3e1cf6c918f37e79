/*
 * tokenizer_files.c - tokenizers without tokenizer.json: which family's rules a folder asks for,
 * and vocab.json with merges.txt by RoBERTa's.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"

static const char *const roberta_names[NAMED_COUNT] = {"<s>",   "</s>", "<unk>", "</s>",
                                                       "<pad>", "<s>",  "<mask>"};

/* ---- Steps ---- */

enum status tokenizer_add_step(struct tokenizer *t, const char *where, enum normalize_kind kind,
                               struct normalize_step **out)
{
    if (t->step_count == TOKENIZER_MAX_STEPS)
        return status_fail(STATUS_FORMAT, "%s: more than %d normalizers", where,
                           TOKENIZER_MAX_STEPS);
    *out = &t->steps[t->step_count++];
    (*out)->kind = kind;
    return STATUS_OK;
}

enum status tokenizer_add_split(struct tokenizer *t, const char *where, enum split_kind kind,
                                struct split_step **out)
{
    if (t->split_count == TOKENIZER_MAX_SPLITS)
        return status_fail(STATUS_FORMAT, "%s: more than %d pre_tokenizers", where,
                           TOKENIZER_MAX_SPLITS);
    *out = &t->splits[t->split_count++];
    (*out)->kind = kind;
    return STATUS_OK;
}

enum status tokenizer_add_decoder(struct tokenizer *t, const char *where, enum decode_kind kind,
                                  struct decode_step **out)
{
    if (t->decoder_count == TOKENIZER_MAX_STEPS)
        return status_fail(STATUS_FORMAT, "%s: more than %d decoders", where, TOKENIZER_MAX_STEPS);
    *out = &t->decoder[t->decoder_count++];
    (*out)->kind = kind;
    return STATUS_OK;
}

enum status tokenizer_add_metaspace(struct tokenizer *t, const char *where, bool prepend)
{
    static const char mark[] = "\xE2\x96\x81";
    struct split_step *split = NULL;
    struct decode_step *decoder = NULL;
    TRY(tokenizer_add_split(t, where, SPLIT_METASPACE, &split));
    memcpy(split->mark, mark, sizeof mark);
    split->mark_n = sizeof mark - 1;
    split->prepend = prepend ? PREPEND_ALWAYS : PREPEND_NEVER;
    split->cut = true;
    TRY(tokenizer_add_decoder(t, where, DECODE_MARK, &decoder));
    decoder->drop = prepend;
    decoder->from_n = sizeof mark - 1;
    return mem_strdup(mark, &decoder->from);
}

/* ---- vocab.json and merges.txt ---- */

static enum status read_pieces(struct tokenizer *t, const char *where)
{
    json_t *vocab, *id;
    const char *piece;
    enum status st = STATUS_OK;
    TRY(json_parse(t->files[FILE_VOCAB_JSON].bytes, t->files[FILE_VOCAB_JSON].n, where, &vocab));
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        st = status_fail(STATUS_FORMAT, "%s: wanted a JSON object of pieces and their ids", where);
    json_object_foreach(vocab, piece, id)
    {
        if (st == STATUS_OK && !json_is_integer(id))
            st = status_fail(STATUS_FORMAT, "%s: the id of \"%.60s\" is not a whole number", where,
                             piece);
        if (st == STATUS_OK)
            st = tokenizer_add_piece(t, where, piece, strlen(piece), json_integer_value(id));
    }
    json_decref(vocab);
    return st;
}

/* Lines "left right", the first one of rank 0; "#version" lines are comments. */
static enum status read_merges(struct tokenizer *t, const char *where)
{
    const char *bytes = t->files[FILE_MERGES].bytes;
    size_t n = t->files[FILE_MERGES].n;
    uint32_t rank = 0;
    int64_t number = 1;
    for (size_t at = 0; at < n; number++) {
        const char *line = bytes + at, *end = memchr(line, '\n', n - at), *space;
        size_t length = end == NULL ? n - at : (size_t)(end - line);
        at += length + 1;
        if (length > 0 && line[length - 1] == '\r')
            length--;
        if (length >= 8 && memcmp(line, "#version", 8) == 0)
            continue;
        space = memchr(line, ' ', length);
        size_t left = space == NULL ? 0 : (size_t)(space - line);
        if (space == NULL || memchr(space + 1, ' ', length - left - 1) != NULL)
            return status_fail(STATUS_FORMAT,
                               "%s:%lld: \"%.*s\" is not two pieces with a space "
                               "between them",
                               where, (long long)number, (int)(length < 60 ? length : 60), line);
        if (utf8_valid_prefix(line, length) < length)
            return status_fail(STATUS_FORMAT, "%s:%lld: not UTF-8", where, (long long)number);
        TRY(bpe_add_pair(t, where, number, line, left, space + 1, length - left - 1, rank++));
    }
    return STATUS_OK;
}

enum status tokenizer_read_merges(struct tokenizer *t, const struct tokenizer_config *config)
{
    const char *where = config->where[FILE_VOCAB_JSON];
    struct split_step *split = NULL;
    struct decode_step *decoder = NULL;
    if (t->files[FILE_MERGES].bytes == NULL)
        return status_fail(STATUS_FORMAT, "%s: there is no merges.txt beside it", where);
    t->model = &tokenizer_bpe;
    t->bpe.byte_level = true;
    TRY(tokenizer_add_split(t, where, SPLIT_BYTES, &split));
    split->cut = true;
    TRY(json_bool_or(config->config, "add_prefix_space", config->where[FILE_CONFIG], false,
                     &split->prefix_space));
    TRY(tokenizer_add_decoder(t, where, DECODE_BYTES, &decoder));
    TRY(read_pieces(t, where));
    TRY(read_merges(t, config->where[FILE_MERGES]));
    bpe_finish(t);
    t->info.two_separators = t->info.one_type = true;
    t->save_class = config->config == NULL ? "RobertaTokenizer" : NULL;
    TRY(config_add_tokens(t, config, roberta_names, false));
    return tokenizer_named_ends(t, where, config, roberta_names);
}

/* ---- Families ---- */

/* tokenizer_class without "Tokenizer" or "TokenizerFast", model_type, and whose file and rules. */
static const struct family {
    const char *class, *model;
    enum tokenizer_file file;
    enum spm_family spm;
} families[] = {
    {"Bert", "bert", FILE_VOCAB, SPM_DEBERTA},
    {"DistilBert", "distilbert", FILE_VOCAB, SPM_DEBERTA},
    {"Electra", "electra", FILE_VOCAB, SPM_DEBERTA},
    {"MobileBert", "mobilebert", FILE_VOCAB, SPM_DEBERTA},
    {"ConvBert", "convbert", FILE_VOCAB, SPM_DEBERTA},
    {"SqueezeBert", "squeezebert", FILE_VOCAB, SPM_DEBERTA},
    {"LayoutLM", "layoutlm", FILE_VOCAB, SPM_DEBERTA},
    {"Lxmert", "lxmert", FILE_VOCAB, SPM_DEBERTA},
    {"Roberta", "roberta", FILE_VOCAB_JSON, SPM_DEBERTA},
    {"DebertaV2", "deberta-v2", FILE_SPM, SPM_DEBERTA},
    {"XLMRoberta", "xlm-roberta", FILE_SPM_XLM, SPM_XLM_ROBERTA},
    {"Camembert", "camembert", FILE_SPM_XLM, SPM_CAMEMBERT},
    {"Albert", "albert", FILE_SPM_ALBERT, SPM_ALBERT},
};

static const struct family *family_of_class(const char *class)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        size_t n = strlen(families[i].class);
        if (strncmp(class, families[i].class, n) == 0 &&
            (strcmp(class + n, "Tokenizer") == 0 || strcmp(class + n, "TokenizerFast") == 0))
            return &families[i];
    }
    return NULL;
}

enum status tokenizer_class_of(const struct tokenizer_config *c, enum tokenizer_class *out)
{
    const char *class, *model;
    const struct family *family = NULL;
    TRY(json_text_or(c->config, "tokenizer_class", c->where[FILE_CONFIG], NULL, &class));
    TRY(json_text_or(c->model, "model_type", c->where[FILE_MODEL_CONFIG], NULL, &model));
    if (class != NULL)
        family = family_of_class(class);
    for (size_t i = 0; class == NULL && model != NULL && i < sizeof families / sizeof families[0];
         i++)
        if (strcmp(model, families[i].model) == 0)
            family = &families[i];
    *out = family == NULL                    ? CLASS_OTHER
           : family->file == FILE_VOCAB      ? CLASS_BERT
           : family->file == FILE_VOCAB_JSON ? CLASS_ROBERTA
           : family->file == FILE_SPM        ? CLASS_DEBERTA
           : family->file == FILE_SPM_XLM    ? CLASS_XLM_ROBERTA
                                             : CLASS_ALBERT;
    return STATUS_OK;
}

static const char *const *class_names(enum tokenizer_class class)
{
    static const char *const none[NAMED_COUNT] = {NULL};
    return class == CLASS_ROBERTA                          ? roberta_names
           : class == CLASS_BERT || class == CLASS_DEBERTA ? bert_names
                                                           : none;
}

/* The names of XLM-RoBERTa's ends are those of the whole text's. */
static enum status find_ends(struct tokenizer *t, const char *where,
                             const struct tokenizer_config *c, enum tokenizer_class class)
{
    static const char *const keys[] = {"bos_token", "eos_token"}, *const usual[] = {"<s>", "</s>"};
    int32_t *ids[] = {&t->info.cls, &t->info.sep};
    if (class != CLASS_XLM_ROBERTA)
        return tokenizer_named_ends(t, where, c,
                                    class == CLASS_ROBERTA ? roberta_names : bert_names);
    for (int i = 0; i < 2; i++) {
        const char *text;
        TRY(config_token_text(c, keys[i], usual[i], &text));
        *ids[i] = text == NULL ? -1 : tokenizer_find(t, text, strlen(text));
        if (*ids[i] < 0)
            return status_fail(STATUS_FORMAT, "%s: no %s: \"%.60s\" is not in the vocabulary",
                               where, keys[i], text == NULL ? "null" : text);
    }
    return STATUS_OK;
}

enum status tokenizer_ends_of_class(struct tokenizer *t, const char *where,
                                    const struct tokenizer_config *c)
{
    enum tokenizer_class class;
    TRY(tokenizer_class_of(c, &class));
    if (class == CLASS_OTHER) {
        t->info.no_ends = true;
        log_warning("%s: its post_processor places no special tokens, so texts get no [CLS] and "
                    "[SEP], as in transformers",
                    where);
        return STATUS_OK;
    }
    t->info.two_separators = t->info.one_type = class == CLASS_ROBERTA ||
                                                class == CLASS_XLM_ROBERTA;
    return find_ends(t, where, c, class);
}

/* BERT's classes make their normalizer from the configuration, whatever tokenizer.json says. */
static enum status obey_bert(struct tokenizer *t, const char *where,
                             const struct tokenizer_config *c)
{
    const bool one = t->step_count == 1 && t->steps[0].kind == NORMALIZE_PASS;
    const unsigned before = one ? t->steps[0].bits : 0;
    for (int i = 0; i < t->step_count; i++) {
        normalize_step_release(&t->steps[i]);
        t->steps[i] = (struct normalize_step){0};
    }
    t->step_count = 0;
    TRY(config_bert_normalizer(t, c));
    if (!one || t->steps[0].bits != before)
        log_warning("%s: its normalizer is not that of do_lower_case, strip_accents and "
                    "tokenize_chinese_chars in %s, which counts, as in transformers",
                    where, c->where[FILE_CONFIG]);
    return STATUS_OK;
}

static enum status obey_roberta(struct tokenizer *t, const struct tokenizer_config *c)
{
    bool prefix;
    TRY(json_bool_or(c->config, "add_prefix_space", c->where[FILE_CONFIG], false, &prefix));
    for (int i = 0; i < t->split_count; i++)
        if (t->splits[i].kind == SPLIT_BYTES)
            t->splits[i].prefix_space = prefix;
    return STATUS_OK;
}

/* A key that transformers 5 makes a part of the tokenizer from, and transformers 4 takes that part
 * from tokenizer.json: where both say the same, both are right. */
static enum status both_alike(const struct tokenizer_config *c, const char *key, bool usual,
                              bool says, const char *where, const char *part, const char *does,
                              const char *does_not)
{
    bool value;
    TRY(json_bool_or(c->config, key, c->where[FILE_CONFIG], usual, &value));
    if (value == says)
        return STATUS_OK;
    return status_fail(STATUS_FORMAT, "%s: %s is %s, and the %s of %s %s; wanted both alike",
                       c->where[FILE_CONFIG], key, value ? "true" : "false", part, where,
                       says ? does : does_not);
}

static bool normalizes(const struct tokenizer *t, unsigned bits)
{
    bool found = false;
    for (int i = 0; i < t->step_count; i++)
        found = found || (t->steps[i].kind == NORMALIZE_PASS && (t->steps[i].bits & bits) != 0);
    return found;
}

static enum status obey_deberta(const struct tokenizer *t, const char *where,
                                const struct tokenizer_config *c)
{
    bool punct;
    TRY(both_alike(c, "do_lower_case", false, normalizes(t, NORMALIZE_LOWERCASE), where,
                   "normalizer", "lowers", "does not"));
    TRY(json_bool_or(c->config, "split_by_punct", c->where[FILE_CONFIG], false, &punct));
    if (punct)
        return status_fail(STATUS_FORMAT,
                           "%s: split_by_punct is true, which is not known here; wanted false",
                           c->where[FILE_CONFIG]);
    return STATUS_OK;
}

static enum status obey_prefix(const struct tokenizer *t, const char *where,
                               const struct tokenizer_config *c)
{
    for (int i = 0; i < t->split_count; i++) {
        const bool prepends = t->splits[i].prepend != PREPEND_NEVER;
        if (t->splits[i].kind == SPLIT_METASPACE)
            TRY(both_alike(c, "add_prefix_space", prepends, prepends, where, "pre_tokenizer",
                           "does", "does not"));
    }
    return STATUS_OK;
}

static enum status obey_xlm_roberta(const struct tokenizer *t, const char *where,
                                    const struct tokenizer_config *c)
{
    static const char *const keys[] = {"bos_token", "eos_token"};
    const int32_t ids[] = {t->info.cls, t->info.sep};
    for (int i = 0; i < 2; i++) {
        const char *text;
        TRY(config_token_text(c, keys[i], NULL, &text));
        if (text != NULL && tokenizer_find(t, text, strlen(text)) != ids[i])
            return status_fail(STATUS_FORMAT,
                               "%s is \"%.60s\", and the post_processor of %s places another "
                               "token there; wanted both alike",
                               keys[i], text, where);
    }
    return obey_prefix(t, where, c);
}

static enum status obey_albert(const struct tokenizer *t, const char *where,
                               const struct tokenizer_config *c)
{
    const bool lowers = normalizes(t, NORMALIZE_LOWERCASE),
               keeps = !normalizes(t, NORMALIZE_MARKS | NORMALIZE_NONSPACING);
    TRY(both_alike(c, "do_lower_case", lowers, lowers, where, "normalizer", "lowers", "does not"));
    TRY(both_alike(c, "keep_accents", keeps, keeps, where, "normalizer", "keeps them",
                   "strips them"));
    return obey_prefix(t, where, c);
}

enum status tokenizer_obey_config(struct tokenizer *t, const char *where,
                                  const struct tokenizer_config *c)
{
    enum tokenizer_class class;
    TRY(tokenizer_class_of(c, &class));
    const char *const *names = class_names(class);
    TRY(config_add_tokens(t, c, names, false));
    if (class == CLASS_BERT)
        TRY(obey_bert(t, where, c));
    if (class == CLASS_ROBERTA)
        TRY(obey_roberta(t, c));
    if (class == CLASS_DEBERTA)
        TRY(obey_deberta(t, where, c));
    if (class == CLASS_XLM_ROBERTA)
        TRY(obey_xlm_roberta(t, where, c));
    if (class == CLASS_ALBERT)
        TRY(obey_albert(t, where, c));
    /* Their post_processor is made anew, too, with the names that hold. */
    return names[NAMED_CLS] == NULL ? STATUS_OK : tokenizer_named_ends(t, where, c, names);
}

/* The family that the folder names, or whose file is there; NULL: a class that is not known. */
static enum status choose_family(const struct tokenizer *t, const struct tokenizer_config *c,
                                 const struct family **out)
{
    const char *class, *model = NULL;
    TRY(json_text_or(c->config, "tokenizer_class", c->where[FILE_CONFIG], NULL, &class));
    *out = class == NULL ? NULL : family_of_class(class);
    if (*out != NULL)
        return STATUS_OK;
    if (class != NULL)
        return status_fail(STATUS_FORMAT,
                           "%s: tokenizer_class \"%.60s\" is not known here without a "
                           "tokenizer.json, wanted BertTokenizer, RobertaTokenizer, "
                           "XLMRobertaTokenizer, CamembertTokenizer, DebertaV2Tokenizer or "
                           "AlbertTokenizer",
                           c->where[FILE_CONFIG], class);
    TRY(json_text_or(c->model, "model_type", c->where[FILE_MODEL_CONFIG], NULL, &model));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (model != NULL && strcmp(model, families[i].model) == 0 &&
            t->files[families[i].file].bytes != NULL)
            *out = &families[i];
    for (size_t i = 0; *out == NULL && i < sizeof families / sizeof families[0]; i++)
        if (t->files[families[i].file].bytes != NULL)
            *out = &families[i];
    return STATUS_OK;
}

enum status tokenizer_read_files(struct tokenizer *t, const struct tokenizer_config *config,
                                 const char **where)
{
    const struct family *family;
    TRY(choose_family(t, config, &family));
    if (family == NULL || t->files[family->file].bytes == NULL)
        return status_fail(STATUS_FORMAT, "%s: is not there, and neither is tokenizer.json",
                           config->where[family == NULL ? FILE_VOCAB : family->file]);
    *where = config->where[family->file];
    if (family->file == FILE_VOCAB_JSON)
        return tokenizer_read_merges(t, config);
    return family->file == FILE_VOCAB
               ? tokenizer_read_vocab(t, t->files[FILE_VOCAB].bytes, t->files[FILE_VOCAB].n, *where,
                                      config)
               : tokenizer_read_spm(t, t->files[family->file].bytes, t->files[family->file].n,
                                    *where, family->spm, config);
}
