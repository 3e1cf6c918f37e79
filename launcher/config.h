/*
 * config.h - libconfig file and key=value arguments to one checked struct run_config, and back.
 */
#ifndef COHORT_LAUNCHER_CONFIG_H
#define COHORT_LAUNCHER_CONFIG_H

#include "base/status.h"
#include "base/str.h"
#include "worker/run_config.h"

/*
 * Defaults, then the file (NULL: none), then arguments "key=value" in order. STATUS_CONFIG names
 * file and line or the argument, what was found, what was wanted, and the nearest key where one is
 * misspelt. STATUS_NOINPUT: no such file.
 */
NODISCARD enum status config_load(const char *path, char *const *arguments, int count,
                                  struct run_config *out);
/* libconfig text of n bytes on top of *config; name is used in sentences. */
NODISCARD enum status config_parse(const char *text, size_t n, const char *name,
                                   struct run_config *config);
/* One "key=value". */
NODISCARD enum status config_set_argument(struct run_config *config, const char *argument);
/* The whole configuration as a libconfig file. */
NODISCARD enum status config_text(const struct run_config *config, struct str *out);
/* Names of keys that can change a result and differ, joined by ", " with both values; "" if none.
 */
NODISCARD enum status config_difference(const struct run_config *a, const struct run_config *b,
                                        struct str *out);
/* Whether all keys that begin so ("data.") have the same values. */
NODISCARD enum status config_same(const struct run_config *a, const struct run_config *b,
                                  const char *prefix, bool *same);
/* One key's value. */
NODISCARD enum status config_copy_key(const struct run_config *from, const char *key,
                                      struct run_config *to);
/* Hash of what can change a result, on `ranks` ranks for each trial. */
NODISCARD enum status config_identity(const struct run_config *config, int ranks, uint64_t *hash);

#endif
