/*
 * config.c - see config.h.
 *
 * libconfig 1.5 wraps integers beyond 32 bits silently, follows @include to any file and takes
 * unknown keys, so the text is scanned first: @include is refused, deep nesting is refused, large
 * integers get the L that makes them 64-bit.
 */
#include "launcher/config.h"

#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "launcher/keys.h"
#include "launcher/search.h"

enum { FILE_LIMIT = 1 << 20, DEPTH_LIMIT = 16 };

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '*' || c == '.';
}

/* Length of the comment or string at p, 0 if there is none. */
static size_t skip_quoted(const char *p, const char *end)
{
    const char *q = p;
    if (*p == '#' || (*p == '/' && p + 1 < end && p[1] == '/')) {
        while (q < end && *q != '\n')
            q++;
    } else if (*p == '/' && p + 1 < end && p[1] == '*') {
        for (q = p + 2; q + 1 < end && !(q[0] == '*' && q[1] == '/'); q++)
            ;
        q = q + 2 < end ? q + 2 : end;
    } else if (*p == '"') {
        for (q = p + 1; q < end && *q != '"'; q++)
            q += *q == '\\' && q + 1 < end;
        q = q < end ? q + 1 : end;
    }
    return (size_t)(q - p);
}

/* A whole number beyond 32 bits gets an L, which makes libconfig read 64; one beyond 64 is refused.
 */
static enum status copy_number(const char *p, size_t n, const char *name, int line, struct str *out)
{
    char word[32];
    size_t at = p[0] == '-' || p[0] == '+', suffix = 0;
    bool hex = n > at + 2 && p[at] == '0' && (p[at + 1] == 'x' || p[at + 1] == 'X');
    TRY(str_add(out, p, n));
    while (suffix < 2 && suffix < n && p[n - 1 - suffix] == 'L')
        suffix++;
    for (at += hex ? 2 : 0; at < n - suffix; at++) {
        if (hex ? !isxdigit((unsigned char)p[at]) : !isdigit((unsigned char)p[at]))
            return STATUS_OK; /* a float */
    }
    if (n - suffix < sizeof word) {
        memcpy(word, p, n - suffix);
        word[n - suffix] = '\0';
        errno = 0;
        long long value = strtoll(word, NULL, hex ? 16 : 10);
        if (errno == 0)
            return suffix == 0 && (value > INT32_MAX || value < INT32_MIN) ? str_add(out, "L", 1)
                                                                           : STATUS_OK;
    }
    return status_fail(STATUS_CONFIG, "%s:%d: %.*s is too large for a whole number", name, line,
                       (int)(n < 40 ? n : 40), p);
}

static enum status prescan(const char *text, size_t n, const char *name, struct str *out)
{
    const char *p = text, *end = text + n;
    int line = 1, depth = 0;
    bool open_line = false;
    if (n > FILE_LIMIT)
        return status_fail(STATUS_CONFIG, "%s has %zu bytes, wanted at most %d", name, n,
                           FILE_LIMIT);
    if (memchr(text, '\0', n) != NULL)
        return status_fail(STATUS_CONFIG, "%s holds a NUL byte, so it is no text", name);
    while (p < end) {
        size_t length = skip_quoted(p, end);
        if (length > 0) {
            if (*p == '/' && p[1] == '*' && (length < 4 || memcmp(p + length - 2, "*/", 2) != 0))
                return status_fail(STATUS_CONFIG, "%s:%d: this comment has no end", name, line);
            open_line = p + length == end && (*p == '#' || (*p == '/' && p[1] == '/'));
            TRY(str_add(out, p, length));
        } else if (*p == '@') {
            return status_fail(
                STATUS_CONFIG,
                "%s:%d: @include is not supported; give the keys on the command line", name, line);
        } else if (word_char(*p) || *p == '+') {
            for (length = 1; p + length < end && word_char(p[length]); length++)
                ;
            bool number = isdigit((unsigned char)*p) || ((*p == '-' || *p == '+') && length > 1);
            TRY(number ? copy_number(p, length, name, line, out) : str_add(out, p, length));
        } else {
            length = 1;
            depth += strchr("{[(", *p) != NULL ? 1 : strchr("}])", *p) != NULL ? -1 : 0;
            if (depth > DEPTH_LIMIT)
                return status_fail(STATUS_CONFIG, "%s:%d: nested more than %d deep", name, line,
                                   DEPTH_LIMIT);
            TRY(str_add(out, p, 1));
        }
        for (size_t i = 0; i < length; i++)
            line += p[i] == '\n';
        p += length;
    }
    return str_add(out, "\n", open_line); /* libconfig takes no comment that ends with the text */
}

static enum status unknown_key(const char *where, const char *name)
{
    const char *near = key_suggest(name);
    return status_fail(STATUS_CONFIG, "%s: there is no key \"%s\"%s%s%s", where, name,
                       near == NULL ? "; cohort help keys lists all" : ", did you mean ",
                       near == NULL ? "" : near, near == NULL ? "" : "?");
}

/* The setting's value as it would be typed on the command line. */
static enum status setting_text(const config_setting_t *setting, const char *where,
                                const char *name, struct str *out)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
        return str_addf(out, "%d", config_setting_get_int(setting));
    case CONFIG_TYPE_INT64:
        return str_addf(out, "%lld", config_setting_get_int64(setting));
    case CONFIG_TYPE_FLOAT:
        if (!isfinite(config_setting_get_float(setting)))
            return status_fail(STATUS_CONFIG, "%s: %s is not a finite number", where, name);
        return str_add_double(out, config_setting_get_float(setting));
    case CONFIG_TYPE_BOOL:
        return str_addf(out, "%s", config_setting_get_bool(setting) ? "true" : "false");
    case CONFIG_TYPE_STRING:
        return str_addf(out, "%s", config_setting_get_string(setting));
    case CONFIG_TYPE_ARRAY:
    case CONFIG_TYPE_LIST:
        for (int i = 0; i < config_setting_length(setting); i++) {
            config_setting_t *one = config_setting_get_elem(setting, (unsigned)i);
            if (config_setting_is_aggregate(one))
                return status_fail(STATUS_CONFIG, "%s: %s holds a list inside a list", where, name);
            TRY(str_add(out, ",", i == 0 ? 0 : 1));
            TRY(setting_text(one, where, name, out));
        }
        return str_add(out, "", 0);
    default:
        return status_fail(STATUS_CONFIG, "%s: %s has no value", where, name);
    }
}

/* A value that is a list gives one word an entry, so that words may have commas. */
static enum status take_searched(struct run_config *config, const config_setting_t *setting,
                                 const char *key, const char *where)
{
    struct str value = {0};
    bool list = config_setting_is_array(setting) == CONFIG_TRUE ||
                config_setting_is_list(setting) == CONFIG_TRUE;
    int n = list ? config_setting_length(setting) : 1;
    enum status st = search_begin(config, key, where);
    for (int i = 0; i < n && st == STATUS_OK; i++) {
        const config_setting_t *one = list ? config_setting_get_elem(setting, (unsigned)i)
                                           : setting;
        str_clear(&value);
        if (config_setting_is_aggregate(one))
            st = status_fail(STATUS_CONFIG, "%s: search.%s holds a list inside a list", where, key);
        if (st == STATUS_OK)
            st = setting_text(one, where, key, &value);
        if (st == STATUS_OK)
            st = search_add(config, value.p, where);
    }
    str_release(&value);
    return st == STATUS_OK ? search_end(config, where) : st;
}

static enum status take_setting(struct run_config *config, const config_setting_t *setting,
                                const char *group, const char *file)
{
    struct str name = {0}, where = {0}, value = {0};
    enum status st = STATUS_OK;
    const char *own = config_setting_name(setting);
    TRY_GOTO(done, str_addf(&name, "%s%s%s", group, group[0] == '\0' ? "" : ".", own));
    TRY_GOTO(done, str_addf(&where, "%s:%d", file, (int)config_setting_source_line(setting)));
    if (config_setting_is_group(setting)) {
        if (group[0] != '\0' && strcmp(group, "search") != 0) {
            st = status_fail(STATUS_CONFIG, "%s: %s is a group inside a group", where.p, name.p);
            goto done;
        }
        for (int i = 0; st == STATUS_OK && i < config_setting_length(setting); i++)
            st = take_setting(config, config_setting_get_elem(setting, (unsigned)i), name.p, file);
        goto done;
    }
    const struct key *key = key_find(name.p);
    if (key == NULL && strncmp(name.p, SEARCH_PREFIX, strlen(SEARCH_PREFIX)) == 0) {
        st = take_searched(config, setting, name.p + strlen(SEARCH_PREFIX), where.p);
        goto done;
    }
    if (key == NULL) {
        st = unknown_key(where.p, name.p);
        goto done;
    }
    TRY_GOTO(done, setting_text(setting, where.p, name.p, &value));
    st = key_set(config, key, value.p, where.p);
done:
    str_release(&name);
    str_release(&where);
    str_release(&value);
    return st;
}

enum status config_parse(const char *text, size_t n, const char *name, struct run_config *config)
{
    struct str checked = {0};
    config_t parsed;
    enum status st = prescan(text, n, name, &checked);
    if (st != STATUS_OK) {
        str_release(&checked);
        return st;
    }
    config_init(&parsed);
    if (config_read_string(&parsed, checked.p) != CONFIG_TRUE) {
        st = status_fail(STATUS_CONFIG, "%s:%d: %s", name, config_error_line(&parsed),
                         config_error_text(&parsed));
    } else {
        config_setting_t *root = config_root_setting(&parsed);
        for (int i = 0; st == STATUS_OK && i < config_setting_length(root); i++)
            st = take_setting(config, config_setting_get_elem(root, (unsigned)i), "", name);
    }
    config_destroy(&parsed);
    str_release(&checked);
    return st;
}

enum status config_set_argument(struct run_config *config, const char *argument)
{
    const char *equals = strchr(argument, '=');
    char name[64];
    size_t n = equals == NULL ? 0 : (size_t)(equals - argument);
    if (n == 0 || n >= sizeof name)
        return status_fail(STATUS_USAGE, "\"%s\" is no key=value", argument);
    memcpy(name, argument, n);
    name[n] = '\0';
    const struct key *key = key_find(name);
    if (key == NULL && strncmp(name, SEARCH_PREFIX, strlen(SEARCH_PREFIX)) == 0)
        return search_set(config, name + strlen(SEARCH_PREFIX), equals + 1, "command line");
    if (key == NULL)
        return unknown_key("command line", name);
    return key_set(config, key, equals + 1, "command line");
}

enum status config_load(const char *path, char *const *arguments, int count, struct run_config *out)
{
    TRY(config_defaults(out));
    if (path != NULL) {
        char *text;
        size_t n;
        TRY(file_read(path, FILE_LIMIT, &text, &n));
        enum status st = config_parse(text, n, path, out);
        mem_free(text);
        TRY(st);
    }
    for (int i = 0; i < count; i++)
        TRY(config_set_argument(out, arguments[i]));
    return STATUS_OK;
}

/* ---- writing ---- */

static enum status add_quoted(struct str *out, const char *text)
{
    TRY(str_add(out, "\"", 1));
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            TRY(str_add(out, "\\", 1));
        if (*p == '\n' || *p == '\t' || *p == '\r')
            TRY(str_addf(out, "\\%c", *p == '\n' ? 'n' : *p == '\t' ? 't' : 'r'));
        else
            TRY(str_add(out, p, 1));
    }
    return str_add(out, "\"", 1);
}

static enum status add_key(const struct run_config *config, const struct key *key, struct str *out)
{
    struct str value = {0};
    const char *dot = strchr(key->name, '.');
    enum status st = key_get(config, key, &value);
    if (st == STATUS_OK)
        st = str_addf(out, "%s%s = ", dot == NULL ? "" : "    ", dot == NULL ? key->name : dot + 1);
    bool quoted = key->type == KEY_TEXT || key->type == KEY_PATH || key->type == KEY_CHOICE ||
                  key->type == KEY_EVERY;
    if (st == STATUS_OK && quoted)
        st = add_quoted(out, value.p == NULL ? "" : value.p);
    else if (st == STATUS_OK)
        st = str_addf(out, "%s%s", value.p, key->type == KEY_INT && strlen(value.p) > 9 ? "L" : "");
    if (st == STATUS_OK)
        st = str_add(out, ";\n", 2);
    str_release(&value);
    return st;
}

/* The searched keys in their groups, with lists of text: lr = ["2e-5", "5e-5"]; */
static enum status add_searched(const struct run_config *config, struct str *out)
{
    for (int64_t i = 0; i < config->search.count; i++) {
        const struct config_searched *one = &config->search.key[i];
        size_t group = strcspn(one->key, ".") + 1;
        bool opens = i == 0 || strncmp(one[-1].key, one->key, group) != 0;
        bool closes = i + 1 == config->search.count || strncmp(one[1].key, one->key, group) != 0;
        if (opens)
            TRY(str_addf(out, "    %.*s: {\n", (int)group - 1, one->key));
        TRY(str_addf(out, "        %s = [", one->key + group));
        for (const char *p = one->values;;) {
            size_t n = strcspn(p, "\n");
            char word[CONFIG_TEXT];
            memcpy(word, p, n);
            word[n] = '\0';
            TRY(str_add(out, ", ", p == one->values ? 0 : 2));
            TRY(add_quoted(out, word));
            if (p[n] == '\0')
                break;
            p += n + 1;
        }
        TRY(str_addf(out, closes ? "];\n    };\n" : "];\n"));
    }
    return STATUS_OK;
}

enum status config_text(const struct run_config *config, struct str *out)
{
    char group[32] = "";
    TRY(str_addf(out, "# Written by cohort: the whole configuration. Given to cohort again, with a "
                      "new out, it repeats "
                      "the run.\n"));
    for (size_t i = 0; i < keys_count; i++) {
        size_t n = strchr(keys[i].name, '.') == NULL ? 0 : strcspn(keys[i].name, ".");
        if (strcmp(keys[i].name, "overwrite") == 0 || strcmp(keys[i].name, "resume") == 0 ||
            strcmp(keys[i].name, "watch") == 0)
            continue; /* what to do with a folder is said anew each time: run.cfg must not wipe the
                         run it is of */
        if (strncmp(group, keys[i].name, n) != 0 || group[n] != '\0') {
            TRY(str_addf(out, "%s\n%.*s: {\n", group[0] == '\0' ? "" : "};\n", (int)n,
                         keys[i].name));
            memcpy(group, keys[i].name, n);
            group[n] = '\0';
        }
        TRY(add_key(config, &keys[i], out));
        if (strcmp(keys[i].name, "search.rungs") == 0) /* the last of its group */
            TRY(add_searched(config, out));
    }
    return str_addf(out, "};\n");
}

/* ---- comparing ---- */

/* Under `any` the size of a pass cannot change a bit. Ranks are compared apart: what counts is how
 * many there were. */
static bool matters(const struct run_config *config, const struct key *key)
{
    bool any = config->parallel.reproducible == CONFIG_ANY;
    if (any && strcmp(key->name, "train.micro_tokens") == 0)
        return false;
    return !key->neutral;
}

enum status config_difference(const struct run_config *a, const struct run_config *b,
                              struct str *out)
{
    struct str x = {0}, y = {0};
    enum status st = str_add(out, "", 0);
    for (size_t i = 0; st == STATUS_OK && i < keys_count; i++) {
        if (!matters(b, &keys[i]))
            continue;
        str_clear(&x);
        str_clear(&y);
        st = key_get(a, &keys[i], &x);
        if (st == STATUS_OK)
            st = key_get(b, &keys[i], &y);
        if (st == STATUS_OK && strcmp(x.p, y.p) != 0)
            st =
                str_addf(out, "%s%s (%s, now %s)", out->n == 0 ? "" : ", ", keys[i].name, x.p, y.p);
    }
    if (st == STATUS_OK)
        st = search_difference(a, b, out);
    str_release(&x);
    str_release(&y);
    return st;
}

enum status config_same(const struct run_config *a, const struct run_config *b, const char *prefix,
                        bool *same)
{
    struct str x = {0}, y = {0};
    enum status st = STATUS_OK;
    *same = true;
    for (size_t i = 0; st == STATUS_OK && *same && i < keys_count; i++) {
        if (strncmp(keys[i].name, prefix, strlen(prefix)) != 0)
            continue;
        str_clear(&x);
        str_clear(&y);
        st = key_get(a, &keys[i], &x);
        if (st == STATUS_OK)
            st = key_get(b, &keys[i], &y);
        *same = st == STATUS_OK && strcmp(x.p, y.p) == 0;
    }
    str_release(&x);
    str_release(&y);
    return st;
}

enum status config_copy_key(const struct run_config *from, const char *key, struct run_config *to)
{
    struct str value = {0};
    enum status st = key_get(from, key_find(key), &value);
    if (st == STATUS_OK)
        st = key_set(to, key_find(key), value.p, key);
    str_release(&value);
    return st;
}

enum status config_identity(const struct run_config *config, int ranks, uint64_t *hash)
{
    struct str text = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; st == STATUS_OK && i < keys_count; i++) {
        if (!matters(config, &keys[i]))
            continue;
        st = str_addf(&text, "%s=", keys[i].name);
        if (st == STATUS_OK)
            st = key_get(config, &keys[i], &text);
        if (st == STATUS_OK)
            st = str_add(&text, "\n", 1);
    }
    if (st == STATUS_OK && config->parallel.reproducible != CONFIG_ANY)
        st = str_addf(&text, "ranks=%d\n", ranks);
    *hash = hash_bytes(text.p == NULL ? "" : text.p, text.n);
    str_release(&text);
    return st;
}
