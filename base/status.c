/* status.c - per-thread failure sentence; see status.h. */
#include "base/status.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char message[1024];

enum status status_fail(enum status code, const char *format, ...)
{
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format,
                    args); /* via a copy: an argument may be status_message() itself */
    va_end(args);
    memcpy(message, text, sizeof message);
    return code;
}

enum status status_prefix(enum status code, const char *format, ...)
{
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0)
        return code;
    size_t used = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    size_t room = sizeof text - used;
    if (room > 3) /* said to the compiler as well, which warns of a truncation that is meant */
        (void)snprintf(text + used, room, ": %.*s", (int)room - 3, message);
    memcpy(message, text, sizeof message);
    return code;
}

const char *status_message(void)
{
    return message;
}

const char *status_name(enum status code)
{
    static const char *const names[] = {
#define STATUS_NAME(name, code_, text_) #name,
        STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    };
    return code >= 0 && code < STATUS_COUNT ? names[code] : "STATUS_?";
}

const char *status_text(enum status code)
{
    static const char *const texts[] = {
#define STATUS_TEXT(name_, code_, text) text,
        STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    };
    return code >= 0 && code < STATUS_COUNT ? texts[code] : "unknown status";
}

int status_exit_code(enum status code)
{
    static const int codes[] = {
#define STATUS_CODE(name_, code_, text_) code_,
        STATUS_LIST(STATUS_CODE)
#undef STATUS_CODE
    };
    return code >= 0 && code < STATUS_COUNT ? codes[code] : 70;
}
