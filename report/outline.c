/* outline.c - what a run comes to; see sections.h. */
#include <math.h>
#include <string.h>

#include "report/sections.h"
#include "worker/model_io.h"

static const struct {
    const char *name, *title, *meaning;
} titles[] = {
    {"accuracy", "accuracy", "the share of rows that are right"},
    {"balanced_accuracy", "balanced accuracy", "the share that is found, averaged over classes"},
    {"macro_f1", "macro F1", "the balance of precision and recall, averaged over classes"},
    {"micro_f1", "micro F1", "the balance of precision and recall over all decisions"},
    {"weighted_f1", "weighted F1", "the balance of precision and recall, weighted by class"},
    {"f1", "F1", "the balance of precision and recall"},
    {"precision", "precision", "how many of those that are reported are right"},
    {"recall", "recall", "how many of those that are there are found"},
    {"mcc", "MCC", "the correlation of truth and prediction: 0 is chance, 1 perfect"},
    {"kappa", "Cohen's kappa", "agreement beyond chance: 0 is chance, 1 perfect"},
    {"quadratic_kappa", "quadratic kappa", "agreement beyond chance, far misses counting more"},
    {"roc_auc", "ROC AUC",
     "how often a row of the class is ranked above one that is not of it: 0.5 is chance, 1 "
     "perfect"},
    {"weighted_roc_auc", "weighted ROC AUC", ""},
    {"pr_auc", "PR AUC", "precision averaged over all levels of recall"},
    {"log_loss", "log loss", "how surprised the model is by the truth: less is better"},
    {"loss", "loss", "what training minimizes: less is better"},
    {"brier", "Brier score", "the mean square error of the probabilities: less is better"},
    {"ece", "ECE", "how far probabilities are from frequencies: less is better"},
    {"pearson", "Pearson correlation", "how well predictions follow the truth: 1 is perfect"},
    {"spearman", "Spearman correlation", "how well the order is predicted: 1 is perfect"},
    {"kendall", "Kendall's tau", "how well the order is predicted: 1 is perfect"},
    {"mse", "MSE", "the mean square error: less is better"},
    {"rmse", "RMSE", "the size of a typical error: less is better"},
    {"mae", "MAE", "the mean absolute error: less is better"},
    {"r2", "R\xC2\xB2", "the share of the variance that is explained"},
    {"explained_variance", "explained variance", ""},
    {"hamming_loss", "Hamming loss", "the share of decisions that are wrong: less is better"},
    {"lrap", "LRAP", "how well the true labels are ranked: 1 is perfect"},
    {"samples_f1", "samples F1", ""},
    {"top3_accuracy", "top-3 accuracy", "the share of rows whose class is among the first 3"},
    {"top5_accuracy", "top-5 accuracy", "the share of rows whose class is among the first 5"},
};

const char *metric_title(const char *name)
{
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++) {
        if (strcmp(titles[i].name, name) == 0)
            return titles[i].title;
    }
    return name;
}

const char *metric_meaning(const char *name)
{
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++) {
        if (strcmp(titles[i].name, name) == 0)
            return titles[i].meaning;
    }
    return "";
}

int resamples_for(int64_t n)
{
    const double draws = 2e8;
    double most = n > 0 ? draws / (double)n : REPORT_RESAMPLES;
    return most > REPORT_RESAMPLES ? REPORT_RESAMPLES : most < 100.0 ? 100 : (int)most;
}

enum status trial_words(int setting, int repeat, int fold, int inner, struct str *out)
{
    const struct {
        const char *name;
        int number;
    } parts[] = {{"setting", setting}, {"repeat", repeat}, {"fold", fold}, {"inner", inner}};
    bool any = false;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].number < 0)
            continue;
        TRY(str_addf(out, "%s%s %d", any ? ", " : "", parts[i].name, parts[i].number));
        any = true;
    }
    return any ? STATUS_OK : str_addf(out, "run");
}

void share_interval(int64_t hits, int64_t n, double *low, double *high)
{
    const double z = 1.959963984540054, z2 = z * z, total = (double)n;
    double p = (double)hits / total, middle = p + z2 / (2.0 * total);
    double half = z * sqrt(p * (1.0 - p) / total + z2 / (4.0 * total * total));
    *low = fmax(0.0, (middle - half) / (1.0 + z2 / total));
    *high = fmin(1.0, (middle + half) / (1.0 + z2 / total));
}

/* ---- the outline ---- */

static void count_cut(const struct run_folder *run, struct outline *o)
{
    struct dataset_info info;
    double all = 0.0, lost = 0.0;
    int64_t most = run->config->data.max_length;
    if (run->train == NULL)
        return;
    dataset_get_info(run->train, &info);
    o->train_rows = info.rows;
    if (run->config->data.long_text == CONFIG_LONG_CHUNK) {
        const struct chunk_rule rule = model_chunk_keys(run->config, 0); /* run.cfg says all */
        for (int64_t i = 0; i < info.rows; i++) {
            const int64_t lost_before = o->chunks.lost;
            chunk_tally_add(&o->chunks, &rule, dataset_content_length(run->train, i));
            o->cut += o->chunks.lost > lost_before;
        }
        if (o->chunks.tokens > 0)
            o->cut_tokens = (double)o->chunks.lost / (double)o->chunks.tokens;
        return;
    }
    for (int64_t i = 0; i < info.rows; i++) {
        int length = dataset_length(run->train, i);
        all += length;
        if (most > 0 && length > most) {
            o->cut++;
            lost += (double)(length - most);
        }
    }
    o->cut_tokens = all > 0.0 ? lost / all : 0.0;
}

static enum status from_table(const struct run_folder *run, struct outline *o)
{
    struct scored scored;
    double ends[2];
    table_scored(&run->table, 0, &scored);
    TRY(metrics_compute(&scored, &o->values));
    o->has_values = true;
    if (!o->has_metric)
        return STATUS_OK;
    TRY(table_constant(&run->table, o->metric, &o->constant));
    if (isnan(o->score))
        o->score = o->values.value[o->metric];
    if (isnan(o->low) && !isnan(o->values.value[o->metric])) {
        TRY(metrics_interval(&scored, o->metric, (uint64_t)run->config->seed,
                             resamples_for(scored.n), ends));
        o->low = ends[0];
        o->high = ends[1];
    }
    return STATUS_OK;
}

enum status outline_make(const struct run_folder *run, struct outline *out)
{
    const json_t *results = run->results, *complete = json_object_get(results, "complete");
    *out = (struct outline){.constant = NAN};
    out->metric_text = json_text_at(results, "metric");
    if (out->metric_text[0] == '\0')
        out->metric_text = run->config->eval.metric;
    if (out->metric_text[0] == '\0' && run->has_table)
        out->metric_text = metric_name(metric_default(run->table.task));
    out->has_metric = metric_find(out->metric_text, &out->metric);
    out->metric_name = metric_title(out->metric_text);
    out->score = json_number_at(results, "score");
    out->low = json_number_at(results, "oof.ci95.0");
    out->high = json_number_at(results, "oof.ci95.1");
    out->mean = json_number_at(results, "oof.mean");
    out->std = json_number_at(results, "oof.std");
    out->optimistic = json_is_true(json_object_get(json_object_get(results, "oof"), "optimistic"));
    out->complete = results != NULL && !json_is_false(complete);
    out->running = results == NULL;
    out->folds = (int)json_array_size(json_object_get(results, "folds"));
    out->repeats = run->has_table ? run->table.repeats : 1;
    count_cut(run, out);
    enum status st = run->has_table ? from_table(run, out) : STATUS_OK;
    if (st != STATUS_OK)
        outline_release(out);
    return st;
}

void outline_release(struct outline *outline)
{
    metrics_release(&outline->values);
    *outline = (struct outline){0};
}
