/* ensemble.c - see ensemble.h. */
#include "worker/ensemble.h"

#include <math.h>

#include "base/mem.h"
#include "worker/model_io.h"

enum status ensemble_begin(const struct loss_opts *loss, int64_t rows, struct ensemble_mean *out)
{
    *out = (struct ensemble_mean){.loss = loss, .n = rows * loss->outputs};
    enum status st = mem_alloc((size_t)out->n, sizeof *out->yes, "scores", &out->yes);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)out->n, sizeof *out->no, "scores", &out->no);
    if (st != STATUS_OK)
        ensemble_release(out);
    return st;
}

void ensemble_release(struct ensemble_mean *mean)
{
    mem_free(mean->yes);
    mem_free(mean->no);
    *mean = (struct ensemble_mean){0};
}

/* log(e^a + e^b) */
static double log_add(double a, double b)
{
    double high = a > b ? a : b, low = a > b ? b : a;
    return high + log1p(exp(low - high));
}

/* log(1 / (1 + e^-z)) */
static double log_sigmoid(double z)
{
    return z < 0.0 ? z - log1p(exp(z)) : -log1p(exp(-z));
}

static double log_sum(const float *z, int n)
{
    double sum = z[0];
    for (int c = 1; c < n; c++)
        sum = log_add(sum, z[c]);
    return sum;
}

void ensemble_add(struct ensemble_mean *mean, const float *logits)
{
    int outputs = mean->loss->outputs;
    bool first = mean->models++ == 0;
    double sum = 0.0;
    for (int64_t i = 0; i < mean->n; i++) {
        double z = logits[i];
        switch (mean->loss->kind) {
        case LOSS_MSE:
            mean->yes[i] += z;
            break;
        case LOSS_BCE:
            mean->yes[i] = first ? log_sigmoid(z) : log_add(mean->yes[i], log_sigmoid(z));
            mean->no[i] = first ? log_sigmoid(-z) : log_add(mean->no[i], log_sigmoid(-z));
            break;
        default:
            sum = i % outputs == 0 ? log_sum(logits + i, outputs) : sum;
            mean->yes[i] = first ? z - sum : log_add(mean->yes[i], z - sum);
        }
    }
}

void ensemble_end(const struct ensemble_mean *mean, float *logits)
{
    double models = mean->models;
    for (int64_t i = 0; i < mean->n; i++)
        logits[i] = (float)(mean->loss->kind == LOSS_MSE   ? mean->yes[i] / models
                            : mean->loss->kind == LOSS_BCE ? mean->yes[i] - mean->no[i]
                                                           : mean->yes[i] - log(models));
}

enum status ensemble_score(struct comm *group, struct model *model, char *const *folders, int count,
                           const struct loss_opts *loss, const struct row_source *source,
                           const int64_t *rows, int64_t n, int64_t max_tokens, float *logits)
{
    struct ensemble_mean mean = {0};
    enum status st;
    if (count == 0)
        return score_rows(group, model, source, rows, n, loss->outputs, max_tokens, SCORE_ROWS,
                          logits);
    st = ensemble_begin(loss, n, &mean);
    for (int k = 0; k < count; k++) {
        if (st == STATUS_OK)
            st = model_load_trained(model, folders[k]);
        TRY_GOTO(done, comm_agree(group, st));
        TRY_GOTO(done, score_rows(group, model, source, rows, n, loss->outputs, max_tokens,
                                  SCORE_ROWS, logits));
        ensemble_add(&mean, logits);
    }
    ensemble_end(&mean, logits);
done:
    ensemble_release(&mean);
    return st;
}
