/*
 * safetensors.c - see safetensors.h.
 *
 * Reading uses pread and never maps: a file that shrinks under a map kills the process (SIGBUS),
 * under pread it is a sentence. Everything is checked when the file is opened, so the rest may
 * trust struct tensor_info; only the size is looked at again with every read.
 */
#include "ckpt/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/halves.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors is little-endian and so must be the machine");
_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE binary32 and binary64");

enum {
    HEADER_MOST = 100000000, /* the format's own limit */
    TENSORS_MOST =
        1 << 18, /* parsed JSON takes some 600 bytes a tensor: bounds memory before parsing */
    VALUES_PER_TENSOR = 16, /* three keys, eight dimensions, two offsets, and room */
    NAME_MOST = 512,
    RANK_MOST = 8,
    SHARDS_MOST = 512,
    INDEX_MOST = 64 << 20,
    PIECE = 4096 /* elements converted at a time */
};
static const int64_t DIMENSION_MOST = (int64_t)1 << 40;

static const struct {
    const char *name;
    int size;
    bool is_float;
} dtypes[] = {
    [TENSOR_F32] = {"F32", 4, true},   [TENSOR_F16] = {"F16", 2, true},
    [TENSOR_BF16] = {"BF16", 2, true}, [TENSOR_F64] = {"F64", 8, true},
    [TENSOR_I64] = {"I64", 8, false},  [TENSOR_I32] = {"I32", 4, false},
    [TENSOR_I16] = {"I16", 2, false},  [TENSOR_I8] = {"I8", 1, false},
    [TENSOR_U8] = {"U8", 1, false},    [TENSOR_BOOL] = {"BOOL", 1, false},
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

struct shard {
    int fd;
    char *path;         /* owned */
    int64_t size_bytes; /* when opened */
    json_t *header;     /* owned; tensor names live in it */
};

struct tensor {
    struct tensor_info info; /* first, so that a tensor_info of ours is also a struct tensor */
    int shard;
};

struct safetensors {
    struct shard *shards;
    int shards_n;
    struct tensor *tensors;
    size_t count, capacity;
    struct tensor **by_name; /* (count) sorted by name */
};

/* Control bytes would let a file write to the user's terminal through our sentences. */
static bool is_printable(const char *name)
{
    for (const unsigned char *p = (const unsigned char *)name; *p != '\0'; p++) {
        if (*p < 0x20 || *p == 0x7f)
            return false;
    }
    return true;
}

static enum status check_name(const char *name, enum status code)
{
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MOST)
        return status_fail(code, "a tensor's name has %zu bytes, wanted 1 to %d", n,
                           (int)NAME_MOST);
    if (!is_printable(name))
        return status_fail(code, "a tensor's name holds control characters");
    return STATUS_OK;
}

/* elements and bytes of a shape; the dimensions are in range already. */
static enum status shape_size(const int64_t *shape, int rank, enum tensor_dtype dtype,
                              enum status code, int64_t *elements, int64_t *size_bytes)
{
    int64_t product = 1;
    for (int i = 0; i < rank; i++) {
        if (__builtin_mul_overflow(product, shape[i], &product))
            return status_fail(code, "the product of its dimensions does not fit 63 bits");
    }
    if (__builtin_mul_overflow(product, (int64_t)dtypes[dtype].size, size_bytes))
        return status_fail(code, "its size in bytes does not fit 63 bits");
    *elements = product;
    return STATUS_OK;
}

/* ---- reading ---- */

static enum status parse_dtype(const json_t *value, enum tensor_dtype *out)
{
    const char *name = json_string_value(value);
    if (name == NULL)
        return status_fail(STATUS_FORMAT, "\"dtype\" is missing or not a string");
    for (int i = 0; i < DTYPES; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (enum tensor_dtype)i;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_FORMAT,
                       "\"dtype\" is \"%.20s\", wanted F32 F16 BF16 F64 I64 I32 I16 I8 U8 or BOOL",
                       is_printable(name) ? name : "?");
}

static enum status parse_shape(const json_t *value, struct tensor_info *info)
{
    if (!json_is_array(value))
        return status_fail(STATUS_FORMAT, "\"shape\" is missing or not a list");
    if (json_array_size(value) > RANK_MOST)
        return status_fail(STATUS_FORMAT, "\"shape\" has %zu dimensions, wanted at most %d",
                           json_array_size(value), (int)RANK_MOST);
    info->rank = (int)json_array_size(value);
    for (int i = 0; i < info->rank; i++) {
        const json_t *dimension = json_array_get(value, (size_t)i);
        info->shape[i] = json_integer_value(dimension);
        if (!json_is_integer(dimension) || info->shape[i] < 0 || info->shape[i] > DIMENSION_MOST)
            return status_fail(STATUS_FORMAT, "dimension %d is not a whole number from 0 to 2^40",
                               i);
    }
    return STATUS_OK;
}

/* One value of the header; offsets are still relative to the data. */
static enum status parse_tensor(const json_t *value, int64_t data_bytes, struct tensor_info *info)
{
    if (!json_is_object(value) || json_object_size(value) != 3)
        return status_fail(STATUS_FORMAT,
                           "wanted an object of dtype, shape and data_offsets and nothing else");
    TRY(parse_dtype(json_object_get(value, "dtype"), &info->dtype));
    TRY(parse_shape(json_object_get(value, "shape"), info));
    TRY(shape_size(info->shape, info->rank, info->dtype, STATUS_FORMAT, &info->elements,
                   &info->size_bytes));
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return status_fail(STATUS_FORMAT, "\"data_offsets\" is not a list of two whole numbers");
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || end > data_bytes)
        return status_fail(
            STATUS_FORMAT,
            "\"data_offsets\" is [%lld, %lld], wanted a range within the %lld data bytes",
            (long long)begin, (long long)end, (long long)data_bytes);
    if (end - begin != info->size_bytes)
        return status_fail(STATUS_FORMAT, "\"data_offsets\" spans %lld bytes, its shape needs %lld",
                           (long long)(end - begin), (long long)info->size_bytes);
    info->offset = begin;
    return STATUS_OK;
}

static enum status check_metadata(const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return status_fail(STATUS_FORMAT, "\"__metadata__\" is not an object");
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return status_fail(STATUS_FORMAT,
                               "\"__metadata__\" holds a value that is not a string");
    }
    return STATUS_OK;
}

/*
 * A look at the header before it is parsed: a legal one is three levels deep and has a bounded
 * number of values, so a hostile one cannot make the JSON parser take twenty times the file's size
 * in memory.
 */
static enum status scan_header(const char *bytes, size_t n)
{
    int depth = 0;
    int64_t values = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > 3)
                return status_fail(STATUS_FORMAT, "the header is nested deeper than 3 levels");
            values++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',') {
            values++;
        }
        if (values > (int64_t)TENSORS_MOST * VALUES_PER_TENSOR)
            return status_fail(STATUS_FORMAT, "the header has more values than %d tensors need",
                               (int)TENSORS_MOST);
    }
    return STATUS_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct tensor_info *x = &((const struct tensor *)a)->info,
                             *y = &((const struct tensor *)b)->info;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->size_bytes != y->size_bytes)
        return x->size_bytes < y->size_bytes ? -1 : 1;
    return strcmp(x->name, y->name); /* empty tensors at one place: an order all the same */
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct tensor *const *)a)->info.name, (*(struct tensor *const *)b)->info.name);
}

/* Every data byte belongs to exactly one tensor, so nothing hides between them and no two share
 * bytes. */
static enum status check_tiling(struct tensor *tensors, size_t count, int64_t data_start,
                                int64_t data_bytes)
{
    int64_t at = 0;
    if (count > 0)
        qsort(tensors, count, sizeof *tensors, by_offset);
    for (size_t i = 0; i < count; i++) {
        struct tensor_info *info = &tensors[i].info;
        if (info->offset != at)
            return status_fail(
                STATUS_FORMAT,
                "tensor \"%s\" begins at data byte %lld, wanted %lld: tensors overlap or "
                "leave a hole",
                info->name, (long long)info->offset, (long long)at);
        at += info->size_bytes;
        info->offset += data_start;
    }
    if (at != data_bytes)
        return status_fail(STATUS_FORMAT, "the tensors take %lld bytes, the data has %lld",
                           (long long)at, (long long)data_bytes);
    return STATUS_OK;
}

static enum status read_header(struct safetensors *file, int index)
{
    struct shard *shard = &file->shards[index];
    unsigned char word[8];
    uint64_t n = 0;
    char *bytes = NULL;
    const char *name;
    json_t *value;
    size_t first = file->count;
    enum status st = STATUS_OK;
    if (shard->size_bytes < 8)
        return status_fail(STATUS_FORMAT, "has %lld bytes, wanted at least 8",
                           (long long)shard->size_bytes);
    TRY(fd_pread_all(shard->fd, word, sizeof word, 0, shard->path));
    for (int i = 7; i >= 0; i--)
        n = n << 8 | word[i];
    if (n > HEADER_MOST)
        return status_fail(STATUS_FORMAT, "says its header has %llu bytes, wanted at most %d",
                           (unsigned long long)n, (int)HEADER_MOST);
    if ((int64_t)n > shard->size_bytes - 8)
        return status_fail(STATUS_FORMAT,
                           "says its header has %llu bytes, the file has %lld after the length",
                           (unsigned long long)n, (long long)(shard->size_bytes - 8));
    TRY(mem_alloc_raw((size_t)n + 1, 1, "a safetensors header", &bytes));
    TRY_GOTO(done, fd_pread_all(shard->fd, bytes, (size_t)n, 8, shard->path));
    if (n == 0 || bytes[0] != '{') {
        st = status_fail(STATUS_FORMAT, "its header does not begin with {");
        goto done;
    }
    TRY_GOTO(done, scan_header(bytes, (size_t)n));
    TRY_GOTO(done, json_parse(bytes, (size_t)n, "header", &shard->header));
    int64_t data_start = 8 + (int64_t)n, data_bytes = shard->size_bytes - data_start;
    json_object_foreach(shard->header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            TRY_GOTO(done, check_metadata(value));
            continue;
        }
        TRY_GOTO(done, check_name(name, STATUS_FORMAT));
        TRY_GOTO(done, mem_grow(&file->tensors, &file->capacity, file->count + 1,
                                sizeof *file->tensors, "tensors"));
        struct tensor *tensor = &file->tensors[file->count];
        *tensor = (struct tensor){.info = {.name = name}, .shard = index};
        st = parse_tensor(value, data_bytes, &tensor->info);
        if (st != STATUS_OK) {
            st = status_prefix(st, "tensor \"%s\"", name);
            goto done;
        }
        file->count++;
    }
    st = check_tiling(first < file->count ? file->tensors + first : NULL, file->count - first,
                      data_start, data_bytes);
done:
    mem_free(bytes);
    return st;
}

/* path is taken over. */
static enum status open_shard(struct safetensors *file, int index, char *path)
{
    struct stat info;
    struct shard *shard = &file->shards[index];
    *shard = (struct shard){.fd = -1, .path = path};
    file->shards_n = index + 1;
    shard->fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO of that name must not block us */
    if (shard->fd < 0)
        return status_fail(STATUS_NOINPUT, "%s: %s", path, strerror(errno));
    if (fstat(shard->fd, &info) != 0)
        return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return status_fail(STATUS_FORMAT, "%s is not a plain file, wanted a safetensors file",
                           path);
    shard->size_bytes = info.st_size;
    enum status st = read_header(file, index);
    return st == STATUS_OK ? st : status_prefix(st, "%s", path);
}

static enum status index_names(struct safetensors *file)
{
    TRY(mem_alloc(file->count, sizeof *file->by_name, "an index of tensors", &file->by_name));
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->tensors[i];
    if (file->count > 0)
        qsort(file->by_name, file->count, sizeof *file->by_name, by_name);
    for (size_t i = 1; i < file->count; i++) {
        if (strcmp(file->by_name[i - 1]->info.name, file->by_name[i]->info.name) == 0)
            return status_fail(STATUS_FORMAT, "tensor \"%s\" is in %s and in %s, wanted one place",
                               file->by_name[i]->info.name,
                               file->shards[file->by_name[i - 1]->shard].path,
                               file->shards[file->by_name[i]->shard].path);
    }
    return STATUS_OK;
}

static enum status make_file(int shards, struct safetensors **out)
{
    TRY(mem_alloc(1, sizeof **out, "a safetensors file", out));
    enum status st = mem_alloc((size_t)shards, sizeof *(*out)->shards, "shards", &(*out)->shards);
    if (st != STATUS_OK) {
        safetensors_close(*out);
        *out = NULL;
    }
    return st;
}

enum status safetensors_open(const char *path, struct safetensors **out)
{
    char *copy;
    enum status st;
    TRY(make_file(1, out));
    TRY_GOTO(fail, mem_strdup(path, &copy));
    TRY_GOTO(fail, open_shard(*out, 0, copy));
    TRY_GOTO(fail, index_names(*out));
    return STATUS_OK;
fail:
    safetensors_close(*out);
    *out = NULL;
    return st;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names in the index come from outside and become paths: plain names of safetensors files only. */
static bool is_shard_name(const char *name)
{
    size_t n = strlen(name);
    return n > 12 && n <= 255 && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                        "0123456789._-") == n &&
           strcmp(name + n - 12, ".safetensors") == 0;
}

/* The distinct shard names of weight_map, sorted; they are borrowed from map, the list is owned
 * (mem_free). */
static enum status shard_names(json_t *map, const char ***out, size_t *count)
{
    const char *tensor, **names = NULL;
    size_t n = 0, kept = 0;
    json_t *value;
    TRY(mem_alloc(json_object_size(map), sizeof *names, "shard names", &names));
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL || !is_shard_name(name)) {
            mem_free(names);
            return status_fail(STATUS_FORMAT,
                               "\"weight_map\" sends a tensor to a file that is not a plain "
                               "NAME.safetensors in the same folder");
        }
        names[n++] = name;
    }
    if (n > 0)
        qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(names[kept - 1], names[i]) != 0)
            names[kept++] = names[i];
    }
    *out = names;
    *count = kept;
    return STATUS_OK;
}

/* Index and shards must tell the same story: each tensor exactly where the index says, and none
 * besides. */
static enum status check_map(const struct safetensors *file, const json_t *map)
{
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor *tensor = &file->tensors[i];
        const char *wanted = json_string_value(json_object_get(map, tensor->info.name));
        const char *found = path_base(file->shards[tensor->shard].path);
        if (wanted == NULL || strcmp(wanted, found) != 0)
            return status_fail(STATUS_FORMAT, "tensor \"%s\" is in %s, \"weight_map\" says %s",
                               tensor->info.name, found, wanted == NULL ? "nothing of it" : wanted);
    }
    if (json_object_size(map) != file->count)
        return status_fail(STATUS_FORMAT, "\"weight_map\" names %zu tensors, the shards have %zu",
                           json_object_size(map), file->count);
    return STATUS_OK;
}

static enum status open_sharded(const char *folder, const char *index_path,
                                struct safetensors **out)
{
    json_t *index = NULL;
    const char **names = NULL;
    size_t count = 0;
    char *path;
    enum status st;
    TRY(json_read_file(index_path, INDEX_MOST, &index));
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0 ||
        json_object_size(map) > TENSORS_MOST) {
        st = status_fail(STATUS_FORMAT, "\"weight_map\" is not an object of 1 to %d tensors",
                         (int)TENSORS_MOST);
        goto done;
    }
    TRY_GOTO(done, shard_names(map, &names, &count));
    if (count > SHARDS_MOST) {
        st = status_fail(STATUS_FORMAT, "names %zu files, wanted at most %d", count,
                         (int)SHARDS_MOST);
        goto done;
    }
    TRY_GOTO(done, make_file((int)count, out));
    for (size_t i = 0; i < count; i++) {
        TRY_GOTO(done, path_join(folder, names[i], &path));
        TRY_GOTO(done, open_shard(*out, (int)i, path));
    }
    TRY_GOTO(done, index_names(*out));
    st = check_map(*out, map);
done:
    mem_free(names);
    json_decref(index);
    if (st != STATUS_OK) {
        st = status_prefix(st, "%s", index_path);
        safetensors_close(*out);
        *out = NULL;
    }
    return st;
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* No safetensors there: say what is there instead, if it is something people have. */
static enum status explain_folder(const char *folder)
{
    char **names;
    size_t count;
    static const char *const pickles[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    TRY(folder_list(folder, &names, &count));
    const char *found = NULL;
    for (size_t i = 0; i < count && found == NULL; i++) {
        for (size_t k = 0; k < sizeof pickles / sizeof *pickles; k++) {
            if (ends_in(names[i], pickles[k]) && strcmp(names[i], "training_args.bin") != 0)
                found = names[i];
        }
    }
    enum status st;
    if (found != NULL)
        st = status_fail(
            STATUS_FORMAT,
            "%s holds %s but no model.safetensors, and pickled weights are never loaded, "
            "as they can run code; convert them once with Python, which keeps every tensor: import "
            "torch, safetensors.torch as s; s.save_file({k: v.contiguous().clone() for k, v in "
            "torch.load('DIR/FILE', 'cpu', weights_only=True).items()}, 'DIR/model.safetensors')",
            folder, is_printable(found) ? found : "pickled weights");
    else
        st = status_fail(STATUS_NOINPUT,
                         "%s has no model.safetensors and no model.safetensors.index.json", folder);
    folder_list_free(names, count);
    return st;
}

enum status safetensors_open_folder(const char *folder, struct safetensors **out)
{
    char *single = NULL, *index = NULL;
    enum status st;
    *out = NULL;
    TRY_GOTO(done, path_join(folder, "model.safetensors", &single));
    TRY_GOTO(done, path_join(folder, "model.safetensors.index.json", &index));
    if (file_exists(single))
        st = safetensors_open(single, out);
    else if (file_exists(index))
        st = open_sharded(folder, index, out);
    else
        st = explain_folder(folder);
done:
    mem_free(single);
    mem_free(index);
    return st;
}

void safetensors_close(struct safetensors *file)
{
    if (file == NULL)
        return;
    for (int i = 0; i < file->shards_n; i++) {
        if (file->shards[i].fd >= 0)
            (void)close(file->shards[i].fd);
        mem_free(file->shards[i].path);
        json_decref(file->shards[i].header);
    }
    mem_free(file->shards);
    mem_free(file->tensors);
    mem_free(file->by_name);
    mem_free(file);
}

int64_t safetensors_count(const struct safetensors *file)
{
    return (int64_t)file->count;
}

const struct tensor_info *safetensors_at(const struct safetensors *file, int64_t index)
{
    return index < 0 || (size_t)index >= file->count ? NULL : &file->tensors[index].info;
}

const struct tensor_info *safetensors_find(const struct safetensors *file, const char *name)
{
    struct tensor wanted = {.info = {.name = name}}, *key = &wanted;
    struct tensor **found = file->count == 0 ? NULL
                                             : bsearch(&key, file->by_name, file->count,
                                                       sizeof *file->by_name, by_name);
    return found == NULL ? NULL : &(*found)->info;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    for (int i = 0; i < file->shards_n; i++) {
        const char *value = json_string_value(
            json_object_get(json_object_get(file->shards[i].header, "__metadata__"), key));
        if (value != NULL)
            return value;
    }
    return NULL;
}

/* Elements [first, first + count) lie in the tensor. */
static bool in_range(int64_t first, int64_t count, int64_t elements)
{
    return first >= 0 && count >= 0 && first <= elements && count <= elements - first;
}

/* The shard that tensor lives in, after checks that need no trust in the caller: ours, in range,
 * size unchanged. */
static enum status enter_tensor(const struct safetensors *file, const struct tensor_info *tensor,
                                int64_t first, int64_t count, int64_t units,
                                const struct shard **out)
{
    struct stat now;
    const struct tensor *entry = (const struct tensor *)tensor;
    if (tensor == NULL || entry < file->tensors || entry >= file->tensors + file->count)
        return status_fail(STATUS_ARG, "read of a tensor that is not of this file");
    *out = &file->shards[entry->shard];
    if (!in_range(first, count, units))
        return status_fail(STATUS_ARG, "%s: tensor \"%s\": read of [%lld, +%lld), it has %lld",
                           (*out)->path, tensor->name, (long long)first, (long long)count,
                           (long long)units);
    if (fstat((*out)->fd, &now) != 0 || now.st_size != (*out)->size_bytes)
        return status_fail(STATUS_FORMAT, "%s changed while it was read: it had %lld bytes",
                           (*out)->path, (long long)(*out)->size_bytes);
    return STATUS_OK;
}

static void widen(enum tensor_dtype dtype, const void *from, int64_t n, float *to)
{
    const uint16_t *halves = from;
    const double *doubles = from;
    for (int64_t i = 0; i < n; i++)
        to[i] = dtype == TENSOR_F64    ? (float)doubles[i]
                : dtype == TENSOR_BF16 ? float_from_bf16(halves[i])
                                       : float_from_f16(halves[i]);
}

enum status safetensors_read(const struct safetensors *file, const struct tensor_info *tensor,
                             int64_t first, int64_t count, float *out)
{
    double buffer[PIECE];
    const struct shard *shard = NULL;
    TRY(enter_tensor(file, tensor, first, count, tensor == NULL ? 0 : tensor->elements, &shard));
    if (!dtypes[tensor->dtype].is_float)
        return status_fail(STATUS_FORMAT, "%s: tensor \"%s\" is %s, wanted floats", shard->path,
                           tensor->name, dtypes[tensor->dtype].name);
    const int64_t size = dtypes[tensor->dtype].size;
    int64_t at = tensor->offset + first * size;
    if (tensor->dtype == TENSOR_F32)
        return fd_pread_all(shard->fd, out, (size_t)(count * size), at, shard->path);
    while (count > 0) {
        int64_t n = count < PIECE ? count : PIECE;
        TRY(fd_pread_all(shard->fd, buffer, (size_t)(n * size), at, shard->path));
        widen(tensor->dtype, buffer, n, out);
        out += n;
        at += n * size;
        count -= n;
    }
    return STATUS_OK;
}

enum status safetensors_read_bytes(const struct safetensors *file, const struct tensor_info *tensor,
                                   int64_t first_byte, int64_t n, void *out)
{
    const struct shard *shard = NULL;
    TRY(enter_tensor(file, tensor, first_byte, n, tensor == NULL ? 0 : tensor->size_bytes, &shard));
    return fd_pread_all(shard->fd, out, (size_t)n, tensor->offset + first_byte, shard->path);
}

/* ---- writing ---- */

struct place {
    enum tensor_dtype dtype;
    int64_t elements, offset, size_bytes;
};

struct safetensors_writer {
    int fd;
    char *path; /* owned */
    int64_t count;
    struct place *places;
};

static enum status add_metadata(struct str *header, const json_t *metadata)
{
    const char *key;
    json_t *value;
    bool more = false;
    TRY(str_addf(header, "{\"__metadata__\":{"));
    /* transformers refuses weights without a format */
    if (json_object_get(metadata, "format") == NULL) {
        TRY(str_addf(header, "\"format\":\"pt\""));
        more = true;
    }
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return status_fail(STATUS_ARG, "safetensors metadata \"%s\" is not a string", key);
        TRY(str_addf(header, more ? "," : ""));
        TRY(str_add_json(header, key, strlen(key)));
        TRY(str_addf(header, ":"));
        TRY(str_add_json(header, json_string_value(value), json_string_length(value)));
        more = true;
    }
    return str_addf(header, "}");
}

static enum status add_entry(struct str *header, const struct safetensors_entry *entry, int64_t at,
                             struct place *place)
{
    TRY(check_name(entry->name, STATUS_ARG));
    if (utf8_valid_prefix(entry->name, strlen(entry->name)) != strlen(entry->name) ||
        strcmp(entry->name, "__metadata__") == 0)
        return status_fail(STATUS_ARG, "a tensor cannot have this name");
    if ((int)entry->dtype < 0 || (int)entry->dtype >= DTYPES || entry->rank < 0 ||
        entry->rank > RANK_MOST)
        return status_fail(STATUS_ARG, "its dtype or rank is out of range");
    for (int i = 0; i < entry->rank; i++) {
        if (entry->shape[i] < 0 || entry->shape[i] > DIMENSION_MOST)
            return status_fail(STATUS_ARG, "dimension %d is %lld, wanted 0 to 2^40", i,
                               (long long)entry->shape[i]);
    }
    *place = (struct place){.dtype = entry->dtype, .offset = at};
    TRY(shape_size(entry->shape, entry->rank, entry->dtype, STATUS_ARG, &place->elements,
                   &place->size_bytes));
    int64_t end;
    if (__builtin_add_overflow(at, place->size_bytes, &end) || end > INT64_MAX - HEADER_MOST - 16)
        return status_fail(STATUS_ARG, "the file's size does not fit 63 bits");
    TRY(str_addf(header, ","));
    TRY(str_add_json(header, entry->name, strlen(entry->name)));
    TRY(str_addf(header, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[entry->dtype].name));
    for (int i = 0; i < entry->rank; i++)
        TRY(str_addf(header, i == 0 ? "%lld" : ",%lld", (long long)entry->shape[i]));
    return str_addf(header, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)end);
}

static enum status check_unique(const struct safetensors_entry *entries, int64_t count)
{
    const char **names, *twice = NULL;
    TRY(mem_alloc((size_t)count, sizeof *names, "tensor names", &names));
    for (int64_t i = 0; i < count; i++)
        names[i] = entries[i].name;
    if (count > 0)
        qsort(names, (size_t)count, sizeof *names, by_text);
    for (int64_t i = 1; i < count; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            twice = names[i];
    }
    mem_free(names);
    return twice == NULL ? STATUS_OK
                         : status_fail(STATUS_ARG, "tensor \"%s\" is there twice", twice);
}

/* The header with its length word, and where each entry goes; *total is the file's size. */
static enum status lay_out(const struct safetensors_entry *entries, int64_t count,
                           const json_t *metadata, struct str *header, struct place *places,
                           int64_t *total)
{
    int64_t at = 0;
    TRY(check_unique(entries, count));
    TRY(str_add(header, "\0\0\0\0\0\0\0\0", 8));
    TRY(add_metadata(header, metadata));
    for (int64_t i = 0; i < count; i++) {
        enum status st = add_entry(header, &entries[i], at, &places[i]);
        if (st != STATUS_OK)
            return status_prefix(st, "tensor \"%.80s\"", entries[i].name);
        at += places[i].size_bytes;
    }
    TRY(str_addf(header, "}"));
    while (header->n % 8 != 0)
        TRY(str_add(header, " ", 1));
    if (header->n - 8 > HEADER_MOST || count > TENSORS_MOST)
        return status_fail(STATUS_ARG,
                           "%lld tensors and a header of %zu bytes, wanted at most %d and %d",
                           (long long)count, header->n - 8, (int)TENSORS_MOST, (int)HEADER_MOST);
    for (int i = 0; i < 8; i++)
        header->p[i] = (char)(((uint64_t)(header->n - 8) >> (8 * i)) & 255u);
    for (int64_t i = 0; i < count; i++)
        places[i].offset += (int64_t)header->n;
    *total = at + (int64_t)header->n;
    return STATUS_OK;
}

static enum status flush_fd(int fd, const char *path)
{
    if (fsync(fd) != 0 && errno != EINVAL &&
        errno != EROFS) /* EINVAL: a special file, as in base/file.c */
        return status_fail(STATUS_IO, "cannot flush %s: %s", path, strerror(errno));
    return STATUS_OK;
}

/* Take the space now, so that a full disk is found before the first number is written and by one
 * rank only. */
static enum status allocate(int fd, int64_t size, const char *path)
{
    struct statvfs disk;
    int error;
    do {
        error = posix_fallocate(fd, 0, size);
    } while (error == EINTR);
    if (error == EINVAL || error == EOPNOTSUPP) /* a file system without it */
        error = ftruncate(fd, size) == 0 ? 0 : errno;
    if (error == 0)
        return STATUS_OK;
    unsigned long long spare =
        fstatvfs(fd, &disk) == 0 ? (unsigned long long)disk.f_bavail * disk.f_frsize : 0;
    return status_fail(STATUS_IO, "cannot make %s: %s; it needs %lld bytes and %llu are free", path,
                       strerror(error), (long long)size, spare);
}

static enum status create_file(struct safetensors_writer *writer, const struct str *header,
                               int64_t total)
{
    TRY(fault_here("ckpt.create"));
    writer->fd = open(writer->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (writer->fd < 0)
        return status_fail(STATUS_IO, "cannot make %s: %s", writer->path, strerror(errno));
    enum status st = allocate(writer->fd, total, writer->path);
    if (st == STATUS_OK)
        st = fd_pwrite_all(writer->fd, header->p, header->n, 0, writer->path);
    if (st == STATUS_OK)
        st = flush_fd(writer->fd,
                      writer->path); /* other nodes of a network file system look at it next */
    if (st != STATUS_OK)
        (void)unlink(writer->path);
    return st;
}

/* Another rank made the file: its size and header must be what this rank laid out, or the ranks
 * disagree. */
static enum status join_file(struct safetensors_writer *writer, const struct str *header,
                             int64_t total)
{
    struct stat info;
    char *found;
    TRY(fault_here("ckpt.join"));
    writer->fd = open(writer->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (writer->fd < 0)
        return status_fail(STATUS_IO, "cannot write %s: %s", writer->path, strerror(errno));
    if (fstat(writer->fd, &info) != 0 || info.st_size != total)
        return status_fail(STATUS_IO, "%s has not the %lld bytes that this rank laid out",
                           writer->path, (long long)total);
    TRY(mem_alloc_raw(header->n, 1, "a safetensors header", &found));
    enum status st = fd_pread_all(writer->fd, found, header->n, 0, writer->path);
    if (st == STATUS_OK && memcmp(found, header->p, header->n) != 0)
        st = status_fail(STATUS_IO, "%s has another header than this rank laid out", writer->path);
    mem_free(found);
    return st;
}

enum status safetensors_create(const char *path, const struct safetensors_entry *entries,
                               int64_t count, const json_t *metadata, bool create,
                               struct safetensors_writer **out)
{
    struct str header = {0};
    int64_t total = 0;
    enum status st;
    TRY(mem_alloc(1, sizeof **out, "a safetensors writer", out));
    struct safetensors_writer *writer = *out;
    writer->fd = -1;
    writer->count = count;
    TRY_GOTO(fail, mem_strdup(path, &writer->path));
    TRY_GOTO(fail, mem_alloc((size_t)count, sizeof *writer->places, "a safetensors layout",
                             &writer->places));
    st = lay_out(entries, count, metadata, &header, writer->places, &total);
    if (st != STATUS_OK) {
        st = status_prefix(st, "%s", path);
        goto fail;
    }
    TRY_GOTO(fail,
             create ? create_file(writer, &header, total) : join_file(writer, &header, total));
    str_release(&header);
    return STATUS_OK;
fail:
    str_release(&header);
    safetensors_abandon(writer);
    *out = NULL;
    return st;
}

static enum status enter_place(const struct safetensors_writer *writer, int64_t index, bool floats,
                               int64_t first, int64_t n)
{
    if (index < 0 || index >= writer->count)
        return status_fail(STATUS_ARG, "%s: entry %lld of %lld", writer->path, (long long)index,
                           (long long)writer->count);
    const struct place *place = &writer->places[index];
    if (dtypes[place->dtype].is_float != floats)
        return status_fail(STATUS_ARG, "%s: entry %lld is %s: written by the other function",
                           writer->path, (long long)index, dtypes[place->dtype].name);
    if (!in_range(first, n, floats ? place->elements : place->size_bytes))
        return status_fail(STATUS_ARG, "%s: entry %lld: write of [%lld, +%lld) leaves it",
                           writer->path, (long long)index, (long long)first, (long long)n);
    return fault_here("ckpt.write");
}

static void narrow(enum tensor_dtype dtype, const float *from, int64_t n, void *to)
{
    uint16_t *halves = to;
    double *doubles = to;
    for (int64_t i = 0; i < n; i++) {
        if (dtype == TENSOR_F64)
            doubles[i] = from[i];
        else
            halves[i] = dtype == TENSOR_BF16 ? bf16_from_float(from[i]) : f16_from_float(from[i]);
    }
}

enum status safetensors_write(struct safetensors_writer *writer, int64_t index, int64_t first,
                              int64_t n, const float *values)
{
    double buffer[PIECE];
    TRY(enter_place(writer, index, true, first, n));
    const struct place *place = &writer->places[index];
    const int64_t size = dtypes[place->dtype].size;
    int64_t at = place->offset + first * size;
    if (place->dtype == TENSOR_F32)
        return fd_pwrite_all(writer->fd, values, (size_t)(n * size), at, writer->path);
    while (n > 0) {
        int64_t some = n < PIECE ? n : PIECE;
        narrow(place->dtype, values, some, buffer);
        TRY(fd_pwrite_all(writer->fd, buffer, (size_t)(some * size), at, writer->path));
        values += some;
        at += some * size;
        n -= some;
    }
    return STATUS_OK;
}

enum status safetensors_write_bytes(struct safetensors_writer *writer, int64_t index,
                                    int64_t first_byte, int64_t n, const void *bytes)
{
    TRY(enter_place(writer, index, false, first_byte, n));
    return fd_pwrite_all(writer->fd, bytes, (size_t)n, writer->places[index].offset + first_byte,
                         writer->path);
}

enum status safetensors_finish(struct safetensors_writer *writer)
{
    enum status st = fault_here("ckpt.finish");
    if (st == STATUS_OK)
        st = flush_fd(writer->fd, writer->path);
    int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0 && st == STATUS_OK)
        st = status_fail(STATUS_IO, "cannot close %s: %s", writer->path, strerror(errno));
    safetensors_abandon(writer);
    return st;
}

void safetensors_abandon(struct safetensors_writer *writer)
{
    if (writer == NULL)
        return;
    if (writer->fd >= 0)
        (void)close(writer->fd);
    mem_free(writer->path);
    mem_free(writer->places);
    mem_free(writer);
}
