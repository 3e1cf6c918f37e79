/* keys.c - the table, and what is done with it; see keys.h. */
#include "launcher/keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct run_config, field)
#define TEXT_KEY(name_, field, fallback_, help_)                                                   \
    {                                                                                              \
        .name = name_, .type = KEY_TEXT, .offset = AT(field), .fallback = fallback_, .unit = "",   \
        .help = help_                                                                              \
    }
#define PATH_KEY(name_, field, help_)                                                              \
    {                                                                                              \
        .name = name_, .type = KEY_PATH, .offset = AT(field), .fallback = "", .unit = "",          \
        .help = help_                                                                              \
    }
#define INT_KEY(name_, field, fallback_, low_, high_, unit_, help_)                                \
    {                                                                                              \
        .name = name_, .type = KEY_INT, .offset = AT(field), .fallback = fallback_, .low = low_,   \
        .high = high_, .unit = unit_, .help = help_                                                \
    }
#define REAL_KEY(name_, field, fallback_, low_, high_, unit_, help_)                               \
    {                                                                                              \
        .name = name_, .type = KEY_REAL, .offset = AT(field), .fallback = fallback_, .low = low_,  \
        .high = high_, .unit = unit_, .help = help_                                                \
    }
#define BOOL_KEY(name_, field, fallback_, help_)                                                   \
    {                                                                                              \
        .name = name_, .type = KEY_BOOL, .offset = AT(field), .fallback = fallback_, .unit = "",   \
        .help = help_                                                                              \
    }
#define CHOICE_KEY(name_, field, fallback_, choices_, help_)                                       \
    {                                                                                              \
        .name = name_, .type = KEY_CHOICE, .offset = AT(field), .fallback = fallback_,             \
        .choices = choices_, .unit = "", .help = help_                                             \
    }
#define EVERY_KEY(name_, field, fallback_, help_)                                                  \
    {                                                                                              \
        .name = name_, .type = KEY_EVERY, .offset = AT(field), .fallback = fallback_,              \
        .unit = "steps", .help = help_                                                             \
    }
#define NEUTRAL .neutral = true

/* clang-format off */
const struct key keys[] = {
    {.name = "out", .type = KEY_PATH, .offset = AT(out), .fallback = "", .unit = "", NEUTRAL, .help = "folder of the run, or the file to write (prepare, eval, predict, embed, tokenizer); - is standard output"},
    INT_KEY("seed", seed, "42", 0, 9e15, "", "names every random decision: weights drawn, order of rows, dropout, folds"),
    {.name = "resume", .type = KEY_CHOICE, .offset = AT(resume), .fallback = "auto", .choices = "auto|never", .unit = "", NEUTRAL, .help = "auto: go on with the run in out if its configuration is the same; never: refuse a folder that holds a run"},
    {.name = "overwrite", .type = KEY_BOOL, .offset = AT(overwrite), .fallback = "false", .unit = "", NEUTRAL, .help = "remove the run in out and start anew"},
    {.name = "watch", .type = KEY_BOOL, .offset = AT(watch), .fallback = "false", .unit = "", NEUTRAL, .help = "report: show on the terminal what the run is doing, until it ends"},

    PATH_KEY("model.path", model.path, "Hugging Face model folder: config.json, model.safetensors, tokenizer files; predict and eval also take the folder of a cross-validation, whose models they average"),
    CHOICE_KEY("model.pooling", model.pooling, "auto", "auto|cls|pooler|mean|max", "how a row's token vectors become one; auto: what the model was trained with, else pooler"),
    CHOICE_KEY("model.chunk_pooling", model.chunk_pooling, "auto", "auto|mean|max", "how the logits of a text's chunks become one, output by output; auto: what the model was trained with, else mean"),
    REAL_KEY("model.dropout", model.dropout, "-1", -1, 0.9, "", "overrides every dropout of config.json; below 0: as config.json says"),
    INT_KEY("model.dropout_samples", model.dropout_samples, "1", 1, 64, "", "samples of the head's dropout in training, each with a loss, which are averaged (docs/training-tricks.md)"),
    BOOL_KEY("model.from_scratch", model.from_scratch, "false", "draw all weights from seed instead of loading them"),
    BOOL_KEY("model.freeze_embeddings", model.freeze_embeddings, "false", "leave the embeddings as they are"),
    INT_KEY("model.freeze_layers", model.freeze_layers, "0", 0, 10000, "layers", "leave the first so many layers as they are"),
    BOOL_KEY("model.resize_embeddings", model.resize_embeddings, "false", "where the tokenizer has more ids than the model: draw embeddings for the new ones from seed, and save a model with so many"),

    PATH_KEY("data.train", data.train, "training rows: text (.tsv .csv .jsonl .arff, folder of .txt, also .gz .zst) or a prepared .h5"),
    PATH_KEY("data.eval", data.eval, "rows to evaluate on while training, and to choose the best checkpoint"),
    {.name = "data.test", .type = KEY_PATH, .offset = AT(data.test), .fallback = "", .unit = "", NEUTRAL, .help = "rows that the chosen weights are scored on once, at the end"},
    PATH_KEY("data.input", data.input, "rows for prepare, eval, predict, embed and tokenizer; tokenizer train reads several files, joined by commas"),
    TEXT_KEY("data.text", data.text, "", "column of the text"),
    TEXT_KEY("data.template", data.template, "", "text made of several columns, in place of data.text: \"{title} [SEP] {body}\"; {{ and }} are braces"),
    TEXT_KEY("data.pair", data.pair, "", "column of the second text of a pair"),
    TEXT_KEY("data.label", data.label, "", "column of the label"),
    TEXT_KEY("data.group", data.group, "", "column of the group (person, prompt, ...): a group is never split by a fold"),
    TEXT_KEY("data.id", data.id, "", "column that names a row in oof.tsv and predictions"),
    TEXT_KEY("data.weight", data.weight, "", "column of the row's weight in the loss"),
    TEXT_KEY("data.time", data.time, "", "column of the row's time, for cv.kind=rolling and blocked: numbers, or dates such as 2024-03-01 or 2024-03-01T12:30:00Z"),
    TEXT_KEY("data.fold", data.fold, "", "column that names the fold of each row, for cv.kind=column; rows that say nothing or train are never scored"),
    CHOICE_KEY("data.format", data.format, "auto", "auto|tsv|csv|jsonl|arff|folder", "format of text files; auto: by extension"),
    BOOL_KEY("data.header", data.header, "true", "the first line of TSV and CSV names the columns; false: columns are 1, 2, ..."),
    CHOICE_KEY("data.task", data.task, "auto", "auto|classes|multi_label|regression", "what labels are; auto: classes"),
    TEXT_KEY("data.label_separator", data.label_separator, ",", "splits the label column when data.task is multi_label"),
    INT_KEY("data.max_length", data.max_length, "0", 0, 1e6, "tokens", "longest row with special tokens, longer ones are cut; 0: the model's maximum; tokenizer train: what it stores as model_max_length"),
    CHOICE_KEY("data.long", data.long_text, "auto", "auto|truncate|chunk", "texts longer than a row: cut them, or read them in chunks and pool (docs/long-texts.md); auto: as the model was trained, else truncate"),
    INT_KEY("data.chunk_size", data.chunk_size, "0", 0, 1e6, "tokens", "content tokens of a chunk; 0: as many as data.max_length has room for"),
    INT_KEY("data.stride", data.stride, "0", 0, 1e6, "tokens", "from the beginning of one chunk to that of the next; 0: data.chunk_size, no overlap"),
    INT_KEY("data.min_chunk", data.min_chunk, "5", 1, 1e6, "tokens", "shorter chunks of a text that has several are dropped; the first always stays"),
    INT_KEY("data.max_text_length", data.max_text_length, "0", 0, 9e15, "tokens", "content tokens of a text that are read, in all its chunks; 0: all"),
    BOOL_KEY("data.skip_contained_tail", data.skip_contained_tail, "false", "drop a last chunk that lies wholly inside the one before"),
    BOOL_KEY("data.shuffle", data.shuffle, "true", "order each epoch anew from seed; false: file order"),
    TEXT_KEY("data.where", data.where, "", "keep rows where \"column=value\" or \"column!=value\", several joined by \" and \""),
    TEXT_KEY("data.rows", data.rows, "", "keep these row numbers of the file, from 0: \"0-127,200\""),
    INT_KEY("data.limit", data.limit, "0", 0, 9e15, "rows", "keep the first rows after selection; 0: all"),
    INT_KEY("data.max_words", data.max_words, "0", 0, 1e9, "words", "keep the first words of each text; 0: all"),
    REAL_KEY("data.holdout", data.holdout, "0", 0, 0.9, "", "share of data.train that evaluates when data.eval is not given, stratified, chosen by seed"),
    BOOL_KEY("data.keep_text", data.keep_text, "true", "store texts in prepared files, for reports"),
    {.name = "data.cache", .type = KEY_PATH, .offset = AT(data.cache), .fallback = "", .unit = "", NEUTRAL, .help = "folder for files prepared on the way; empty: data/ in out"},

    REAL_KEY("train.epochs", train.epochs, "3", 0, 1e6, "", "passes over the training rows; parts of one are allowed"),
    INT_KEY("train.max_steps", train.max_steps, "0", 0, 9e15, "steps", "number of optimizer steps; overrides train.epochs; 0: from epochs"),
    INT_KEY("train.batch_size", train.batch_size, "32", 1, 1e6, "rows", "rows per optimizer step over all ranks, whatever their number"),
    INT_KEY("train.micro_tokens", train.micro_tokens, "16384", 16, 1e9, "tokens", "tokens of one forward and backward pass of a rank: a memory knob"),
    CHOICE_KEY("train.precision", train.precision, "auto", "auto|fp32|tf32|bf16|fp16", "of matrix products and stored activations; auto: bf16 where the hardware has it, else fp32"),
    {.name = "train.recompute", .type = KEY_CHOICE, .offset = AT(train.recompute), .fallback = "auto", .choices = "auto|false|true", .unit = "", NEUTRAL, .help = "run each layer's forward again in backward to save memory, with equal bits; auto: when memory asks for it"},
    CHOICE_KEY("train.loss", train.loss, "auto", "auto|cross_entropy|bce|mse", "auto: cross_entropy for classes, bce for multi_label, mse for regression"),
    TEXT_KEY("train.class_weights", train.class_weights, "", "balanced, or one number for each label in order, joined by commas"),
    REAL_KEY("train.label_smoothing", train.label_smoothing, "0", 0, 0.99, "", "share of the target spread over all classes"),
    REAL_KEY("train.focal_gamma", train.focal_gamma, "0", 0, 20, "", "focal loss: rows that are right already count less, by (1 - p)^gamma; with cross_entropy and bce; 0: none (docs/training-tricks.md)"),
    CHOICE_KEY("train.average", train.average, "none", "none|ema|swa", "evaluate, choose and save a mean of the weights over the steps: ema: exponential, swa: of all (docs/training-tricks.md)"),
    REAL_KEY("train.ema_decay", train.ema_decay, "0.999", 0, 0.9999999, "", "of the mean with train.average=ema, each step"),
    REAL_KEY("train.average_start", train.average_start, "0", 0, 1e6, "epochs", "steps of so many epochs come before the first that counts in the mean"),
    CHOICE_KEY("train.adversarial", train.adversarial, "none", "none|fgm|awp", "run each step once more with weights moved to where the loss grows, and add the gradients: fgm: word embeddings, awp: all matrices (docs/training-tricks.md)"),
    REAL_KEY("train.adversarial_eps", train.adversarial_eps, "0", 0, 1000, "", "fgm: length of the move; awp: bound of an element's move, as a share of it; 0: 1 for fgm, 0.01 for awp"),
    REAL_KEY("train.adversarial_rate", train.adversarial_rate, "1", 0, 1000, "", "awp: length of a tensor's move before the bound, as a share of its norm"),
    REAL_KEY("train.adversarial_start", train.adversarial_start, "0", 0, 1e6, "epochs", "steps of so many epochs are run without"),
    {.name = "train.memory_limit_gb", .type = KEY_REAL, .offset = AT(train.memory_limit_gb), .fallback = "0", .low = 0, .high = 1e6, .unit = "GB", NEUTRAL, .help = "refuse a run whose ranks on one node would need more; 0: what the node has"},

    CHOICE_KEY("optim.name", optim.name, "adamw", "adamw|adam|sgd|adagrad|adadelta|rmsprop|lamb", "the optimizer (docs/optimizers.md)"),
    REAL_KEY("optim.lr", optim.lr, "5e-5", 0, 10, "", "peak learning rate"),
    REAL_KEY("optim.head_lr", optim.head_lr, "-1", -1, 10, "", "peak learning rate of everything outside the encoder; below 0: optim.lr"),
    REAL_KEY("optim.weight_decay", optim.weight_decay, "0.01", 0, 10, "", "decay of weights and embeddings, never of biases and norms: decoupled in adamw and lamb, added to the gradient in the others"),
    REAL_KEY("optim.head_weight_decay", optim.head_weight_decay, "-1", -1, 10, "", "the same for the head; below 0: optim.weight_decay"),
    REAL_KEY("optim.beta1", optim.beta1, "0.9", 0, 0.999999, "", "adamw, adam, lamb: decay of the first moment"),
    REAL_KEY("optim.beta2", optim.beta2, "0.999", 0, 0.9999999, "", "adamw, adam, lamb: decay of the second moment"),
    REAL_KEY("optim.eps", optim.eps, "0", 0, 1, "", "added to the root of the second moment; 0: 1e-8, for adagrad 1e-10, for adadelta (under the root) and lamb 1e-6"),
    REAL_KEY("optim.momentum", optim.momentum, "0", 0, 0.999999, "", "sgd, rmsprop: momentum"),
    BOOL_KEY("optim.nesterov", optim.nesterov, "false", "sgd: Nesterov's momentum"),
    REAL_KEY("optim.alpha", optim.alpha, "0.99", 0, 0.9999999, "", "rmsprop: decay of the mean square"),
    BOOL_KEY("optim.centered", optim.centered, "false", "rmsprop: by the variance instead of the mean square"),
    REAL_KEY("optim.rho", optim.rho, "0.9", 0, 0.9999999, "", "adadelta: decay of both means"),
    REAL_KEY("optim.layer_decay", optim.layer_decay, "1", 0.001, 1, "", "rates of layer l of L are multiplied by this to the power of L - l, from l = 0, those of embeddings to the power of L + 1"),
    REAL_KEY("optim.max_grad_norm", optim.max_grad_norm, "1", 0, 1e9, "", "clip the global gradient norm to this; 0: no clipping"),

    CHOICE_KEY("schedule.name", schedule.name, "linear", "linear|cosine|constant|step|multi_step|exponential|polynomial|cosine_with_restarts|warm_restarts|cyclic|one_cycle|plateau|table", "learning rate after warm-up (docs/optimizers.md)"),
    REAL_KEY("schedule.warmup_ratio", schedule.warmup_ratio, "0.1", 0, 1, "", "share of all steps that warm up, rounded up"),
    INT_KEY("schedule.warmup_steps", schedule.warmup_steps, "-1", -1, 9e15, "steps", "warm-up in steps; overrides schedule.warmup_ratio; below 0: not given"),
    REAL_KEY("schedule.num_cycles", schedule.num_cycles, "0.5", 0, 1000, "", "waves of the cosine, 0.5 ends at its lowest; cycles of cosine_with_restarts"),
    CHOICE_KEY("schedule.by", schedule.by, "step", "step|epoch", "what the schedule counts after warm-up, and the unit of the numbers below; warm-up is always in steps"),
    INT_KEY("schedule.length", schedule.length, "0", 0, 9e15, "", "linear, cosine, polynomial, one_cycle: how long until the end; 0: all there is. constant: how long schedule.start holds"),
    REAL_KEY("schedule.start", schedule.start, "1", 0, 1000, "", "linear, constant: factor at first"),
    REAL_KEY("schedule.end", schedule.end, "0", 0, 1000, "", "linear: factor at last"),
    REAL_KEY("schedule.min_factor", schedule.min_factor, "0", 0, 1, "", "lowest factor of cosine, polynomial, cosine_with_restarts, warm_restarts, cyclic and plateau"),
    REAL_KEY("schedule.power", schedule.power, "1", 0, 100, "", "of polynomial"),
    REAL_KEY("schedule.gamma", schedule.gamma, "0.1", 0, 10, "", "step, multi_step, exponential: factor each time; cyclic with exp_range: of the height"),
    INT_KEY("schedule.step_size", schedule.step_size, "0", 0, 9e15, "", "step: how long between two falls"),
    {.name = "schedule.milestones", .type = KEY_INT_LIST, .offset = AT(schedule.milestones), .count_offset = AT(schedule.milestones_count), .fallback = "", .low = 0, .high = 9e15, .unit = "", .help = "multi_step: when the rate falls, as [30,80]"},
    INT_KEY("schedule.t_0", schedule.t_0, "0", 0, 9e15, "", "warm_restarts: length of the first cycle"),
    INT_KEY("schedule.t_mult", schedule.t_mult, "1", 1, 1000, "", "warm_restarts: how much longer each next one is"),
    INT_KEY("schedule.step_size_up", schedule.step_size_up, "0", 0, 4e15, "", "cyclic: length of the rise"),
    INT_KEY("schedule.step_size_down", schedule.step_size_down, "0", 0, 4e15, "", "cyclic: length of the fall; 0: as the rise"),
    CHOICE_KEY("schedule.mode", schedule.mode, "triangular", "triangular|triangular2|exp_range", "cyclic: peaks stay, are halved each cycle, or fall by schedule.gamma"),
    REAL_KEY("schedule.pct_start", schedule.pct_start, "0.3", 0, 1, "", "one_cycle: share that rises"),
    REAL_KEY("schedule.div_factor", schedule.div_factor, "25", 1, 1e9, "", "one_cycle: peak over first rate"),
    REAL_KEY("schedule.final_div_factor", schedule.final_div_factor, "10000", 1, 1e12, "", "one_cycle: first rate over last"),
    BOOL_KEY("schedule.three_phase", schedule.three_phase, "false", "one_cycle: fall as long as the rise, then to the end"),
    CHOICE_KEY("schedule.anneal", schedule.anneal, "cos", "cos|linear", "one_cycle: shape of rise and fall"),
    REAL_KEY("schedule.factor", schedule.factor, "0.1", 0, 0.999999, "", "plateau: factor each time"),
    INT_KEY("schedule.patience", schedule.patience, "10", 0, 1e9, "evaluations", "plateau: evaluations without gain that are let pass"),
    REAL_KEY("schedule.threshold", schedule.threshold, "1e-4", 0, 1e9, "", "plateau: smallest gain in eval.metric"),
    CHOICE_KEY("schedule.threshold_mode", schedule.threshold_mode, "rel", "rel|abs", "plateau: the threshold is a share of the best score, or a difference"),
    INT_KEY("schedule.cooldown", schedule.cooldown, "0", 0, 1e9, "evaluations", "plateau: evaluations after a fall that are not counted"),
    REAL_KEY("schedule.eps", schedule.eps, "1e-8", 0, 1, "", "plateau: the rate is left alone where it would fall by less"),
    TEXT_KEY("schedule.table", schedule.table, "", "table: factors from points on, \"0:1,100:0.5,300:0.1\""),
    BOOL_KEY("schedule.interpolate", schedule.interpolate, "false", "table: straight lines between points instead of stairs"),

    EVERY_KEY("eval.every", eval.every, "epoch", "evaluate every so many steps, or every epoch; 0: at the end only"),
    TEXT_KEY("eval.metric", eval.metric, "", "what chooses the best (docs/metrics.md): loss, log_loss, brier, accuracy, macro_f1, micro_f1, weighted_f1, roc_auc, weighted_roc_auc, pr_auc; for classes also balanced_accuracy, mcc, kappa, quadratic_kappa, ece, top3_accuracy, top5_accuracy; of two classes f1, precision, recall; for several labels samples_f1, hamming_loss, lrap; for numbers mse, rmse, mae, pearson, spearman, kendall, r2, explained_variance; empty: accuracy, micro_f1 or pearson by task"),
    INT_KEY("eval.patience", eval.patience, "0", 0, 1e9, "evaluations", "stop after so many evaluations without gain; 0: never"),
    {.name = "eval.batch_tokens", .type = KEY_INT, .offset = AT(eval.batch_tokens), .fallback = "4096", .low = 16, .high = 1e9, .unit = "tokens", NEUTRAL, .help = "tokens of one scoring pass of a rank: a memory knob"},

    {.name = "predict.score_column", .type = KEY_TEXT, .offset = AT(predict.score_column), .fallback = "", .unit = "", NEUTRAL, .help = "write only the id and, under this name, the score of the last label: id,generated"},

    {.name = "embed.pooling", .type = KEY_CHOICE, .offset = AT(embed.pooling), .fallback = "mean", .choices = "mean|cls|max", .unit = "", NEUTRAL, .help = "how the last hidden states of a text become its vector"},
    {.name = "embed.normalize", .type = KEY_BOOL, .offset = AT(embed.normalize), .fallback = "true", .unit = "", NEUTRAL, .help = "give each vector length 1"},

    {.name = "tokenizer.model", .type = KEY_CHOICE, .offset = AT(tokenizer.model), .fallback = "wordpiece", .choices = "wordpiece|bpe|unigram", .unit = "", NEUTRAL, .help = "what tokenizer train makes; wordpiece merges by likelihood, f(ab)/(f(a)f(b))"},
    {.name = "tokenizer.vocab_size", .type = KEY_INT, .offset = AT(tokenizer.vocab_size), .fallback = "30522", .low = 1, .high = 4194304, .unit = "pieces", NEUTRAL, .help = "size of the vocabulary, special tokens included"},
    {.name = "tokenizer.special_tokens", .type = KEY_TEXT, .offset = AT(tokenizer.special_tokens), .fallback = "[UNK],[PAD],[CLS],[SEP],[MASK]", .unit = "", NEUTRAL, .help = "joined by commas, their ids are 0, 1, ...; [UNK] [PAD] [CLS] [SEP] [MASK], or <unk> <pad> <s> </s> <mask> and RoBERTa's pairs, are known by name"},
    {.name = "tokenizer.normalizer", .type = KEY_TEXT, .offset = AT(tokenizer.normalizer), .fallback = "auto", .unit = "", NEUTRAL, .help = "joined by commas, in this order: nfc nfd nfkc nfkd nmt lowercase strip_accents spaces bert bert_cased; none; auto: bert for wordpiece, none for bpe, nmt,nfkc,spaces for unigram"},
    {.name = "tokenizer.pre_tokenizer", .type = KEY_CHOICE, .offset = AT(tokenizer.pre_tokenizer), .fallback = "auto", .choices = "auto|whitespace|whitespace_split|bert|bytelevel|metaspace", .unit = "", NEUTRAL, .help = "how words are cut; auto: bert for wordpiece, bytelevel for bpe, metaspace for unigram"},
    {.name = "tokenizer.min_frequency", .type = KEY_INT, .offset = AT(tokenizer.min_frequency), .fallback = "2", .low = 0, .high = 9e15, .unit = "", NEUTRAL, .help = "pairs seen less often are not merged; unigram: substrings of fewer words are not tried. wordpiece takes rare pairs first: give it the greatest number that still fills tokenizer.vocab_size"},
    {.name = "tokenizer.limit_alphabet", .type = KEY_INT, .offset = AT(tokenizer.limit_alphabet), .fallback = "1000", .low = 0, .high = 1114112, .unit = "characters", NEUTRAL, .help = "keep so many characters, the most frequent; the others are unknown; 0: all"},
    {.name = "tokenizer.max_piece_length", .type = KEY_INT, .offset = AT(tokenizer.max_piece_length), .fallback = "16", .low = 1, .high = 256, .unit = "characters", NEUTRAL, .help = "longest piece of unigram"},
    {.name = "tokenizer.max_words", .type = KEY_INT, .offset = AT(tokenizer.max_words), .fallback = "8000000", .low = 1000, .high = 2147483648.0, .unit = "words", NEUTRAL, .help = "distinct words kept while counting, which bounds memory (about 200 bytes each for bpe, 100 for the others); the rarest are cut beyond, and that is said"},

    CHOICE_KEY("cv.kind", cv.kind, "auto", "auto|stratified|kfold|group|stratified_group|holdout|shuffle|stratified_shuffle|leave_one_out|leave_p_out|leave_one_group_out|bins|multi_label|rolling|blocked|column", "how rows are split (docs/cross-validation.md); auto: stratified for classes, kfold else; the group kinds where data.group is given"),
    INT_KEY("cv.folds", cv.folds, "0", 0, 1000, "folds", "number of folds; of splits for shuffle, stratified_shuffle, rolling and blocked; 0: no cross-validation, unless cv.kind is leave_* or column, which know how many there are"),
    INT_KEY("cv.repeats", cv.repeats, "1", 1, 1000, "", "run everything so many times, each with a seed of its own and, for kfold, stratified, group, stratified_group, bins and multi_label, with folds shuffled anew"),
    REAL_KEY("cv.test_share", cv.test_share, "0.2", 0.0001, 0.9999, "", "shuffle, stratified_shuffle: share of the rows that a split scores; blocked: of each block"),
    INT_KEY("cv.p", cv.p, "2", 1, 1e6, "rows", "leave_p_out: rows that a split scores; refused where there would be more than 10000 splits"),
    INT_KEY("cv.gap", cv.gap, "0", 0, 9e15, "rows", "rolling, blocked: rows left out between those that train and those that are scored"),
    INT_KEY("cv.max_train", cv.max_train, "0", 0, 9e15, "rows", "rolling: train on the last so many rows before the gap; 0: on all"),
    INT_KEY("cv.test_rows", cv.test_rows, "0", 0, 9e15, "rows", "rolling: rows that a split scores; 0: all rows / (cv.folds + 1)"),
    INT_KEY("cv.bins", cv.bins, "10", 1, 1000, "bins", "bins: quantile bins of the label that the folds are stratified by"),
    CHOICE_KEY("cv.duplicates", cv.duplicates, "report", "report|group|refuse|ignore", "rows with the same or nearly the same tokens: say how many have a copy that trains where they are scored, keep them in one fold, or refuse (docs/cross-validation.md)"),
    REAL_KEY("cv.similarity", cv.similarity, "0.8", 0.5, 1, "", "rows whose runs of 3 tokens have at least this Jaccard similarity are near copies; 1: equal rows only"),
    {.name = "cv.run_folds", .type = KEY_INT_LIST, .offset = AT(cv.run_folds), .count_offset = AT(cv.run_folds_count), .fallback = "", .low = 0, .high = 999, .unit = "", NEUTRAL, .help = "run only these folds of every repeat, from 0: [0,2]; empty: all"},
    {.name = "cv.group_ranks", .type = KEY_INT, .offset = AT(cv.group_ranks), .fallback = "0", .low = 0, .high = 1e6, .unit = "ranks", NEUTRAL, .help = "ranks that train one trial together; 0: chosen by the number of trials and the size of the model"},
    INT_KEY("cv.inner_folds", cv.inner_folds, "0", 0, 1000, "folds", "nested cross-validation: each fold's setting is chosen by so many folds of its own training rows; 0: not nested"),
    CHOICE_KEY("cv.select", cv.select, "last", "last|inner|best", "which weights score a fold: the last, the best on an inner split of its training rows, or the best on the fold itself (optimistic)"),
    REAL_KEY("cv.inner_share", cv.inner_share, "0.1", 0.001, 0.9, "", "share of a fold's training rows that cv.select=inner holds out"),
    BOOL_KEY("cv.allow_missing_class", cv.allow_missing_class, "false", "accept folds that lack a class; their score can be undefined"),

    {.name = "baseline.kinds", .type = KEY_TEXT, .offset = AT(baseline.kinds), .fallback = "", .unit = "", NEUTRAL, .help = "baselines, joined by commas: tfidf and embeddings (of model.path, frozen) with a linear model, trees (XGBoost on the embeddings); empty: tfidf, and embeddings where model.path is given"},
    {.name = "baseline.C", .type = KEY_REAL, .offset = AT(baseline.C), .fallback = "1", .low = 1e-6, .high = 1e6, .unit = "", NEUTRAL, .help = "weight of the loss against the L2 penalty, as scikit-learn's LogisticRegression has it; for numbers Ridge with alpha = 1 / C, for trees lambda = 1 / C"},
    {.name = "baseline.tolerance", .type = KEY_REAL, .offset = AT(baseline.tolerance), .fallback = "1e-4", .low = 1e-9, .high = 1, .unit = "", NEUTRAL, .help = "a regression is solved when the gradient of its objective is not longer than this"},
    {.name = "baseline.max_iterations", .type = KEY_INT, .offset = AT(baseline.max_iterations), .fallback = "1000", .low = 1, .high = 1e6, .unit = "iterations", NEUTRAL, .help = "of one regression; where they are not enough, that is said"},
    {.name = "baseline.ngram_min", .type = KEY_INT, .offset = AT(baseline.ngram_min), .fallback = "1", .low = 1, .high = 8, .unit = "words", NEUTRAL, .help = "tfidf: words of the shortest terms"},
    {.name = "baseline.ngram_max", .type = KEY_INT, .offset = AT(baseline.ngram_max), .fallback = "3", .low = 1, .high = 8, .unit = "words", NEUTRAL, .help = "tfidf: words of the longest terms"},
    {.name = "baseline.lowercase", .type = KEY_BOOL, .offset = AT(baseline.lowercase), .fallback = "true", .unit = "", NEUTRAL, .help = "tfidf: lowercase texts first"},
    {.name = "baseline.sublinear", .type = KEY_BOOL, .offset = AT(baseline.sublinear), .fallback = "true", .unit = "", NEUTRAL, .help = "tfidf: 1 + ln(count) of a term in a text, instead of the count"},
    {.name = "baseline.min_df", .type = KEY_REAL, .offset = AT(baseline.min_df), .fallback = "1", .low = 0, .high = 9e15, .unit = "", NEUTRAL, .help = "tfidf: leave out terms of fewer training rows; below 1: a share of them"},
    {.name = "baseline.max_df", .type = KEY_REAL, .offset = AT(baseline.max_df), .fallback = "1", .low = 0, .high = 9e15, .unit = "", NEUTRAL, .help = "tfidf: leave out terms of more training rows; 1 or below: a share of them, so 1 leaves out none"},
    {.name = "baseline.max_features", .type = KEY_INT, .offset = AT(baseline.max_features), .fallback = "0", .low = 0, .high = 2147483647.0, .unit = "terms", NEUTRAL, .help = "tfidf: keep the most frequent terms; 0: all"},
    {.name = "baseline.pooling", .type = KEY_CHOICE, .offset = AT(baseline.pooling), .fallback = "cls", .choices = "cls|mean", .unit = "", NEUTRAL, .help = "embeddings: the last hidden state of the first token, or the mean over all tokens"},
    {.name = "baseline.standardize", .type = KEY_BOOL, .offset = AT(baseline.standardize), .fallback = "true", .unit = "", NEUTRAL, .help = "embeddings: give each feature mean 0 and deviation 1 on the training rows"},
    {.name = "baseline.trees", .type = KEY_INT, .offset = AT(baseline.trees), .fallback = "100", .low = 1, .high = 100000, .unit = "", NEUTRAL, .help = "trees: rounds, each of one tree for every logit"},
    {.name = "baseline.tree_depth", .type = KEY_INT, .offset = AT(baseline.tree_depth), .fallback = "6", .low = 1, .high = 16, .unit = "", NEUTRAL, .help = "trees: levels of a tree"},
    {.name = "baseline.tree_rate", .type = KEY_REAL, .offset = AT(baseline.tree_rate), .fallback = "0.3", .low = 1e-4, .high = 1, .unit = "", NEUTRAL, .help = "trees: what each tree's values are multiplied by"},

    CHOICE_KEY("search.kind", search.kind, "grid", "grid|random", "grid: every combination of the values of all searched keys; random: search.samples settings drawn from seed"),
    INT_KEY("search.samples", search.samples, "10", 1, 10000, "settings", "settings of search.kind=random"),
    INT_KEY("search.halving", search.halving, "0", 0, 100, "", "successive halving: at each rung one in so many settings goes on; 0: all run to their end"),
    INT_KEY("search.rungs", search.rungs, "2", 1, 8, "", "rungs of search.halving: with halving 3 and 2 rungs, all settings run 1/9 of their steps, a third of them 1/3, a ninth to the end"),

    {.name = "checkpoint.every", .type = KEY_EVERY, .offset = AT(checkpoint.every), .fallback = "epoch", .unit = "steps", NEUTRAL, .help = "save every so many steps, or every epoch; 0: the last and the best only"},
    {.name = "checkpoint.keep", .type = KEY_INT, .offset = AT(checkpoint.keep), .fallback = "2", .low = 0, .high = 1e6, .unit = "", NEUTRAL, .help = "checkpoints kept beside the best and the last"},

    {.name = "log.every", .type = KEY_INT, .offset = AT(log.every), .fallback = "10", .low = 0, .high = 1e9, .unit = "steps", NEUTRAL, .help = "steps between lines on the screen and in log.jsonl"},
    {.name = "log.hash_every", .type = KEY_INT, .offset = AT(log.hash_every), .fallback = "0", .low = 0, .high = 1e9, .unit = "steps", NEUTRAL, .help = "steps between hashes of all weights in log.jsonl; 0: at checkpoints"},
    {.name = "log.parts", .type = KEY_BOOL, .offset = AT(log.parts), .fallback = "false", .unit = "", NEUTRAL, .help = "write the mean time of each part of a step to results.json; waits for the device after each part, so steps get slower"},
    {.name = "log.screen", .type = KEY_CHOICE, .offset = AT(log.screen), .fallback = "auto", .choices = "auto|lines|redraw", .unit = "", NEUTRAL, .help = "progress in place, or line by line; auto: in place on a terminal, which mpirun hides from its ranks"},
    {.name = "log.level", .type = KEY_CHOICE, .offset = AT(log.level), .fallback = "info", .choices = "error|warning|info|debug", .unit = "", NEUTRAL, .help = "the least important lines that are said on the screen"},

    CHOICE_KEY("parallel.backend", parallel.backend, "auto", "auto|cpu|cuda", "what computes"),
    CHOICE_KEY("parallel.reproducible", parallel.reproducible, "fixed", "fixed|any|off", "fixed: the same bits on the same number of ranks; any: on any number; off: fastest"),
    {.name = "parallel.threads", .type = KEY_INT, .offset = AT(parallel.threads), .fallback = "0", .low = 0, .high = 4096, .unit = "threads", NEUTRAL, .help = "threads of each rank; 0: cores this process may use, divided by the ranks on its node"},
    INT_KEY("parallel.grains", parallel.grains, "8", 1, 4096, "", "pieces a batch is cut in under parallel.reproducible=any: more ranks than that add nothing"),
    {.name = "parallel.watchdog_s", .type = KEY_REAL, .offset = AT(parallel.watchdog_s), .fallback = "300", .low = 0, .high = 1e9, .unit = "s", NEUTRAL, .help = "end the job when a rank makes no progress for so long; 0: never"},
    {.name = "parallel.transport", .type = KEY_CHOICE, .offset = AT(parallel.transport), .fallback = "auto", .choices = "auto|nccl|mpi", .unit = "", NEUTRAL, .help = "what carries sums between GPUs: NCCL, or MPI through host memory (also for several ranks on one GPU); auto: nccl. CPUs use MPI"},
    {.name = "parallel.bucket_mb", .type = KEY_REAL, .offset = AT(parallel.bucket_mb), .fallback = "16", .low = 0.25, .high = 4096, .unit = "MiB", NEUTRAL, .help = "gradients that are summed over the ranks in one message, while backward goes on"},
    {.name = "parallel.graphs", .type = KEY_BOOL, .offset = AT(parallel.graphs), .fallback = "true", .unit = "", NEUTRAL, .help = "record repeated work of a GPU as CUDA graphs and replay it: the same bits, fewer launches"},
};
/* clang-format on */
const size_t keys_count = sizeof keys / sizeof keys[0];

const struct key *key_find(const char *name)
{
    for (size_t i = 0; i < keys_count; i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

const char *key_suggest(const char *name)
{
    const char *names[sizeof keys / sizeof keys[0]];
    for (size_t i = 0; i < keys_count; i++) {
        const char *dot = strchr(keys[i].name, '.');
        if (dot != NULL && strcmp(dot + 1, name) == 0)
            return keys[i].name; /* "lr" for "optim.lr" */
        names[i] = keys[i].name;
    }
    return nearest_name(name, names, keys_count);
}

/* ---- setting ---- */

static void *field_of(struct run_config *config, size_t offset)
{
    return (char *)config + offset;
}

static const void *const_field_of(const struct run_config *config, size_t offset)
{
    return (const char *)config + offset;
}

static enum status set_int(const struct key *key, const char *text, const char *where, int64_t *out)
{
    int64_t value;
    double real;
    bool fits = parse_int64(text, &value);
    if (!fits && parse_double(text, &real) && real == floor(real) && fabs(real) <= 9e15) { /* 1e4 */
        value = (int64_t)real;
        fits = true;
    }
    if (!fits || (double)value < key->low || (double)value > key->high)
        return status_fail(STATUS_CONFIG,
                           "%s: %s is \"%.200s\", wanted a whole number from %.15g to %.15g", where,
                           key->name, text, key->low, key->high);
    *out = value;
    return STATUS_OK;
}

static enum status set_choice(const struct key *key, const char *text, const char *where, int *out)
{
    int index = 0;
    size_t n = strlen(text);
    for (const char *p = key->choices;; index++) {
        size_t length = strcspn(p, "|");
        if (length == n && memcmp(p, text, n) == 0) {
            *out = index;
            return STATUS_OK;
        }
        if (p[length] == '\0')
            break;
        p += length + 1;
    }
    return status_fail(STATUS_CONFIG, "%s: %s is \"%.200s\", wanted one of %s", where, key->name,
                       text, key->choices);
}

static enum status set_list(struct run_config *config, const struct key *key, const char *text,
                            const char *where)
{
    int64_t *list = field_of(config, key->offset), *count = field_of(config, key->count_offset);
    char word[32];
    *count = 0;
    for (const char *p = text + strspn(text, "[( "); *p != '\0';) {
        size_t n = strcspn(p, ",]) ");
        if (n > 0) {
            if (n >= sizeof word || *count == CONFIG_LIST)
                return status_fail(STATUS_CONFIG,
                                   "%s: %s is \"%.200s\", wanted whole numbers: [0,2]", where,
                                   key->name, text);
            memcpy(word, p, n);
            word[n] = '\0';
            TRY(set_int(key, word, where, &list[*count]));
            ++*count;
        }
        p += n + strspn(p + n, ",]) ");
    }
    return STATUS_OK;
}

enum status key_set(struct run_config *config, const struct key *key, const char *text,
                    const char *where)
{
    void *field = field_of(config, key->offset);
    switch (key->type) {
    case KEY_TEXT:
    case KEY_PATH:
        if (strlen(text) >= CONFIG_TEXT)
            return status_fail(STATUS_CONFIG, "%s: %s has %zu bytes, wanted fewer than %d", where,
                               key->name, strlen(text), CONFIG_TEXT);
        if (utf8_valid_prefix(text, strlen(text)) != strlen(text) && key->type == KEY_TEXT)
            return status_fail(STATUS_CONFIG, "%s: %s is not UTF-8", where, key->name);
        memset(field, 0, CONFIG_TEXT);
        memcpy(field, text, strlen(text));
        return STATUS_OK;
    case KEY_INT:
        return set_int(key, text, where, field);
    case KEY_REAL: {
        double value;
        if (!parse_double(text, &value) || value < key->low || value > key->high)
            return status_fail(STATUS_CONFIG,
                               "%s: %s is \"%.200s\", wanted a number from %.15g to %.15g", where,
                               key->name, text, key->low, key->high);
        memcpy(field, &value, sizeof value);
        return STATUS_OK;
    }
    case KEY_BOOL:
        if (!parse_bool(text, field))
            return status_fail(STATUS_CONFIG, "%s: %s is \"%.200s\", wanted true or false", where,
                               key->name, text);
        return STATUS_OK;
    case KEY_CHOICE:
        return set_choice(key, text, where, field);
    case KEY_EVERY: {
        struct config_every *every = field;
        every->epoch = strcmp(text, "epoch") == 0;
        every->steps = 0;
        if (!every->epoch && (!parse_int64(text, &every->steps) || every->steps < 0))
            return status_fail(STATUS_CONFIG,
                               "%s: %s is \"%.200s\", wanted a number of steps, or epoch", where,
                               key->name, text);
        return STATUS_OK;
    }
    case KEY_INT_LIST:
        return set_list(config, key, text, where);
    }
    return status_fail(STATUS_INTERNAL, "%s has no type", key->name);
}

enum status key_get(const struct run_config *config, const struct key *key, struct str *out)
{
    const void *field = const_field_of(config, key->offset);
    switch (key->type) {
    case KEY_TEXT:
    case KEY_PATH:
        return str_addf(out, "%s", (const char *)field);
    case KEY_INT:
        return str_addf(out, "%lld", (long long)*(const int64_t *)field);
    case KEY_REAL:
        return str_add_double(out, *(const double *)field);
    case KEY_BOOL:
        return str_addf(out, "%s", *(const bool *)field ? "true" : "false");
    case KEY_CHOICE: {
        const char *p = key->choices;
        for (int i = *(const int *)field; i > 0; i--)
            p += strcspn(p, "|") + 1;
        return str_add(out, p, strcspn(p, "|"));
    }
    case KEY_EVERY: {
        const struct config_every *every = field;
        return every->epoch ? str_addf(out, "epoch")
                            : str_addf(out, "%lld", (long long)every->steps);
    }
    case KEY_INT_LIST: {
        const int64_t *list = field, *count = const_field_of(config, key->count_offset);
        TRY(str_addf(out, "["));
        for (int64_t i = 0; i < *count; i++)
            TRY(str_addf(out, "%s%lld", i == 0 ? "" : ",", (long long)list[i]));
        return str_addf(out, "]");
    }
    }
    return status_fail(STATUS_INTERNAL, "%s has no type", key->name);
}

enum status config_defaults(struct run_config *config)
{
    *config = (struct run_config){0};
    for (size_t i = 0; i < keys_count; i++)
        TRY(key_set(config, &keys[i], keys[i].fallback, "default"));
    return STATUS_OK;
}

/* ---- documentation ---- */

static enum status add_range(const struct key *key, struct str *out)
{
    static const char *const types[] = {"text",          "path", "whole number",   "number",
                                        "true or false", "",     "steps or epoch", "whole numbers"};
    if (key->type == KEY_CHOICE) {
        for (const char *p = key->choices; *p != '\0'; p++)
            TRY(*p == '|' ? str_addf(out, ", ") : str_add(out, p, 1));
        return STATUS_OK;
    }
    TRY(str_addf(out, "%s", types[key->type]));
    if (key->type == KEY_INT || key->type == KEY_REAL)
        TRY(str_addf(out, " %.6g to %.6g", key->low, key->high));
    return key->unit[0] == '\0' || key->type == KEY_EVERY ? STATUS_OK
                                                          : str_addf(out, " (%s)", key->unit);
}

enum status keys_document(bool markdown, struct str *out)
{
    char group[32] = "?";
    if (markdown)
        TRY(str_addf(
            out,
            "# Configuration keys\n\nMade by `cohort help keys=markdown`; do not edit. A key is "
            "given in "
            "a libconfig file (`optim: { lr = 3e-5; };`) or on the command line (`optim.lr=3e-5`), "
            "which wins. Keys marked * cannot change a result and may differ when a run is "
            "resumed.\n"));
    for (size_t i = 0; i < keys_count; i++) {
        const struct key *key = &keys[i];
        size_t n = strchr(key->name, '.') == NULL ? 0 : strcspn(key->name, ".");
        if (strncmp(group, key->name, n) != 0 || group[n] != '\0') {
            memcpy(group, key->name, n);
            group[n] = '\0';
            if (markdown)
                TRY(str_addf(out,
                             "\n## %s\n\n| key | default | values | meaning |\n|---|---|---|---|\n",
                             n == 0 ? "top level" : group));
            else
                TRY(str_addf(out, "%s%s\n", i == 0 ? "" : "\n", n == 0 ? "top level" : group));
        }
        const char *fallback = key->fallback[0] == '\0' ? "-" : key->fallback;
        if (markdown) {
            TRY(str_addf(out, "| `%s`%s | %s | ", key->name, key->neutral ? " *" : "", fallback));
            TRY(add_range(key, out));
            TRY(str_addf(out, " | %s |\n", key->help));
        } else {
            TRY(str_addf(out, "  %-26s %s\n  %-26s   ", key->name, key->help, ""));
            TRY(add_range(key, out));
            TRY(str_addf(out, "; default %s\n", fallback));
        }
    }
    return STATUS_OK;
}
