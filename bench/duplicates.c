/*
 * duplicates.c - time and memory of duplicates_find() on rows that are made up.
 *
 * Usage: bench_duplicates ROWS TOKENS [NEAR] [KIND] [THREADS]. Rows of TOKENS ids, drawn as words are in texts (rank r with
 * weight 1 / r), one in ten a copy of an earlier one, one in ten a copy with one id changed. KIND "boilerplate": instead, all
 * rows share three quarters of their ids, the worst that can be met below the threshold. The file lies in TMPDIR.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/threads.h"
#include "data/duplicates.h"
#include "tests/data/id_rows.h"

static uint64_t counter;

static int64_t below(int64_t n)
{
    return (int64_t)random_below(11, counter++, (uint64_t)n);
}

static int32_t word(void)
{
    double u = (double)below((int64_t)1 << 40) / (double)((int64_t)1 << 40);
    return ID_FIRST + (int32_t)(exp(u * log(25000.0)) - 1.0);
}

static enum status make(int64_t rows, int tokens, bool boilerplate, struct dataset_part *part)
{
    int32_t *ids, *shared;
    TRY(mem_alloc((size_t)tokens, sizeof *ids, "a row", &ids));
    TRY(mem_alloc((size_t)tokens, sizeof *shared, "a row", &shared));
    for (int k = 0; k < tokens; k++)
        shared[k] = word();
    for (int64_t i = 0; i < rows; i++) {
        int64_t kind = boilerplate || i == 0 ? 9 : below(10);
        if (kind <= 1)
            memcpy(ids, part->tokens.p + below(i) * tokens, (size_t)tokens * sizeof *ids);
        for (int k = 0; k < tokens && kind > 1; k++)
            ids[k] = boilerplate && k < tokens * 3 / 4 ? shared[k] : word();
        if (kind == 1)
            ids[below(tokens)] = word();
        TRY(id_rows_add(part, ids, (size_t)tokens));
    }
    mem_free(ids);
    mem_free(shared);
    return STATUS_OK;
}

/* In a process of its own, whose memory is not counted. */
static enum status make_apart(const char *path, int64_t rows, int tokens, bool boilerplate)
{
    struct dataset_part part = {0};
    int status;
    pid_t child = fork();
    if (child == 0) {
        enum status st = make(rows, tokens, boilerplate, &part);
        if (st == STATUS_OK)
            st = id_rows_write(path, &part);
        if (st != STATUS_OK)
            fprintf(stderr, "%s\n", status_message());
        _exit(st == STATUS_OK ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return status_fail(STATUS_IO, "the rows could not be made");
    return STATUS_OK;
}

static enum status run(const char *path, int64_t rows, int tokens, double near, bool boilerplate)
{
    struct dataset *ds;
    struct duplicates d;
    TRY(make_apart(path, rows, tokens, boilerplate));
    TRY(dataset_open(&(struct dataset_opts){.path = path, .max_length = 512}, &ds));
    struct duplicates_opts opts = {&ds, 1, near, NULL};
    int64_t before = mem_peak_bytes();
    double started = clock_s();
    clock_t computed = clock();
    TRY(duplicates_find(&opts, &d));
    double took = clock_s() - started;
    printf("%lld rows of %d tokens, similarity %g, %d threads: %.2f s (of CPUs %.2f), %.0f bytes a row, %lld copies, %lld "
           "near, %lld compared\n",
           (long long)rows, tokens, near, threads_count(), took, (double)(clock() - computed) / CLOCKS_PER_SEC,
           (double)(mem_peak_bytes() - before) / (double)rows, (long long)d.copies, (long long)d.near_copies,
           (long long)d.compared);
    duplicates_release(&d);
    dataset_close(ds);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];
    if (argc < 3) {
        fprintf(stderr, "usage: bench_duplicates ROWS TOKENS [NEAR] [normal|boilerplate] [THREADS]\n");
        return 64;
    }
    threads_set(argc > 5 ? atoi(argv[5]) : 1);
    (void)snprintf(path, sizeof path, "%s/bench-duplicates-%d.h5", folder == NULL ? "/tmp" : folder, (int)getpid());
    enum status st = run(path, atoll(argv[1]), atoi(argv[2]), argc > 3 ? atof(argv[3]) : 0.8,
                         argc > 4 && strcmp(argv[4], "boilerplate") == 0);
    (void)remove(path);
    if (st != STATUS_OK)
        fprintf(stderr, "%s\n", status_message());
    return st != STATUS_OK;
}
