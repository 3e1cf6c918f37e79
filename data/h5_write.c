/*
 * h5_write.c - laying out with the HDF5 library, writing with our own calls; see h5.h.
 */
#include "data/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

/* ---- the library ---- */

/* Once per process, before anything else of the library. */
static void setup(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    (void)H5dont_atexit(); /* its exit handler flushes: that is where it crashes once something has
                              failed */
    (void)H5open();
    (void)H5PLset_loading_state(0);
}

static _Thread_local char reason[200]; /* of the library's last failure */

static herr_t innermost(unsigned n, const H5E_error2_t *error, void *unused)
{
    (void)n;
    (void)unused;
    if (error->desc != NULL)
        (void)snprintf(reason, sizeof reason, "%s", error->desc);
    return 0;
}

/* Called where a call of the library fails, because its next call, such as one that cleans up,
 * forgets why. */
static herr_t note_reason(hid_t stack, void *unused)
{
    (void)snprintf(reason, sizeof reason, "no reason given");
    (void)H5Ewalk2(stack, H5E_WALK_DOWNWARD, innermost, unused);
    return 0;
}

/* The library prints its failures, per thread, unless told what else to do with them. */
static void silence(void)
{
    setup();
    (void)H5Eset_auto2(H5E_DEFAULT, note_reason, NULL);
}

/* "PATH: what (HDF5: why)". */
static enum status fail_h5(enum status code, const char *path, const char *what)
{
    return status_fail(code, "%s: %s (HDF5: %s)", path, what, reason);
}

static hid_t stored_type(enum h5_type type)
{
    switch (type) {
    case H5_I32:
        return H5T_STD_I32LE;
    case H5_U32:
        return H5T_STD_U32LE;
    case H5_F32:
        return H5T_IEEE_F32LE;
    case H5_I64:
        return H5T_STD_I64LE;
    case H5_U64:
        return H5T_STD_U64LE;
    case H5_F64:
        return H5T_IEEE_F64LE;
    default:
        return H5T_STD_U8LE;
    }
}

/* ---- layout ---- */

struct h5_sink {
    int fd;
    const char *path;
    char *buffer;
    size_t n;        /* bytes in buffer */
    int64_t written; /* bytes added, in the buffer or out */
};

#define SINK_BYTES ((size_t)1 << 20)

static enum status sink_flush(struct h5_sink *sink)
{
    TRY(fault_here("data.write"));
    TRY(fd_write_all(sink->fd, sink->buffer, sink->n, sink->path));
    sink->n = 0;
    return STATUS_OK;
}

enum status h5_sink_add(struct h5_sink *sink, const void *bytes, size_t n)
{
    const char *p = bytes;
    sink->written += (int64_t)n;
    while (n > 0) {
        size_t part = SINK_BYTES - sink->n < n ? SINK_BYTES - sink->n : n;
        memcpy(sink->buffer + sink->n, p, part);
        sink->n += part;
        p += part;
        n -= part;
        if (sink->n == SINK_BYTES)
            TRY(sink_flush(sink));
    }
    return STATUS_OK;
}

static bool write_attribute(hid_t file, const struct h5_attribute *a)
{
    bool good = false;
    hid_t type, space = H5Screate(H5S_SCALAR);
    if (a->text == NULL) {
        type = H5Tcopy(a->is_hash ? H5T_STD_U64LE : H5T_STD_I64LE);
    } else {
        type = H5Tcopy(H5T_C_S1);
        if (H5Tset_size(type, strlen(a->text) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
            goto done;
    }
    hid_t attribute = H5Acreate2(file, a->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0)
        goto done;
    good = H5Awrite(attribute, type,
                    a->text != NULL ? a->text
                    : a->is_hash    ? (const void *)&a->hash
                                    : &a->number) >= 0;
    good &= H5Aclose(attribute) >= 0;
done:
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    return good;
}

/* The type of a column's values, to be closed; the caller's next call fails if it could not be
 * made. */
static hid_t value_type(const struct h5_output *c)
{
    hid_t type = H5Tcopy(c->text ? H5T_C_S1 : stored_type(c->type));
    if (c->text &&
        (H5Tset_size(type, (size_t)c->width) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
         H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        (void)H5Tclose(type);
        return H5I_INVALID_HID;
    }
    return type;
}

/* Lay a column out: space in the file but no values, so that it stays a hole. Its group is made if
 * it is not there. */
static bool lay_out_column(hid_t file, const struct h5_output *c, hid_t set_creation,
                           hid_t group_creation, int64_t *offset)
{
    char group_name[32];
    const char *slash = strchr(c->name, '/');
    hsize_t n[2] = {(hsize_t)c->count, 0};
    if (c->width > 0) {
        n[0] = (hsize_t)(c->count / c->width);
        n[1] = (hsize_t)c->width;
    }
    if (slash != NULL) {
        (void)snprintf(group_name, sizeof group_name, "%.*s", (int)(slash - c->name), c->name);
        if (H5Lexists(file, group_name, H5P_DEFAULT) == 0) {
            hid_t group = H5Gcreate2(file, group_name, H5P_DEFAULT, group_creation, H5P_DEFAULT);
            if (group < 0 || H5Gclose(group) < 0)
                return false;
        }
    }
    hid_t space = H5Screate_simple(c->width > 0 && !c->text ? 2 : 1, n, NULL);
    hid_t type = value_type(c);
    hid_t set = H5Dcreate2(file, c->name, type, space, H5P_DEFAULT, set_creation, H5P_DEFAULT);
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    if (set < 0)
        return false;
    haddr_t at = c->count == 0 ? 0 : H5Dget_offset(set);
    *offset = (int64_t)at;
    return H5Dclose(set) >= 0 && at != HADDR_UNDEF;
}

/*
 * Everything but the values, in the file `name`. Pinned to the 1.8 format (superblock 2,
 * checksummed headers) and to compact storage of links and attributes: one header per group, no
 * heaps, no trees.
 */
static bool lay_out(const char *name, const struct h5_attribute *attributes, int nattributes,
                    const struct h5_output *columns, int ncolumns, int64_t *offsets)
{
    hid_t file = H5I_INVALID_HID;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
    hid_t group_creation = H5Pcreate(H5P_GROUP_CREATE),
          set_creation = H5Pcreate(H5P_DATASET_CREATE);
    bool good = H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
                H5Pset_alignment(access, 65536, 4096) >= 0 &&
                H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
                H5Pset_obj_track_times(creation, false) >= 0 &&
                H5Pset_attr_phase_change(creation, 64, 0) >= 0 &&
                H5Pset_link_phase_change(creation, 64, 0) >= 0 &&
                H5Pset_obj_track_times(group_creation, false) >= 0 &&
                H5Pset_link_phase_change(group_creation, 64, 0) >= 0 &&
                H5Pset_obj_track_times(set_creation, false) >= 0 &&
                H5Pset_layout(set_creation, H5D_CONTIGUOUS) >= 0 &&
                H5Pset_alloc_time(set_creation, H5D_ALLOC_TIME_EARLY) >= 0 &&
                H5Pset_fill_time(set_creation, H5D_FILL_TIME_NEVER) >= 0;
    if (good)
        file = H5Fcreate(name, H5F_ACC_TRUNC, creation, access);
    good = good && file >= 0;
    for (int i = 0; good && i < nattributes; i++)
        good = write_attribute(file, &attributes[i]);
    for (int i = 0; good && i < ncolumns; i++)
        good = lay_out_column(file, &columns[i], set_creation, group_creation, &offsets[i]);
    if (file >= 0)
        good &= H5Fclose(file) >= 0;
    (void)H5Pclose(access);
    (void)H5Pclose(creation);
    (void)H5Pclose(group_creation);
    (void)H5Pclose(set_creation);
    return good;
}

/* Bytes [from, to) of the layout: headers, and the zeros of alignment. */
static enum status copy_headers(struct h5_sink *sink, int layout, int64_t from, int64_t to)
{
    char piece[4096];
    while (from < to) {
        size_t n = to - from < (int64_t)sizeof piece ? (size_t)(to - from) : sizeof piece;
        TRY(fd_pread_all(layout, piece, n, from, "the layout of a dataset"));
        TRY(h5_sink_add(sink, piece, n));
        from += (int64_t)n;
    }
    return STATUS_OK;
}

struct placed {
    int64_t offset;
    int column;
};

static int by_offset(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->column - y->column;
}

static enum status write_all(struct h5_sink *sink, int layout, int64_t size,
                             const struct h5_output *columns, int ncolumns,
                             const struct placed *placed)
{
    int64_t at = 0;
    for (int i = 0; i < ncolumns; i++) {
        const struct h5_output *c = &columns[placed[i].column];
        int64_t bytes = c->count * (int64_t)h5_type_size(c->type);
        if (bytes == 0)
            continue;
        TRY(copy_headers(sink, layout, at, placed[i].offset));
        if (c->values != NULL)
            TRY(h5_sink_add(sink, c->values, (size_t)bytes));
        else
            TRY(c->emit(sink, c->context));
        at = placed[i].offset + bytes;
        if (sink->written != at)
            return status_fail(STATUS_INTERNAL, "%s: column %s came out %lld bytes too long",
                               sink->path, c->name, (long long)(sink->written - at));
    }
    TRY(copy_headers(sink, layout, at, size));
    return sink_flush(sink);
}

/* Asked before writing, because "disk full" after an hour of tokenizing should come with figures.
 */
static enum status check_room(const char *path, int64_t size)
{
    struct rlimit limit;
    struct statvfs disk;
    char *folder;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        (int64_t)limit.rlim_cur < size)
        return status_fail(STATUS_IO,
                           "cannot write %s: it needs %lld bytes, files may have %lld (ulimit -f)",
                           path, (long long)size, (long long)limit.rlim_cur);
    TRY(mem_strndup(path, (size_t)(path_base(path) - path), &folder));
    int failed = statvfs(folder[0] == '\0' ? "." : folder, &disk);
    mem_free(folder);
    if (failed != 0)
        return status_fail(STATUS_IO, "cannot write %s: %s", path, strerror(errno));
    if (disk.f_bavail < ((uint64_t)size + disk.f_frsize - 1) / disk.f_frsize)
        return status_fail(STATUS_IO,
                           "cannot write %s: it needs %lld bytes, the disk has %llu left", path,
                           (long long)size, (unsigned long long)disk.f_bavail * disk.f_frsize);
    return STATUS_OK;
}

static enum status write_file(const char *path, int layout, int64_t size,
                              const struct h5_output *columns, int ncolumns,
                              const struct placed *placed)
{
    struct h5_sink sink = {.fd = -1};
    char *temporary;
    size_t room = strlen(path) + 32;
    enum status st;
    TRY(mem_alloc_raw(room, 1, "a path", &temporary));
    (void)snprintf(temporary, room, "%s.tmp.%ld", path, (long)getpid());
    sink.path = path;
    TRY_GOTO(done, mem_alloc_raw(SINK_BYTES, 1, "a write buffer", &sink.buffer));
    sink.fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (sink.fd < 0) {
        st = status_fail(STATUS_IO, "cannot write %s: %s", path, strerror(errno));
        goto done;
    }
    st = write_all(&sink, layout, size, columns, ncolumns, placed);
    if (st == STATUS_OK && fsync(sink.fd) != 0 && errno != EINVAL && errno != EROFS)
        st = status_fail(STATUS_IO, "cannot flush %s: %s", path, strerror(errno));
    if (close(sink.fd) != 0 && st == STATUS_OK)
        st = status_fail(STATUS_IO, "cannot close %s: %s", path, strerror(errno));
    if (st == STATUS_OK)
        st = file_rename(temporary, path);
    if (st != STATUS_OK)
        (void)unlink(temporary);
done:
    mem_free(sink.buffer);
    mem_free(temporary);
    return st;
}

/*
 * An empty file for the layout, by a name that the library can open (it resolves links, so no memfd
 * will do): in shared memory, or beside the target where there is none.
 */
static enum status make_layout_file(const char *path, char **name, int *fd)
{
    static const char shared[] = "/dev/shm/cohort-layout-XXXXXX";
    struct str beside = {0};
    TRY(mem_strdup(shared, name));
    *fd = mkostemp(*name, O_CLOEXEC);
    if (*fd >= 0)
        return STATUS_OK;
    mem_free(*name);
    *name = NULL;
    TRY(str_addf(&beside, "%s.layout-XXXXXX", path));
    *name = beside.p;
    *fd = mkostemp(*name, O_CLOEXEC);
    if (*fd < 0)
        return status_fail(STATUS_IO, "cannot write %s: %s", path, strerror(errno));
    return STATUS_OK;
}

enum status h5_write(const char *path, const struct h5_attribute *attributes, int nattributes,
                     const struct h5_output *columns, int ncolumns)
{
    int64_t *offsets = NULL, total = 65536;
    struct placed *placed = NULL;
    struct stat info;
    char *name = NULL;
    int layout = -1;
    enum status st;
    silence();
    for (int i = 0; i < ncolumns; i++)
        total += columns[i].count * (int64_t)h5_type_size(columns[i].type) + 4096;
    TRY(check_room(path, total));
    TRY_GOTO(done, mem_alloc((size_t)ncolumns, sizeof *offsets, "the layout of a file", &offsets));
    TRY_GOTO(done, mem_alloc((size_t)ncolumns, sizeof *placed, "the layout of a file", &placed));
    TRY_GOTO(done, make_layout_file(path, &name, &layout));
    bool good = lay_out(name, attributes, nattributes, columns, ncolumns, offsets);
    (void)unlink(name);
    if (!good) {
        st = fail_h5(STATUS_IO, path, "cannot be laid out");
        goto done;
    }
    if (fstat(layout, &info) != 0) {
        st = status_fail(STATUS_IO, "cannot lay out %s: %s", path, strerror(errno));
        goto done;
    }
    for (int i = 0; i < ncolumns; i++)
        placed[i] = (struct placed){offsets[i], i};
    qsort(placed, (size_t)ncolumns, sizeof *placed, by_offset);
    st = write_file(path, layout, info.st_size, columns, ncolumns, placed);
done:
    mem_free(offsets);
    mem_free(placed);
    mem_free(name);
    if (layout >= 0)
        (void)close(layout);
    return st;
}
