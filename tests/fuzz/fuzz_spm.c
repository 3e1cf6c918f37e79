/*
 * fuzz_spm.c - any bytes as a SentencePiece model of each family; a tokenizer that opens encodes, decodes and never
 * crashes.
 */
#include <stdlib.h>

#include "data/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Encode a few texts and the file itself, and decode what came out. */
static void use(const struct tokenizer *t, const char *own, size_t own_n)
{
    static const char text[] =
        "a A\xC3\x89  \xE4\xB8\xAD[MASK] <x> e\xCC\x81 \xCC\xA7\xCC\x81 \xEF\xBF\xBD\xC2\xA0 \xE2\x96\x81 an anest, do n't";
    const char *texts[] = {text, own};
    size_t sizes[] = {sizeof text - 1, own_n < 4096 ? utf8_valid_prefix(own, own_n) : 0};
    struct id_list ids = {0};
    struct str out = {0};
    struct tokenizer_info info;
    tokenizer_get_info(t, &info);
    for (int i = 0; i < 2; i++) {
        ids.n = 0;
        enum status st = tokenizer_encode(t, texts[i], sizes[i], &ids);
        if (st != STATUS_OK && st != STATUS_NOMEM) /* files may ask for texts that grow without end */
            abort();
        for (size_t k = 0; k < ids.n; k++)
            if (ids.p[k] < 0 || ids.p[k] >= info.vocab_size)
                abort();
        str_clear(&out);
        st = tokenizer_decode(t, ids.p, (int64_t)ids.n, &out);
        if (st != STATUS_OK && st != STATUS_NOMEM)
            abort();
    }
    id_list_release(&ids);
    str_release(&out);
}

/* The first byte says which family's file it is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        enum tokenizer_file file;
        const char *config;
        size_t n;
    } families[] = {{FILE_SPM, NULL, 0},
                    {FILE_SPM_XLM, NULL, 0},
                    {FILE_SPM_XLM, "{\"tokenizer_class\": \"CamembertTokenizer\"}", 41},
                    {FILE_SPM_ALBERT, NULL, 0}};
    struct tokenizer *t;
    if (size == 0)
        return 0;
    size_t which = data[0] % 4u;
    const char *files[TOKENIZER_FILES] = {NULL};
    size_t sizes[TOKENIZER_FILES] = {0};
    files[families[which].file] = (const char *)data + 1;
    sizes[families[which].file] = size - 1;
    files[FILE_CONFIG] = families[which].config;
    sizes[FILE_CONFIG] = families[which].n;
    if (tokenizer_open_memory("fuzz", files, sizes, &t) == STATUS_OK)
        use(t, (const char *)data + 1, size - 1);
    tokenizer_close(t);
    return 0;
}
