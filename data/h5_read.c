/*
 * h5_read.c - the part of the HDF5 format that a prepared file uses, read without the library; see
 * h5.h.
 *
 * By the "HDF5 File Format Specification Version 3.0". Object headers of version 1 and the older
 * forms of messages are understood too, although cohort does not write them: tools such as h5py put
 * them in when they change a file, and the refusal should then name what was changed.
 */
#include "data/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "columns are read and written as they lie in memory");

#define UNDEFINED UINT64_MAX            /* an address that leads nowhere */
#define MOST_HEADER ((uint64_t)1 << 20) /* bytes of one piece of an object header */
#define MOST_PIECES 16
#define MOST_TEXT 65535

enum message_type {
    DATASPACE = 0x01,
    LINK_INFO = 0x02,
    DATATYPE = 0x03,
    LINK = 0x06,
    EXTERNAL_FILES = 0x07,
    LAYOUT = 0x08,
    ATTRIBUTE = 0x0C,
    CONTINUATION = 0x10,
    SYMBOL_TABLE = 0x11,
    ATTRIBUTE_INFO = 0x15
};

size_t h5_type_size(enum h5_type type)
{
    static const size_t sizes[] = {1, 4, 4, 4, 8, 8, 8};
    return sizes[type];
}

static const char *type_name(enum h5_type type)
{
    static const char *const names[] = {"uint8", "int32",  "uint32", "float32",
                                        "int64", "uint64", "float64"};
    return names[type];
}

/* ---- bytes with an end ---- */

/* What is left of a message. Reading beyond its end gives zeros and sets bad, which is asked once
 * at the end. */
struct view {
    const unsigned char *p;
    size_t n;
    bool bad;
};

static uint64_t number(struct view *v, size_t bytes)
{
    uint64_t value = 0;
    if (bytes > v->n) {
        v->bad = true;
        v->n = 0;
        return 0;
    }
    memcpy(&value, v->p, bytes);
    v->p += bytes;
    v->n -= bytes;
    return value;
}

/* The next n bytes as a view of their own. */
static struct view part(struct view *v, uint64_t n)
{
    struct view piece = {v->p, 0, n > v->n};
    if (piece.bad) {
        v->bad = true;
        v->n = 0;
        return piece;
    }
    piece.n = (size_t)n;
    v->p += n;
    v->n -= (size_t)n;
    return piece;
}

static struct view message_view(const struct h5_header *h, const struct h5_message *m)
{
    return (struct view){(const unsigned char *)h->bytes.p + m->at, m->n, false};
}

static uint32_t rotate(uint32_t x, int k)
{
    return x << k | x >> (32 - k);
}

/* Jenkins's lookup3 from 0, over superblock and headers: it finds damage, not malice. */
static uint32_t checksum(const unsigned char *p, size_t n)
{
    uint32_t a = 0xDEADBEEF + (uint32_t)n, b = a, c = a, w[3] = {0};
    for (; n > 12; n -= 12, p += 12) {
        memcpy(w, p, 12);
        a += w[0];
        b += w[1];
        c += w[2];
        a = (a - c) ^ rotate(c, 4);
        c += b;
        b = (b - a) ^ rotate(a, 6);
        a += c;
        c = (c - b) ^ rotate(b, 8);
        b += a;
        a = (a - c) ^ rotate(c, 16);
        c += b;
        b = (b - a) ^ rotate(a, 19);
        a += c;
        c = (c - b) ^ rotate(b, 4);
        b += a;
    }
    if (n == 0)
        return c;
    memset(w, 0, sizeof w);
    memcpy(w, p, n);
    a += w[0];
    b += w[1];
    c += w[2];
    c = (c ^ b) - rotate(b, 14);
    a = (a ^ c) - rotate(c, 11);
    b = (b ^ a) - rotate(a, 25);
    c = (c ^ b) - rotate(b, 16);
    a = (a ^ c) - rotate(c, 4);
    b = (b ^ a) - rotate(a, 14);
    return (c ^ b) - rotate(b, 24);
}

static bool sum_is_right(const char *bytes, size_t n)
{
    uint32_t sum;
    memcpy(&sum, bytes + n - 4, sizeof sum);
    return sum == checksum((const unsigned char *)bytes, n - 4);
}

/* ---- object headers ---- */

static void header_release(struct h5_header *h)
{
    str_release(&h->bytes);
    mem_free(h->messages);
    *h = (struct h5_header){0};
}

static enum status fail_header(const struct h5_file *file, uint64_t address, const char *why)
{
    return status_fail(STATUS_FORMAT, "%s: the object header at byte %llu %s", file->path,
                       (unsigned long long)address, why);
}

/* Append n bytes of the file to the header's; *at is where they begin. */
static enum status read_piece(const struct h5_file *file, uint64_t address, uint64_t n,
                              struct h5_header *h, size_t *at)
{
    if (n > MOST_HEADER || address > (uint64_t)file->size || n > (uint64_t)file->size - address)
        return fail_header(file, address, "does not lie inside the file");
    *at = h->bytes.n;
    TRY(mem_grow(&h->bytes.p, &h->bytes.capacity, h->bytes.n + (size_t)n + 1, 1,
                 "an object header"));
    TRY(fd_pread_all(file->fd, h->bytes.p + h->bytes.n, (size_t)n, (int64_t)address, file->path));
    h->bytes.n += (size_t)n;
    h->bytes.p[h->bytes.n] = '\0';
    return STATUS_OK;
}

/* A piece of a header that is still to be read. */
struct piece {
    uint64_t address, n;
};

struct pieces {
    struct piece list[MOST_PIECES];
    int count;
};

/*
 * Cut bytes [at, end) of the header, which lie at `place` in the file, into messages. Version 1
 * aligns to 8 bytes and has wider fields; version 2 may leave a gap at the end that is too small
 * for a message.
 */
static enum status cut_messages(const struct h5_file *file, int version, bool ordered, size_t at,
                                size_t end, int64_t place, struct h5_header *h,
                                struct pieces *pieces)
{
    const size_t prefix = version == 1 ? 8 : ordered ? 6 : 4;
    const size_t begin = at;
    while (end - at >= prefix) {
        struct view v = {(const unsigned char *)h->bytes.p + at, end - at, false};
        struct h5_message m = {.type = (int)number(&v, version == 1 ? 2 : 1)};
        m.n = (size_t)number(&v, 2);
        unsigned flags = (unsigned)number(&v, 1);
        m.at = at + prefix;
        m.place = place + (int64_t)(m.at - begin);
        if (m.n > end - m.at)
            return fail_header(file, (uint64_t)place, "has a message that is longer than it");
        if ((flags & 2) != 0)
            return fail_header(file, (uint64_t)place,
                               "shares a message with another one, which is not read");
        at = m.at + m.n;
        if (m.type == CONTINUATION) {
            v = message_view(h, &m);
            struct piece more = {number(&v, 8), 0};
            more.n = number(&v, 8);
            if (v.bad || pieces->count == MOST_PIECES)
                return fail_header(file, (uint64_t)place, "goes on in too many places");
            pieces->list[pieces->count++] = more;
        } else if (m.type != 0) {
            TRY(mem_grow(&h->messages, &h->capacity, h->count + 1, sizeof *h->messages,
                         "an object header"));
            h->messages[h->count++] = m;
        }
    }
    return STATUS_OK;
}

static enum status read_header_2(const struct h5_file *file, uint64_t address, struct h5_header *h,
                                 struct pieces *pieces)
{
    size_t at;
    const uint64_t left = (uint64_t)file->size - address;
    TRY(read_piece(file, address, left < 64 ? left : 64, h, &at));
    struct view v = {(const unsigned char *)h->bytes.p + 4, h->bytes.n - 4, false};
    int version = (int)number(&v, 1);
    unsigned flags = (unsigned)number(&v, 1);
    (void)part(&v, ((flags & 0x20) != 0 ? 16 : 0) +
                       ((flags & 0x10) != 0 ? 4 : 0)); /* times, limits of attributes */
    uint64_t size = number(&v, (size_t)1 << (flags & 3));
    size_t prefix = (size_t)(v.p - (const unsigned char *)h->bytes.p);
    if (v.bad || version != 2)
        return fail_header(file, address, "is damaged");
    str_clear(&h->bytes);
    if (size > MOST_HEADER - 256)
        return fail_header(file, address, "does not lie inside the file");
    TRY(read_piece(file, address, prefix + size + 4, h, &at));
    if (!sum_is_right(h->bytes.p, h->bytes.n))
        return fail_header(file, address, "is damaged: its checksum is wrong");
    TRY(cut_messages(file, 2, (flags & 4) != 0, prefix, prefix + (size_t)size,
                     (int64_t)(address + prefix), h, pieces));
    for (int i = 0; i < pieces->count; i++) { /* may grow while it is gone through */
        struct piece p = pieces->list[i];
        TRY(read_piece(file, p.address, p.n, h, &at));
        if (p.n < 8 || memcmp(h->bytes.p + at, "OCHK", 4) != 0 ||
            !sum_is_right(h->bytes.p + at, (size_t)p.n))
            return fail_header(file, p.address, "is damaged: its checksum is wrong");
        TRY(cut_messages(file, 2, (flags & 4) != 0, at + 4, at + (size_t)p.n - 4,
                         (int64_t)p.address + 4, h, pieces));
    }
    return STATUS_OK;
}

static enum status read_header_1(const struct h5_file *file, uint64_t address, struct h5_header *h,
                                 struct pieces *pieces)
{
    size_t at;
    TRY(read_piece(file, address, 16, h, &at));
    struct view v = {(const unsigned char *)h->bytes.p, 16, false};
    (void)part(&v, 8); /* version, number of messages, references */
    uint64_t size = number(&v, 4);
    TRY(read_piece(file, address + 16, size, h, &at));
    TRY(cut_messages(file, 1, false, at, at + (size_t)size, (int64_t)address + 16, h, pieces));
    for (int i = 0; i < pieces->count; i++) {
        struct piece p = pieces->list[i];
        TRY(read_piece(file, p.address, p.n, h, &at));
        TRY(cut_messages(file, 1, false, at, at + (size_t)p.n, (int64_t)p.address, h, pieces));
    }
    return STATUS_OK;
}

static enum status read_header(const struct h5_file *file, uint64_t address, struct h5_header *h)
{
    struct pieces pieces = {.count = 0};
    char sign[4];
    enum status st;
    *h = (struct h5_header){0};
    if (address > (uint64_t)file->size || (uint64_t)file->size - address < 16)
        return fail_header(file, address, "does not lie inside the file");
    TRY(fd_pread_all(file->fd, sign, sizeof sign, (int64_t)address, file->path));
    if (memcmp(sign, "OHDR", 4) == 0)
        st = read_header_2(file, address, h, &pieces);
    else if (sign[0] == 1)
        st = read_header_1(file, address, h, &pieces);
    else
        st = fail_header(file, address, "is none");
    if (st != STATUS_OK)
        header_release(h);
    return st;
}

static const struct h5_message *find_message(const struct h5_header *h, enum message_type type)
{
    for (size_t i = 0; i < h->count; i++) {
        if (h->messages[i].type == (int)type)
            return &h->messages[i];
    }
    return NULL;
}

/* Links and attributes that outgrew the header are kept in heaps, which are not read: it must say
 * there is no heap. */
static enum status check_no_heap(const struct h5_file *file, const struct h5_header *h,
                                 enum message_type type, size_t index_bytes, const char *what)
{
    const struct h5_message *m = find_message(h, type);
    if (m == NULL)
        return STATUS_OK;
    struct view v = message_view(h, m);
    (void)number(&v, 1); /* version */
    unsigned flags = (unsigned)number(&v, 1);
    if ((flags & 1) != 0)
        (void)part(&v, index_bytes);
    uint64_t heap = number(&v, 8);
    if (v.bad || heap != UNDEFINED)
        return status_fail(STATUS_FORMAT,
                           "%s: %s are kept in a heap, which cohort prepare does not do",
                           file->path, what);
    return STATUS_OK;
}

/* ---- opening ---- */

static enum status read_superblock(struct h5_file *file, uint64_t *root)
{
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1A, '\n'};
    char b[48];
    struct view v = {(const unsigned char *)b + 8, sizeof b - 8, false};
    if (file->size < (int64_t)sizeof b)
        return status_fail(STATUS_FORMAT, "%s: no HDF5 file: it has %lld bytes", file->path,
                           (long long)file->size);
    TRY(fd_pread_all(file->fd, b, sizeof b, 0, file->path));
    if (memcmp(b, signature, sizeof signature) != 0)
        return status_fail(STATUS_FORMAT, "%s: no HDF5 file: it begins with other bytes",
                           file->path);
    unsigned version = (unsigned)number(&v, 1), address_bytes = (unsigned)number(&v, 1);
    unsigned length_bytes = (unsigned)number(&v, 1);
    if (version != 2 && version != 3)
        return status_fail(STATUS_FORMAT,
                           "%s: HDF5 superblock %u, wanted 2 or 3: not written by cohort prepare",
                           file->path, version);
    if (!sum_is_right(b, sizeof b))
        return status_fail(STATUS_FORMAT,
                           "%s: the HDF5 superblock is damaged: its checksum is wrong", file->path);
    (void)number(&v, 1); /* consistency flags */
    uint64_t base = number(&v, 8), extension = number(&v, 8), end = number(&v, 8);
    *root = number(&v, 8);
    if (address_bytes != 8 || length_bytes != 8 || base != 0 || extension != UNDEFINED)
        return status_fail(STATUS_FORMAT,
                           "%s: HDF5 superblock with addresses of %u bytes, lengths of %u, a base "
                           "address or an extension: not written by cohort prepare",
                           file->path, address_bytes, length_bytes);
    if (end != (uint64_t)file->size)
        return status_fail(
            STATUS_FORMAT,
            "%s: the file has %lld bytes, its header says %llu: it was cut short or is "
            "still being copied",
            file->path, (long long)file->size, (unsigned long long)end);
    return STATUS_OK;
}

enum status h5_open(const char *path, struct h5_file *file)
{
    struct stat info;
    uint64_t root = UNDEFINED;
    enum status st;
    *file = H5_FILE_NONE;
    TRY(mem_strdup(path, &file->path));
    file->fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a pipe must not make us wait */
    if (file->fd < 0 || fstat(file->fd, &info) != 0) {
        st = status_fail(STATUS_NOINPUT, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (!S_ISREG(info.st_mode)) {
        st = status_fail(STATUS_NOINPUT, "%s: not a file", path);
        goto fail;
    }
    file->size = info.st_size;
    TRY_GOTO(fail, read_superblock(file, &root));
    TRY_GOTO(fail, read_header(file, root, &file->root));
    TRY_GOTO(fail, check_no_heap(file, &file->root, ATTRIBUTE_INFO, 2, "its attributes"));
    return STATUS_OK;
fail:
    h5_close(file);
    return st;
}

void h5_close(struct h5_file *file)
{
    if (file->fd >= 0)
        (void)close(file->fd);
    mem_free(file->path);
    header_release(&file->root);
    *file = H5_FILE_NONE;
}

/* ---- types and extents ---- */

/* Whether a datatype message is exactly this stored type: all bits used, least significant byte
 * first. */
static bool is_type(struct view v, enum h5_type type)
{
    static const unsigned char float32[20] = {0x01, 0x20, 0x1F, 0, 4, 0,  0,   0, 0, 0,
                                              32,   0,    23,   8, 0, 23, 127, 0, 0, 0},
                               float64[20] = {0x01, 0x20, 0x3F, 0,  8, 0,  0,    0,    0, 0,
                                              64,   0,    52,   11, 0, 52, 0xFF, 0x03, 0, 0};
    const size_t size = h5_type_size(type);
    const bool has_sign = type == H5_I32 || type == H5_I64;
    if (type == H5_F32 || type == H5_F64) /* versions 1 to 3 differ in other classes only */
        return v.n >= 20 && (v.p[0] & 15) == 1 && v.p[0] >> 4 >= 1 && v.p[0] >> 4 <= 3 &&
               memcmp(v.p + 1, (type == H5_F32 ? float32 : float64) + 1, 19) == 0;
    unsigned class = (unsigned)number(&v, 1), bits = (unsigned)number(&v, 3);
    uint64_t bytes = number(&v, 4), offset = number(&v, 2), precision = number(&v, 2);
    return !v.bad && (class & 15) == 0 && class >> 4 >= 1 && class >> 4 <= 3 &&
           bits == (has_sign ? 8u : 0u) && bytes == size && offset == 0 && precision == 8 * size;
}

enum extent { EXTENT_NONE, EXTENT_SCALAR, EXTENT_ROW };

/* A dataspace message: one value, or one dimension of *n values, or neither. */
static enum extent read_extent(struct view v, uint64_t *n)
{
    unsigned version = (unsigned)number(&v, 1), rank = (unsigned)number(&v, 1),
             flags = (unsigned)number(&v, 1);
    unsigned kind = (unsigned)number(&v, 1); /* version 1: reserved */
    (void)flags;                             /* whether maximum sizes follow, which do not matter */
    *n = 1;
    if (version == 1)
        (void)number(&v, 4);
    else if (version != 2 || kind > 1 || (kind == 0) != (rank == 0))
        return EXTENT_NONE;
    if (rank == 1)
        *n = number(&v, 8);
    if (v.bad || rank > 1)
        return EXTENT_NONE;
    return rank == 0 ? EXTENT_SCALAR : EXTENT_ROW;
}

/* ---- attributes ---- */

static struct view padded(struct view *v, uint64_t n, bool to_eight)
{
    struct view piece = part(v, n);
    if (to_eight && n % 8 != 0)
        (void)part(v, 8 - n % 8);
    return piece;
}

/* Find a root attribute of one value: its type and its bytes. missing: set if there is none; NULL:
 * it must be there. */
static enum status find_attribute(const struct h5_file *file, const char *name, struct view *type,
                                  struct view *value, bool *missing)
{
    const size_t n = strlen(name);
    if (missing != NULL)
        *missing = false;
    for (size_t i = 0; i < file->root.count; i++) {
        if (file->root.messages[i].type != ATTRIBUTE)
            continue;
        struct view v = message_view(&file->root, &file->root.messages[i]);
        unsigned version = (unsigned)number(&v, 1), flags = (unsigned)number(&v, 1);
        uint64_t name_bytes = number(&v, 2), type_bytes = number(&v, 2),
                 space_bytes = number(&v, 2), count;
        if (version == 3)
            (void)number(&v, 1); /* character set */
        struct view text = padded(&v, name_bytes, version == 1);
        if (v.bad || text.n != n + 1 || memcmp(text.p, name, n + 1) != 0)
            continue;
        *type = padded(&v, type_bytes, version == 1);
        struct view space = padded(&v, space_bytes, version == 1);
        if (v.bad || version < 1 || version > 3 || (version > 1 && flags != 0) ||
            read_extent(space, &count) != EXTENT_SCALAR)
            return status_fail(STATUS_FORMAT, "%s: attribute \"%s\" is not one value", file->path,
                               name);
        *value = v;
        return STATUS_OK;
    }
    if (missing != NULL) {
        *missing = true;
        return STATUS_OK;
    }
    return status_fail(STATUS_FORMAT, "%s: no attribute \"%s\": not a prepared dataset", file->path,
                       name);
}

static enum status get_number(const struct h5_file *file, const char *name, enum h5_type wanted,
                              void *out, bool *missing)
{
    struct view type = {0}, value = {0};
    TRY(find_attribute(file, name, &type, &value, missing));
    if (missing != NULL && *missing)
        return STATUS_OK;
    if (!is_type(type, wanted) || value.n < h5_type_size(wanted))
        return status_fail(STATUS_FORMAT, "%s: attribute \"%s\" is not of type %s", file->path,
                           name, type_name(wanted));
    memcpy(out, value.p, h5_type_size(wanted));
    return STATUS_OK;
}

static enum status check_range(const struct h5_file *file, const char *name, int64_t low,
                               int64_t high, int64_t value)
{
    if (value < low || value > high)
        return status_fail(STATUS_FORMAT, "%s: attribute \"%s\" is %lld, wanted %lld to %lld",
                           file->path, name, (long long)value, (long long)low, (long long)high);
    return STATUS_OK;
}

enum status h5_get_int(const struct h5_file *file, const char *name, int64_t low, int64_t high,
                       int64_t *out)
{
    *out = 0;
    TRY(get_number(file, name, H5_I64, out, NULL));
    return check_range(file, name, low, high, *out);
}

enum status h5_get_int_or(const struct h5_file *file, const char *name, int64_t low, int64_t high,
                          int64_t fallback, int64_t *out)
{
    bool missing;
    *out = fallback;
    TRY(get_number(file, name, H5_I64, out, &missing));
    return missing ? STATUS_OK : check_range(file, name, low, high, *out);
}

enum status h5_get_hash(const struct h5_file *file, const char *name, uint64_t *out)
{
    *out = 0;
    return get_number(file, name, H5_U64, out, NULL);
}

enum status h5_get_text(const struct h5_file *file, const char *name, char **out)
{
    struct view type, value;
    *out = NULL;
    TRY(find_attribute(file, name, &type, &value, NULL));
    unsigned class = (unsigned)number(&type, 1);
    (void)number(&type, 3); /* padding and character set */
    uint64_t n = number(&type, 4);
    if (type.bad || (class & 15) != 3 || n > MOST_TEXT || n > value.n)
        return status_fail(STATUS_FORMAT, "%s: attribute \"%s\" is not text of fixed length",
                           file->path, name);
    n = strnlen((const char *)value.p, (size_t)n);
    if (utf8_valid_prefix((const char *)value.p, (size_t)n) != n)
        return status_fail(STATUS_FORMAT, "%s: attribute \"%s\" is not UTF-8", file->path, name);
    return mem_strndup((const char *)value.p, (size_t)n, out);
}

/* ---- columns ---- */

/* Where the hard link `name` of a group leads; *address is UNDEFINED where there is no such link.
 */
static enum status find_link(const struct h5_file *file, const struct h5_header *group,
                             const char *name, size_t n, uint64_t *address)
{
    *address = UNDEFINED;
    for (size_t i = 0; i < group->count; i++) {
        if (group->messages[i].type != LINK)
            continue;
        struct view v = message_view(group, &group->messages[i]);
        unsigned version = (unsigned)number(&v, 1), flags = (unsigned)number(&v, 1);
        unsigned kind = (flags & 8) != 0 ? (unsigned)number(&v, 1) : 0;
        (void)part(&v, ((flags & 4) != 0 ? 8 : 0) +
                           ((flags & 16) != 0 ? 1 : 0)); /* order, character set */
        struct view text = part(&v, number(&v, (size_t)1 << (flags & 3)));
        if (v.bad || version != 1)
            return status_fail(STATUS_FORMAT, "%s: a link is damaged", file->path);
        if (text.n != n || memcmp(text.p, name, n) != 0)
            continue;
        if (kind != 0)
            return status_fail(STATUS_FORMAT, "%s: \"%.*s\" is %s link, which is not followed",
                               file->path, (int)n, name, kind == 1 ? "a soft" : "an external");
        *address = number(&v, 8);
        return v.bad ? status_fail(STATUS_FORMAT, "%s: a link is damaged", file->path) : STATUS_OK;
    }
    return check_no_heap(file, group, LINK_INFO, 8, "its links");
}

/* The header of "name" or "group/name"; *found is false where there is none. */
static enum status find_object(const struct h5_file *file, const char *name, struct h5_header *h,
                               bool *found)
{
    const char *slash = strchr(name, '/'), *leaf = slash == NULL ? name : slash + 1;
    const struct h5_header *group = &file->root;
    struct h5_header inner = {0};
    uint64_t address;
    enum status st;
    *h = (struct h5_header){0};
    *found = false;
    if (slash != NULL) {
        TRY(find_link(file, group, name, (size_t)(slash - name), &address));
        if (address == UNDEFINED)
            return STATUS_OK;
        TRY(read_header(file, address, &inner));
        group = &inner;
        if (find_message(group, LINK_INFO) == NULL) {
            st = status_fail(
                STATUS_FORMAT, "%s: /%.*s is not a group%s", file->path, (int)(slash - name), name,
                find_message(group, SYMBOL_TABLE) == NULL ? "" : " of HDF5 1.8 or later");
            goto done;
        }
    }
    TRY_GOTO(done, find_link(file, group, leaf, strlen(leaf), &address));
    if (address != UNDEFINED) {
        TRY_GOTO(done, read_header(file, address, h));
        *found = true;
    }
done:
    header_release(&inner);
    return st;
}

enum status h5_has(const struct h5_file *file, const char *name, bool *found)
{
    struct h5_header h;
    enum status st = find_object(file, name, &h, found);
    header_release(&h);
    return st;
}

/* Where the values lie: only in this file, in one piece. */
static enum status check_layout(const struct h5_file *file, const struct h5_header *h,
                                struct h5_column *c)
{
    const struct h5_message *m = find_message(h, LAYOUT);
    struct view v = message_view(h, m);
    const uint64_t bytes = (uint64_t)c->count *
                           h5_type_size(c->type); /* cannot overflow: see check_extent() */
    unsigned version = (unsigned)number(&v, 1), class = (unsigned)number(&v, 1);
    uint64_t at = 0, n = 0;
    if (find_message(h, EXTERNAL_FILES) != NULL)
        return status_fail(
            STATUS_FORMAT,
            "%s: the values of /%s lie in another file (external storage), which is not "
            "read",
            file->path, c->name);
    if (version != 3 && version != 4)
        return status_fail(STATUS_FORMAT, "%s: /%s has a layout of version %u, wanted 3 or 4",
                           file->path, c->name, version);
    if (class == 3)
        return status_fail(STATUS_FORMAT, "%s: /%s is a virtual dataset, which is not read",
                           file->path, c->name);
    if (class == 2)
        return status_fail(
            STATUS_FORMAT,
            "%s: the values of /%s lie in chunks, wanted in one piece as cohort prepare "
            "writes them",
            file->path, c->name);
    if (class == 0) { /* inside the header */
        n = number(&v, 2);
        at = (uint64_t)m->place + (m->n - v.n);
        v.bad |= n > v.n;
    } else {
        at = number(&v, 8);
        n = number(&v, 8);
    }
    if (c->count == 0)
        return STATUS_OK;
    if (v.bad || class > 1 || n < bytes || at > (uint64_t)file->size ||
        bytes > (uint64_t)file->size - at)
        return status_fail(STATUS_FORMAT, "%s: the values of /%s do not lie inside the file",
                           file->path, c->name);
    c->offset = (int64_t)at;
    return STATUS_OK;
}

/* A dataspace message of exactly `rank` dimensions, 1 or 2. */
static bool read_shape(struct view v, int rank, uint64_t dims[2])
{
    unsigned version = (unsigned)number(&v, 1), found = (unsigned)number(&v, 1);
    (void)number(&v, 1); /* whether maximum sizes follow, which do not matter */
    unsigned kind = (unsigned)number(&v, 1);
    if (version == 1)
        (void)number(&v, 4);
    else if (version != 2 || kind != 1)
        return false;
    dims[0] = number(&v, 8);
    dims[1] = rank == 2 ? number(&v, 8) : 1;
    return !v.bad && found == (unsigned)rank;
}

/* text: bytes of one value, else 0. */
static enum status check_extent(const struct h5_file *file, const struct h5_header *h, int rank,
                                uint64_t text, struct h5_column *c, int64_t *rows, int64_t *width)
{
    const struct h5_message *m = find_message(h, DATASPACE);
    const size_t size = h5_type_size(c->type);
    const uint64_t most = (uint64_t)file->size / size;
    uint64_t dims[2] = {0, 0};
    if (m == NULL || !read_shape(message_view(h, m), rank, dims))
        return status_fail(STATUS_FORMAT, "%s: /%s does not have %s", file->path, c->name,
                           rank == 1 ? "one dimension" : "two dimensions");
    if (text > 0)
        dims[1] = text;
    if (dims[1] == 0 || dims[1] > INT32_MAX || dims[0] > most / dims[1])
        return status_fail(
            STATUS_FORMAT,
            "%s: /%s claims %llu values of %llu bytes, which a file of %lld bytes cannot "
            "hold",
            file->path, c->name, (unsigned long long)dims[0],
            (unsigned long long)(dims[1] * (uint64_t)size), (long long)file->size);
    *rows = (int64_t)dims[0];
    *width = (int64_t)dims[1];
    c->count = *rows * *width;
    return STATUS_OK;
}

/* Bytes of a datatype message that says text of fixed length, padded with NUL; 0: it does not. */
static uint64_t text_bytes(struct view v)
{
    unsigned class = (unsigned)number(&v, 1), padding = (unsigned)number(&v, 3) & 15;
    uint64_t bytes = number(&v, 4);
    return !v.bad && (class & 15) == 3 && padding <= 1 ? bytes : 0;
}

static enum status open_column(const struct h5_file *file, const char *name, enum h5_type type,
                               int rank, bool texts, int64_t want_rows, int64_t *width,
                               struct h5_column *column)
{
    struct h5_header h;
    bool found;
    int64_t rows = 0;
    enum status st;
    *column = (struct h5_column){.name = name, .type = type};
    *width = 0;
    TRY(find_object(file, name, &h, &found));
    if (!found)
        return status_fail(STATUS_FORMAT, "%s: /%s is missing", file->path, name);
    const struct h5_message *m = find_message(&h, DATATYPE);
    uint64_t text = m != NULL && texts ? text_bytes(message_view(&h, m)) : 0;
    if (find_message(&h, LAYOUT) == NULL)
        st = status_fail(STATUS_FORMAT, "%s: /%s is not a dataset", file->path, name);
    else if (texts && text == 0)
        st = status_fail(STATUS_FORMAT, "%s: /%s is not text of fixed length", file->path, name);
    else if (!texts && (m == NULL || !is_type(message_view(&h, m), type)))
        st = status_fail(STATUS_FORMAT, "%s: /%s is not of type %s, little-endian", file->path,
                         name, type_name(type));
    else
        st = check_extent(file, &h, rank, text, column, &rows, width);
    if (st == STATUS_OK)
        st = check_layout(file, &h, column);
    if (st == STATUS_OK && want_rows >= 0 && rows != want_rows)
        st = status_fail(STATUS_FORMAT, "%s: /%s has %lld values, wanted %lld", file->path, name,
                         (long long)rows, (long long)want_rows);
    if (st != STATUS_OK)
        column->count = 0;
    header_release(&h);
    return st;
}

enum status h5_column_open(const struct h5_file *file, const char *name, enum h5_type type,
                           int64_t count, struct h5_column *column)
{
    int64_t width;
    return open_column(file, name, type, 1, false, count, &width, column);
}

enum status h5_table_open(const struct h5_file *file, const char *name, enum h5_type type,
                          int64_t rows, int64_t *width, struct h5_column *column)
{
    return open_column(file, name, type, 2, false, rows, width, column);
}

enum status h5_texts_open(const struct h5_file *file, const char *name, int64_t count,
                          int64_t *width, struct h5_column *column)
{
    return open_column(file, name, H5_BYTES, 1, true, count, width, column);
}

enum status h5_column_read(const struct h5_file *file, const struct h5_column *column,
                           int64_t first, int64_t n, void *out)
{
    const size_t size = h5_type_size(column->type);
    if (first < 0 || n < 0 || n > column->count || first > column->count - n)
        return status_fail(STATUS_ARG, "%s: values %lld to %lld of /%s were asked for, it has %lld",
                           file->path, (long long)first, (long long)(first + n), column->name,
                           (long long)column->count);
    return fd_pread_all(file->fd, out, (size_t)n * size, column->offset + first * (int64_t)size,
                        file->path);
}
