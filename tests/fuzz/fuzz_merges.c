/*
 * fuzz_merges.c - any bytes as merges.txt, and before a zero byte vocab.json; a tokenizer that opens encodes, decodes and
 * never crashes.
 */
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *t, const char *own, size_t own_n)
{
    static const char text[] = "a aab it's  \xC3\x89 12\xC2\xBD \xE4\xB8\xAD<mask> <s>abcabc</s>\n\n the \xF0\x9F\x99\x82";
    const char *texts[] = {text, own};
    size_t sizes[] = {sizeof text - 1, own_n < 4096 ? utf8_valid_prefix(own, own_n) : 0};
    struct id_list ids = {0};
    struct str out = {0};
    struct tokenizer_info info;
    tokenizer_get_info(t, &info);
    for (int i = 0; i < 2; i++) {
        ids.n = 0;
        if (tokenizer_encode(t, texts[i], sizes[i], &ids) != STATUS_OK)
            abort();
        for (size_t k = 0; k < ids.n; k++)
            if (ids.p[k] < 0 || ids.p[k] >= info.vocab_size)
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
    static const char vocab[] =
        "{\"<s>\": 0, \"<pad>\": 1, \"</s>\": 2, \"<unk>\": 3, \"<mask>\": 4, \"a\": 5, \"b\": 6, \"c\": 7, \"\xC4\xA0\": 8,"
        "\"ab\": 9, \"abc\": 10, \"bc\": 11, \"\xC4\xA0" "a\": 12, \"aa\": 13, \"\xC3\x83\": 14, \"\xC4\xA0" "ab\": 15}";
    const char *at = (const char *)data, *zero = size == 0 ? NULL : memchr(at, 0, size);
    const char *files[TOKENIZER_FILES] = {[FILE_VOCAB_JSON] = vocab, [FILE_MERGES] = at};
    size_t sizes[TOKENIZER_FILES] = {[FILE_VOCAB_JSON] = sizeof vocab - 1, [FILE_MERGES] = size};
    struct tokenizer *t;
    if (zero != NULL) {
        files[FILE_VOCAB_JSON] = at;
        sizes[FILE_VOCAB_JSON] = (size_t)(zero - at);
        files[FILE_MERGES] = zero + 1;
        sizes[FILE_MERGES] = size - sizes[FILE_VOCAB_JSON] - 1;
    }
    if (size > 0 && tokenizer_open_memory("fuzz", files, sizes, &t) == STATUS_OK)
        use(t, at, size);
    if (size > 0)
        tokenizer_close(t);
    return 0;
}
