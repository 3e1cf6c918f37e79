/* report_write.c - see report_write.h. */
#include "launcher/report_write.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/config.h"
#include "report/events.h"
#include "report/report.h"

enum status report_config(const char *folder, struct run_config *out)
{
    char *path;
    TRY(path_join(folder, "run.cfg", &path));
    enum status st = config_load(file_exists(path) ? path : NULL, NULL, 0, out);
    if (st ==
        STATUS_CONFIG) { /* of another version: the page is worth more than some of its words */
        log_warning("%s; the report does without it", status_message());
        st = config_load(NULL, NULL, 0, out);
    }
    mem_free(path);
    return st;
}

enum status report_write(const char *folder, const char *to)
{
    struct run_config *config = NULL;
    struct str page = {0};
    char *path = NULL;
    enum status st = mem_alloc(1, sizeof *config, "a configuration", &config);
    if (st == STATUS_OK)
        st = report_config(folder, config);
    if (st == STATUS_OK)
        st = report_page(&(struct report_run){.folder = folder, .config = config}, &page);
    if (st == STATUS_OK)
        st = to == NULL ? path_join(folder, "report.html", &path) : mem_strdup(to, &path);
    if (st == STATUS_OK)
        st = session_write(path, page.p, page.n);
    if (st == STATUS_OK)
        st = events_write(folder);
    str_release(&page);
    mem_free(path);
    mem_free(config);
    return st;
}

void report_after_training(const char *folder)
{
    enum status st = report_write(folder, NULL);
    if (st == STATUS_OK)
        log_info("report: %s/report.html", folder);
    else
        log_warning("no report: %s; try cohort report %s", status_message(), folder);
}
