/*
 * command.h - the commands of cohort: one function each, and what they share.
 */
#ifndef COHORT_LAUNCHER_COMMAND_H
#define COHORT_LAUNCHER_COMMAND_H

#include "base/device.h"
#include "base/status.h"
#include "comm/comm.h"
#include "model/kernels/kernels.h"
#include "worker/model_io.h"
#include "worker/run_config.h"

/* What a command was called with, after defaults, file and key=value. */
struct session {
    struct comm *world;
    struct run_config config;
    const char *verb; /* first word, of a command that takes words: "encode" of tokenizer; NULL */
    const char *const *words; /* further such words */
    int word_count;
    struct device *device; /* opened by session_compute() */
    const struct kernels *kernels;
    enum precision precision;
};

struct command {
    const char *name;
    const char *summary; /* one line */
    const char *usage;   /* the rest of --help */
    enum status (*run)(struct session *session);
    int words; /* most arguments it takes that are neither key=value nor a configuration file */
};

extern const struct command commands[];
extern const int command_count;

enum status command_prepare(struct session *session);
enum status command_train(struct session *session);
enum status command_baseline(struct session *session);
enum status command_eval(struct session *session);
enum status command_predict(struct session *session);
enum status command_embed(struct session *session);
enum status command_tokenizer(struct session *session);
/* The verb train of command_tokenizer(). Rank 0. */
NODISCARD enum status tokenizer_train_verb(struct session *session);
enum status command_inspect(struct session *session);
enum status command_report(struct session *session);
enum status command_check(struct session *session);
enum status command_help(struct session *session);

/* Compute with parallel.threads threads, or with this rank's share of the cores. */
void session_threads(const struct session *session);
/* Choose backend, precision and threads, and say so once. STATUS_UNAVAILABLE with the reason. */
NODISCARD enum status session_compute(struct session *session);
/* Let the group's sums live on the session's device, carried as parallel.transport says. Collective
 * on the group; statuses of comm_use_device(). */
NODISCARD enum status session_transport(const struct session *session, struct comm *group);
/* STATUS_CONFIG naming the key unless text is given. */
NODISCARD enum status session_need(const char *key, const char *text, const char *what);
/* Write bytes to path, "-" and "" being standard output. Rank 0. */
NODISCARD enum status session_write(const char *path, const char *bytes, size_t n);

#endif
