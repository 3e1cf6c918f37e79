/*
 * encode_lines.c - ids of lines by a folder's tokenizer, whatever its model: tests/long/tokenizer.py and vectors.py compare them.
 *
 * Usage: long_encode_lines FOLDER [TIMES [THREADS]] < LINES > IDS. A line is a JSON string, its ids are numbers with spaces. With
 * TIMES all lines are encoded so often and no ids are written. What is said on standard error: seconds of opening, lines, ids of
 * all times together, seconds of the quickest time, CPU seconds of the time that took fewest.
 *
 * Usage: long_encode_lines FOLDER --whole < LINES > OBJECTS. A line is {"text": "...", "pair": "...", "max_length": n}, the last
 * two left out or not; what it becomes is {"ids": [with special tokens], "types": [...], "pieces": [of the text alone],
 * "decoded_ids": [without those of cls, sep, pad, unk and mask], "decoded": "what these are as text"}.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "data/tokenizer.h"

static enum status add_numbers(struct str *out, const char *key, const int32_t *p, int n)
{
    TRY(str_addf(out, "\"%s\": [", key));
    for (int i = 0; i < n; i++)
        TRY(str_addf(out, i == 0 ? "%d" : ", %d", p[i]));
    return str_addf(out, "], ");
}

/* The ids of a text without special tokens. */
static enum status encode_value(const struct tokenizer *t, const json_t *text, struct id_list *ids)
{
    return tokenizer_encode(t, json_string_value(text), json_string_length(text), ids);
}

static enum status write_whole(const struct tokenizer *t, const json_t *line, struct id_list lists[4], struct str *out)
{
    struct tokenizer_info info;
    const json_t *pair = json_object_get(line, "pair"), *limit = json_object_get(line, "max_length");
    struct id_list *a = &lists[0], *b = &lists[1], *whole = &lists[2], *types = &lists[3];
    struct str decoded = {0};
    enum status st = STATUS_OK;
    tokenizer_get_info(t, &info);
    a->n = b->n = 0;
    TRY(encode_value(t, json_object_get(line, "text"), a));
    if (pair != NULL)
        TRY(encode_value(t, pair, b));
    int64_t nb = pair == NULL ? -1 : (int64_t)b->n;
    int longest = limit == NULL ? INT32_MAX : (int)json_integer_value(limit);
    int n = tokenizer_length(&info, (int64_t)a->n, nb, longest);
    TRY(mem_grow(&whole->p, &whole->capacity, (size_t)n, sizeof *whole->p, "ids"));
    TRY(mem_grow(&types->p, &types->capacity, (size_t)n, sizeof *types->p, "types"));
    (void)tokenizer_join(&info, a->p, (int64_t)a->n, b->p, nb, n, whole->p, types->p);
    TRY(str_addf(out, "{"));
    TRY(add_numbers(out, "ids", whole->p, n));
    TRY(add_numbers(out, "types", types->p, n));
    TRY(str_addf(out, "\"pieces\": ["));
    for (size_t i = 0; i < a->n; i++) {
        const char *piece = tokenizer_piece(t, a->p[i]);
        TRY(str_addf(out, i == 0 ? "" : ", "));
        TRY(str_add_json(out, piece, strlen(piece)));
    }
    int32_t kept = 0;
    for (size_t i = 0; i < a->n; i++) {
        int32_t id = a->p[i];
        if (id != info.cls && id != info.sep && id != info.pad && id != info.unk && id != info.mask)
            a->p[kept++] = id;
    }
    TRY_GOTO(done, tokenizer_decode(t, a->p, kept, &decoded));
    TRY_GOTO(done, str_addf(out, "], "));
    TRY_GOTO(done, add_numbers(out, "decoded_ids", a->p, kept));
    TRY_GOTO(done, str_addf(out, "\"decoded\": "));
    TRY_GOTO(done, str_add_json(out, decoded.p, decoded.n));
    st = str_addf(out, "}\n");
done:
    str_release(&decoded);
    return st;
}

/* Each line by itself. */
static enum status encode_whole(const struct tokenizer *t)
{
    struct id_list lists[4] = {{0}};
    struct str out = {0};
    char *line = NULL;
    size_t capacity = 0;
    enum status st = STATUS_OK;
    for (ssize_t n; st == STATUS_OK && (n = getline(&line, &capacity, stdin)) > 0;) {
        json_t *object = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        str_clear(&out);
        st = json_is_string(json_object_get(object, "text"))
                 ? write_whole(t, object, lists, &out)
                 : status_fail(STATUS_FORMAT, "not an object with a \"text\": %.60s", line);
        if (st == STATUS_OK)
            (void)fwrite(out.p, 1, out.n, stdout);
        json_decref(object);
    }
    for (int i = 0; i < 4; i++)
        id_list_release(&lists[i]);
    str_release(&out);
    free(line);
    return st;
}

int main(int argc, char **argv)
{
    struct tokenizer *t;
    struct id_list ids = {0};
    char *line = NULL;
    size_t capacity = 0, count = 0, room = 0;
    struct str *lines = NULL;
    double started = clock_s(), opened;
    if (argc < 2 || tokenizer_open(argv[1], &t) != STATUS_OK) {
        fprintf(stderr, "%s\n", argc < 2 ? "usage: long_encode_lines FOLDER [TIMES [THREADS] | --whole]" : status_message());
        return 1;
    }
    opened = clock_s() - started;
    if (argc > 2 && strcmp(argv[2], "--whole") == 0) {
        enum status st = encode_whole(t);
        if (st != STATUS_OK)
            fprintf(stderr, "%s\n", status_message());
        tokenizer_close(t);
        return st == STATUS_OK ? 0 : 1;
    }
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0; count++) {
        json_t *text = json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (text == NULL || mem_grow(&lines, &room, count + 1, sizeof *lines, "lines") != STATUS_OK)
            return 1;
        lines[count] = (struct str){0};
        if (str_add(&lines[count], json_string_value(text), json_string_length(text)) != STATUS_OK)
            return 1;
        json_decref(text);
    }
    int times = argc > 2 ? atoi(argv[2]) : 1, threads = argc > 3 ? atoi(argv[3]) : 1;
    size_t total = 0;
    double least = 1e300, least_cpu = 1e300;
    bool failed = false;
    for (int k = 0; argc > 2 && k < times; k++) {
        clock_t cpu = clock();
        started = clock_s();
#pragma omp parallel num_threads(threads) reduction(+ : total) reduction(|| : failed)
        {
            struct id_list own = {0};
#pragma omp for schedule(dynamic, 64)
            for (size_t i = 0; i < count; i++) {
                own.n = 0;
                failed = tokenizer_encode(t, lines[i].p, lines[i].n, &own) != STATUS_OK || failed;
                total += own.n;
            }
            id_list_release(&own);
        }
        least = fmin(least, clock_s() - started);
        least_cpu = fmin(least_cpu, (double)(clock() - cpu) / CLOCKS_PER_SEC);
    }
    for (size_t i = 0; argc <= 2 && i < count; i++) {
        ids.n = 0;
        failed = tokenizer_encode(t, lines[i].p, lines[i].n, &ids) != STATUS_OK || failed;
        for (size_t j = 0; j < ids.n; j++)
            printf(j == 0 ? "%d" : " %d", ids.p[j]);
        putchar('\n');
    }
    if (failed)
        fprintf(stderr, "a line could not be encoded: %s\n", status_message());
    else
        fprintf(stderr, "%.3f %zu %zu %.4f %.4f\n", opened, count, total, argc > 2 ? least : 0.0, argc > 2 ? least_cpu : 0.0);
    for (size_t i = 0; i < count; i++)
        str_release(&lines[i]);
    mem_free(lines);
    free(line);
    id_list_release(&ids);
    tokenizer_close(t);
    return failed;
}
