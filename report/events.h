/*
 * events.h - TensorBoard's event files, made from log.jsonl.
 *
 * A file is a list of records: length (8 bytes, little-endian), masked CRC-32C of these 8 bytes,
 * the bytes, masked CRC-32C of the bytes. Each record is a protobuf message tensorflow.Event with
 * wall_time (1, double), step (2, int64) and file_version (3, text) or summary (5), whose values
 * (1) have a tag (1, text) and simple_value (2, float). Formats: tensorflow/core/lib/io/record_
 * writer and tensorflow/core/util/event.proto. Nothing of TensorFlow is needed to write them.
 *
 * Local.
 */
#ifndef COHORT_REPORT_EVENTS_H
#define COHORT_REPORT_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "base/str.h"

/* CRC-32C (Castagnoli, reflected 0x82F63B78) of n bytes. */
uint32_t crc32c(const void *bytes, size_t n);

/* Append the file's first record, which names the format. */
NODISCARD enum status events_begin(struct str *out, double wall_time);

struct event_value {
    const char *tag; /* "train/loss" */
    double value;    /* values that are not finite are left out */
};
/* Append a record with these values. STATUS_NOMEM. */
NODISCARD enum status events_add(struct str *out, double wall_time, int64_t step,
                                 const struct event_value *value, int count);
/*
 * Append a record for a line of log.jsonl: kind train as train/loss, train/lr, ...; kind eval as
 * eval/<metric>; other lines give nothing. *wall_time is moved on by what the line says it took.
 */
NODISCARD enum status events_line(struct str *out, const json_t *line, double *wall_time);

#define EVENTS_NAME "events.out.tfevents.0.cohort"
/*
 * Write EVENTS_NAME beside every log.jsonl of a run: in the folders of its trials (TensorBoard
 * shows each as a run), or in the run's own if there are none. Time begins with the run's
 * manifest.json (0 without one): log.jsonl has none. Lines that are no JSON are left out.
 * STATUS_IO, STATUS_NOMEM.
 */
NODISCARD enum status events_write(const char *folder);

#endif
