/*
 * page.h - a page of HTML that is written piece by piece, and is well-formed XML too.
 *
 * Everything that comes from data (labels, texts, keys, paths, names in files) goes through
 * page_text(), which escapes what markup is made of and replaces what no page may hold: bytes that
 * are no UTF-8, control characters, noncharacters. page_raw() and page_rawf() are for our own
 * markup and for numbers; no text from outside may reach them.
 *
 * The first failure (memory) is kept and later calls do nothing, so a section is written without
 * asking after each piece; page.st is asked once, at the end.
 *
 * Local.
 */
#ifndef COHORT_REPORT_PAGE_H
#define COHORT_REPORT_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* Start with {0}, end with str_release(&page.text). */
struct page {
    struct str text;
    enum status st; /* the first failure; its sentence is the thread's */
    int charts;     /* numbers the charts, for names inside the page */
};

/* Note a failure that happened beside the page. */
void page_note(struct page *page, enum status st);

void page_raw(struct page *page, const char *markup);
void page_rawf(struct page *page, const char *format, ...) PRINTF_LIKE(2, 3);
/* Text from anywhere, escaped for content and for attributes in double or single quotes. */
void page_text(struct page *page, const char *text);
void page_text_n(struct page *page, const char *text, size_t n);
/* At most `width` characters of it, "…" where more would follow. */
void page_clip(struct page *page, const char *text, size_t n, int width);

/* <section id="name"><h2>title</h2>; both are ours. page_section_end() closes it. */
void page_section(struct page *page, const char *name, const char *title);
void page_section_end(struct page *page);
/* <p class="note">; one sentence or several of ours. */
void page_note_text(struct page *page, const char *ours);

/*
 * A table that scrolls by itself where the screen is narrow. heads are ours; one that begins with
 * '#' is a column of numbers, aligned to the right; a last one "text" goes below the others where
 * the screen is narrow. NULL ends them.
 */
void page_table(struct page *page, const char *const *heads);
void page_table_end(struct page *page);
void page_row(struct page *page);
void page_row_end(struct page *page);
void page_cell(struct page *page, const char *text); /* escaped; NULL: a dash */
void page_cell_clip(struct page *page, const char *text, int width);
/* Numbers, as format.h writes them; a dash where undefined. */
void page_cell_score(struct page *page, double value);
void page_cell_count(struct page *page, double value);
void page_cell_seconds(struct page *page, double value);
/* A cell of numbers that were formatted already; ours. */
void page_cell_number(struct page *page, const char *ours);

/* ---- page_head.c: what surrounds the sections ---- */

/* Head with style and policy (nothing is loaded, no script but our own runs), and the top of the
 * body up to and with <main>. title is from outside. */
void page_begin(struct page *page, const char *title);
/* A bar of links to sections: pairs of name and title of ours, NULL ends them. */
void page_links(struct page *page, const char *const *pairs);
void page_end(struct page *page);

#endif
