/*
 * text_source.c - bytes from a file, standard input or memory, unpacked if they are gzip or zstd,
 * into one window.
 *
 * The window grows only as far as the row in it needs, so memory does not depend on the file's
 * size, nor on what a compressed file claims. Both formats may hold several members back to back
 * (cat a.gz b.gz), as their tools allow.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "data/text_internal.h"

#define RAW_BYTES ((size_t)64 << 10)
#define FIRST_WINDOW ((size_t)256 << 10)
#define LEAST_READ ((size_t)64 << 10)

struct unpacker {
    bool is_zstd;
    bool inside; /* within a member or frame: the file may not end here */
    z_stream gzip;
    ZSTD_DStream *zstd;
};

static enum status read_stored(struct text_source *source, char *to, size_t room, size_t *n)
{
    *n = 0;
    if (source->fd < 0) {
        *n = room < source->memory_left ? room : source->memory_left;
        if (source->piece > 0 && *n > source->piece)
            *n = source->piece;
        if (*n > 0)
            memcpy(to, source->memory, *n);
        source->memory += *n;
        source->memory_left -= *n;
        return STATUS_OK;
    }
    TRY(fault_here("data.text"));
    for (;;) {
        ssize_t got = read(source->fd, to, room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return status_fail(STATUS_IO, "cannot read %s: %s", source->name, strerror(errno));
        *n = (size_t)got;
        return STATUS_OK;
    }
}

/* Keep raw non-empty unless the file has ended. */
static enum status fill_raw(struct text_source *source)
{
    if (source->raw_begin < source->raw_end)
        return STATUS_OK;
    source->raw_begin = 0;
    return read_stored(source, source->raw, RAW_BYTES, &source->raw_end);
}

static enum status unpacker_open(struct text_source *source, bool is_zstd)
{
    TRY(mem_alloc(1, sizeof *source->unpacker, "a decompressor", &source->unpacker));
    source->unpacker->is_zstd = is_zstd;
    if (is_zstd) {
        source->unpacker->zstd = ZSTD_createDStream();
        if (source->unpacker->zstd == NULL)
            return status_fail(STATUS_NOMEM, "%s: no memory for the zstd decompressor",
                               source->name);
    } else if (inflateInit2(&source->unpacker->gzip, 15 + 16) !=
               Z_OK) { /* 15: largest window; + 16: gzip only */
        mem_free(source->unpacker);
        source->unpacker = NULL;
        return status_fail(STATUS_NOMEM, "%s: no memory for the gzip decompressor", source->name);
    }
    return STATUS_OK;
}

static enum status start(struct text_source *source)
{
    const unsigned char *raw;
    size_t n = 1;
    TRY(mem_alloc_raw(RAW_BYTES, 1, "a read buffer", &source->raw));
    raw = (const unsigned char *)source->raw;
    while (n > 0 && source->raw_end < 4) { /* a pipe may deliver single bytes */
        TRY(read_stored(source, source->raw + source->raw_end, RAW_BYTES - source->raw_end, &n));
        source->raw_end += n;
    }
    if (source->raw_end >= 2 && raw[0] == 0x1F && raw[1] == 0x8B)
        return unpacker_open(source, false);
    if (source->raw_end >= 4 && memcmp(raw, "\x28\xB5\x2F\xFD", 4) == 0)
        return unpacker_open(source, true);
    return STATUS_OK;
}

enum status text_source_open(struct text_source *source, const char *path)
{
    struct stat info;
    *source = (struct text_source){.name = path, .fd = STDIN_FILENO};
    if (strcmp(path, "-") == 0) {
        source->name = "standard input";
        return start(source);
    }
    source->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0)
        return status_fail(STATUS_NOINPUT, "%s: %s", path, strerror(errno));
    source->close_fd = true;
    if (fstat(source->fd, &info) == 0 && S_ISDIR(info.st_mode))
        return status_fail(STATUS_NOINPUT, "%s is a folder, wanted a file", path);
    return start(source);
}

enum status text_source_open_memory(struct text_source *source, const void *bytes, size_t n,
                                    size_t piece, const char *name)
{
    *source = (struct text_source){
        .name = name, .fd = -1, .memory = bytes, .memory_left = n, .piece = piece};
    return start(source);
}

static enum status unpack_gzip(struct text_source *source, char *to, size_t room, size_t *n)
{
    struct unpacker *u = source->unpacker;
    u->gzip.next_in = (Bytef *)source->raw + source->raw_begin;
    u->gzip.avail_in = (uInt)(source->raw_end - source->raw_begin);
    u->gzip.next_out = (Bytef *)to;
    u->gzip.avail_out = (uInt)(room < (size_t)1 << 30 ? room : (size_t)1 << 30);
    uInt offered = u->gzip.avail_out;
    u->inside = true;
    int result = inflate(&u->gzip, Z_NO_FLUSH);
    source->raw_begin = source->raw_end - u->gzip.avail_in;
    *n = offered - u->gzip.avail_out;
    if (result == Z_STREAM_END) {
        u->inside = false;
        result = inflateReset(&u->gzip);
    }
    if (result == Z_MEM_ERROR)
        return status_fail(STATUS_NOMEM, "%s: no memory to unpack gzip", source->name);
    if (result != Z_OK && result != Z_BUF_ERROR)
        return status_fail(STATUS_DATA, "%s: the gzip data is damaged: %s", source->name,
                           u->gzip.msg == NULL ? "unknown error" : u->gzip.msg);
    return STATUS_OK;
}

static enum status unpack_zstd(struct text_source *source, char *to, size_t room, size_t *n)
{
    struct unpacker *u = source->unpacker;
    ZSTD_inBuffer in = {source->raw, source->raw_end, source->raw_begin};
    ZSTD_outBuffer out = {to, room, 0};
    size_t result = ZSTD_decompressStream(u->zstd, &out, &in);
    if (ZSTD_isError(result))
        return status_fail(STATUS_DATA, "%s: the zstd data is damaged: %s", source->name,
                           ZSTD_getErrorName(result));
    source->raw_begin = in.pos;
    *n = out.pos;
    u->inside = result != 0;
    return STATUS_OK;
}

/* Up to room unpacked bytes; *n == 0 only at the end of the file. */
static enum status read_unpacked(struct text_source *source, char *to, size_t room, size_t *n)
{
    *n = 0;
    if (source->unpacker == NULL) {
        if (source->raw_begin == source->raw_end)
            return read_stored(source, to, room, n);
        *n = source->raw_end -
             source->raw_begin; /* the block that was read to see the first bytes */
        if (*n > room)
            *n = room;
        memcpy(to, source->raw + source->raw_begin, *n);
        source->raw_begin += *n;
        return STATUS_OK;
    }
    while (*n == 0) {
        TRY(fill_raw(source));
        if (source->raw_begin == source->raw_end && !source->unpacker->inside)
            return STATUS_OK;
        /* Both keep their last input bytes back until all that they stand for is out (gzip its
         * trailer, zstd one). */
        if (source->raw_begin == source->raw_end)
            return status_fail(STATUS_DATA, "%s: the file ends in the middle of its %s data",
                               source->name, source->unpacker->is_zstd ? "zstd" : "gzip");
        TRY(source->unpacker->is_zstd ? unpack_zstd(source, to, room, n)
                                      : unpack_gzip(source, to, room, n));
    }
    return STATUS_OK;
}

enum status text_source_more(struct text_source *source, bool *got)
{
    size_t n;
    *got = false;
    if (source->ended)
        return STATUS_OK;
    if (source->capacity - source->end < LEAST_READ && source->begin > 0) {
        memmove(source->buf, source->buf + source->begin, source->end - source->begin);
        source->base += (int64_t)source->begin;
        source->end -= source->begin;
        source->begin = 0;
    }
    if (source->capacity - source->end < LEAST_READ) {
        size_t need = source->capacity == 0 ? FIRST_WINDOW : source->end + LEAST_READ;
        TRY(mem_grow(&source->buf, &source->capacity, need, 1, "a row of text"));
    }
    TRY(read_unpacked(source, source->buf + source->end, source->capacity - source->end, &n));
    source->end += n;
    source->ended = n == 0;
    *got = n > 0;
    return STATUS_OK;
}

bool text_source_waits(const struct text_source *source)
{
    struct pollfd asked = {.fd = source->fd, .events = POLLIN};
    if (source->fd < 0 || source->ended || source->raw_begin < source->raw_end ||
        (source->end > source->begin &&
         memchr(source->buf + source->begin, '\n', source->end - source->begin) != NULL))
        return false;
    return poll(&asked, 1, 0) == 0; /* a file and a closed pipe are always ready */
}

void text_source_close(struct text_source *source)
{
    if (source->unpacker != NULL) {
        if (source->unpacker->is_zstd)
            (void)ZSTD_freeDStream(source->unpacker->zstd);
        else
            (void)inflateEnd(&source->unpacker->gzip);
        mem_free(source->unpacker);
    }
    mem_free(source->raw);
    mem_free(source->buf);
    if (source->close_fd)
        (void)close(source->fd);
    *source = (struct text_source){.fd = -1};
}
