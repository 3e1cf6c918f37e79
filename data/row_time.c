/* row_time.c - see row_time.h. */
#include "data/row_time.h"

#include <stdint.h>
#include <string.h>

#include "base/str.h"

/* Exactly `digits` digits. */
static bool take_digits(const char **p, int digits, int *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        *value = *value * 10 + (**p - '0');
    }
    return true;
}

static bool take(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

static int days_of_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

/* Days from 1970-01-01, in years that begin in March, so that the leap day is the last one. */
static int64_t days_since_1970(int year, int month, int day)
{
    int64_t y = year - (month <= 2), m = (month + 9) % 12;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* "+HH", "+HHMM", "+HH:MM" or nothing, "Z": seconds east of UTC. */
static bool take_zone(const char **p, int *seconds)
{
    int sign = **p == '-' ? -1 : 1, hours, minutes = 0;
    *seconds = 0;
    if (take(p, 'Z') || **p == '\0')
        return true;
    if (!take(p, '+') && !take(p, '-'))
        return false;
    if (!take_digits(p, 2, &hours))
        return false;
    if (**p != '\0') {
        (void)take(p, ':');
        if (!take_digits(p, 2, &minutes))
            return false;
    }
    *seconds = sign * (hours * 3600 + minutes * 60);
    return hours <= 23 && minutes <= 59;
}

static bool take_clock(const char **p, double *seconds)
{
    int hour, minute, second = 0, zone;
    double fraction = 0.0, unit = 0.1;
    if (!take_digits(p, 2, &hour) || !take(p, ':') || !take_digits(p, 2, &minute))
        return false;
    if (take(p, ':')) {
        if (!take_digits(p, 2, &second))
            return false;
        if (take(p, '.')) {
            if (**p < '0' || **p > '9')
                return false;
            for (; **p >= '0' && **p <= '9'; (*p)++, unit /= 10.0)
                fraction += unit * (**p - '0');
        }
    }
    if (hour > 23 || minute > 59 || second > 60 || !take_zone(p, &zone))
        return false;
    *seconds = (double)(hour * 3600 + minute * 60 + second - zone) + fraction;
    return true;
}

bool row_time_parse(const char *p, size_t n, double *time, bool *date)
{
    char text[64];
    const char *at = text;
    double clock = 0.0, value;
    int year, month, day;
    if (n >= sizeof text || memchr(p, '\0', n) != NULL)
        return false;
    memcpy(text, p, n);
    text[n] = '\0';
    if (parse_double(text, &value)) {
        *time = value;
        *date = false;
        return true;
    }
    if (!take_digits(&at, 4, &year) || !take(&at, '-') || !take_digits(&at, 2, &month) ||
        !take(&at, '-') || !take_digits(&at, 2, &day) || year < 1 || month < 1 || month > 12 ||
        day < 1 || day > days_of_month(year, month))
        return false;
    if ((take(&at, 'T') || take(&at, ' ')) && !take_clock(&at, &clock))
        return false;
    if (*at != '\0')
        return false;
    *time = (double)(86400 * days_since_1970(year, month, day)) + clock;
    *date = true;
    return true;
}
