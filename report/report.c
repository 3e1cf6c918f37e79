/* report.c - see report.h. */
#include "report/report.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "report/sections.h"

/* The folder's own name, also of "runs/a/". */
static void page_name(struct page *page, const char *path)
{
    size_t n = strlen(path), from;
    while (n > 1 && path[n - 1] == '/')
        n--;
    for (from = n; from > 0 && path[from - 1] != '/'; from--)
        ;
    page_text_n(page, path + from, n - from);
}

static void head(struct page *page, const struct run_folder *run, const struct outline *o)
{
    page_raw(page, "<h1>");
    page_name(page, run->path);
    page_raw(page, o->running     ? " <span class=\"state bad\">not finished</span>"
                   : !o->complete ? " <span class=\"state bad\">incomplete</span>"
                                  : " <span class=\"state\">finished</span>");
    page_raw(page, "</h1>\n<p class=\"under\">");
    page_text(page, run->config->model.path);
    if (run->config->model.path[0] != '\0' && run->config->data.train[0] != '\0')
        page_raw(page, " on ");
    page_text(page, run->config->data.train);
    page_raw(page, "</p>");
}

/* Sections are written first, since the bar of links has only those that are there. */
struct part {
    const char *name, *title;
    bool there;
};

static void finish(struct page *page, const struct part *part, int n, const struct page *sections)
{
    const char *pairs[32];
    int count = 0;
    for (int i = 0; i < n && count < 30; i++) {
        if (!part[i].there)
            continue;
        pairs[count++] = part[i].name;
        pairs[count++] = part[i].title;
    }
    pairs[count] = NULL;
    page_links(page, pairs);
    if (sections->text.p != NULL)
        page_raw(page, sections->text.p);
    page_end(page);
    page_note(page, sections->st);
}

static void title_of(struct str *out, const char *path, struct page *page)
{
    page_note(page, str_addf(out, "%s", path_base(path)[0] == '\0' ? path : path_base(path)));
}

static enum status write_page(const struct run_folder *run, const struct outline *o,
                              struct str *out)
{
    struct page page = {0}, body = {0};
    struct str title = {0};
    section_summary(&body, run, o);
    const struct part part[] = {
        {"summary", "Summary", true},
        {"progress", "Progress", section_progress(&body, run)},
        {"folds", "Folds", section_folds(&body, run, o)},
        {"search", "Settings", section_search(&body, run, o)},
        {"scores", "Scores", section_scores(&body, run, o)},
        {"mistakes", "Mistakes", section_mistakes(&body, run)},
        {"training", "Training", section_curves(&body, run, o)},
        {"data", "Lengths", section_data(&body, run, o)},
        {"speed", "Speed", section_speed(&body, run)},
        {"setup", "Configuration", section_setup(&body, run)},
    };
    title_of(&title, run->path, &page);
    page_begin(&page, title.p == NULL ? "" : title.p);
    head(&page, run, o);
    finish(&page, part, sizeof part / sizeof part[0], &body);
    if (page.st == STATUS_OK)
        page.st = str_add(out, page.text.p, page.text.n);
    str_release(&title);
    str_release(&page.text);
    str_release(&body.text);
    return page.st;
}

enum status report_page(const struct report_run *run, struct str *out)
{
    struct run_folder folder;
    struct outline outline;
    TRY(run_folder_open(run->folder, run->config, &folder));
    enum status st = outline_make(&folder, &outline);
    if (st == STATUS_OK) {
        st = write_page(&folder, &outline, out);
        outline_release(&outline);
    }
    run_folder_close(&folder);
    return st;
}

/* ---- two runs ---- */

static void write_comparison(const struct run_folder *a, const struct run_folder *b,
                             const struct outline *oa, const struct outline *ob,
                             const char *difference, struct page *page)
{
    struct page body = {0};
    struct str title = {0};
    static const struct part part[] = {{"compare", "Comparison", true}};
    section_compare(&body, a, b, oa, ob, difference);
    title_of(&title, a->path, page);
    page_note(page, str_addf(&title, " and "));
    title_of(&title, b->path, page);
    page_begin(page, title.p == NULL ? "" : title.p);
    page_raw(page, "<h1>");
    page_name(page, a->path);
    page_raw(page, " and ");
    page_name(page, b->path);
    page_raw(page, "</h1>\n<p class=\"under\">A: ");
    page_text(page, a->path);
    page_raw(page, ", B: ");
    page_text(page, b->path);
    page_raw(page, "</p>");
    finish(page, part, 1, &body);
    str_release(&title);
    str_release(&body.text);
}

enum status report_comparison(const struct report_run *a, const struct report_run *b,
                              const char *difference, struct str *out)
{
    struct run_folder folder[2] = {{0}, {0}};
    struct outline outline[2] = {{0}, {0}};
    struct page page = {0};
    enum status st = STATUS_OK;
    TRY_GOTO(done, run_folder_open(a->folder, a->config, &folder[0]));
    TRY_GOTO(done, run_folder_open(b->folder, b->config, &folder[1]));
    TRY_GOTO(done, outline_make(&folder[0], &outline[0]));
    TRY_GOTO(done, outline_make(&folder[1], &outline[1]));
    write_comparison(&folder[0], &folder[1], &outline[0], &outline[1], difference, &page);
    st = page.st;
    if (st == STATUS_OK)
        st = str_add(out, page.text.p, page.text.n);
done:
    str_release(&page.text);
    for (int i = 0; i < 2; i++) {
        outline_release(&outline[i]);
        run_folder_close(&folder[i]);
    }
    return st;
}
