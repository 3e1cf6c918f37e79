/*
 * fuzz_vocab.c - any bytes as vocab.txt, and behind zero bytes tokenizer_config.json, special_tokens_map.json and
 * added_tokens.json; a tokenizer that opens encodes, decodes and never crashes.
 */
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *t, const char *own, size_t own_n)
{
    static const char text[] =
        "a A\xC3\x89 \xE4\xB8\xAD[MASK] [CLS]<x>[SEP] \xCC\xA7\xCC\x81\xCC\xA7 \xEF\xBF\xBD\xC2\xA0 do n't";
    const char *texts[] = {text, own};
    size_t sizes[] = {sizeof text - 1, own_n < 4096 ? utf8_valid_prefix(own, own_n) : 0};
    struct id_list ids = {0};
    struct str out = {0};
    for (int i = 0; i < 2; i++) {
        ids.n = 0;
        if (tokenizer_encode(t, texts[i], sizes[i], &ids) != STATUS_OK)
            abort();
        str_clear(&out);
        if (tokenizer_decode(t, ids.p, (int64_t)ids.n, &out) != STATUS_OK)
            abort();
    }
    id_list_release(&ids);
    str_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *files[TOKENIZER_FILES] = {NULL};
    size_t sizes[TOKENIZER_FILES] = {0};
    const char *at = (const char *)data, *end = at + size;
    struct tokenizer *t;
    for (int i = FILE_VOCAB; i <= (int)FILE_ADDED && at <= end; i++) {
        const char *zero = size == 0 || i == FILE_ADDED ? NULL : memchr(at, 0, (size_t)(end - at));
        files[i] = at;
        sizes[i] = (size_t)((zero == NULL ? end : zero) - at);
        at = zero == NULL ? end + 1 : zero + 1;
    }
    if (tokenizer_open_memory("fuzz", files, sizes, &t) == STATUS_OK)
        use(t, (const char *)data, size);
    tokenizer_close(t);
    return 0;
}
