/* page.c - see page.h. */
#include "report/page.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "report/format.h"

void page_note(struct page *page, enum status st)
{
    if (page->st == STATUS_OK)
        page->st = st;
}

static void add(struct page *page, const char *bytes, size_t n)
{
    if (page->st == STATUS_OK)
        page->st = str_add(&page->text, bytes, n);
}

void page_raw(struct page *page, const char *markup)
{
    add(page, markup, strlen(markup));
}

void page_rawf(struct page *page, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text)
        page_note(page, status_fail(STATUS_INTERNAL, "markup of more than %zu bytes: \"%.60s\"",
                                    sizeof text, format));
    else
        add(page, text, (size_t)n);
}

/* What stands in a page for a character that may not be there. */
static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

static bool forbidden(uint32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7F && c < 0xA0) ||
           (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

static const char *entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

/* Escape at most `width` characters (< 0: all); returns the bytes that were used. */
static size_t escape(struct page *page, const char *text, size_t n, int64_t width)
{
    size_t at = 0, plain = 0; /* [plain, at): bytes that stand for themselves, not yet added */
    for (int64_t i = 0; at < n && i != width && page->st == STATUS_OK; i++) {
        unsigned char first = (unsigned char)text[at];
        uint32_t c = first;
        int length = first < 0x80 ? 1 : utf8_decode(text + at, n - at, &c);
        bool bad = (first >= 0x80 && length == 1) || forbidden(c); /* length 1: no UTF-8 */
        const char *other = bad ? replacement : entity(text[at]);
        if (other != NULL) {
            add(page, text + plain, at - plain);
            page_raw(page, other);
            plain = at + (size_t)length;
        }
        at += (size_t)length;
    }
    add(page, text + plain, at - plain);
    return at;
}

void page_text_n(struct page *page, const char *text, size_t n)
{
    (void)escape(page, text, n, -1);
}

void page_text(struct page *page, const char *text)
{
    page_text_n(page, text, strlen(text));
}

void page_clip(struct page *page, const char *text, size_t n, int width)
{
    if (escape(page, text, n, width) < n)
        page_raw(page, "\xE2\x80\xA6"); /* an ellipsis */
}

/* ---- sections and tables ---- */

void page_section(struct page *page, const char *name, const char *title)
{
    page_raw(page, "<section id=\"");
    page_text(page, name);
    page_raw(page, "\">\n<h2>");
    page_text(page, title);
    page_raw(page, "</h2>\n");
}

void page_section_end(struct page *page)
{
    page_raw(page, "</section>\n");
}

void page_note_text(struct page *page, const char *ours)
{
    page_raw(page, "<p class=\"note\">");
    page_text(page, ours);
    page_raw(page, "</p>\n");
}

void page_table(struct page *page, const char *const *heads)
{
    const char *const *last = heads;
    while (last[0] != NULL && last[1] != NULL)
        last++;
    bool texts = last[0] != NULL && strcmp(last[0], "text") == 0;
    page_raw(page, "<div class=\"scroll\" tabindex=\"0\"><table");
    page_raw(page, texts ? " class=\"texts\">\n<thead><tr>" : ">\n<thead><tr>");
    for (; *heads != NULL; heads++) {
        bool number = (*heads)[0] == '#';
        page_raw(page, number ? "<th scope=\"col\" class=\"n\">" : "<th scope=\"col\">");
        page_text(page, *heads + number);
        page_raw(page, "</th>");
    }
    page_raw(page, "</tr></thead>\n<tbody>\n");
}

void page_table_end(struct page *page)
{
    page_raw(page, "</tbody>\n</table></div>\n");
}

void page_row(struct page *page)
{
    page_raw(page, "<tr>");
}

void page_row_end(struct page *page)
{
    page_raw(page, "</tr>\n");
}

void page_cell_clip(struct page *page, const char *text, int width)
{
    page_raw(page, "<td><bdi>");
    if (text == NULL)
        page_raw(page, "\xE2\x80\x93");
    else
        page_clip(page, text, strlen(text), width);
    page_raw(page, "</bdi></td>");
}

void page_cell(struct page *page, const char *text)
{
    page_cell_clip(page, text, -1);
}

void page_cell_number(struct page *page, const char *ours)
{
    page_raw(page, "<td class=\"n\">");
    page_text(page, ours);
    page_raw(page, "</td>");
}

void page_cell_score(struct page *page, double value)
{
    char text[FORMAT_BYTES];
    page_cell_number(page, format_score(value, text));
}

void page_cell_count(struct page *page, double value)
{
    char text[FORMAT_BYTES];
    if (!(fabs(value) < 1e18))
        page_cell_number(page, "\xE2\x80\x93");
    else
        page_cell_number(page, format_count((int64_t)value, text));
}

void page_cell_seconds(struct page *page, double value)
{
    char text[FORMAT_BYTES];
    page_cell_number(page, format_seconds(value, text));
}
