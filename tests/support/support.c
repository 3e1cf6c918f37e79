/* support.c - see support.h. */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

void support_assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
}

void support_assert_near(double a, double b, double bound, const char *what)
{
    double difference = a > b ? a - b : b - a;
    if (!(difference <= bound))
        fail_msg("%s: %.17g and %.17g differ by %.3g, allowed %.3g", what, a, b, difference, bound);
}

static char folder[64];
static char **kept; /* paths handed out, freed at the end so that the leak check stays quiet */
static size_t kept_count, kept_capacity;

static void clean(void)
{
    folder_list_free(kept, kept_count);
    if (folder_remove(folder) != STATUS_OK)
        (void)fprintf(stderr, "%s\n", status_message());
}

const char *support_folder(void)
{
    if (folder[0] == '\0') {
        (void)snprintf(folder, sizeof folder, "/tmp/cohort-test-XXXXXX");
        if (mkdtemp(folder) == NULL)
            fail_msg("cannot make a temporary folder");
        (void)atexit(clean);
    }
    return folder;
}

const char *support_keep(char *path)
{
    (void)support_folder();
    assert_ok(mem_grow(&kept, &kept_capacity, kept_count + 1, sizeof *kept, "kept paths"));
    kept[kept_count++] = path;
    return path;
}

const char *support_file(const char *name, const void *bytes, size_t n)
{
    char *path;
    assert_ok(path_join(support_folder(), name, &path));
    assert_ok(file_write_atomic(path, bytes, n));
    return support_keep(path);
}
