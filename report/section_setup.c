/* section_setup.c - what repeats the run: its configuration and the hashes of all that went in. */
#include <string.h>

#include "report/format.h"
#include "report/sections.h"

static void key_row(struct page *page, const char *key, const char *value)
{
    if (value[0] == '\0')
        return;
    page_raw(page, "<tr><td><code>");
    page_text(page, key);
    page_raw(page, "</code></td><td class=\"value\">");
    page_text(page, value);
    page_raw(page, "</td></tr>\n");
}

static void number_row(struct page *page, const char *key, double value)
{
    struct str text = {0};
    page_note(page, str_add_double(&text, value));
    key_row(page, key, text.p == NULL ? "" : text.p);
    str_release(&text);
}

static void main_keys(struct page *page, const struct run_config *c)
{
    static const char *const heads[] = {"key", "value", NULL};
    page_table(page, heads);
    key_row(page, "model.path", c->model.path);
    key_row(page, "data.train", c->data.train);
    key_row(page, "data.eval", c->data.eval);
    key_row(page, "data.test", c->data.test);
    number_row(page, "data.max_length", (double)c->data.max_length);
    number_row(page, "train.epochs", c->train.epochs);
    number_row(page, "train.batch_size", (double)c->train.batch_size);
    number_row(page, "optim.lr", c->optim.lr);
    number_row(page, "seed", (double)c->seed);
    page_table_end(page);
}

static void add_manifest(struct page *page, const json_t *object, const char *above)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        struct str name = {0}, text = {0};
        page_note(page, str_addf(&name, "%s%s%s", above, above[0] == '\0' ? "" : ".", key));
        if (json_is_object(value)) {
            if (name.p != NULL && above[0] == '\0')
                add_manifest(page, value, name.p);
        } else {
            if (json_is_string(value))
                page_note(page, str_addf(&text, "%s", json_string_value(value)));
            else if (json_is_number(value))
                page_note(page, str_add_double(&text, json_number_value(value)));
            else
                page_note(page, str_addf(&text, "%s", json_is_true(value) ? "true" : "false"));
            key_row(page, name.p == NULL ? "" : name.p, text.p == NULL ? "" : text.p);
        }
        str_release(&name);
        str_release(&text);
    }
}

bool section_setup(struct page *page, const struct run_folder *run)
{
    static const char *const heads[] = {"what", "value", NULL};
    if (run->cfg.n == 0 && run->manifest == NULL)
        return false;
    page_section(page, "setup", "Configuration and manifest");
    if (run->cfg.n > 0) {
        main_keys(page, run->config);
        page_raw(page, "<details><summary>The whole configuration (run.cfg)</summary>\n<pre>");
        page_text_n(page, run->cfg.p, run->cfg.n);
        page_raw(page, "</pre></details>\n");
    }
    if (run->manifest != NULL) {
        page_raw(page, "<details><summary>Versions and hashes (manifest.json)</summary>\n");
        page_table(page, heads);
        add_manifest(page, run->manifest, "");
        page_table_end(page);
        page_raw(page, "</details>\n");
    }
    page_section_end(page);
    return true;
}
