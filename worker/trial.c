/*
 * trial.c - the training loop; see trial.h, and docs/architecture.md for the path of one batch.
 *
 * Each step: rows from the sampler, dealt to leaves; this rank's passes (read ahead, forward, loss,
 * backward into gradient buffers along the tree); agree; ordered reduction; norm and clip from
 * per-block sums in block order; AdamW on owned elements; weights gathered. A rank without rows
 * takes part with nothing. What a step computes depends on seed and step alone, so a resumed trial
 * goes on as if it had never stopped.
 */
#include "worker/trial.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "worker/scoring.h"
#include "worker/trial_chunks.h"

/* ---- signals: a handler only sets a bit; the bits are agreed on once a step ---- */

enum { FLAG_STOP = 1, FLAG_SAVE = 2, FLAG_UNSENT = 4 };
static volatile sig_atomic_t stop_asked, save_asked;

static void on_signal(int number)
{
    if (number == SIGUSR2)
        save_asked = 1;
    else
        stop_asked = 1;
}

/* What this rank was asked since the last look. A stop stays asked; a save is asked once. */
static uint32_t take_signals(void)
{
    uint32_t flags = stop_asked ? FLAG_STOP : 0;
    if (save_asked) {
        save_asked = 0;
        flags |= FLAG_SAVE;
    }
    return flags;
}

void trial_ask_stop(void)
{
    stop_asked = 1;
}

bool trial_stop_asked(void)
{
    return stop_asked != 0;
}

void trial_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGUSR1, &action, NULL);
    (void)sigaction(SIGUSR2, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

/* ---- opening and closing ---- */

/* See optimizer_opts. */
static enum status combine(void *arg, enum status st, double *values, int n)
{
    struct trial *t = arg;
    TRY(comm_agree(t->group, st));
    return comm_max_double(t->group, values, n);
}

static bool trains(void *arg, const struct param *param)
{
    const struct trial *t = arg;
    return optimizer_trains(&t->rule, param);
}

static enum status open_parts(struct trial *t)
{
    const struct trial_opts *opts = t->opts;
    const struct run_config *config = t->config;
    struct model_opts model;
    struct sampler_opts sampling = {.rows = opts->train.rows,
                                    .count = opts->train.count,
                                    .batch_size = config->train.batch_size,
                                    .shuffle = config->data.shuffle,
                                    .seed = opts->seed};
    size_t rows = (size_t)config->train.batch_size;

    TRY(trial_plan_make(opts, comm_size(t->group), &t->plan));
    TRY(rates_make(&t->rates, opts, &t->plan));
    t->at.plateau = plateau_start();
    trial_step_opts(t, &t->step_opts);
    trial_model_opts(opts, &t->plan, &model);
    TRY(model_create(&model, &t->model));
    const struct param_table *table = model_params(t->model);
    TRY(shards_make(&t->shards, table->total, (int64_t)(config->parallel.bucket_mb * 0x1p20),
                    comm_rank(t->group), comm_size(t->group)));
    t->at.scaling = loss_scale_start(opts->precision == PRECISION_FP16);
    struct optimizer_opts optimizer = {.params = table,
                                       .ctx = model_kernel_ctx(t->model),
                                       .kernels = opts->kernels,
                                       .device = opts->device,
                                       .owned = t->shards.owned,
                                       .ranges = t->shards.ranges,
                                       .combine = combine,
                                       .combine_arg = t};
    trial_rates(config, &optimizer);
    t->rule = optimizer;
    TRY(optimizer_open(&optimizer, &t->optimizer));
    if (config->train.average != CONFIG_AVERAGE_NONE)
        TRY(averages_open(config->train.average, config->train.ema_decay, &t->shards,
                          &t->averages));
    const struct adversary_opts adversary = {.kind = config->train.adversarial,
                                             .eps = config->train.adversarial_eps,
                                             .rate = config->train.adversarial_rate,
                                             .model = t->model,
                                             .kernels = opts->kernels,
                                             .shards = &t->shards,
                                             .trains = trains,
                                             .trains_arg = t};
    if (config->train.adversarial != CONFIG_ADVERSARIAL_NONE)
        TRY(adversary_open(&adversary, &t->adversary));
    TRY(sampler_open(&sampling, &t->sampler));
    TRY(prefetch_open(&t->prefetch));
    TRY(mem_alloc_raw(rows, sizeof *t->row_loss, "losses", &t->row_loss));
    if (opts->chunks.size > 0)
        TRY(chunk_step_open(opts, &t->plan, &t->chunks));
    for (int i = 0; i < 2; i++)
        TRY(mem_alloc_raw(rows, sizeof **t->batch_rows, "a batch's rows", &t->batch_rows[i]));
    return STATUS_OK;
}

static void close_parts(struct trial *t)
{
    prefetch_close(t->prefetch);
    sampler_close(t->sampler);
    optimizer_close(t->optimizer);
    averages_close(t->averages);
    adversary_close(t->adversary);
    if (!t->messages_left) /* MPI may still read and write the gradients until the process ends */
        model_destroy(t->model);
    run_log_close(t->log);
    rates_release(&t->rates);
    for (int i = 0; i < 2; i++) {
        step_plan_release(&t->step[i]);
        units_release(&t->units[i]);
        mem_free(t->batch_rows[i]);
    }
    shards_release(&t->shards);
    chunk_step_close(t->chunks);
    mem_free(t->row_loss);
    mem_free(t->at.history);
}

/* ---- reading ahead ---- */

/* Plan the step after `step` steps into slot step % 2. */
static enum status plan_step(struct trial *t, int64_t step)
{
    const struct row_source source = row_source_dataset(t->opts->train.ds);
    const int64_t *rows;
    int slot = (int)(step % 2);
    struct unit_list *units = &t->units[slot];
    TRY(sampler_next(t->sampler, step / t->plan.steps_per_epoch, step % t->plan.steps_per_epoch,
                     &rows, &t->batch_count[slot]));
    memcpy(t->batch_rows[slot], rows, (size_t)t->batch_count[slot] * sizeof *rows);
    TRY(units_of_rows(&source, rows, t->batch_count[slot], units));
    return step_plan_make(&t->step[slot], &t->step_opts, units->length, (int)units->count);
}

static enum status ask_pass(struct trial *t, int slot, int pass)
{
    const struct step_pass *p = &t->step[slot].pass[pass];
    struct row_source source = row_source_dataset(t->opts->train.ds);
    int64_t *units;
    TRY(mem_alloc_raw((size_t)p->rows, sizeof *units, "a pass's rows", &units));
    for (int i = 0; i < p->rows; i++)
        units[i] = t->units[slot].unit[t->step[slot].order[p->first + i]];
    enum status st = prefetch_ask(t->prefetch, &source, units, p->rows);
    mem_free(units);
    return st;
}

/* ---- time of each part, with log.parts ---- */

const char *trial_part_name(enum trial_part part)
{
    static const char *const names[] = {"forward",        "backward", "reduce",
                                        "norms and loss", "adamw",    "gather and cast"};
    return names[part];
}

/* What was queued since the last call belongs to `part`. Local. */
static enum status time_part(struct trial *t, enum trial_part part)
{
    if (!t->config->log.parts)
        return STATUS_OK;
    TRY(device_finish(t->opts->device));
    double now = clock_s();
    t->part_s[part] += now - t->part_from;
    t->part_from = now;
    return STATUS_OK;
}

/* ---- one step ---- */

static struct loss_target target_of(const struct trial *t, const struct trial_rows *from,
                                    const int64_t *rows, int n, int32_t *label, float *value,
                                    float *weight)
{
    const struct task_targets *all = from->targets;
    size_t outputs = (size_t)t->opts->task->outputs;
    for (int i = 0; i < n; i++) {
        if (all->label != NULL)
            label[i] = all->label[rows[i]];
        else
            memcpy(value + (size_t)i * outputs, all->value + (size_t)rows[i] * outputs,
                   outputs * sizeof *value);
        if (all->weight != NULL)
            weight[i] = all->weight[rows[i]];
    }
    return (struct loss_target){.label = all->label == NULL ? NULL : label,
                                .value = all->label == NULL ? value : NULL,
                                .row_weight = all->weight == NULL ? NULL : weight};
}

/* Buffers for the targets of one pass or one batch. */
struct target_room {
    int32_t *label;
    float *value, *weight;
};

static enum status target_room_make(struct target_room *room, size_t rows, size_t outputs)
{
    *room = (struct target_room){0};
    TRY(mem_alloc_raw(rows, sizeof *room->label, "targets", &room->label));
    TRY(mem_alloc_raw(rows * outputs, sizeof *room->value, "targets", &room->value));
    return mem_alloc_raw(rows, sizeof *room->weight, "targets", &room->weight);
}

static void target_room_release(struct target_room *room)
{
    mem_free(room->label);
    mem_free(room->value);
    mem_free(room->weight);
}

/* The sum of one bucket over all ranks begins. */
static enum status start_bucket(struct trial *t, struct step_plan *plan, int bucket)
{
    float *gradient = model_gradient(t->model, 0), *top[64];
    int64_t low, high;
    shards_bucket(&t->shards, bucket, &low, &high);
    if (t->config->parallel.reproducible == CONFIG_OFF && comm_is_nccl(t->group)) {
        if (plan->tops == 0)
            TRY(device_zero(t->opts->device, gradient + low, (size_t)(high - low) * sizeof(float)));
        return comm_reduce_any_order(t->group, gradient, low, high, PARAM_BLOCK);
    }
    for (int i = 0; i < plan->tops; i++)
        top[i] = model_gradient(t->model, plan->top_buffer[i]);
    return comm_reduce_start(t->group, &plan->tree, top, gradient, low, high, PARAM_BLOCK);
}

/* Start the buckets that lie at or above element `low`, from the end of the flat space down: the
 * same order on all ranks. */
static enum status start_buckets_from(struct trial *t, struct step_plan *plan, int64_t low)
{
    while (t->started < t->shards.buckets) {
        int bucket = t->shards.buckets - 1 - t->started;
        if (bucket * t->shards.bucket < low)
            break;
        enum status st = start_bucket(t, plan, bucket);
        if (st != STATUS_OK) { /* some of its messages may be under way */
            t->messages_left = true;
            return st;
        }
        t->started++;
    }
    return STATUS_OK;
}

/* A rank whose own work failed takes part in the reduction all the same, with whatever is in its
 * buffers, so that the others' messages end. Returns FLAG_UNSENT if that is not possible either. */
static uint32_t start_the_rest(struct trial *t, struct step_plan *plan)
{
    char sentence[1024];
    (void)snprintf(sentence, sizeof sentence, "%s", status_message());
    bool sent = !t->messages_left && start_buckets_from(t, plan, 0) == STATUS_OK;
    (void)status_fail(STATUS_OK, "%s", sentence); /* the first failure stays the one to tell */
    return sent ? 0 : FLAG_UNSENT;
}

/* The end of a step's reduction, also after an agreed failure `st`: nothing may be under way when
 * memory goes. The status is this rank's alone; the sentence of `st` stays. */
static enum status end_reduction(struct trial *t, uint32_t flags, enum status st)
{
    char sentence[1024];
    enum status waited = STATUS_OK;
    (void)snprintf(sentence, sizeof sentence, "%s", status_message());
    if ((flags & FLAG_UNSENT) != 0)
        comm_give_up(t->group);
    else
        waited = comm_reduce_wait(t->group);
    if ((flags & FLAG_UNSENT) != 0 || waited != STATUS_OK)
        t->messages_left = true;
    if (st != STATUS_OK)
        (void)status_fail(STATUS_OK, "%s", sentence);
    return waited;
}

/* The weights of all shards to all ranks, after the optimizer. A rank whose device fails here goes
 * on with the messages of the other buckets, as the others do. Local status. */
enum status trial_gather_weights(struct trial *t)
{
    char sentence[1024] = "";
    enum status st = STATUS_OK;
    for (int i = 0; i < t->shards.buckets; i++) {
        int64_t low, high;
        shards_bucket(&t->shards, i, &low, &high);
        enum status one =
            comm_gather_shards(t->group, model_weights(t->model), low, high, PARAM_BLOCK);
        if (st == STATUS_OK && one != STATUS_OK) {
            st = one;
            (void)snprintf(sentence, sizeof sentence, "%s", status_message());
        }
    }
    return st == STATUS_OK ? model_weights_changed(t->model) : status_fail(st, "%s", sentence);
}

/* Backward of a rank's last pass tells how far it is: what is final is sent while it goes on. */
struct overlap {
    struct trial *t;
    struct step_plan *plan;
    enum status st; /* of the first start that failed; the sentence is this thread's last */
    char sentence[512];
};

static void gradients_ready(void *arg, int64_t low, int64_t high)
{
    struct overlap *o = arg;
    (void)high;
    if (o->st != STATUS_OK)
        return;
    o->st = start_buckets_from(o->t, o->plan, low);
    if (o->st != STATUS_OK)
        (void)snprintf(o->sentence, sizeof o->sentence, "%s", status_message());
    comm_poke(o->t->group);
}

/* Training forward of pass p; its batch is there until the next call. next: the pass to read
 * meanwhile, -1: none. Local. */
static enum status forward_pass(struct trial *t, int64_t step, int p, int next, float *logits,
                                const struct batch **batch)
{
    int slot = (int)(step % 2);
    if (prefetch_pending(t->prefetch) == 0)
        TRY(ask_pass(t, slot, p));
    TRY(prefetch_take(t->prefetch, batch));
    if (next >= 0)
        TRY(ask_pass(t, slot, next));
    struct model_input input = {.tokens = (*batch)->tokens,
                                .rows = (*batch)->rows,
                                .max_row = (*batch)->max_row,
                                .ids = (*batch)->ids,
                                .types = (*batch)->types,
                                .begin = (*batch)->begin,
                                .row = (*batch)->row,
                                .chunk = (*batch)->chunk};
    comm_mark(step + 1, "forward");
    t->part_from = clock_s();
    return model_forward(t->model, &input, true, step, logits);
}

/* The logits of this rank's chunks. Where one pass takes them all, its activations stay. Local. */
static enum status forward_chunks(struct trial *t, int64_t step)
{
    const struct step_plan *plan = &t->step[step % 2];
    for (int p = 0; p < plan->passes; p++) {
        const struct batch *batch;
        const int next = p + 1 < plan->passes ? p + 1 : plan->passes > 1 ? 0 : -1;
        TRY(forward_pass(t, step, p, next, chunk_step_own(t->chunks, plan->pass[p].first), &batch));
        TRY(time_part(t, TIME_FORWARD));
    }
    return STATUS_OK;
}

/* Forward and backward of this rank's passes, and the start of the reduction. Local, but for the
 * messages it starts; with chunks also collective, for their logits. */
static enum status compute(struct trial *t, int64_t step, double divisor, struct target_room *room)
{
    struct step_plan *plan = &t->step[step % 2];
    const struct loss_opts *loss = &t->opts->task->loss;
    struct overlap overlap = {.t = t, .plan = plan};
    const struct batch *batch;
    float *buffers[64];
    int slot = (int)(step % 2);
    for (int i = 0; i < t->plan.gradient_buffers; i++)
        buffers[i] = model_gradient(t->model, i);
    if (t->chunks != NULL) {
        struct loss_target target = target_of(t, &t->opts->train, t->batch_rows[slot],
                                              t->batch_count[slot], room->label, room->value,
                                              room->weight);
        TRY(chunk_step_loss(t->chunks, t->group, forward_chunks(t, step), plan, &t->units[slot],
                            &target, t->batch_count[slot], divisor, t->at.scaling.scale));
    }
    for (int p = 0; p < plan->passes; p++) {
        struct step_pass *pass = &plan->pass[p];
        const float *dlogits = NULL;
        bool last = p + 1 == plan->passes;
        if (t->chunks == NULL || plan->passes > 1)
            TRY(forward_pass(t, step, p, last ? -1 : p + 1, NULL, &batch));
        if (t->chunks == NULL) {
            struct loss_target target = target_of(t, &t->opts->train, batch->row, batch->rows,
                                                  room->label, room->value, room->weight);
            TRY(model_loss(t->model, loss, &target, divisor, t->at.scaling.scale, pass->first));
        } else {
            dlogits = chunk_step_own(t->chunks, pass->first);
        }
        TRY(time_part(t, TIME_FORWARD));
        comm_mark(step + 1, "backward");
        pass->cut.buffer = buffers;
        TRY(model_backward(t->model, dlogits, &pass->cut, last ? gradients_ready : NULL, &overlap));
        if (overlap.st != STATUS_OK)
            return status_fail(overlap.st, "%s", overlap.sentence);
        TRY(time_part(t, TIME_BACKWARD));
    }
    return start_buckets_from(t, plan, 0); /* a rank without rows has started none yet */
}

/* The first parameter with a gradient that is no number, -1: none here. Local. */
static enum status find_not_finite(struct trial *t, const float *gradient, int *param)
{
    const struct param_table *table = model_params(t->model);
    float *block;
    enum status st = STATUS_OK;
    *param = -1;
    TRY(mem_alloc_raw(PARAM_BLOCK, sizeof *block, "a block of gradients", &block));
    for (int r = 0; r < t->shards.ranges; r++) {
        const struct range *own = &t->shards.owned[r];
        for (int64_t e = own->begin; e < own->end && *param < 0; e += PARAM_BLOCK) {
            TRY_GOTO(done,
                     device_get(t->opts->device, block, gradient + e, PARAM_BLOCK * sizeof *block));
            int64_t bad = 0;
            while (bad < PARAM_BLOCK && isfinite(block[bad]))
                bad++;
            for (int i = 0; bad < PARAM_BLOCK && i < table->count; i++) {
                const struct param *p = &table->params[i];
                if (e + bad >= p->offset && e + bad < p->offset + p->elements)
                    *param = i;
            }
        }
    }
done:
    mem_free(block);
    return st;
}

/* Gradients overflowed. fp16: the step is skipped and the loss scale lowered, on all ranks alike;
 * else it is the end. Collective. */
static enum status not_finite(struct trial *t, const float *gradient, int64_t step)
{
    const struct param_table *table = model_params(t->model);
    const bool fp16 = t->opts->precision == PRECISION_FP16;
    const double scale = t->at.scaling.scale;
    int param;
    TRY(comm_agree(t->group, find_not_finite(t, gradient, &param)));
    double first = param < 0 ? -(double)table->count : -(double)param; /* of all ranks' finds */
    TRY(comm_max_double(t->group, &first, 1));
    const char *name = (int)-first < table->count ? table->params[(int)-first].name : "?";
    if (!fp16 || !loss_scale_skipped(&t->at.scaling))
        return status_fail(STATUS_NUMERIC,
                           "step %lld: the gradient of %s is not finite%s; a lower optim.lr or "
                           "train.precision=%s may help",
                           (long long)step + 1, name, fp16 ? " even at loss scale 1" : "",
                           fp16 ? "bf16" : "fp32");
    if (t->leader)
        log_info("step %lld skipped: the gradient of %s overflowed at loss scale %g, %g from here "
                 "on",
                 (long long)step + 1, name, scale, t->at.scaling.scale);
    return STATUS_OK;
}

/* What every rank tells the others after the reduction, in one exchange: how that ended (st),
 * squared norms of its blocks, losses of its rows. */
static enum status exchange(struct trial *t, int64_t step, enum status st, float *gradient,
                            double *norm, double *loss)
{
    struct step_plan *plan = &t->step[step % 2];
    int ranks = comm_size(t->group), batch = t->batch_count[step % 2];
    const struct shards *shards = &t->shards;
    int64_t blocks = shards->blocks, total_blocks = shards->total / PARAM_BLOCK;
    const int told = t->chunks == NULL ? plan->own_rows : 0; /* losses that only this rank knows */
    double *mine = NULL, *by_position = NULL, *by_block = NULL;
    int64_t *begin = NULL;
    char *all = NULL;
    if (st == STATUS_OK)
        st = mem_alloc((size_t)(blocks + 2 * told), sizeof *mine, "norms and losses", &mine);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)ranks + 1, sizeof *begin, "norms and losses", &begin);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)batch, sizeof *by_position, "losses", &by_position);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)total_blocks, sizeof *by_block, "norms", &by_block);
    if (st == STATUS_OK)
        st = trial_settle(t);
    if (st == STATUS_OK)
        st = optimizer_mask(t->optimizer, gradient);
    if (st == STATUS_OK)
        st = t->opts->kernels->square_sums(model_kernel_ctx(t->model), gradient, shards->owned,
                                           shards->ranges, PARAM_BLOCK, mine);
    if (st == STATUS_OK && t->chunks == NULL && !t->losses_read)
        st = model_losses(t->model, told, t->row_loss);
    TRY_GOTO(done, comm_agree(t->group, st));
    for (int i = 0; i < told; i++) {
        mine[blocks + 2 * i] = (double)plan->order[i];
        mine[blocks + 2 * i + 1] = t->row_loss[i];
    }
    TRY_GOTO(done, comm_allgather(t->group, mine, (blocks + 2 * told) * (int64_t)sizeof *mine, &all,
                                  begin));
    *norm = 0.0;
    *loss = 0.0;
    for (int r = 0; r < ranks; r++) {
        const double *theirs = (const double *)(const void *)(all + begin[r]);
        int64_t n = (begin[r + 1] - begin[r]) / (int64_t)sizeof *theirs;
        shards_spread(shards, r, theirs, sizeof *theirs, by_block);
        for (int64_t i = shards_blocks_of(shards, r); i + 1 < n; i += 2)
            by_position[(int64_t)theirs[i]] = theirs[i + 1];
    }
    for (int64_t i = 0; i < total_blocks; i++) /* in block order, whoever owns them */
        *norm += by_block[i];
    *norm = sqrt(*norm) / t->at.scaling.scale;
    const double *losses = t->chunks == NULL ? by_position : chunk_step_losses(t->chunks);
    for (int i = 0; i < batch; i++) /* in the order of the global batch */
        *loss += losses[i];
done:
    mem_free(all);
    mem_free(begin);
    mem_free(by_position);
    mem_free(by_block);
    mem_free(mine);
    return st;
}

/* The schedule's factor after `step` applied steps. */
static double factor_at(const struct trial *t, int64_t step)
{
    return rates_factor(&t->rates, &t->at.plateau, step);
}

struct step_outcome {
    double loss, norm, factor;
    bool skipped;
    int64_t tokens;
    int rows;
};

/* The next step's first batch is read while this one is reduced. Local. */
static enum status read_ahead(struct trial *t, int64_t step)
{
    const int slot = (int)((step + 1) % 2);
    if (step + 1 >= t->plan.steps)
        return STATUS_OK;
    TRY(plan_step(t, step + 1));
    return t->step[slot].passes > 0 ? ask_pass(t, slot, 0) : STATUS_OK;
}

/* Collective. Run the step's passes and sum their gradients: the status is the same on all ranks;
 * *waited: how the end of the reduction went on this one. ahead: these are the step's last. */
static enum status sum_gradients(struct trial *t, int64_t step, double divisor, bool ahead,
                                 struct target_room *room, uint32_t *flags, enum status *waited)
{
    t->started = 0;
    enum status st = compute(t, step, divisor, room);
    if (st == STATUS_OK && ahead)
        st = read_ahead(t, step);
    *flags = take_signals() | start_the_rest(t, &t->step[step % 2]);
    comm_mark(step + 1, "agree");
    st = comm_agree_flags(t->group, st, flags);
    comm_mark(step + 1, "reduce");
    t->part_from = clock_s();
    *waited = end_reduction(t, *flags, st);
    return st;
}

/* Collective. The same passes with weights that were moved against the gradient, which is then the
 * sum of both. The step's losses are those of before. */
static enum status attack(struct trial *t, int64_t step, double divisor, struct target_room *room,
                          uint32_t *flags, enum status *waited)
{
    float *gradient = model_gradient(t->model, 0);
    uint32_t more = 0;
    bool moved;
    enum status st = *waited;
    if (st == STATUS_OK)
        st = trial_settle(t);
    if (st == STATUS_OK)
        st = model_losses(t->model, t->step[step % 2].own_rows, t->row_loss);
    TRY(comm_agree(t->group, st));
    t->losses_read = true;
    comm_mark(step + 1, "adversary");
    TRY(adversary_move(t->adversary, t->group, gradient, &moved));
    if (!moved)
        return comm_agree(t->group, read_ahead(t, step));
    TRY(comm_agree(t->group, trial_gather_weights(t)));
    st = sum_gradients(t, step, divisor, true, room, &more, waited);
    *flags |= more;
    TRY(st);
    TRY(comm_agree(t->group, *waited));
    adversary_return(t->adversary, gradient);
    return STATUS_OK;
}

/* Collective. Step `step` counts steps run before it. */
static enum status run_step(struct trial *t, int64_t step, struct target_room *room,
                            uint32_t *flags, struct step_outcome *out)
{
    const struct run_config *config = t->config;
    struct step_plan *plan = &t->step[step % 2];
    int slot = (int)(step % 2), batch = t->batch_count[slot];
    float *gradient = model_gradient(t->model, 0);
    double divisor = 0.0;
    enum status st;
    *out = (struct step_outcome){.loss = NAN, .norm = NAN};

    struct loss_target target = target_of(t, &t->opts->train, t->batch_rows[slot], batch,
                                          room->label, room->value, room->weight);
    for (int i = 0; i < batch; i++)
        divisor += loss_weight(&t->opts->task->loss, &target, i);
    bool weightless =
        !(divisor > 0.0); /* every row has weight 0: the gradient is zero, the loss undefined */
    const bool attacked = t->adversary != NULL && step >= t->plan.adversary_from;
    enum status waited;
    t->losses_read = false;
    TRY(sum_gradients(t, step, weightless ? 1.0 : divisor, !attacked, room, flags, &waited));
    if (attacked)
        TRY(attack(t, step, weightless ? 1.0 : divisor, room, flags, &waited));
    if (waited == STATUS_OK && t->config->log.parts) {
        waited = trial_settle(t);
        if (waited == STATUS_OK)
            waited = time_part(t, TIME_REDUCE);
    }
    TRY(exchange(t, step, waited, gradient, &out->norm, &out->loss));
    out->loss = weightless ? NAN : out->loss / divisor;
    out->factor = factor_at(t, optimizer_steps(t->optimizer));
    out->rows = batch;
    out->tokens = 0;
    for (int leaf = 0; leaf < plan->deal.grains; leaf++)
        out->tokens += plan->deal.grain_tokens[leaf];
    out->skipped = !isfinite(out->norm);
    if (out->skipped) /* the sum of squares is not finite either if it overflows: one rank knows */
        return not_finite(t, gradient, step);

    comm_mark(step + 1, "optimizer");
    st = time_part(t, TIME_NORM);
    double most = config->optim.max_grad_norm, clip = most > 0.0 ? most / (out->norm + 1e-6) : 1.0;
    if (st == STATUS_OK)
        st = optimizer_step(t->optimizer, model_weights(t->model), gradient, out->factor,
                            (float)((clip < 1.0 ? clip : 1.0) / t->at.scaling.scale));
    if (st == STATUS_OK)
        st = time_part(t, TIME_ADAMW);
    TRY(comm_agree(t->group, st));
    if (t->opts->precision == PRECISION_FP16)
        loss_scale_applied(&t->at.scaling);
    comm_mark(step + 1, "gather");
    st = trial_gather_weights(t);
    if (st == STATUS_OK && t->averages != NULL && step >= t->plan.average_from)
        averages_add(t->averages, model_weights(t->model));
    if (st == STATUS_OK && t->config->log.parts) {
        st = trial_settle(t);
        if (st == STATUS_OK)
            st = time_part(t, TIME_GATHER);
        t->timed_steps++;
    }
    return comm_agree(t->group, st);
}

/* ---- what people and programs see ---- */

/* Whether this rank says what the trial does. */
static bool shows(const struct trial *t)
{
    return t->leader && !t->opts->quiet;
}

static double rate(double tokens, double seconds)
{
    return seconds > 0.0 ? tokens / seconds : 0.0;
}

/* Called after every step; at.step is the step just run. */
static enum status report_step(struct trial *t, const struct step_outcome *step, double seconds)
{
    const struct run_config *config = t->config;
    int64_t per_epoch = t->plan.steps_per_epoch, in_epoch = (t->at.step - 1) % per_epoch;
    int64_t epoch = (t->at.step - 1) / per_epoch;
    bool last = in_epoch + 1 == per_epoch || t->at.step == t->plan.steps;
    bool line = config->log.every > 0 && (in_epoch % config->log.every == 0 || last);
    bool json = config->log.every > 0 &&
                (t->at.step % config->log.every == 0 || t->at.step == 1 || last);
    bool hashed = config->log.hash_every > 0 && t->at.step % config->log.hash_every == 0;
    double average = t->at.epoch_rows > 0 ? t->at.epoch_loss / (double)t->at.epoch_rows : NAN;
    double elapsed = t->at.epoch_seconds;
    double share = (double)(in_epoch + 1) / (double)per_epoch;
    uint64_t hash = 0;
    char took[32], left[32];
    if (hashed)
        TRY(trial_hash(t, &hash));
    if (!t->leader)
        return STATUS_OK;
    double pace = t->at.seconds / (double)t->at.step;
    double all = (double)t->plan.steps - (double)t->at.step;
    if (t->opts->progress != NULL) {
        struct trial_place place = {.step = t->at.step,
                                    .steps = t->plan.steps,
                                    .loss = step->loss,
                                    .tokens_per_s = rate((double)t->at.tokens, t->at.seconds),
                                    .seconds_left = pace * all};
        t->opts->progress(t->opts->progress_arg, &place);
    }
    if (shows(t) && log_is_terminal() && !last) {
        log_progress("epoch %lld  step %lld/%lld  loss %.4f (%.4f)  %.0f tokens/s  %s left",
                     (long long)epoch + 1, (long long)t->at.step, (long long)t->plan.steps,
                     step->loss, average, rate((double)t->at.tokens, t->at.seconds),
                     minutes_seconds(pace * all, left));
    } else if (shows(t) && line) {
        log_info("Epoch: [%lld][%lld/%lld] Elapsed %s (remain %s) Loss: %.4f(%.4f) LR: %.8f  ",
                 (long long)epoch + 1, (long long)in_epoch, (long long)per_epoch,
                 minutes_seconds(elapsed, took), minutes_seconds(elapsed / share - elapsed, left),
                 step->loss, average,
                 config->optim.lr * factor_at(t, optimizer_steps(t->optimizer)));
    }
    if (!json && !hashed)
        return STATUS_OK;
    struct optimizer_opts peak = {0};
    trial_rates(config, &peak);
    json_t *object = json_pack(
        "{s:s, s:I, s:I, s:o, s:f, s:f, s:o, s:i, s:I, s:f}", "kind", "train", "step",
        (json_int_t)t->at.step, "epoch", (json_int_t)epoch + 1, "loss", json_finite(step->loss),
        "lr", config->optim.lr * step->factor, "head_lr", peak.head_lr * step->factor, "grad_norm",
        json_finite(step->norm), "rows", step->rows, "tokens", (json_int_t)step->tokens,
        "tokens_per_s", rate((double)step->tokens, seconds));
    if (object != NULL && t->opts->precision == PRECISION_FP16) {
        (void)json_object_set_new(object, "loss_scale", json_real(t->at.scaling.scale));
        (void)json_object_set_new(object, "skipped_steps", json_integer(t->at.scaling.skipped));
    }
    if (object != NULL && hashed)
        (void)json_object_set_new(object, "weights_hash", json_hex64(hash));
    return run_log_add(t->log, object);
}

/* ---- evaluation ---- */

/* Collective. The mean of the weights in their place on all ranks, or back. */
static enum status exchange_mean(struct trial *t)
{
    if (t->averages == NULL || averages_count(t->averages) == 0)
        return STATUS_OK;
    averages_swap(t->averages, model_weights(t->model));
    return comm_agree(t->group, trial_gather_weights(t));
}

/* Collective. Logits (owned by the caller) and metrics of rows with the present weights, or with
 * their mean. */
static enum status evaluate(struct trial *t, const struct trial_rows *on, bool mean, float **logits,
                            struct metric_values *values)
{
    const struct trial_opts *opts = t->opts;
    struct row_source source = row_source_dataset(on->ds);
    struct scored scored = {0};
    int64_t tokens = score_tokens(t->config, opts->max_length);
    enum status st;
    *logits = NULL;
    *values = (struct metric_values){0};
    comm_mark(t->at.step, "scoring");
    prefetch_settle(t->prefetch); /* the next batch is read ahead, from the same dataset under
                                     cross-validation */
    st = mem_alloc_raw((size_t)on->count * (size_t)opts->task->outputs, sizeof **logits, "logits",
                       logits);
    if (st == STATUS_OK)
        st = trial_settle(t);
    TRY(comm_agree(t->group, st));
    if (mean)
        TRY(exchange_mean(t));
    TRY(score_rows(t->group, t->model, &source, on->rows, on->count, opts->task->outputs, tokens,
                   SCORE_ROWS, *logits));
    if (mean)
        TRY(exchange_mean(t));
    st = task_scored(opts->task, on->targets, on->rows, on->count, *logits, &scored);
    if (st == STATUS_OK)
        st = metrics_compute(&scored, values);
    task_scored_release(&scored);
    return comm_agree(t->group, st);
}

/* The lines of an evaluation that took so long. */
static void say_evaluation(const struct trial *t, double score, double loss, bool improved,
                           double seconds)
{
    char took[32];
    double passes = (double)t->at.step / (double)t->plan.steps_per_epoch;
    int64_t batches = (t->opts->select.count + t->config->train.batch_size - 1) /
                      t->config->train.batch_size;
    log_progress("%s", "");
    log_info("EVAL: [%lld/%lld] Elapsed %s (remain 0m 0s) Loss: %.4f(%.4f) ",
             (long long)batches - 1, (long long)batches, minutes_seconds(seconds, took), loss,
             loss);
    log_info("Epoch %.4g - avg_train_loss: %.4f  avg_val_loss: %.4f  time: %.0fs", passes,
             t->at.epoch_rows > 0 ? t->at.epoch_loss / (double)t->at.epoch_rows : 0.0, loss,
             t->at.epoch_seconds + seconds);
    if (isnan(score)) {
        log_info("Epoch %.4g - Score: undefined (%s)", passes, metric_name(t->opts->task->metric));
    } else {
        log_info("Epoch %.4g - Score: %.4f", passes, score);
        if (improved && t->opts->select_best)
            log_info("Epoch %.4g - Save Best Score: %.4f Model", passes, score);
    }
}

/* Collective. Evaluate, compare with the best, log. *improved: these weights are the best so far.
 */
static enum status evaluate_and_judge(struct trial *t, bool *improved)
{
    const struct trial_opts *opts = t->opts;
    struct progress *at = &t->at;
    struct metric_values values = {0};
    float *logits = NULL;
    double started = clock_s();
    enum status st = STATUS_OK;
    *improved = false;
    TRY_GOTO(done, evaluate(t, &opts->select, true, &logits, &values));
    double score = values.value[opts->task->metric], loss = values.value[METRIC_LOSS];
    *improved = at->best_step < 0 || metric_better(opts->task->metric, score, at->best_score);
    if (*improved) {
        at->best_step = at->step;
        at->best_score = score;
        at->without_gain = 0;
    } else {
        at->without_gain++;
    }
    TRY_GOTO(done, mem_grow(&at->history, &at->history_capacity, at->evaluations + 1,
                            sizeof *at->history, "the history"));
    at->history[at->evaluations++] = (struct evaluation){at->step, score, loss};
    if (!t->leader)
        goto done;
    if (shows(t))
        say_evaluation(t, score, loss, *improved, clock_s() - started);
    json_t *line = json_pack("{s:s, s:I, s:I, s:s, s:o, s:o, s:o, s:f}", "kind", "eval", "step",
                             (json_int_t)at->step, "rows", (json_int_t)opts->select.count, "metric",
                             metric_name(opts->task->metric), "score", json_finite(score), "loss",
                             json_finite(loss), "metrics", metrics_json(&values), "seconds",
                             clock_s() - started);
    st = run_log_add(t->log, line);
done:
    metrics_release(&values);
    mem_free(logits);
    return comm_agree(t->group, st);
}

static bool due(const struct config_every *every, int64_t step, const struct trial_plan *plan)
{
    if (every->epoch)
        return step % plan->steps_per_epoch == 0;
    return every->steps > 0 && step % every->steps == 0;
}

/* The plateau's answer to the last evaluation. */
static void follow_score(struct trial *t)
{
    struct progress *at = &t->at;
    if (!t->rates.follows_scores ||
        !plateau_score(&t->rates.plateau, &at->plateau, at->history[at->evaluations - 1].score))
        return;
    if (shows(t))
        log_info("plateau: no gain since %g, the learning rate is %g of its peak from here on",
                 at->plateau.best, at->plateau.factor);
}

/* Collective. What happens between two steps: evaluation, early stopping, checkpoints. */
static enum status between_steps(struct trial *t, uint32_t flags, bool *stop)
{
    const struct run_config *config = t->config;
    struct progress *at = &t->at;
    bool last = at->step == t->plan.steps, improved = false, pause = at->step == t->until;
    int64_t old_best = at->best_step, old_without = at->without_gain;
    double old_score = at->best_score;
    if (t->opts->select.count > 0 &&
        (last || pause || due(&config->eval.every, at->step, &t->plan))) {
        TRY(evaluate_and_judge(t, &improved));
        if (last || due(&config->eval.every, at->step, &t->plan)) /* not where a trial pauses */
            follow_score(t);
        if (t->opts->select_best && config->eval.patience > 0 &&
            at->without_gain >= config->eval.patience && !last) {
            at->stopped = true;
            if (shows(t))
                log_info("early stop: no gain in %lld evaluations, best %.4f at step %lld",
                         (long long)at->without_gain, at->best_score, (long long)at->best_step);
        }
    }
    *stop = last || pause || at->stopped || (flags & FLAG_STOP) != 0;
    bool publish = t->opts->select_best && t->opts->select.count > 0 ? improved
                                                                     : last || at->stopped;
    if (at->step % t->plan.steps_per_epoch == 0) { /* after the line, before the state is saved */
        at->epoch_loss = 0.0;
        at->epoch_rows = 0;
        at->epoch_seconds = 0.0;
    }
    if (!*stop && !publish && (flags & FLAG_SAVE) == 0 &&
        !due(&config->checkpoint.every, at->step, &t->plan))
        return STATUS_OK;
    TRY(trial_save(t, publish));
    if (*stop && t->write_failures > 0)
        return status_fail(
            STATUS_IO,
            "stopped at step %lld, whose checkpoint could not be saved; the one before stays",
            (long long)at->step);
    if (publish && t->write_failures > 0) { /* it was not saved, so it cannot be the best */
        at->best_step = old_best;
        at->best_score = old_score;
        at->without_gain = old_without + 1;
    }
    return STATUS_OK;
}

/* ---- the loop ---- */

static enum status train(struct trial *t)
{
    struct target_room room;
    uint32_t flags = 0;
    bool stop = t->at.stopped || t->at.step >= t->until;
    enum status st = target_room_make(&room, (size_t)t->config->train.batch_size,
                                      (size_t)t->opts->task->outputs);
    if (st == STATUS_OK && !stop) {
        st = plan_step(t, t->at.step);
        if (st == STATUS_OK && t->step[t->at.step % 2].passes > 0)
            st = ask_pass(t, (int)(t->at.step % 2), 0);
    }
    TRY_GOTO(done, comm_agree(t->group, st));
    while (!stop) {
        struct step_outcome outcome;
        double started = clock_s();
        TRY_GOTO(done, run_step(t, t->at.step, &room, &flags, &outcome));
        double seconds = clock_s() - started;
        t->at.step++;
        t->at.tokens += outcome.tokens;
        t->at.seconds += seconds;
        t->at.epoch_seconds += seconds;
        if (isfinite(outcome.loss)) { /* fp16: that of a skipped step may have overflowed, too */
            t->at.epoch_loss += outcome.loss * outcome.rows;
            t->at.epoch_rows += outcome.rows;
        }
        TRY_GOTO(done, comm_agree(t->group, report_step(t, &outcome, seconds)));
        TRY_GOTO(done, between_steps(t, flags, &stop));
        TRY_GOTO(done, comm_agree(t->group, fault_here("step.end")));
    }
    if ((flags & FLAG_STOP) != 0 && t->at.step < t->until && !t->at.stopped)
        st = status_fail(
            STATUS_REQUEUE,
            "stopped by a signal at step %lld of %lld; checkpoint-%lld is saved, the same "
            "command goes on from there",
            (long long)t->at.step, (long long)t->plan.steps, (long long)t->at.step);
done:
    target_room_release(&room);
    return st;
}

/* Collective. Scores of the chosen weights: those in memory, or best/ if an earlier step was
 * better. */
static enum status score_chosen(struct trial *t, struct trial_result *result)
{
    const struct trial_opts *opts = t->opts;
    bool earlier = opts->select_best && opts->select.count > 0 && t->at.best_step != t->at.step;
    struct metric_values values = {0};
    char *best = NULL;
    enum status st = STATUS_OK;
    result->steps = t->at.step;
    result->best_step = opts->select_best && opts->select.count > 0 ? t->at.best_step : t->at.step;
    result->best_score = opts->select_best ? t->at.best_score : NAN;
    result->last_score = t->at.evaluations > 0 ? t->at.history[t->at.evaluations - 1].score : NAN;
    result->tokens = t->at.tokens;
    result->seconds = t->at.seconds;
    memcpy(result->part_s, t->part_s, sizeof result->part_s);
    result->timed_steps = t->timed_steps;
    model_replays(t->model, &result->replayed, &result->stretches);
    result->paused = t->at.step < t->plan.steps && !t->at.stopped;
    if (opts->score.count == 0 || result->paused)
        return STATUS_OK;
    if (earlier) {
        st = path_join(opts->folder, "best", &best);
        if (st == STATUS_OK)
            st = model_load_trained(t->model, best);
        mem_free(best);
        TRY(comm_agree(t->group, st));
    }
    st = evaluate(t, &opts->score, !earlier, &result->logits, &values);
    metrics_release(&values);
    return st;
}

/* How much of the work was replayed from recordings, where there are any. */
static void say_replays(const struct trial *t)
{
    int64_t replayed, all;
    model_replays(t->model, &replayed, &all);
    if (shows(t) && all > 0)
        log_info("CUDA graphs: %lld of %lld stretches of work replayed (%.1f %%)",
                 (long long)replayed, (long long)all, 100.0 * (double)replayed / (double)all);
}

/* A mean that was asked for and is none: early stopping came before it began. */
static void say_no_mean(const struct trial *t)
{
    if (shows(t) && t->at.stopped && t->averages != NULL && averages_count(t->averages) == 0)
        log_warning("train.average: the run stopped at step %lld, before step %lld, whose weights "
                    "would have been the first to count; the weights themselves are kept",
                    (long long)t->at.step, (long long)t->plan.average_from + 1);
}

static void say_chunks(const struct trial *t)
{
    const struct trial_rows *train = &t->opts->train;
    struct chunk_tally tally = {0};
    for (int64_t i = 0; i < train->count; i++)
        dataset_tally(train->ds, train->rows[i], &tally);
    log_line(tally.lost > 0 ? LOG_WARNING : LOG_INFO,
             "%lld texts in %lld chunks, %lld at most, pooled by %s; of %lld tokens %lld are in no "
             "chunk and %lld are read twice",
             (long long)tally.texts, (long long)tally.chunks, (long long)tally.most,
             chunk_pooling_name(t->opts->chunks.pooling), (long long)tally.tokens,
             (long long)tally.lost, (long long)tally.repeated);
}

enum status trial_run(const struct trial_opts *opts, struct trial_result *result)
{
    struct trial t = {.opts = opts,
                      .config = opts->config,
                      .group = opts->group,
                      .leader = comm_rank(opts->group) == 0};
    enum status st;
    *result = (struct trial_result){.best_score = NAN, .last_score = NAN};
    TRY_GOTO(done, comm_agree(t.group, open_parts(&t)));
    t.until = t.plan.steps;
    if (opts->until > 0.0 && opts->until < 1.0)
        t.until = (int64_t)ceil(opts->until * (double)t.plan.steps);
    TRY_GOTO(done, trial_restore(&t));
    st = run_log_open(opts->folder, t.leader, t.at.step, &t.log);
    TRY_GOTO(done, comm_agree(t.group, st));
    if (shows(&t))
        log_info("%lld rows in batches of %lld: %lld steps an epoch, %lld in all, %lld of warm-up; "
                 "%s, %s, %d rank%s",
                 (long long)opts->train.count, (long long)opts->config->train.batch_size,
                 (long long)t.plan.steps_per_epoch, (long long)t.plan.steps,
                 (long long)t.plan.warmup, precision_name(opts->precision), opts->kernels->name,
                 comm_size(t.group), comm_size(t.group) == 1 ? "" : "s");
    if (shows(&t) && opts->chunks.size > 0)
        say_chunks(&t);
    TRY_GOTO(done, train(&t));
    say_replays(&t);
    say_no_mean(&t);
    TRY_GOTO(done, score_chosen(&t, result));
done:
    if (st != STATUS_OK)
        trial_result_release(result);
    close_parts(&t);
    return st;
}

void trial_result_release(struct trial_result *result)
{
    mem_free(result->logits);
    result->logits = NULL;
}
