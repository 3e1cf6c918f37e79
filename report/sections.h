/*
 * sections.h - the parts of a report, one function each. A part that has nothing to say writes
 * nothing and returns false; failures go to page.st.
 *
 * Local.
 */
#ifndef COHORT_REPORT_SECTIONS_H
#define COHORT_REPORT_SECTIONS_H

#include "data/chunk.h"
#include "report/page.h"
#include "report/run_folder.h"

enum {
    REPORT_TRIALS = 200,     /* lines of a table of trials or settings */
    REPORT_CLASSES = 50,     /* lines of a table of classes */
    REPORT_MISTAKES = 20,    /* worst mistakes, and rows that two runs differ on */
    REPORT_CONFUSIONS = 20,  /* pairs of classes that are mistaken for each other */
    REPORT_TEXT = 400,       /* characters of a text */
    REPORT_MATRIX = 14,      /* most classes whose whole confusion matrix is drawn */
    REPORT_RESAMPLES = 1000, /* of a bootstrap */
};

/* What the run comes to, found once for all parts. */
struct outline {
    const char *metric_text; /* of results.json: "roc_auc"; "" */
    const char *metric_name; /* for people: "ROC AUC" */
    bool has_metric;
    enum metric metric;
    double score, low, high; /* pooled, with its 95 % interval; NaN */
    double mean, std;        /* of the folds; NaN */
    double constant;         /* the score of what knows nothing but class frequencies; NaN */
    bool optimistic, complete, running;
    int folds, repeats;
    struct metric_values values; /* of the table's first repeat */
    bool has_values;
    int64_t cut, train_rows;   /* rows of data.train of which tokens are lost, and all; 0 without
                                  data */
    double cut_tokens;         /* share of tokens that are lost */
    struct chunk_tally chunks; /* of data.train where texts are read in chunks; else 0 */
};
NODISCARD enum status outline_make(const struct run_folder *run, struct outline *out);
void outline_release(struct outline *outline);

/* How a metric is written for people, and what it says; "" where there is nothing to add. */
const char *metric_title(const char *name);
const char *metric_meaning(const char *name);

/* How many bootstrap resamples a table of n rows is worth: fewer for very many rows. */
int resamples_for(int64_t n);

/* 95 % interval of the share hits / n, n > 0 (Wilson, Probable inference, 1927). */
void share_interval(int64_t hits, int64_t n, double *low, double *high);

/* "fold 2", "setting 1, fold 0"; "run" without any of them. Appended. */
NODISCARD enum status trial_words(int setting, int repeat, int fold, int inner, struct str *out);

void section_summary(struct page *page, const struct run_folder *run, const struct outline *o);
bool section_folds(struct page *page, const struct run_folder *run, const struct outline *o);
bool section_search(struct page *page, const struct run_folder *run, const struct outline *o);
bool section_progress(struct page *page, const struct run_folder *run);
bool section_curves(struct page *page, const struct run_folder *run, const struct outline *o);
/* A chart of tokens a second, of section_curves()' trials. */
void chart_speed(struct page *page, const struct run_folder *run);
bool section_scores(struct page *page, const struct run_folder *run, const struct outline *o);
bool section_mistakes(struct page *page, const struct run_folder *run);
bool section_data(struct page *page, const struct run_folder *run, const struct outline *o);
bool section_speed(struct page *page, const struct run_folder *run);
bool section_setup(struct page *page, const struct run_folder *run);
/* difference: keys of the configurations that differ, "" for none. */
void section_compare(struct page *page, const struct run_folder *a, const struct run_folder *b,
                     const struct outline *oa, const struct outline *ob, const char *difference);

/* A text of the data, or why there is none, as a cell of a table. */
void text_cell(struct page *page, const struct run_folder *run, int64_t line);
/* What is true in a line, and what was predicted, as cells. */
void truth_cells(struct page *page, const struct table *table, int64_t line);

#endif
