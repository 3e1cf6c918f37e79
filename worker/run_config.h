/*
 * run_config.h - what a run was asked to do: every key of the configuration, checked and with its
 * default applied.
 *
 * Plain data. launcher/keys.c describes each field once (name, type, default, range, unit, help)
 * and fills it; the worker only reads it. Field names are the keys' names. Strings are "" where a
 * key was not given.
 */
#ifndef COHORT_WORKER_RUN_CONFIG_H
#define COHORT_WORKER_RUN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum { CONFIG_TEXT = 1024, CONFIG_LIST = 1024, CONFIG_SEARCH = 16 };

enum config_pooling {
    CONFIG_POOLING_AUTO,
    CONFIG_POOLING_CLS,
    CONFIG_POOLING_POOLER,
    CONFIG_POOLING_MEAN,
    CONFIG_POOLING_MAX
};
enum config_format {
    CONFIG_FORMAT_AUTO,
    CONFIG_FORMAT_TSV,
    CONFIG_FORMAT_CSV,
    CONFIG_FORMAT_JSONL,
    CONFIG_FORMAT_ARFF,
    CONFIG_FORMAT_FOLDER
};
enum config_task {
    CONFIG_TASK_AUTO,
    CONFIG_TASK_CLASSES,
    CONFIG_TASK_MULTI_LABEL,
    CONFIG_TASK_REGRESSION
};
enum config_long { CONFIG_LONG_AUTO, CONFIG_LONG_TRUNCATE, CONFIG_LONG_CHUNK };
enum config_chunk_pooling { CONFIG_CHUNK_AUTO, CONFIG_CHUNK_MEAN, CONFIG_CHUNK_MAX };
enum config_precision {
    CONFIG_PRECISION_AUTO,
    CONFIG_PRECISION_FP32,
    CONFIG_PRECISION_TF32,
    CONFIG_PRECISION_BF16,
    CONFIG_PRECISION_FP16
};
enum config_recompute { CONFIG_RECOMPUTE_AUTO, CONFIG_RECOMPUTE_OFF, CONFIG_RECOMPUTE_ON };
enum config_loss { CONFIG_LOSS_AUTO, CONFIG_LOSS_CROSS_ENTROPY, CONFIG_LOSS_BCE, CONFIG_LOSS_MSE };
enum config_schedule { /* in the order of enum lr_kind */
                       CONFIG_SCHEDULE_LINEAR,
                       CONFIG_SCHEDULE_COSINE,
                       CONFIG_SCHEDULE_CONSTANT,
                       CONFIG_SCHEDULE_STEP,
                       CONFIG_SCHEDULE_MULTI_STEP,
                       CONFIG_SCHEDULE_EXPONENTIAL,
                       CONFIG_SCHEDULE_POLYNOMIAL,
                       CONFIG_SCHEDULE_COSINE_WITH_RESTARTS,
                       CONFIG_SCHEDULE_WARM_RESTARTS,
                       CONFIG_SCHEDULE_CYCLIC,
                       CONFIG_SCHEDULE_ONE_CYCLE,
                       CONFIG_SCHEDULE_PLATEAU,
                       CONFIG_SCHEDULE_TABLE
};
enum config_optim { /* in the order of enum optimizer_kind */
                    CONFIG_OPTIM_ADAMW,
                    CONFIG_OPTIM_ADAM,
                    CONFIG_OPTIM_SGD,
                    CONFIG_OPTIM_ADAGRAD,
                    CONFIG_OPTIM_ADADELTA,
                    CONFIG_OPTIM_RMSPROP,
                    CONFIG_OPTIM_LAMB
};
enum config_average { CONFIG_AVERAGE_NONE, CONFIG_AVERAGE_EMA, CONFIG_AVERAGE_SWA };
enum config_adversarial { CONFIG_ADVERSARIAL_NONE, CONFIG_ADVERSARIAL_FGM, CONFIG_ADVERSARIAL_AWP };
enum config_by { CONFIG_BY_STEP, CONFIG_BY_EPOCH };
enum config_cyclic_mode { /* in the order of enum cyclic_mode */
                          CONFIG_CYCLIC_TRIANGULAR,
                          CONFIG_CYCLIC_TRIANGULAR2,
                          CONFIG_CYCLIC_EXP_RANGE
};
enum config_anneal { CONFIG_ANNEAL_COS, CONFIG_ANNEAL_LINEAR };
enum config_threshold { CONFIG_THRESHOLD_REL, CONFIG_THRESHOLD_ABS };
enum config_cv_kind {
    CONFIG_CV_AUTO,
    CONFIG_CV_STRATIFIED,
    CONFIG_CV_KFOLD,
    CONFIG_CV_GROUP,
    CONFIG_CV_STRATIFIED_GROUP,
    CONFIG_CV_HOLDOUT,
    CONFIG_CV_SHUFFLE,
    CONFIG_CV_STRATIFIED_SHUFFLE,
    CONFIG_CV_LEAVE_ONE_OUT,
    CONFIG_CV_LEAVE_P_OUT,
    CONFIG_CV_LEAVE_ONE_GROUP_OUT,
    CONFIG_CV_BINS,
    CONFIG_CV_MULTI_LABEL,
    CONFIG_CV_ROLLING,
    CONFIG_CV_BLOCKED,
    CONFIG_CV_COLUMN
};
enum config_duplicates {
    CONFIG_DUPLICATES_REPORT,
    CONFIG_DUPLICATES_GROUP,
    CONFIG_DUPLICATES_REFUSE,
    CONFIG_DUPLICATES_IGNORE
};
enum config_cv_select { CONFIG_SELECT_LAST, CONFIG_SELECT_INNER, CONFIG_SELECT_BEST };
enum config_backend { CONFIG_BACKEND_AUTO, CONFIG_BACKEND_CPU, CONFIG_BACKEND_CUDA };
enum config_reproducible { CONFIG_FIXED, CONFIG_ANY, CONFIG_OFF };
enum config_transport { CONFIG_TRANSPORT_AUTO, CONFIG_TRANSPORT_NCCL, CONFIG_TRANSPORT_MPI };
enum config_level {
    CONFIG_LEVEL_ERROR,
    CONFIG_LEVEL_WARNING,
    CONFIG_LEVEL_INFO,
    CONFIG_LEVEL_DEBUG
};
enum config_tokenizer_model {
    CONFIG_TOKENIZER_WORDPIECE,
    CONFIG_TOKENIZER_BPE,
    CONFIG_TOKENIZER_UNIGRAM
};
enum config_pre_tokenizer {
    CONFIG_WORDS_AUTO,
    CONFIG_WORDS_WHITESPACE,
    CONFIG_WORDS_WHITESPACE_SPLIT,
    CONFIG_WORDS_BERT,
    CONFIG_WORDS_BYTELEVEL,
    CONFIG_WORDS_METASPACE
};
enum config_baseline_pooling { CONFIG_BASELINE_CLS, CONFIG_BASELINE_MEAN };
enum config_embed { CONFIG_EMBED_MEAN, CONFIG_EMBED_CLS, CONFIG_EMBED_MAX };
enum config_screen { CONFIG_SCREEN_AUTO, CONFIG_SCREEN_LINES, CONFIG_SCREEN_REDRAW };
enum config_search_kind { CONFIG_SEARCH_GRID, CONFIG_SEARCH_RANDOM };
enum config_resume { CONFIG_RESUME_AUTO, CONFIG_RESUME_NEVER };

/* "every n steps" or "every epoch". */
struct config_every {
    bool epoch;
    int64_t steps; /* when not epoch; 0: never */
};

/* search.<key>: values of one key that trials are run with (launcher/search.h). */
struct config_searched {
    char key[48];             /* "optim.lr" */
    char values[CONFIG_TEXT]; /* as typed, joined by newlines, or one range: "log(1e-5,1e-4)" */
};

struct run_config {
    char out[CONFIG_TEXT];
    int64_t seed;
    enum config_resume resume;
    bool overwrite;
    bool watch; /* of `report` */

    struct {
        char path[CONFIG_TEXT];
        enum config_pooling pooling; /* auto: what transformers' own head does for the family */
        double dropout;              /* < 0: as config.json says */
        int64_t dropout_samples;
        bool from_scratch; /* random weights from model.path's config.json */
        bool freeze_embeddings;
        int64_t freeze_layers;  /* first ones */
        bool resize_embeddings; /* rows for the ids that the tokenizer has beyond the model's */
        enum config_chunk_pooling chunk_pooling;
    } model;

    struct {
        char train[CONFIG_TEXT], eval[CONFIG_TEXT], test[CONFIG_TEXT], input[CONFIG_TEXT];
        char text[CONFIG_TEXT], template[CONFIG_TEXT], pair[CONFIG_TEXT], label[CONFIG_TEXT],
            group[CONFIG_TEXT], id[CONFIG_TEXT], weight[CONFIG_TEXT], time[CONFIG_TEXT],
            fold[CONFIG_TEXT];
        enum config_format format;
        bool header;
        enum config_task task;             /* auto: classes */
        char label_separator[CONFIG_TEXT]; /* multi-label: "," */
        int64_t max_length;                /* 0: the model's maximum */
        enum config_long long_text; /* auto: what the model was trained with, else truncate */
        int64_t chunk_size, stride, min_chunk, max_text_length; /* 0: see the keys */
        bool skip_contained_tail;
        bool shuffle;
        char where[CONFIG_TEXT], rows[CONFIG_TEXT];
        int64_t limit, max_words;
        double holdout; /* share of data.train that evaluates when there is no data.eval; 0: none */
        bool keep_text; /* store texts in the prepared file */
        char cache[CONFIG_TEXT]; /* folder for datasets prepared on the way; "" = <out>/data */
    } data;

    struct {
        double epochs;
        int64_t max_steps; /* 0: from epochs */
        int64_t batch_size;
        int64_t micro_tokens; /* tokens of one pass */
        enum config_precision precision;
        enum config_recompute recompute;
        enum config_loss loss;
        char class_weights[CONFIG_TEXT]; /* "", "balanced", or numbers in label order "1,2.5,1" */
        double label_smoothing, focal_gamma;
        enum config_average average;
        double average_start, ema_decay; /* epochs */
        enum config_adversarial adversarial;
        double adversarial_eps, adversarial_rate, adversarial_start; /* epochs; eps 0: the kind's */
        double memory_limit_gb; /* refuse runs that would need more on this node; 0: what the node
                                   has */
    } train;

    struct {
        enum config_optim name;
        double lr, head_lr;                      /* head_lr < 0: lr */
        double weight_decay, head_weight_decay;  /* head < 0: weight_decay */
        double beta1, beta2, eps, max_grad_norm; /* eps 0: the optimizer's own; max_grad_norm 0: no
                                                    clipping */
        double momentum, alpha, rho;
        bool nesterov, centered;
        double layer_decay; /* 1: none */
    } optim;

    struct {
        enum config_schedule name;
        double warmup_ratio;
        int64_t warmup_steps; /* < 0: ceil(warmup_ratio * T) */
        double num_cycles;
        enum config_by by; /* what the following counts, behind the warm-up */
        int64_t length;    /* 0: what there is */
        double start, end; /* factors of the peak, as min_factor */
        double min_factor;
        double power, gamma;
        int64_t step_size;
        int64_t milestones[CONFIG_LIST], milestones_count;
        int64_t t_0, t_mult;
        int64_t step_size_up, step_size_down; /* down 0: up */
        enum config_cyclic_mode mode;
        double pct_start, div_factor, final_div_factor;
        bool three_phase;
        enum config_anneal anneal;
        double factor;    /* plateau */
        int64_t patience; /* evaluations, as cooldown */
        double threshold;
        enum config_threshold threshold_mode;
        int64_t cooldown;
        double eps;              /* of optim.lr */
        char table[CONFIG_TEXT]; /* "0:1,100:0.5" */
        bool interpolate;
    } schedule;

    struct {
        struct config_every every;
        char metric[CONFIG_TEXT]; /* "": accuracy, micro_f1 or pearson by task */
        int64_t patience;         /* evaluations without improvement before stopping; 0: never */
        int64_t batch_tokens;     /* tokens of one evaluation pass */
    } eval;

    struct {
        char score_column[CONFIG_TEXT]; /* CSV and TSV: only the id and this column, the last
                                           label's score (N4) */
    } predict;

    struct {
        enum config_embed pooling;
        bool normalize;
    } embed;

    struct { /* of `tokenizer train` */
        enum config_tokenizer_model model;
        enum config_pre_tokenizer pre_tokenizer;
        char normalizer[CONFIG_TEXT], special_tokens[CONFIG_TEXT];
        int64_t vocab_size, min_frequency;
        int64_t limit_alphabet; /* 0: all characters */
        int64_t max_piece_length;
        int64_t max_words;
    } tokenizer;

    struct {
        enum config_cv_kind kind; /* auto: stratified for classes (stratified_group with groups),
                                     else kfold (group) */
        int64_t folds;            /* 0: no cross-validation, unless kind says how many there are */
        int64_t run_folds[CONFIG_LIST]; /* which folds to run; none given: all */
        int64_t run_folds_count;
        int64_t group_ranks; /* ranks of one fold; 0: all */
        enum config_cv_select select;
        double inner_share;  /* cv.select=inner: share of the training rows that decides */
        int64_t repeats;     /* seeds */
        int64_t inner_folds; /* nested; 0: not */
        double test_share;   /* shuffle kinds, blocked: share of the rows that is scored */
        int64_t p;           /* leave_p_out */
        int64_t gap, max_train, test_rows; /* rolling (gap: blocked, too), in rows; 0: none, all,
                                              rows / (folds + 1) */
        int64_t bins;                      /* bins: quantiles of the label */
        enum config_duplicates duplicates;
        double similarity; /* from which two rows are near copies; 1: equal ones only */
        bool allow_missing_class;
    } cv;

    struct {                     /* of `baseline` */
        char kinds[CONFIG_TEXT]; /* "": tfidf, and embeddings where there is a model */
        double C, tolerance;
        int64_t max_iterations;
        int64_t ngram_min, ngram_max;
        bool lowercase, sublinear;
        double min_df, max_df;
        int64_t max_features; /* 0: all */
        enum config_baseline_pooling pooling;
        bool standardize;
        int64_t trees, tree_depth; /* rounds; levels */
        double tree_rate;
    } baseline;

    struct {
        enum config_search_kind kind;
        int64_t samples; /* random: settings drawn */
        int64_t halving; /* 0: all settings run to their end */
        int64_t rungs;   /* stops before the end at which settings are compared */
        int64_t count;
        struct config_searched key[CONFIG_SEARCH];
    } search;

    struct {
        struct config_every every;
        int64_t keep;
    } checkpoint;

    struct {
        int64_t every;      /* steps between lines for people and in log.jsonl */
        bool parts;         /* time each part of a step */
        int64_t hash_every; /* steps between weight hashes in log.jsonl; 0: checkpoints only */
        enum config_level level;
        enum config_screen screen;
    } log;

    struct {
        enum config_backend backend;
        enum config_reproducible reproducible;
        int64_t threads; /* 0: cores in the affinity mask / local ranks */
        int64_t grains;
        double watchdog_s; /* 0: no watchdog */
        enum config_transport transport;
        double bucket_mb; /* of a reduction */
        bool graphs;      /* record and replay repeated work of a GPU */
    } parallel;
};

#endif
