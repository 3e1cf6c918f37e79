/*
 * fuzz_config_json.c - config.json on arbitrary bytes: parsed, its labels and encoder read, a new one made from it.
 *
 * Beyond the sanitizers it holds: a config.json made from any object parses, and its labels read back as given.
 * With libFuzzer's main it fuzzes; with -DFUZZ_REPLAY it is a program that runs the files named on its command line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/hf.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "fuzz_config_json: %s: %s\n", what, status_message());
    abort();
}

static void remake(const json_t *config, char **names, int count)
{
    json_t *made, *parsed;
    char **again;
    int n;
    bool generic;
    if (hf_make_config(config, (const char *const *)names, count, "single_label_classification", "X", count, &made) !=
        STATUS_OK)
        return; /* a label twice */
    char *text = json_line(made);
    require(text != NULL && json_parse(text, strlen(text), "made", &parsed) == STATUS_OK, "what was made parses");
    require(hf_labels(parsed, &again, &n, &generic) == STATUS_OK && n == count, "what was made has labels");
    for (int i = 0; i < n; i++)
        require(strcmp(names[i], again[i]) == 0, "labels read back");
    hf_labels_free(again, n);
    free(text);
    json_decref(parsed);
    json_decref(made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *config;
    struct encoder_config encoder;
    char **names;
    int count;
    bool generic;
    if (json_parse((const char *)data, size, "config.json", &config) != STATUS_OK)
        return 0;
    if (encoder_config_read(config, "config.json", &encoder) == STATUS_OK)
        require(encoder.hidden > 0 && encoder.heads > 0 && encoder.hidden % encoder.heads == 0 && encoder.layers > 0 &&
                    encoder.vocab_size > 0 && encoder.max_positions > 0 && encoder.conv_taps % 2 == (encoder.conv_taps > 0) &&
                    (encoder.relative.span == 0 ||
                     (encoder.relative.max_distance > 0 && (encoder.relative.content_to_position ||
                                                            encoder.relative.position_to_content))),
                "an encoder that cannot be");
    if (json_is_object(config) && hf_labels(config, &names, &count, &generic) == STATUS_OK) {
        if (count <= 1000)
            remake(config, names, count);
        hf_labels_free(names, count);
    }
    json_decref(config);
    return 0;
}

#ifdef FUZZ_REPLAY
#include "base/file.h"
#include "base/mem.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *bytes;
        size_t n;
        if (file_read(argv[i], (size_t)1 << 26, &bytes, &n) != STATUS_OK) {
            (void)fprintf(stderr, "%s\n", status_message());
            return 1;
        }
        (void)LLVMFuzzerTestOneInput((const uint8_t *)bytes, n);
        mem_free(bytes);
    }
    return 0;
}
#endif
