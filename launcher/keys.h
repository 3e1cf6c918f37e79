/*
 * keys.h - every configuration key, once: name, type, default, range, unit, help.
 *
 * Parsing of files and of key=value, suggestions for misspelt keys, `cohort help keys`,
 * docs/keys.md, run.cfg and the comparison of two configurations all come from this table.
 */
#ifndef COHORT_LAUNCHER_KEYS_H
#define COHORT_LAUNCHER_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "worker/run_config.h"

enum key_type {
    KEY_TEXT,
    KEY_PATH,
    KEY_INT,
    KEY_REAL,
    KEY_BOOL,
    KEY_CHOICE,
    KEY_EVERY,
    KEY_INT_LIST
};

struct key {
    const char *name; /* "optim.lr" */
    enum key_type type;
    size_t offset;        /* in struct run_config */
    size_t count_offset;  /* KEY_INT_LIST: of the number of entries */
    const char *fallback; /* the default, as it would be typed; "" for none */
    double low, high;     /* numbers: inclusive range */
    const char *choices;  /* KEY_CHOICE: "auto|cls|pooler", in the order of the enum */
    const char *unit;     /* "" or "tokens", "rows", "s", ... */
    bool neutral;         /* cannot change a result: may differ when a run is resumed */
    const char *help;     /* one line */
};

extern const struct key keys[];
extern const size_t keys_count;

/* The key of that name, or NULL. */
const struct key *key_find(const char *name);
/* The nearest name to suggest, or NULL. */
const char *key_suggest(const char *name);

/* Set from text, as on the command line. where names the place in sentences. STATUS_CONFIG: found
 * and wanted. */
NODISCARD enum status key_set(struct run_config *config, const struct key *key, const char *text,
                              const char *where);
/* The value as it would be typed. */
NODISCARD enum status key_get(const struct run_config *config, const struct key *key,
                              struct str *out);

/* All defaults. */
NODISCARD enum status config_defaults(struct run_config *config);

/* `cohort help keys` (markdown false) and docs/keys.md. */
NODISCARD enum status keys_document(bool markdown, struct str *out);

#endif
