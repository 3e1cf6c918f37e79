/*
 * search.h - search.<key>=[...]: the settings of a run, each a configuration of its own.
 *
 * Any key may be searched that says how a trial trains: its model, its optimizer, its length. Not
 * those that say what the trials are compared on (rows, folds, seed, metric) or where they run.
 *
 * grid    every combination; keys in alphabetical order, the last varies fastest.
 * random  search.samples settings; a key's values are a list, each as likely, or one range:
 *         uniform(a,b), log(a,b) (uniform in the logarithm), int(a,b) (whole numbers, both ends
 *         included). Numbers are rounded to 4 digits. Drawn by philox, keyed by seed, sample and
 *         place of the key; a setting that was drawn before is drawn again, up to 1,000 times.
 */
#ifndef COHORT_LAUNCHER_SEARCH_H
#define COHORT_LAUNCHER_SEARCH_H

#include "base/status.h"
#include "base/str.h"
#include "worker/run_config.h"

#define SEARCH_PREFIX "search."

/* search.<key> = text, as on the command line: "[2e-5,5e-5]", "(a,b)", "log(1e-5,1e-4)", "3";
 * words in double quotes may have commas. Given again, it replaces. STATUS_CONFIG. */
NODISCARD enum status search_set(struct run_config *config, const char *key, const char *text,
                                 const char *where);
/* The same, value by value. */
NODISCARD enum status search_begin(struct run_config *config, const char *key, const char *where);
NODISCARD enum status search_add(struct run_config *config, const char *value, const char *where);
NODISCARD enum status search_end(struct run_config *config, const char *where);
/* Adds searched keys that differ to what config_difference() makes. */
NODISCARD enum status search_difference(const struct run_config *a, const struct run_config *b,
                                        struct str *out);

struct search_setting {
    char *values[CONFIG_SEARCH]; /* in the order of config->search.key, as typed; owned */
};

struct search {
    int settings; /* 1 at least: without searched keys, the configuration itself */
    int keys;
    struct search_setting *setting;
};

/* All settings. STATUS_CONFIG: too many (more than 10,000), or a value that its key does not take.
 */
NODISCARD enum status search_expand(const struct run_config *config, struct search *out);
void search_release(struct search *search);
/* The configuration of one setting: without anything searched, but with the rungs of halving, which
 * belong to how a trial runs. */
NODISCARD enum status search_config(const struct run_config *config, const struct search *search,
                                    int setting, struct run_config *out);
/* "optim.lr=2e-5 train.epochs=3"; "" without searched keys. */
NODISCARD enum status search_label(const struct run_config *config, const struct search *search,
                                   int setting, struct str *out);

#endif
