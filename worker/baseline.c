/*
 * baseline.c - see baseline.h.
 *
 * Which regression: two classes that have training rows make one logit, more make softmax with a
 * logit each, each label of multi-label data makes one logit of its own, numbers make ridge. That
 * is what scikit-learn's LogisticRegression, OneVsRestClassifier and Ridge do.
 */
#include "worker/baseline.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/linear.h"
#include "model/trees.h"
#include "worker/prefetch.h"
#include "worker/scoring.h"

enum {
    PORTION = 16,   /* labels of multi-label data that are fitted side by side */
    TOP_TERMS = 20, /* of each label */
    PROGRESS = 1024 /* rows between marks of progress */
};
#define ABSENT 36.04365338911715 /* 52 ln 2 */

/* ---- features ---- */

void baseline_features_release(struct baseline_features *f)
{
    tfidf_destroy(f->tfidf);
    mem_free(f->vectors);
    *f = (struct baseline_features){0};
}

static enum status count_dataset(struct tfidf *tfidf, struct dataset *ds, const char *key)
{
    struct dataset_info info;
    struct str text = {0}, pair = {0};
    enum status st = STATUS_OK;
    dataset_get_info(ds, &info);
    if (!info.has_text)
        return status_fail(STATUS_DATA,
                           "%s was prepared without its texts (data.keep_text=false), which tfidf "
                           "needs: prepare it again, or name the text file",
                           key);
    for (int64_t r = 0; r < info.rows && st == STATUS_OK; r++) {
        str_clear(&text);
        str_clear(&pair);
        TRY_GOTO(done, str_add(&text, "", 0));
        TRY_GOTO(done, dataset_row_text(ds, r, &text, &pair));
        if (info.has_pairs) {
            TRY_GOTO(done, str_add(&text, " ", 1));
            TRY_GOTO(done, str_add(&text, pair.p, pair.n));
        }
        st = tfidf_add(tfidf, text.p, text.n);
        if (r % PROGRESS == 0)
            comm_mark(-1, "counting words");
    }
done:
    str_release(&text);
    str_release(&pair);
    return st;
}

enum status baseline_count(const struct run_config *config, struct dataset *const *datasets,
                           const char *const *keys, int count, struct baseline_features *out)
{
    const struct tfidf_opts opts = {.ngram_min = (int)config->baseline.ngram_min,
                                    .ngram_max = (int)config->baseline.ngram_max,
                                    .lowercase = config->baseline.lowercase};
    struct tfidf_info info;
    enum status st;
    *out = (struct baseline_features){0};
    TRY(tfidf_create(&opts, &out->tfidf));
    for (int i = 0; i < count; i++)
        TRY_GOTO(fail, count_dataset(out->tfidf, datasets[i], keys[i]));
    comm_mark(-1, "counting n-grams");
    TRY_GOTO(fail, tfidf_finish(out->tfidf));
    tfidf_get_info(out->tfidf, &info);
    out->rows = info.rows;
    return STATUS_OK;
fail:
    baseline_features_release(out);
    return st;
}

static enum status load_encoder(const struct baseline_encoder *e, struct model **model)
{
    static const enum pooling poolings[] = {POOL_CLS, POOL_MEAN};
    struct load_report report;
    uint64_t seed = (uint64_t)e->config->seed;
    struct model_opts opts = {
        .encoder = e->source->encoder,
        .head = {.pooling = poolings[e->config->baseline.pooling], .outputs = 1, .dropout = 0.0f},
        .precision = e->precision,
        .max_tokens = score_tokens(e->config, e->max_length),
        .max_rows = SCORE_ROWS,
        .dropout = 0.0f,
        .device = e->device,
        .kernels = e->kernels,
    };
    TRY(model_create(&opts, model));
    if (e->config->model.from_scratch) {
        TRY(model_init(*model, 0, model_params(*model)->count, seed));
        return model_weights_changed(*model);
    }
    return model_load(*model, e->source->path, false, e->config->model.resize_embeddings, seed,
                      &report);
}

enum status baseline_embed(const struct baseline_encoder *e, struct dataset *const *datasets,
                           int count, struct baseline_features *out)
{
    struct dataset_info info;
    struct model *model = NULL;
    int64_t *rows = NULL, most = 0, at = 0, tokens = score_tokens(e->config, e->max_length);
    size_t width = (size_t)e->source->encoder.hidden;
    enum status st = load_encoder(e, &model);
    *out = (struct baseline_features){.width = (int)width};
    for (int i = 0; i < count; i++) {
        dataset_get_info(datasets[i], &info);
        out->rows += info.rows;
        most = info.rows > most ? info.rows : most;
    }
    if (st == STATUS_OK)
        st = mem_alloc_raw((size_t)out->rows * width, sizeof *out->vectors, "the texts' vectors",
                           &out->vectors);
    if (st == STATUS_OK)
        st = mem_alloc_raw((size_t)most, sizeof *rows, "row ids", &rows);
    TRY_GOTO(done, comm_agree(e->comm, st));
    for (int64_t i = 0; i < most; i++)
        rows[i] = i;
    for (int i = 0; i < count; i++) {
        struct row_source source = row_source_dataset(datasets[i]);
        dataset_get_info(datasets[i], &info);
        TRY_GOTO(done, embed_rows(e->comm, model, &source, rows, info.rows, out->width, tokens,
                                  SCORE_ROWS, out->vectors + (size_t)at * width));
        at += info.rows;
    }
done:
    mem_free(rows);
    model_destroy(model);
    if (st != STATUS_OK)
        baseline_features_release(out);
    return st;
}

/* ---- one fold's features ---- */

struct fitted {
    struct tfidf_fit *terms;
    struct linear_dense *dense;
};

static enum status mark_and_multiply(void *self, int k, const double *a, double *z)
{
    struct fitted *f = self;
    comm_mark(-1, "regression");
    return f->terms != NULL ? tfidf_gram(f->terms, k, a, z) : linear_dense_gram(f->dense, k, a, z);
}

static enum status fit_features(const struct baseline_features *features,
                                const struct baseline_fold *fold, struct fitted *out,
                                int64_t *count)
{
    const struct run_config *config = fold->config;
    const struct tfidf_fit_opts opts = {.min_df = config->baseline.min_df,
                                        .max_df = config->baseline.max_df,
                                        .max_features = config->baseline.max_features,
                                        .sublinear = config->baseline.sublinear};
    *out = (struct fitted){0};
    *count = features->width;
    if (features->tfidf == NULL)
        return linear_dense_create(features->vectors, features->width, fold->train,
                                   fold->train_count, config->baseline.standardize, &out->dense);
    TRY(tfidf_fit_create(features->tfidf, &opts, fold->train, fold->train_count, &out->terms));
    *count = tfidf_fit_features(out->terms);
    return STATUS_OK;
}

static void fitted_release(struct fitted *f)
{
    tfidf_fit_destroy(f->terms);
    linear_dense_destroy(f->dense);
}

/* ---- portions ---- */

int baseline_portions(const struct task_spec *task)
{
    return task->task == TASK_MULTI_LABEL ? (task->outputs + PORTION - 1) / PORTION : 1;
}

void baseline_columns(const struct task_spec *task, int portion, int *first, int *last)
{
    bool multi = task->task == TASK_MULTI_LABEL;
    *first = multi ? portion * PORTION : 0;
    *last = multi && *first + PORTION < task->outputs ? *first + PORTION : task->outputs;
}

/* ---- problems ---- */

/* The regressions of a portion, with the memory that they point at. */
struct problems {
    int count, classes;          /* regressions; classes that have training rows */
    int first;                   /* column of the first */
    struct linear_problem *list; /* (count) */
    struct linear_fit *fits;     /* (count) */
    int *column;                 /* (count) of the logits; multi-label */
    int *class;                  /* (classes) which they are */
    int32_t *labels;             /* (count, n) */
    double *weights, *values;    /* (count, n), (n) */
    double *constant; /* (columns) logits of multi-label columns that have no regression */
};

static void problems_release(struct problems *p)
{
    for (int i = 0; p->fits != NULL && i < p->count; i++)
        linear_fit_release(&p->fits[i]);
    mem_free(p->list);
    mem_free(p->fits);
    mem_free(p->column);
    mem_free(p->class);
    mem_free(p->labels);
    mem_free(p->weights);
    mem_free(p->values);
    mem_free(p->constant);
}

static double row_weight(const struct baseline_fold *fold, const struct task_spec *task, int64_t i)
{
    const struct task_targets *t = fold->targets;
    const struct loss_target one = {.label = t->label == NULL ? NULL : t->label + fold->train[i],
                                    .row_weight = t->weight == NULL ? NULL
                                                                    : t->weight + fold->train[i]};
    double weight = loss_weight(&task->loss, &one, 0);
    if (task->loss.kind == LOSS_BCE && task->class_weights != NULL && t->label != NULL &&
        t->label[fold->train[i]] == 1) /* one logit of two classes: the weight of the second */
        weight *= (double)task->class_weights[0];
    return weight;
}

/* Classes: which are there, and the one regression, if there are two at least. */
static enum status class_problem(const struct baseline_fold *fold, const struct task_spec *task,
                                 struct problems *p)
{
    int64_t n = fold->train_count;
    int *number = NULL; /* of a class among those that are there, + 1 */
    enum status st;
    TRY_GOTO(done, mem_alloc((size_t)task->classes, sizeof *number, "the classes", &number));
    TRY_GOTO(done, mem_alloc((size_t)task->classes, sizeof *p->class, "the classes", &p->class));
    for (int64_t i = 0; i < n; i++) {
        if (p->weights[i] > 0.0)
            number[fold->targets->label[fold->train[i]]] = 1;
    }
    for (int c = 0; c < task->classes; c++) {
        if (number[c] == 0)
            continue;
        p->class[p->classes] = c;
        number[c] = ++p->classes;
    }
    if (p->classes < 2)
        goto done;
    for (int64_t i = 0; i < n; i++) { /* a row of no weight may be of a class that is not there */
        int c = number[fold->targets->label[fold->train[i]]] - 1;
        p->labels[i] = c < 0 ? 0 : c;
    }
    p->count = 1;
    p->list[0] = (struct linear_problem){.loss = p->classes == 2 ? LINEAR_LOGISTIC : LINEAR_SOFTMAX,
                                         .k = p->classes == 2 ? 1 : p->classes,
                                         .label = p->labels,
                                         .weight = p->weights};
done:
    mem_free(number);
    return st;
}

/* A label that all rows have, or none, needs no regression. */
static void label_problems(const struct baseline_fold *fold, const struct task_spec *task, int last,
                           struct problems *p)
{
    int64_t n = fold->train_count;
    for (int c = p->first; c < last; c++) {
        int32_t *label = p->labels + (int64_t)p->count * n;
        double *weight = p->weights + (int64_t)p->count * n;
        double with = 0.0, without = 0.0;
        for (int64_t i = 0; i < n; i++) {
            bool set = fold->targets->value[fold->train[i] * task->outputs + c] > 0.5f;
            weight[i] = row_weight(fold, task, i);
            if (set && task->class_weights != NULL)
                weight[i] *= (double)task->class_weights[c];
            label[i] = set;
            *(set ? &with : &without) += weight[i];
        }
        p->constant[c - p->first] = with > 0.0 ? ABSENT : -ABSENT;
        if (!(with > 0.0 && without > 0.0))
            continue;
        p->column[p->count] = c;
        p->list[p->count++] = (struct linear_problem){
            .loss = LINEAR_LOGISTIC, .k = 1, .label = label, .weight = weight};
    }
}

static enum status make_problems(const struct baseline_fold *fold, const struct task_spec *task,
                                 int first, int last, struct problems *p)
{
    int64_t n = fold->train_count;
    int most = task->task == TASK_MULTI_LABEL ? last - first : 1;
    size_t cells = (size_t)most * (size_t)n;
    double total = 0.0;
    *p = (struct problems){.first = first};
    TRY(mem_alloc((size_t)most, sizeof *p->list, "the regressions", &p->list));
    TRY(mem_alloc((size_t)most, sizeof *p->fits, "the regressions", &p->fits));
    TRY(mem_alloc((size_t)most, sizeof *p->column, "the regressions", &p->column));
    TRY(mem_alloc((size_t)most, sizeof *p->constant, "the regressions", &p->constant));
    TRY(mem_alloc(cells, sizeof *p->labels, "the labels", &p->labels));
    TRY(mem_alloc(cells, sizeof *p->weights, "row weights", &p->weights));
    for (int64_t i = 0; i < n; i++) {
        p->weights[i] = row_weight(fold, task, i);
        total += p->weights[i];
    }
    if (!(total > 0.0))
        return status_fail(STATUS_DATA, n == 0 ? "there are no training rows"
                                               : "all training rows have weight 0");
    if (task->task == TASK_CLASSES)
        return class_problem(fold, task, p);
    if (task->task == TASK_MULTI_LABEL) {
        label_problems(fold, task, last, p);
        return STATUS_OK;
    }
    TRY(mem_alloc_raw((size_t)n, sizeof *p->values, "the targets", &p->values));
    for (int64_t i = 0; i < n; i++)
        p->values[i] = (double)fold->targets->value[fold->train[i]];
    p->count = 1;
    p->list[0] = (struct linear_problem){
        .loss = LINEAR_SQUARED, .k = 1, .value = p->values, .weight = p->weights};
    return STATUS_OK;
}

/* ---- logits ---- */

/* Row i's logits of the classes that are there into those of all classes. */
static void spread_classes(const struct task_spec *task, const struct problems *p, const double *z,
                           float *out)
{
    if (task->outputs == 1) { /* of two classes, the second's */
        out[0] = (float)(p->classes == 2 ? z[0] : p->class[0] == 1 ? ABSENT : -ABSENT);
        return;
    }
    double own[2] = {0.0, p->classes == 2 ? z[0] : 0.0}, largest = 0.0;
    const double *logits = p->classes > 2 ? z : own;
    for (int c = 0; c < p->classes; c++)
        largest = c == 0 || logits[c] > largest ? logits[c] : largest;
    for (int c = 0; c < task->outputs; c++)
        out[c] = (float)(largest - ABSENT);
    for (int c = 0; c < p->classes; c++)
        out[p->class[c]] = (float)logits[c];
}

/* All regressions' solutions side by side: *a (n, *k), owned. */
static enum status join_solutions(const struct problems *p, int64_t n, int *k, double **a)
{
    int at = 0;
    *k = 0;
    for (int i = 0; i < p->count; i++)
        *k += p->list[i].k;
    TRY(mem_alloc_raw((size_t)n * (size_t)*k, sizeof **a, "the solutions", a));
    for (int i = 0; i < p->count; i++) {
        int own = p->list[i].k;
        for (int64_t r = 0; r < n; r++)
            memcpy(*a + r * *k + at, p->fits[i].a + r * own, (size_t)own * sizeof **a);
        at += own;
    }
    return STATUS_OK;
}

/* All regressions' logits of the rows to score, side by side: *z (score_count, *k), owned. */
static enum status linear_logits(const struct baseline_fold *fold, struct fitted *features,
                                 const struct problems *p, int *k, double **z)
{
    int64_t count = fold->score_count;
    int at = 0;
    double *a = NULL;
    enum status st;
    TRY_GOTO(done, join_solutions(p, fold->train_count, k, &a));
    TRY_GOTO(done, mem_alloc((size_t)count * (size_t)*k, sizeof **z, "the logits", z));
    if (*k > 0)
        TRY_GOTO(done, features->terms != NULL
                           ? tfidf_cross(features->terms, fold->score, count, *k, a, *z)
                           : linear_dense_cross(features->dense, fold->score, count, *k, a, *z));
    for (int i = 0; i < p->count; i++) {
        for (int64_t r = 0; r < count; r++) {
            for (int c = 0; c < p->list[i].k; c++)
                (*z)[r * *k + at + c] += p->fits[i].bias[c];
        }
        at += p->list[i].k;
    }
done:
    mem_free(a);
    return st;
}

static void mark_round(void)
{
    comm_mark(-1, "trees");
}

/* The same by trees. */
static enum status tree_logits(const struct baseline_features *features,
                               const struct baseline_fold *fold, const struct problems *p, int *k,
                               double **z)
{
    const struct run_config *config = fold->config;
    const struct trees_opts opts = {.rounds = (int)config->baseline.trees,
                                    .depth = (int)config->baseline.tree_depth,
                                    .rate = config->baseline.tree_rate,
                                    .penalty = 1.0 / config->baseline.C};
    int64_t count = fold->score_count;
    double *own = NULL;
    int at = 0, most = 1;
    enum status st;
    *k = 0;
    for (int i = 0; i < p->count; i++) {
        *k += p->list[i].k;
        most = p->list[i].k > most ? p->list[i].k : most;
    }
    TRY_GOTO(done, mem_alloc((size_t)count * (size_t)*k, sizeof **z, "the logits", z));
    TRY_GOTO(done, mem_alloc((size_t)count * (size_t)most, sizeof *own, "the logits", &own));
    for (int i = 0; i < p->count; i++) {
        int width = p->list[i].k;
        TRY_GOTO(done, trees_fit(features->vectors, features->width, fold->train, fold->train_count,
                                 fold->score, count, &p->list[i], &opts, mark_round, own));
        for (int64_t r = 0; r < count; r++)
            memcpy(*z + r * *k + at, own + r * width, (size_t)width * sizeof *own);
        at += width;
    }
done:
    mem_free(own);
    return st;
}

/* The regressions' logits (score_count, k) into the columns of a portion. */
static void spread(const struct baseline_fold *fold, const struct task_spec *task,
                   const struct problems *p, int columns, int k, const double *z, float *logits)
{
    for (int64_t r = 0; r < fold->score_count; r++) {
        float *out = logits + r * columns;
        if (task->task == TASK_CLASSES) {
            spread_classes(task, p, z + r * k, out);
            continue;
        }
        for (int c = 0; c < columns; c++)
            out[c] = (float)p->constant[c];
        for (int i = 0; i < p->count; i++)
            out[p->column[i] - p->first] = (float)z[r * k + i];
    }
}

/* ---- the heaviest terms ---- */

/* The terms that speak most for one label: sign times the weight in one column. */
struct top {
    const char *label;
    int column, count;
    double sign;
    struct {
        double weight;
        int64_t term;
    } list[TOP_TERMS];
};
struct tops {
    int count;
    struct top *list;
};

static enum status offer(void *arg, int64_t term, const double *w)
{
    struct tops *tops = arg;
    for (int i = 0; i < tops->count; i++) {
        struct top *top = &tops->list[i];
        double weight = top->sign * w[top->column];
        int at = top->count;
        if (!(weight > 0.0) || (at == TOP_TERMS && !(weight > top->list[TOP_TERMS - 1].weight)))
            continue;
        if (at == TOP_TERMS)
            at--;
        for (; at > 0 && weight > top->list[at - 1].weight; at--)
            top->list[at] = top->list[at - 1];
        top->list[at].weight = weight;
        top->list[at].term = term;
        top->count += top->count < TOP_TERMS;
    }
    return STATUS_OK;
}

/* Two of each regression with one logit (of classes: for and against), else one for each class. */
static int list_tops(const struct task_spec *task, const struct problems *p, struct top *out)
{
    int n = 0;
    if (task->task == TASK_REGRESSION) {
        out[n++] = (struct top){.label = "higher", .sign = 1.0};
        out[n++] = (struct top){.label = "lower", .sign = -1.0};
    } else if (task->task == TASK_MULTI_LABEL) {
        for (int i = 0; i < p->count; i++)
            out[n++] = (struct top){.label = task->labels[p->column[i]], .column = i, .sign = 1.0};
    } else if (p->classes == 2) {
        out[n++] = (struct top){.label = task->labels[p->class[0]], .sign = -1.0};
        out[n++] = (struct top){.label = task->labels[p->class[1]], .sign = 1.0};
    } else {
        for (int c = 0; c < p->classes; c++)
            out[n++] = (struct top){.label = task->labels[p->class[c]], .column = c, .sign = 1.0};
    }
    return n;
}

/* A label may hold what parts columns; terms are words. */
static enum status add_term(struct str *out, const struct tfidf *tfidf, const char *label,
                            int64_t term, double weight)
{
    size_t from = out->n;
    TRY(str_addf(out, "%s", label));
    for (size_t i = from; i < out->n; i++) {
        if (out->p[i] == '\t' || out->p[i] == '\n' || out->p[i] == '\r')
            out->p[i] = ' ';
    }
    TRY(str_add(out, "\t", 1));
    TRY(tfidf_name(tfidf, term, out));
    return str_addf(out, "\t%.6g\n", weight);
}

static enum status heaviest_terms(const struct tfidf *tfidf, const struct baseline_fold *fold,
                                  struct fitted *features, const struct task_spec *task,
                                  const struct problems *p, struct str *out)
{
    int k;
    double *a = NULL;
    struct tops tops = {0};
    enum status st;
    TRY_GOTO(done, join_solutions(p, fold->train_count, &k, &a));
    if (k == 0)
        goto done;
    TRY_GOTO(done, mem_alloc((size_t)k + 1, sizeof *tops.list, "the heaviest terms", &tops.list));
    tops.count = list_tops(task, p, tops.list);
    TRY_GOTO(done, tfidf_weights(features->terms, k, a, offer, &tops));
    for (int i = 0; i < tops.count; i++) {
        const struct top *top = &tops.list[i];
        for (int j = 0; j < top->count; j++)
            TRY_GOTO(done, add_term(out, tfidf, top->label, top->list[j].term,
                                    task->task == TASK_REGRESSION ? top->sign * top->list[j].weight
                                                                  : top->list[j].weight));
    }
done:
    mem_free(tops.list);
    mem_free(a);
    return st;
}

/* ---- a fold ---- */

/* Regressions of the problems; their logits as linear_logits() gives them. */
static enum status fit_linear(const struct baseline_features *features,
                              const struct baseline_fold *fold, const struct task_spec *task,
                              struct problems *p, struct baseline_report *report, int *k,
                              double **z, struct str *terms)
{
    const struct run_config *config = fold->config;
    const struct linear_opts opts = {.C = config->baseline.C,
                                     .tolerance = config->baseline.tolerance,
                                     .max_iterations = (int)config->baseline.max_iterations};
    struct fitted fitted = {0};
    enum status st;
    TRY_GOTO(done, fit_features(features, fold, &fitted, &report->features));
    const struct linear_features view = {fold->train_count, &fitted, mark_and_multiply};
    TRY_GOTO(done, linear_solve(&view, p->list, p->count, &opts, p->fits));
    for (int i = 0; i < p->count; i++) {
        const struct linear_fit *fit = &p->fits[i];
        report->iterations = fit->iterations > report->iterations ? fit->iterations
                                                                  : report->iterations;
        report->gradient = fit->gradient > report->gradient ? fit->gradient : report->gradient;
        report->converged = report->converged && fit->converged;
    }
    TRY_GOTO(done, linear_logits(fold, &fitted, p, k, z));
    if (terms != NULL && fitted.terms != NULL)
        st = heaviest_terms(features->tfidf, fold, &fitted, task, p, terms);
done:
    fitted_release(&fitted);
    return st;
}

enum status baseline_fit(const struct baseline_features *features, const struct baseline_fold *fold,
                         int portion, float *logits, struct baseline_report *report,
                         struct str *terms)
{
    struct task_spec task =
        *fold->task; /* labels are borrowed, class weights are this fold's own */
    struct problems problems = {0};
    double *z = NULL;
    int first, last, k = 0;
    enum status st;
    *report = (struct baseline_report){.converged = true};
    task.class_weights = NULL;
    task.loss.class_weights = NULL;
    baseline_columns(&task, portion, &first, &last);
    TRY_GOTO(done, task_weigh_classes(&task, fold->config->train.class_weights, fold->targets,
                                      fold->train, fold->train_count));
    TRY_GOTO(done, make_problems(fold, &task, first, last, &problems));
    if (fold->model == BASELINE_MODEL_TREES) {
        report->features = features->width;
        report->iterations = problems.count > 0 ? fold->config->baseline.trees : 0;
        TRY_GOTO(done, tree_logits(features, fold, &problems, &k, &z));
    } else {
        TRY_GOTO(done, fit_linear(features, fold, &task, &problems, report, &k, &z, terms));
    }
    spread(fold, &task, &problems, last - first, k, z, logits);
done:
    problems_release(&problems);
    mem_free(z);
    mem_free(task.class_weights);
    return st;
}
