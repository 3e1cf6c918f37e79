/* commands.c - the table of commands with their help. */
#include "launcher/command.h"

#include <limits.h>
#include <string.h>

#include "base/str.h"
#include "launcher/keys.h"

#define DATA_KEYS                                                                                  \
    "  data.text data.pair data.label data.id data.group data.time data.fold   columns, by "       \
    "header "                                                                                      \
    "or from 1 (data.header=false)\n"                                                              \
    "  data.where data.rows data.limit data.max_words      which rows, and how much of each\n"

const struct command commands[] = {
    {"prepare", "tokenize text into an HDF5 dataset that train reads at once",
     "usage: cohort prepare model.path=DIR data.input=FILE data.text=COLUMN [data.label=COLUMN] "
     "out=FILE.h5\n\n"
     "FILE is TSV, CSV, JSONL, ARFF (plain, .gz, .zst) or a folder of .txt. The result holds ids "
     "without special\n"
     "tokens, so one file serves every data.max_length; its bytes do not depend on the number of "
     "ranks.\n\n" DATA_KEYS "\n  mpirun -n 4 cohort prepare model.path=minilm data.input=train.tsv "
     "data.text=text data.label=label out=train.h5\n",
     command_prepare, 0},
    {"train", "fine-tune a model, or cross-validate it (cv.folds)",
     "usage: cohort train [config.cfg] model.path=DIR data.train=FILE out=FOLDER [key=value "
     "...]\n\n"
     "FILE is text (prepared first, and cached) or a file that prepare wrote. The run can be "
     "stopped and started again\n"
     "at any time with the same command. In FOLDER: results.json, log.jsonl, run.cfg, "
     "manifest.json, checkpoints that\n"
     "Hugging Face's from_pretrained loads, and under cv.folds the out-of-fold scores oof.tsv and "
     "oof.h5.\n\n" DATA_KEYS
     "  train.epochs train.batch_size optim.lr data.max_length train.precision   the most used\n\n"
     "  mpirun -n 2 cohort train model.path=minilm data.train=train.tsv data.eval=valid.tsv "
     "data.text=text \\\n"
     "      data.label=label train.epochs=1 out=runs/a\n"
     "  mpirun -n 4 cohort train model.path=minilm data.train=train.h5 cv.folds=4 out=runs/cv\n",
     command_train, 0},
    {"baseline", "what TF-IDF or frozen embeddings with a linear model reach, on train's folds",
     "usage: cohort baseline [config.cfg] data.train=FILE data.text=COLUMN data.label=COLUMN "
     "cv.folds=5 out=FOLDER [model.path=DIR] [key=value ...]\n\n"
     "Logistic regression (ridge for numbers) on TF-IDF of word n-grams and, where model.path is "
     "given, on the\n"
     "embeddings of that encoder as it is. Rows, folds and seed are those of train with the same "
     "keys. FILE is text or\n"
     "a file that prepare wrote. In FOLDER: results.json, and for each kind a folder with "
     "results.json, oof.tsv and oof.h5;\n"
     "in tfidf/ the heaviest terms of each label, terms.tsv. Without cv.folds: data.eval, "
     "data.holdout, data.test.\n\n" DATA_KEYS
     "  baseline.kinds baseline.C baseline.ngram_max baseline.max_features baseline.pooling   the "
     "most used\n\n"
     "  mpirun -n 4 cohort baseline data.train=train.tsv data.text=text data.label=label "
     "cv.folds=5 out=runs/b\n",
     command_baseline, 0},
    {"eval", "metrics of a trained model on labelled data",
     "usage: cohort eval model.path=runs/a/best data.input=FILE data.text=COLUMN data.label=COLUMN "
     "[out=eval.json]\n\n"
     "Writes one JSON object: every metric of the task, the confusion matrix, the number of "
     "rows.\n\n" DATA_KEYS,
     command_eval, 0},
    {"predict", "labels and scores of a trained model for texts",
     "usage: cohort predict model.path=runs/a/best data.input=FILE data.text=COLUMN "
     "[out=pred.jsonl]\n\n"
     "One line for each input row: {\"row\":0,\"label\":\"x\",\"scores\":[...],\"logits\":[...]}, "
     "or TSV or CSV by the\n"
     "extension of out. out=- (default) is standard output; data.input=- is standard input (JSONL, "
     "or data.format).\n\n" DATA_KEYS
     "  predict.score_column=generated   CSV or TSV of id and the last label's score only\n",
     command_predict, 0},
    {"embed", "vectors of texts: the pooled last hidden states of an encoder",
     "usage: cohort embed model.path=DIR data.input=FILE data.text=COLUMN [out=vectors.h5]\n\n"
     "DIR is any encoder, trained by cohort or not; its head is not looked at. One line for each "
     "input row,\n"
     "{\"row\":0,\"vector\":[...]}, or TSV or CSV by the extension of out, or HDF5 for .h5: /row, "
     "/vectors (rows, channels), /id.\n"
     "out=- (default) is standard output; data.input=- is standard input.\n\n" DATA_KEYS
     "  embed.pooling=mean|cls|max embed.normalize=true|false\n"
     "  data.long=chunk   the mean over a long text's chunks\n",
     command_embed, 0},
    {"tokenizer", "train a tokenizer; text to ids and back: encode, decode",
     "usage: cohort tokenizer encode model.path=DIR data.input=FILE data.text=COLUMN "
     "[out=ids.jsonl]\n"
     "       cohort tokenizer decode model.path=DIR data.input=ids.jsonl [out=text.jsonl]\n"
     "       cohort tokenizer train data.input=FILE[,FILE...] data.text=COLUMN out=FOLDER "
     "[tokenizer.model=wordpiece|bpe|unigram] ...\n\n"
     "encode writes {\"row\":0,\"ids\":[101,...,102]} for each row, special tokens added, cut to "
     "data.max_length.\n"
     "train writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, and vocab.txt "
     "or "
     "vocab.json with\n"
     "merges.txt; the same files for any number of ranks and threads. FOLDER with a config.json "
     "can "
     "be model.path of\n"
     "train with model.from_scratch.\n\n" DATA_KEYS
     "  tokenizer.vocab_size tokenizer.special_tokens tokenizer.normalizer "
     "tokenizer.pre_tokenizer\n"
     "  tokenizer.min_frequency tokenizer.limit_alphabet   see cohort help keys\n\n"
     "  cohort tokenizer train data.input=a.tsv,b.tsv data.text=text tokenizer.vocab_size=30522 "
     "out=tokenizer\n",
     command_tokenizer, 1},
    {"inspect", "what is in a dataset, model, checkpoint or run",
     "usage: cohort inspect PATH ...\n\nPATH is a prepared .h5 file, a Hugging Face model folder, "
     "a checkpoint or a run.\n",
     command_inspect, INT_MAX},
    {"report", "one HTML page about a run, or two runs compared; watch=true: what a run does now",
     "usage: cohort report FOLDER [watch=true] [out=FILE.html]\n"
     "       cohort report FOLDER FOLDER [out=FILE.html]\n\n"
     "FOLDER is that of a run, finished or not. The page is FOLDER/report.html (train writes it, "
     "too), one file that loads\n"
     "nothing; with it come TensorBoard's event files, from log.jsonl. Of two runs: the second "
     "one's compare.html, with\n"
     "paired tests of the difference on the same rows. watch=true (or --watch) shows the run on "
     "the terminal until it\n"
     "ends, and writes the page anew every 30 s.\n",
     command_report, 2},
    {"check", "explain a configuration before it is queued, and refuse what cannot work",
     "usage: cohort check [config.cfg] [key=value ...]\n\n"
     "Prints steps, warm-up, rows cut, classes and rows per fold, memory per rank; trains "
     "nothing.\n",
     command_check, 0},
    {"help", "this list; help keys: every configuration key",
     "usage: cohort help [keys|COMMAND]\n\ncohort help keys=markdown prints docs/keys.md.\n",
     command_help, 1},
};
const int command_count = sizeof commands / sizeof commands[0];

enum status command_help(struct session *session)
{
    struct str text = {0};
    const char *topic = session->verb == NULL ? "" : session->verb;
    enum status st = STATUS_OK;
    if (strcmp(topic, "keys") == 0 || strcmp(topic, "keys=markdown") == 0) {
        st = keys_document(strchr(topic, '=') != NULL, &text);
    } else if (topic[0] == '\0') {
        for (int i = 0; i < command_count && st == STATUS_OK; i++)
            st = str_addf(&text, "  %-10s %s\n", commands[i].name, commands[i].summary);
    } else {
        st = status_fail(STATUS_USAGE, "no help on \"%s\"; try keys, or a command's --help", topic);
        for (int i = 0; i < command_count; i++) {
            if (strcmp(topic, commands[i].name) == 0)
                st = str_addf(&text, "cohort %s - %s\n\n%s", topic, commands[i].summary,
                              commands[i].usage);
        }
    }
    if (st == STATUS_OK && comm_rank(session->world) == 0)
        st = session_write("-", text.p, text.n);
    str_release(&text);
    return st;
}
