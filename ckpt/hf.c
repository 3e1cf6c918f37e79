/* hf.c - see hf.h. */
#include "ckpt/hf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

enum { CONFIG_MOST = 8 << 20, LABELS_MOST = 100000, LABELS_SHOWN = 50 };

static const char *const problem_types[] = {"single_label_classification",
                                            "multi_label_classification", "regression"};

static enum status check_problem_type(const char *problem_type)
{
    for (size_t i = 0; i < sizeof problem_types / sizeof *problem_types; i++) {
        if (strcmp(problem_type, problem_types[i]) == 0)
            return STATUS_OK;
    }
    return status_fail(STATUS_ARG,
                       "problem_type is \"%.40s\", wanted single_label_classification, "
                       "multi_label_classification or regression",
                       problem_type);
}

enum status hf_read_config(const char *folder, json_t **out)
{
    char *path;
    *out = NULL;
    TRY(path_join(folder, "config.json", &path));
    enum status st = json_read_file(path, CONFIG_MOST, out);
    if (st == STATUS_OK && !json_is_object(*out)) {
        st = status_fail(STATUS_FORMAT, "%s is not a JSON object", path);
        json_decref(*out);
        *out = NULL;
    }
    mem_free(path);
    return st;
}

/* ---- labels ---- */

static void generic_name(int id, char name[24])
{
    (void)snprintf(name, 24, "LABEL_%d", id);
}

void hf_labels_free(char **names, int count)
{
    for (int i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
}

static enum status label_of(const json_t *id2label, int id, char **out)
{
    char key[16];
    (void)snprintf(key, sizeof key, "%d", id);
    const json_t *value = json_object_get(id2label, key);
    if (value == NULL)
        return status_fail(STATUS_FORMAT,
                           "config.json: \"id2label\" has %zu names, but none for %d",
                           json_object_size(id2label), id);
    if (!json_is_string(value) || json_string_length(value) == 0)
        return status_fail(STATUS_FORMAT,
                           "config.json: \"id2label\" gives %d a name that is not a string", id);
    return mem_strndup(json_string_value(value), json_string_length(value), out);
}

static enum status count_labels(const json_t *config, const json_t *id2label, int *count)
{
    int64_t n = 0;
    if (id2label == NULL) {
        TRY(json_int_or(config, "num_labels", "config.json", 1, LABELS_MOST, 2, &n));
    } else {
        if (!json_is_object(id2label) || json_object_size(id2label) == 0 ||
            json_object_size(id2label) > LABELS_MOST)
            return status_fail(STATUS_FORMAT,
                               "config.json: \"id2label\" is not an object of 1 to %d names",
                               (int)LABELS_MOST);
        n = (int64_t)json_object_size(id2label);
    }
    *count = (int)n;
    return STATUS_OK;
}

enum status hf_labels(const json_t *config, char ***names, int *count, bool *generic)
{
    const json_t *id2label = json_object_get(config, "id2label");
    int n = 0;
    *names = NULL;
    *count = 0;
    *generic = false;
    if (json_is_null(id2label))
        id2label = NULL;
    TRY(count_labels(config, id2label, &n));
    TRY(mem_alloc((size_t)n, sizeof **names, "label names", names));
    bool all = true;
    json_t *seen = json_object();
    for (int i = 0; i < n; i++) {
        char plain[24];
        generic_name(i, plain);
        enum status st = id2label == NULL ? mem_strdup(plain, &(*names)[i])
                                          : label_of(id2label, i, &(*names)[i]);
        if (st == STATUS_OK && json_object_get(seen, (*names)[i]) != NULL) {
            st = status_fail(STATUS_FORMAT,
                             "config.json: \"id2label\" gives the name \"%.80s\" twice",
                             (*names)[i]);
            mem_free((*names)[i]);
        }
        if (st == STATUS_OK && json_object_set_new(seen, (*names)[i], json_true()) != 0) {
            st = status_fail(STATUS_FORMAT,
                             "config.json: \"id2label\" gives %d a name that is not UTF-8", i);
            mem_free((*names)[i]);
        }
        if (st != STATUS_OK) {
            hf_labels_free(*names, i);
            json_decref(seen);
            *names = NULL;
            return st;
        }
        all = all && strcmp((*names)[i], plain) == 0;
    }
    json_decref(seen);
    *count = n;
    *generic = all;
    return STATUS_OK;
}

/* ---- config.json ---- */

static enum status set(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) !=
        0) /* also where value is NULL: no memory, or not UTF-8 */
        return status_fail(STATUS_ARG,
                           "config.json: \"%.80s\" cannot be set (not UTF-8, or no memory)", key);
    return STATUS_OK;
}

static enum status set_labels(json_t *config, const char *const *labels, int count, int outputs)
{
    json_t *id2label = json_object(), *label2id = json_object();
    enum status st = set(config, "id2label", id2label);
    if (st != STATUS_OK) {
        json_decref(label2id);
        return st;
    }
    TRY(set(config, "label2id", label2id));
    for (int i = 0; i < outputs; i++) {
        char key[16], plain[24];
        (void)snprintf(key, sizeof key, "%d", i);
        generic_name(i, plain);
        const char *label = count == 0 ? plain : labels[i];
        if (json_object_get(label2id, label) != NULL)
            return status_fail(STATUS_ARG, "the label \"%.80s\" is there twice", label);
        TRY(set(id2label, key, json_string(label)));
        TRY(set(label2id, label, json_integer(i)));
    }
    return STATUS_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The same object with its own keys sorted; what is inside them keeps its order. */
static enum status sort_keys(json_t *object, json_t **out)
{
    const char *key, **keys;
    json_t *value;
    size_t n = 0;
    *out = NULL;
    TRY(mem_alloc(json_object_size(object), sizeof *keys, "the keys of config.json", &keys));
    json_object_foreach(object, key, value)
    {
        keys[n++] = key;
    }
    if (n > 0)
        qsort(keys, n, sizeof *keys, by_text);
    json_t *sorted = json_object();
    bool ok = sorted != NULL;
    for (size_t i = 0; i < n; i++)
        ok = ok && json_object_set(sorted, keys[i], json_object_get(object, keys[i])) == 0;
    mem_free(keys);
    if (!ok) {
        json_decref(sorted);
        return status_fail(STATUS_NOMEM, "no memory for config.json");
    }
    *out = sorted;
    return STATUS_OK;
}

enum status hf_make_config(const json_t *base, const char *const *labels, int count,
                           const char *problem_type, const char *architecture, int outputs,
                           json_t **out)
{
    static const char *const dropped[] = {"_name_or_path", "auto_map",    "dtype",
                                          "num_labels",    "_num_labels", "quantization_config"};
    enum status st;
    *out = NULL;
    TRY(check_problem_type(problem_type));
    if (!json_is_object(base) || outputs < 1 || outputs > LABELS_MOST ||
        (count != 0 && count != outputs))
        return status_fail(STATUS_ARG, "config.json of %d outputs and %d labels", outputs, count);
    json_t *config = json_deep_copy(base);
    if (config == NULL)
        return status_fail(STATUS_NOMEM, "no memory for config.json");
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        (void)json_object_del(config, dropped[i]); /* -1 where it is not there */
    TRY_GOTO(done, set(config, "architectures", json_pack("[s]", architecture)));
    TRY_GOTO(done, set(config, "problem_type", json_string(problem_type)));
    TRY_GOTO(done, set(config, "torch_dtype", json_string("float32")));
    TRY_GOTO(done, set_labels(config, labels, count, outputs));
    st = sort_keys(config, out);
done:
    json_decref(config);
    return st;
}

/* ---- model card ---- */

/* A name as the hub has them, "name" or "owner/name": goes into YAML as it is and is no path of
 * this machine. */
static bool is_hub_name(const char *name)
{
    size_t n = strlen(name);
    const char *slash = strchr(name, '/');
    return n > 0 && n <= 96 && name[0] != '.' && name[0] != '-' && name[0] != '/' &&
           name[n - 1] != '/' &&
           (slash == NULL || (slash == strrchr(name, '/') && slash[1] != '.')) &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/") == n;
}

/* A label inside `...`: back quotes and control characters would end or break it. */
static enum status add_code(struct str *text, const char *label)
{
    TRY(str_add(text, "`", 1));
    for (const char *p = label; *p != '\0'; p++)
        TRY(str_add(text, *p == '`' || (unsigned char)*p < 0x20 || *p == 0x7f ? "'" : p, 1));
    return str_add(text, "`", 1);
}

static enum status add_front(struct str *text, const struct hf_card *card)
{
    TRY(str_addf(text, "---\nlibrary_name: transformers\npipeline_tag: text-classification\n"));
    if (card->base_model != NULL && is_hub_name(card->base_model))
        TRY(str_addf(text, "base_model: \"%s\"\n", card->base_model));
    return str_addf(text, "tags:\n- cohort\n---\n\n");
}

static enum status add_task(struct str *text, const struct hf_card *card)
{
    const char *task = strcmp(card->problem_type, problem_types[0]) == 0
                           ? "Single-label text classification"
                       : strcmp(card->problem_type, problem_types[1]) == 0
                           ? "Multi-label text classification"
                           : "Text regression";
    TRY(str_addf(text, "# %s\n\nFine-tuned with cohort. Class: `%s`. Pooling: `%s`.\n\n", task,
                 card->architecture, card->pooling));
    if (card->count > 0 && card->labels != NULL) {
        TRY(str_addf(text, "Labels (%d):", card->count));
        for (int i = 0; i < card->count && i < LABELS_SHOWN; i++) {
            TRY(str_addf(text, i == 0 ? " " : ", "));
            TRY(add_code(text, card->labels[i]));
        }
        TRY(str_addf(text,
                     card->count > LABELS_SHOWN ? ", ... (all in `config.json`)\n\n" : "\n\n"));
    }
    if (card->metric != NULL && isfinite(card->score)) {
        TRY(str_addf(text, "Score on the evaluation rows (`%s`): ", card->metric));
        TRY(str_add_double(text, card->score));
        TRY(str_addf(text, "\n\n"));
    }
    return STATUS_OK;
}

static const char *pooled_line(const char *pooling)
{
    if (strcmp(pooling, "mean") == 0)
        return "    pooled = (hidden * mask).sum(1) / mask.sum(1)  # all tokens of a text, special "
               "ones too\n";
    if (strcmp(pooling, "max") == 0)
        return "    pooled = hidden.masked_fill(mask == 0, float(\"-inf\")).amax(1)  # all tokens "
               "of a text\n";
    if (strcmp(pooling, "cls") == 0)
        return "    pooled = hidden[:, 0]  # the first token, without the pooler's dense layer\n";
    if (strcmp(pooling, "pooler") == 0)
        return "    pooled = output.pooler_output\n";
    return NULL;
}

static enum status add_loading(struct str *text, const struct hf_card *card)
{
    TRY(str_addf(text, "## How to load it\n\nFOLDER is the path of this folder.\n\n"));
    if (card->native)
        return str_addf(text,
                        "```python\nfrom transformers import pipeline\n\n"
                        "classify = pipeline(\"text-classification\", model=FOLDER%s)\n"
                        "print(classify(\"a text\"))\n```\n",
                        strcmp(card->problem_type, problem_types[2]) == 0
                            ? ", function_to_apply=\"none\""
                            : "");
    const char *line = pooled_line(card->pooling);
    TRY(str_addf(text, "transformers' own classes do not pool this way: its pipeline would load "
                       "this folder and give "
                       "other scores.\n"));
    if (line == NULL)
        return str_addf(text, "Use `cohort predict`.\n");
    const char *prefix = card->classifier == NULL ? "classifier" : card->classifier;
    return str_addf(
        text,
        "Use `cohort predict`, or:\n\n"
        "```python\n"
        "import torch\n"
        "from safetensors.torch import load_file\n"
        "from transformers import AutoModel, AutoTokenizer\n\n"
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n"
        "encoder = AutoModel.from_pretrained(FOLDER).eval()\n"
        "weights = load_file(FOLDER + \"/model.safetensors\")\n"
        "batch = tokenizer([\"a text\"], padding=True, truncation=True, return_tensors=\"pt\")\n"
        "with torch.no_grad():\n"
        "    output = encoder(**batch)\n"
        "    hidden = output.last_hidden_state\n"
        "    mask = batch[\"attention_mask\"].unsqueeze(-1)\n"
        "%s"
        "    logits = pooled @ weights[\"%s.weight\"].T + weights[\"%s.bias\"]\n"
        "```\n",
        line, prefix, prefix);
}

enum status hf_write_readme(const char *folder, const struct hf_card *card)
{
    struct str text = {0};
    char *path = NULL;
    enum status st;
    TRY(check_problem_type(card->problem_type));
    TRY_GOTO(done, add_front(&text, card));
    TRY_GOTO(done, add_task(&text, card));
    TRY_GOTO(done, add_loading(&text, card));
    if (card->chunks != NULL)
        TRY_GOTO(done,
                 str_addf(&text,
                          "\n## Long texts\n\nThe model was trained on %s. The code above reads "
                          "one chunk; `cohort predict` splits and pools.\n",
                          card->chunks));
    TRY_GOTO(done, path_join(folder, "README.md", &path));
    st = file_write_atomic(path, text.p, text.n);
done:
    mem_free(path);
    str_release(&text);
    return st;
}

/* ---- tokenizer files ---- */

enum status hf_copy_tokenizer(const char *from_folder, const char *to_folder, int *copied)
{
    static const char *const files[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.txt",
                                        "vocab.json",
                                        "merges.txt",
                                        "spm.model",
                                        "spiece.model",
                                        "sentencepiece.bpe.model"};
    *copied = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *from, *to = NULL;
        TRY(path_join(from_folder, files[i], &from));
        enum status st = STATUS_OK;
        if (file_exists(from)) {
            st = path_join(to_folder, files[i], &to);
            if (st == STATUS_OK)
                st = file_copy(from, to);
            *copied += st == STATUS_OK;
        }
        mem_free(from);
        mem_free(to);
        TRY(st);
    }
    if (*copied == 0)
        return status_fail(STATUS_NOINPUT,
                           "%s has no tokenizer files (tokenizer.json, vocab.txt, ...)",
                           from_folder);
    return STATUS_OK;
}
