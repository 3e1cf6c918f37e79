/* events.c - see events.h. Protobuf by hand: keys are (field << 3 | wire type), wire types 0
 * (varint), 1 (8 bytes), 2 (length and bytes) and 5 (4 bytes). */
#include "report/events.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "report/run_folder.h"

/* ---- records ---- */

uint32_t crc32c(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
    }
    return crc ^ 0xFFFFFFFFu;
}

static enum status add_fixed(struct str *out, uint64_t value, int bytes)
{
    char little[8];
    for (int i = 0; i < bytes; i++)
        little[i] = (char)(value >> (8 * i) & 0xFF);
    return str_add(out, little, (size_t)bytes);
}

/* The checksum is masked, because checksums of what holds checksums are weak. */
static enum status add_checksum(struct str *out, const char *bytes, size_t n)
{
    uint32_t crc = crc32c(bytes, n);
    return add_fixed(out, ((crc >> 15 | crc << 17) + 0xA282EAD8u) & 0xFFFFFFFFu, 4);
}

static enum status add_record(struct str *out, const struct str *message)
{
    size_t at = out->n;
    TRY(add_fixed(out, message->n, 8));
    TRY(add_checksum(out, out->p + at, 8));
    TRY(str_add(out, message->p, message->n));
    return add_checksum(out, message->p, message->n);
}

/* ---- messages ---- */

static enum status add_varint(struct str *out, uint64_t value)
{
    do {
        char byte = (char)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
        TRY(str_add(out, &byte, 1));
        value >>= 7;
    } while (value > 0);
    return STATUS_OK;
}

static enum status add_bytes(struct str *out, int field, const char *bytes, size_t n)
{
    TRY(add_varint(out, (uint64_t)field << 3 | 2));
    TRY(add_varint(out, n));
    return str_add(out, bytes, n);
}

static enum status add_double(struct str *out, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    TRY(add_varint(out, (uint64_t)field << 3 | 1));
    return add_fixed(out, bits, 8);
}

static enum status add_float(struct str *out, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    TRY(add_varint(out, (uint64_t)field << 3 | 5));
    return add_fixed(out, bits, 4);
}

enum status events_begin(struct str *out, double wall_time)
{
    static const char version[] = "brain.Event:2";
    struct str message = {0};
    enum status st = add_double(&message, 1, wall_time);
    if (st == STATUS_OK)
        st = add_bytes(&message, 3, version, sizeof version - 1);
    if (st == STATUS_OK)
        st = add_record(out, &message);
    str_release(&message);
    return st;
}

static enum status add_value(struct str *summary, const struct event_value *value)
{
    struct str one = {0};
    enum status st = add_bytes(&one, 1, value->tag, strlen(value->tag));
    if (st == STATUS_OK)
        st = add_float(&one, 2, (float)value->value);
    if (st == STATUS_OK)
        st = add_bytes(summary, 1, one.p, one.n);
    str_release(&one);
    return st;
}

enum status events_add(struct str *out, double wall_time, int64_t step,
                       const struct event_value *value, int count)
{
    struct str message = {0}, summary = {0};
    enum status st = STATUS_OK;
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        if (isfinite(value[i].value))
            st = add_value(&summary, &value[i]);
    }
    if (summary.n > 0) {
        if (st == STATUS_OK)
            st = add_double(&message, 1, wall_time);
        if (st == STATUS_OK)
            st = add_varint(&message, 2 << 3);
        if (st == STATUS_OK)
            st = add_varint(&message, (uint64_t)step);
        if (st == STATUS_OK)
            st = add_bytes(&message, 5, summary.p, summary.n);
        if (st == STATUS_OK)
            st = add_record(out, &message);
    }
    str_release(&summary);
    str_release(&message);
    return st;
}

/* ---- log.jsonl ---- */

enum { MOST_VALUES = 64, TAG = 64 };

static double number(const json_t *line, const char *key)
{
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static enum status train_line(struct str *out, const json_t *line, int64_t step, double *wall_time)
{
    double seconds = number(line, "tokens") / number(line, "tokens_per_s");
    const struct event_value value[] = {{"train/loss", number(line, "loss")},
                                        {"train/lr", number(line, "lr")},
                                        {"train/head_lr", number(line, "head_lr")},
                                        {"train/grad_norm", number(line, "grad_norm")},
                                        {"train/tokens_per_s", number(line, "tokens_per_s")},
                                        {"train/loss_scale", number(line, "loss_scale")}};
    *wall_time += isfinite(seconds) && seconds > 0.0 ? seconds : 0.0;
    return events_add(out, *wall_time, step, value, sizeof value / sizeof value[0]);
}

static enum status eval_line(struct str *out, const json_t *line, int64_t step, double *wall_time)
{
    struct event_value value[MOST_VALUES];
    char tag[MOST_VALUES][TAG];
    double seconds = number(line, "seconds");
    const char *name;
    json_t *metric, *metrics = json_object_get(line, "metrics");
    int n = 0;
    *wall_time += isfinite(seconds) && seconds > 0.0 ? seconds : 0.0;
    json_object_foreach(metrics, name, metric)
    {
        if (!json_is_number(metric) || n == MOST_VALUES || strlen(name) > TAG - 6)
            continue;
        (void)snprintf(tag[n], TAG, "eval/%s", name);
        value[n] = (struct event_value){tag[n], json_number_value(metric)};
        n++;
    }
    return events_add(out, *wall_time, step, value, n);
}

enum status events_line(struct str *out, const json_t *line, double *wall_time)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    const json_t *step = json_object_get(line, "step");
    if (kind == NULL || !json_is_integer(step))
        return STATUS_OK;
    if (strcmp(kind, "train") == 0)
        return train_line(out, line, json_integer_value(step), wall_time);
    if (strcmp(kind, "eval") == 0)
        return eval_line(out, line, json_integer_value(step), wall_time);
    return STATUS_OK;
}

static enum status convert(const char *log, const char *to, double wall_time)
{
    struct str out = {0};
    char *text = NULL;
    size_t room = 0;
    ssize_t n;
    FILE *file = fopen(log, "re");
    if (file == NULL)
        return status_fail(STATUS_IO, "cannot read %s: %s", log, strerror(errno));
    enum status st = events_begin(&out, wall_time);
    while (st == STATUS_OK && (n = getline(&text, &room, file)) > 0) {
        json_t *line = json_loadb(text, (size_t)n, 0, NULL);
        if (line != NULL)
            st = events_line(&out, line, &wall_time);
        json_decref(line);
    }
    free(text);
    (void)fclose(file);
    if (st == STATUS_OK)
        st = file_write_atomic(to, out.p, out.n);
    str_release(&out);
    return st;
}

/* ---- folders ---- */

static double begin_of(const char *folder)
{
    struct stat info;
    char *path = NULL;
    double begin = 0.0;
    if (path_join(folder, "manifest.json", &path) == STATUS_OK && stat(path, &info) == 0)
        begin = (double)info.st_mtime;
    mem_free(path);
    return begin;
}

static enum status convert_in(const char *folder, double wall_time)
{
    char *log = NULL, *to = NULL;
    enum status st = path_join(folder, "log.jsonl", &log);
    if (st == STATUS_OK)
        st = path_join(folder, EVENTS_NAME, &to);
    if (st == STATUS_OK && file_exists(log))
        st = convert(log, to, wall_time);
    mem_free(log);
    mem_free(to);
    return st;
}

static bool is_level(const char *name)
{
    int number;
    return run_folder_level(name, "setting", &number) ||
           run_folder_level(name, "repeat", &number) || run_folder_level(name, "fold", &number) ||
           run_folder_level(name, "inner", &number);
}

static enum status write_in(const char *folder, double wall_time, int depth)
{
    char **names;
    size_t count;
    bool below = false;
    enum status st = STATUS_OK;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK && depth < 4; i++) {
        char *path;
        if (!is_level(names[i]))
            continue;
        st = path_join(folder, names[i], &path);
        if (st == STATUS_OK && file_is_folder(path)) {
            below = true;
            st = write_in(path, wall_time, depth + 1);
        }
        mem_free(path);
    }
    folder_list_free(names, count);
    /* A run's own log is that of its trials again. */
    return st == STATUS_OK && !(below && depth == 0) ? convert_in(folder, wall_time) : st;
}

enum status events_write(const char *folder)
{
    return write_in(folder, begin_of(folder), 0);
}
