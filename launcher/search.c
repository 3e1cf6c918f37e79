/* search.c - see search.h. */
#include "launcher/search.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "launcher/keys.h"

enum { SETTINGS_MOST = 10000, DRAWS_MOST = 1000 };

/* Keys and, ending in a dot, groups of keys that are the same in all trials. */
static const char *const shared[] = {"out",       "seed",        "resume",         "overwrite",
                                     "data.",     "eval.",       "predict.",       "embed.",
                                     "cv.",       "tokenizer.",  "search.",        "log.",
                                     "parallel.", "checkpoint.", "train.precision"};
/* Of those groups, what says how a trial trains. */
static const char *const own[] = {"data.max_length", "data.long",      "data.chunk_size",
                                  "data.stride",     "data.min_chunk", "data.max_text_length",
                                  "data.shuffle",    "eval.patience",  "eval.every"};

static bool may_be_searched(const char *name)
{
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strcmp(name, own[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++) {
        size_t n = strlen(shared[i]);
        if (shared[i][n - 1] == '.' ? strncmp(name, shared[i], n) == 0
                                    : strcmp(name, shared[i]) == 0)
            return false;
    }
    return true;
}

/* ---- taking values ---- */

enum status search_begin(struct run_config *config, const char *key, const char *where)
{
    int64_t i = 0;
    if (key_find(key) == NULL) {
        const char *near = key_suggest(key);
        return status_fail(STATUS_CONFIG, "%s: search.%.80s: there is no key \"%.80s\"%s%s%s",
                           where, key, key, near == NULL ? "" : ", did you mean search.",
                           near == NULL ? "" : near, near == NULL ? "" : "?");
    }
    if (!may_be_searched(key))
        return status_fail(STATUS_CONFIG,
                           "%s: search.%s: %s is the same in all trials, so that they can be "
                           "compared%s",
                           where, key, key,
                           strcmp(key, "seed") == 0 ? "; cv.repeats runs several seeds" : "");
    while (i < config->search.count && strcmp(config->search.key[i].key, key) != 0)
        i++;
    if (i == CONFIG_SEARCH)
        return status_fail(STATUS_CONFIG, "%s: more than %d keys are searched", where,
                           CONFIG_SEARCH);
    /* The key in work is the last one. */
    struct config_searched *list = config->search.key;
    if (i < config->search.count)
        memmove(&list[i], &list[i + 1], (size_t)(config->search.count - i - 1) * sizeof *list);
    else
        config->search.count++;
    struct config_searched *last = &list[config->search.count - 1];
    memset(last, 0, sizeof *last);
    memcpy(last->key, key, strlen(key));
    return STATUS_OK;
}

enum status search_add(struct run_config *config, const char *value, const char *where)
{
    struct config_searched *last = &config->search.key[config->search.count - 1];
    size_t used = strlen(last->values), n = strlen(value);
    if (strchr(value, '\n') != NULL || n == 0)
        return status_fail(STATUS_CONFIG, "%s: search.%s has a value that is %s", where, last->key,
                           n == 0 ? "empty" : "more than one line");
    if (used + n + 2 > sizeof last->values)
        return status_fail(STATUS_CONFIG, "%s: the values of search.%s have more than %zu bytes",
                           where, last->key, sizeof last->values - 2);
    if (used > 0)
        last->values[used++] = '\n';
    memcpy(last->values + used, value, n + 1);
    return STATUS_OK;
}

/* A range: its name and its ends. */
struct range {
    char name[8];
    double low, high;
};

static bool read_range(const char *text, struct range *out)
{
    char low[40], high[40], rest[2];
    if (sscanf(text, "%7[a-z](%39[^,],%39[^)])%1s", out->name, low, high, rest) != 3 ||
        text[strlen(text) - 1] != ')')
        return false;
    return (strcmp(out->name, "uniform") == 0 || strcmp(out->name, "log") == 0 ||
            strcmp(out->name, "int") == 0) &&
           parse_double(low, &out->low) && parse_double(high, &out->high);
}

/* Keys are kept in alphabetical order, so that run.cfg, which has them in groups, means the same.
 */
static void put_in_order(struct run_config *config)
{
    struct config_searched *list = config->search.key, last;
    int64_t at = config->search.count - 1;
    last = list[at];
    while (at > 0 && strcmp(list[at - 1].key, last.key) > 0) {
        list[at] = list[at - 1];
        at--;
    }
    list[at] = last;
}

static enum status check_values(const struct run_config *config, const char *where)
{
    const struct config_searched *last = &config->search.key[config->search.count - 1];
    const struct key *key = key_find(last->key);
    struct run_config tried = *config;
    struct range range;
    char word[CONFIG_TEXT];
    if (last->values[0] == '\0')
        return status_fail(STATUS_CONFIG, "%s: search.%s has no values, wanted a list: [1,2]",
                           where, last->key);
    if (read_range(last->values, &range)) {
        if (key->type != KEY_INT && key->type != KEY_REAL)
            return status_fail(STATUS_CONFIG, "%s: search.%s is a range, but %s is no number",
                               where, last->key, last->key);
        if (!(range.low < range.high) || (range.name[0] == 'l' && !(range.low > 0.0)))
            return status_fail(STATUS_CONFIG, "%s: search.%s is \"%.100s\", wanted %s", where,
                               last->key, last->values,
                               range.name[0] == 'l' ? "log(a,b) with 0 < a < b" : "a < b");
        for (int end = 0; end < 2; end++) {
            (void)snprintf(word, sizeof word, "%.15g", end == 0 ? range.low : range.high);
            TRY(key_set(&tried, key, word, where));
        }
        return STATUS_OK;
    }
    for (const char *p = last->values;; p++) {
        size_t n = strcspn(p, "\n");
        memcpy(word, p, n);
        word[n] = '\0';
        TRY(key_set(&tried, key, word, where));
        p += n;
        if (*p == '\0')
            return STATUS_OK;
    }
}

enum status search_end(struct run_config *config, const char *where)
{
    TRY(check_values(config, where));
    put_in_order(config);
    return STATUS_OK;
}

enum status search_set(struct run_config *config, const char *key, const char *text,
                       const char *where)
{
    const char *p = text, *end = text + strlen(text);
    struct range range;
    char word[CONFIG_TEXT];
    if (strlen(text) >= CONFIG_TEXT)
        return status_fail(STATUS_CONFIG, "%s: search.%.80s has %zu bytes, wanted fewer than %d",
                           where, key, strlen(text), CONFIG_TEXT);
    TRY(search_begin(config, key, where));
    if (read_range(text, &range)) {
        TRY(search_add(config, text, where));
        return search_end(config, where);
    }
    if (end > p + 1 && ((*p == '[' && end[-1] == ']') || (*p == '(' && end[-1] == ')'))) {
        p++;
        end--;
    }
    while (p < end) {
        size_t n = 0;
        while (p < end && *p == ' ')
            p++;
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++) {
                p += *p == '\\' && p + 1 < end;
                word[n++] = *p;
            }
            while (p < end && *p != ',')
                p++;
        } else {
            while (p < end && *p != ',')
                word[n++] = *p++;
            while (n > 0 && word[n - 1] == ' ')
                n--;
        }
        word[n] = '\0';
        TRY(search_add(config, word, where));
        p++;
    }
    return search_end(config, where);
}

enum status search_difference(const struct run_config *a, const struct run_config *b,
                              struct str *out)
{
    const struct run_config *side[2] = {a, b};
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < side[s]->search.count; i++) {
            const struct config_searched *one = &side[s]->search.key[i], *other = NULL;
            for (int64_t j = 0; j < side[1 - s]->search.count; j++) {
                if (strcmp(side[1 - s]->search.key[j].key, one->key) == 0)
                    other = &side[1 - s]->search.key[j];
            }
            bool same = other != NULL && strcmp(other->values, one->values) == 0;
            if (same || (s == 1 && other != NULL)) /* said already */
                continue;
            const char *was = s == 0 ? one->values : "nothing";
            const char *is = s == 1 ? one->values : other == NULL ? "nothing" : other->values;
            size_t from = out->n;
            TRY(str_addf(out, "%ssearch.%s (%s, now %s)", out->n == 0 ? "" : ", ", one->key, was,
                         is));
            for (char *p = out->p + from; *p != '\0'; p++) {
                if (*p == '\n')
                    *p = ',';
            }
        }
    }
    return STATUS_OK;
}

/* ---- settings ---- */

static int count_values(const char *values)
{
    int n = 1;
    for (const char *p = values; *p != '\0'; p++)
        n += *p == '\n';
    return n;
}

/* Value number i of a list, owned by the caller. */
static enum status copy_value(const char *values, int i, char **out)
{
    for (; i > 0; i--)
        values += strcspn(values, "\n") + 1;
    size_t n = strcspn(values, "\n");
    TRY(mem_alloc_raw(n + 1, 1, "a searched value", out));
    memcpy(*out, values, n);
    (*out)[n] = '\0';
    return STATUS_OK;
}

static enum status draw_value(const struct config_searched *one, uint64_t key, uint64_t counter,
                              char **out)
{
    struct range range;
    char word[40];
    if (!read_range(one->values, &range))
        return copy_value(
            one->values, (int)random_below(key, counter, (uint64_t)count_values(one->values)), out);
    double share = ((double)random_below(key, counter, (uint64_t)1 << 53) + 0.5) * 0x1p-53;
    if (range.name[0] == 'i') {
        double first = ceil(range.low), last = floor(range.high);
        (void)snprintf(word, sizeof word, "%.0f", first + floor(share * (last - first + 1.0)));
    } else if (range.name[0] == 'l') {
        (void)snprintf(word, sizeof word, "%.4g",
                       exp(log(range.low) + share * (log(range.high) - log(range.low))));
    } else {
        (void)snprintf(word, sizeof word, "%.4g", range.low + share * (range.high - range.low));
    }
    return mem_strdup(word, out);
}

static void setting_release(struct search_setting *setting)
{
    for (int k = 0; k < CONFIG_SEARCH; k++) {
        mem_free(setting->values[k]);
        setting->values[k] = NULL;
    }
}

static bool same_setting(const struct search *search, const struct search_setting *a,
                         const struct search_setting *b)
{
    for (int k = 0; k < search->keys; k++) {
        if (strcmp(a->values[k], b->values[k]) != 0)
            return false;
    }
    return true;
}

static enum status expand_grid(const struct run_config *config, struct search *out)
{
    int64_t total = 1;
    for (int k = 0; k < out->keys; k++) {
        struct range range;
        if (read_range(config->search.key[k].values, &range))
            return status_fail(STATUS_CONFIG,
                               "search.%s is a range, which search.kind=random draws from; "
                               "search.kind=grid wants a list",
                               config->search.key[k].key);
        total *= count_values(config->search.key[k].values);
        if (total > SETTINGS_MOST)
            return status_fail(STATUS_CONFIG, "the grid has more than %d settings", SETTINGS_MOST);
    }
    TRY(mem_alloc((size_t)total, sizeof *out->setting, "settings", &out->setting));
    out->settings = (int)total;
    for (int s = 0; s < out->settings; s++) {
        int rest = s;
        for (int k = out->keys - 1; k >= 0; k--) {
            int n = count_values(config->search.key[k].values);
            TRY(copy_value(config->search.key[k].values, rest % n, &out->setting[s].values[k]));
            rest /= n;
        }
    }
    return STATUS_OK;
}

static enum status expand_random(const struct run_config *config, struct search *out)
{
    TRY(mem_alloc((size_t)config->search.samples, sizeof *out->setting, "settings", &out->setting));
    for (int64_t draw = 0;
         draw < config->search.samples + DRAWS_MOST && out->settings < config->search.samples;
         draw++) {
        struct search_setting *s = &out->setting[out->settings];
        uint64_t key = random_key((uint64_t)config->seed, RANDOM_SEARCH, (uint64_t)draw, 0);
        bool seen = false;
        for (int k = 0; k < out->keys; k++)
            TRY(draw_value(&config->search.key[k], key, (uint64_t)k, &s->values[k]));
        for (int i = 0; i < out->settings && !seen; i++)
            seen = same_setting(out, s, &out->setting[i]);
        if (seen)
            setting_release(s);
        else
            out->settings++;
    }
    if (out->settings < config->search.samples)
        log_warning("search.samples=%lld, but only %d different settings were found",
                    (long long)config->search.samples, out->settings);
    return STATUS_OK;
}

enum status search_expand(const struct run_config *config, struct search *out)
{
    enum status st = STATUS_OK;
    struct run_config *one = NULL;
    *out = (struct search){.keys = (int)config->search.count};
    if (out->keys > 0 && config->search.kind == CONFIG_SEARCH_RANDOM)
        st = expand_random(config, out);
    else
        st = expand_grid(config, out); /* without keys: one setting */
    if (st == STATUS_OK)
        st = mem_alloc_raw(1, sizeof *one, "a setting", &one);
    for (int s = 0; s < out->settings && st == STATUS_OK; s++) /* a drawn number may be rounded */
        st = search_config(config, out, s, one);
    mem_free(one);
    if (st != STATUS_OK)
        search_release(out);
    return st;
}

void search_release(struct search *search)
{
    for (int s = 0; search->setting != NULL && s < search->settings; s++)
        setting_release(&search->setting[s]);
    mem_free(search->setting);
    *search = (struct search){0};
}

enum status search_config(const struct run_config *config, const struct search *search, int setting,
                          struct run_config *out)
{
    *out = *config;
    out->search.kind = CONFIG_SEARCH_GRID;
    out->search.count = 0;
    memset(out->search.key, 0, sizeof out->search.key);
    TRY(key_set(out, key_find("search.samples"), key_find("search.samples")->fallback, "default"));
    if (search->settings == 1)
        out->search.halving = 0; /* nobody to compare with */
    if (out->search.halving == 0)
        TRY(key_set(out, key_find("search.rungs"), key_find("search.rungs")->fallback, "default"));
    for (int k = 0; k < search->keys; k++)
        TRY(key_set(out, key_find(config->search.key[k].key), search->setting[setting].values[k],
                    "search"));
    return STATUS_OK;
}

enum status search_label(const struct run_config *config, const struct search *search, int setting,
                         struct str *out)
{
    TRY(str_add(out, "", 0));
    for (int k = 0; k < search->keys; k++)
        TRY(str_addf(out, "%s%s=%s", k == 0 ? "" : " ", config->search.key[k].key,
                     search->setting[setting].values[k]));
    return STATUS_OK;
}
