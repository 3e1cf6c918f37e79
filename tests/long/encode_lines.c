/*
 * encode_lines.c - ids of lines by a folder's tokenizer, whatever its model: tests/long/tokenizer.py compares them.
 *
 * Usage: long_encode_lines FOLDER [TIMES] < LINES > IDS. A line is a JSON string, its ids are numbers with spaces. The seconds
 * that opening and encoding took are told on standard error; with TIMES all lines are encoded so often.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "data/tokenizer.h"

int main(int argc, char **argv)
{
    struct tokenizer *t;
    struct id_list ids = {0};
    char *line = NULL;
    size_t capacity = 0, count = 0, room = 0;
    struct str *lines = NULL;
    double started = clock_s(), opened;
    if (argc < 2 || tokenizer_open(argv[1], &t) != STATUS_OK) {
        fprintf(stderr, "%s\n", argc < 2 ? "usage: long_encode_lines FOLDER [TIMES]" : status_message());
        return 1;
    }
    opened = clock_s() - started;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0; count++) {
        json_t *text = json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (text == NULL || mem_grow(&lines, &room, count + 1, sizeof *lines, "lines") != STATUS_OK)
            return 1;
        lines[count] = (struct str){0};
        if (str_add(&lines[count], json_string_value(text), json_string_length(text)) != STATUS_OK)
            return 1;
        json_decref(text);
    }
    int times = argc > 2 ? atoi(argv[2]) : 1;
    size_t total = 0;
    started = clock_s();
    for (int k = 0; k < times; k++) {
        for (size_t i = 0; i < count; i++) {
            ids.n = 0;
            if (tokenizer_encode(t, lines[i].p, lines[i].n, &ids) != STATUS_OK) {
                fprintf(stderr, "line %zu: %s\n", i, status_message());
                return 1;
            }
            total += ids.n;
            for (size_t j = 0; times == 1 && j < ids.n; j++)
                printf(j == 0 ? "%d" : " %d", ids.p[j]);
            if (times == 1)
                putchar('\n');
        }
    }
    fprintf(stderr, "opened in %.3f s; %zu lines, %zu ids in %.3f s\n", opened, count, total, clock_s() - started);
    for (size_t i = 0; i < count; i++)
        str_release(&lines[i]);
    mem_free(lines);
    free(line);
    id_list_release(&ids);
    tokenizer_close(t);
    return 0;
}
