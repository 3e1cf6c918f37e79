/*
 * fuzz_config.c - the input as a libconfig file on top of the defaults.
 *
 * Beyond the sanitizers it holds: what is accepted can be written as run.cfg, and that reads back to the same values;
 * what is refused has a sentence.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/config.h"
#include "launcher/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libconfig 1.5 loses the strings it was reading where the text has a syntax error. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig\n";
}

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "fuzz_config: %s: %s\n", what, status_message());
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run_config config, again;
    struct str text = {0}, difference = {0};
    require(config_defaults(&config) == STATUS_OK && config_defaults(&again) == STATUS_OK, "defaults");
    if (config_parse((const char *)data, size, "fuzz.cfg", &config) == STATUS_OK) {
        require(config_text(&config, &text) == STATUS_OK, "written");
        require(config_parse(text.p, text.n, "run.cfg", &again) == STATUS_OK, "its own text is refused");
        require(config_difference(&config, &again, &difference) == STATUS_OK, "compared");
        require(difference.n == 0, difference.p);
        require(memcmp(&config, &again, sizeof config) == 0, "its own text has other values");
    } else {
        require(strncmp(status_message(), "fuzz.cfg", 8) == 0, "a refusal that names no file");
    }
    str_release(&text);
    str_release(&difference);
    return 0;
}
