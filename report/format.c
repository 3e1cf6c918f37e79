/* format.c - see format.h. */
#include "report/format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DASH "\xE2\x80\x93"

const char *format_score(double value, char text[FORMAT_BYTES])
{
    if (!isfinite(value))
        (void)snprintf(text, FORMAT_BYTES, DASH);
    else if (value == 0.0 || (fabs(value) < 10.0 && fabs(value) >= 1e-3))
        (void)snprintf(text, FORMAT_BYTES, "%.4f", value);
    else
        (void)snprintf(text, FORMAT_BYTES, "%.4g", value);
    return text;
}

const char *format_difference(double value, char text[FORMAT_BYTES])
{
    if (!isfinite(value))
        (void)snprintf(text, FORMAT_BYTES, DASH);
    else if (fabs(value) < 10.0)
        (void)snprintf(text, FORMAT_BYTES, "%+.4f", value);
    else
        (void)snprintf(text, FORMAT_BYTES, "%+.4g", value);
    return text;
}

const char *format_count(int64_t value, char text[FORMAT_BYTES])
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)value), to = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && digits[i - 1] != '-' && (n - i) % 3 == 0)
            text[to++] = ',';
        text[to++] = digits[i];
    }
    text[to] = '\0';
    return text;
}

/* "2e-05" to "2e-5", "1e+20" to "1e20". */
static void tidy_exponent(char *text)
{
    char *e = strchr(text, 'e');
    if (e == NULL)
        return;
    char *to = e + 1, *from = e + 1;
    if (*from == '-')
        *to++ = *from++;
    else if (*from == '+')
        from++;
    while (*from == '0' && from[1] != '\0')
        from++;
    memmove(to, from, strlen(from) + 1);
}

const char *format_short(double value, char text[FORMAT_BYTES])
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T"};
    int prefix = 0;
    if (!isfinite(value)) {
        (void)snprintf(text, FORMAT_BYTES, DASH);
        return text;
    }
    double shown = value;
    while (fabs(shown) >= 999.5 && prefix < 4) {
        shown /= 1000.0;
        prefix++;
    }
    (void)snprintf(text, FORMAT_BYTES, "%.3g%s", shown, prefixes[prefix]);
    tidy_exponent(text);
    return text;
}

const char *format_percent(double share, char text[FORMAT_BYTES])
{
    double percent = 100.0 * share;
    if (!isfinite(share))
        (void)snprintf(text, FORMAT_BYTES, DASH);
    else if (percent != 0.0 && fabs(percent) < 0.1)
        (void)snprintf(text, FORMAT_BYTES, "%.2g %%", percent);
    else
        (void)snprintf(text, FORMAT_BYTES, "%.1f %%", percent);
    return text;
}

const char *format_seconds(double seconds, char text[FORMAT_BYTES])
{
    if (!isfinite(seconds) || seconds < 0.0 || seconds > 1e15)
        (void)snprintf(text, FORMAT_BYTES, DASH);
    else if (seconds < 9.95)
        (void)snprintf(text, FORMAT_BYTES, "%.1f s", seconds);
    else if (seconds < 59.5)
        (void)snprintf(text, FORMAT_BYTES, "%.0f s", seconds);
    else if (seconds < 3599.5)
        (void)snprintf(text, FORMAT_BYTES, "%dm %02ds", (int)(seconds + 0.5) / 60,
                       (int)(seconds + 0.5) % 60);
    else
        (void)snprintf(text, FORMAT_BYTES, "%lldh %02dm", (long long)(seconds + 30.0) / 3600,
                       (int)(((long long)(seconds + 30.0) / 60) % 60));
    return text;
}

const char *format_p(double p, char text[FORMAT_BYTES])
{
    if (!isfinite(p))
        (void)snprintf(text, FORMAT_BYTES, DASH);
    else if (p < 0.001)
        (void)snprintf(text, FORMAT_BYTES, "< 0.001");
    else
        (void)snprintf(text, FORMAT_BYTES, "%.3f", p);
    return text;
}
