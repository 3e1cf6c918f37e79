/* fault.c - see fault.h. */
#include "base/fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum fault_kind { FAULT_NONE, FAULT_ERROR, FAULT_KILL, FAULT_STOP, FAULT_TERM, FAULT_HANG };

static struct {
    enum fault_kind kind;
    char place[64];
    int visit; /* the visit that fails, from 1 */
    int seen;
} fault;

enum status fault_setup(int rank)
{
    const char *text = getenv("COHORT_FAULT");
    char rest[32] = "";
    int only = -1;
    fault.kind = FAULT_NONE;
    if (text == NULL || text[0] == '\0')
        return STATUS_OK;
    fault.visit = 1;
    fault.seen = 0;
    size_t n = strcspn(text, ":@=");
    if (n == 0 || n >= sizeof fault.place)
        return status_fail(
            STATUS_USAGE,
            "COHORT_FAULT is \"%s\", wanted PLACE[:VISIT][@RANK][=error|kill|stop|hang]", text);
    memcpy(fault.place, text, n);
    fault.place[n] = '\0';
    const char *p = text + n;
    if (*p == ':')
        fault.visit = (int)strtol(p + 1, (char **)&p, 10);
    if (*p == '@')
        only = (int)strtol(p + 1, (char **)&p, 10);
    if (*p == '=' && strlen(p + 1) < sizeof rest)
        memcpy(rest, p + 1, strlen(p + 1) + 1);
    else if (*p != '\0')
        return status_fail(STATUS_USAGE, "COHORT_FAULT is \"%s\": cannot read \"%s\"", text, p);
    if (rest[0] != '\0' && strcmp(rest, "error") != 0 && strcmp(rest, "kill") != 0 &&
        strcmp(rest, "stop") != 0 && strcmp(rest, "term") != 0 && strcmp(rest, "hang") != 0)
        return status_fail(
            STATUS_USAGE,
            "COHORT_FAULT is \"%s\", wanted error, kill, stop, term or hang behind \"=\"", text);
    if (only >= 0 && only != rank)
        return STATUS_OK;
    fault.kind = strcmp(rest, "kill") == 0   ? FAULT_KILL
                 : strcmp(rest, "stop") == 0 ? FAULT_STOP
                 : strcmp(rest, "term") == 0 ? FAULT_TERM
                 : strcmp(rest, "hang") == 0 ? FAULT_HANG
                                             : FAULT_ERROR;
    log_warning("COHORT_FAULT=%s: this run will be made to fail", text);
    return STATUS_OK;
}

enum status fault_here(const char *place)
{
    if (fault.kind == FAULT_NONE || strcmp(place, fault.place) != 0 || ++fault.seen != fault.visit)
        return STATUS_OK;
    switch (fault.kind) {
    case FAULT_KILL:
        (void)raise(SIGKILL);
        break;
    case FAULT_STOP:
        (void)raise(SIGSTOP);
        break;
    case FAULT_TERM:
        (void)raise(SIGTERM);
        return STATUS_OK;
    case FAULT_HANG:
        for (;;)
            (void)usleep(100000);
    default:
        break;
    }
    return status_fail(STATUS_IO, "fault injected at %s", place);
}
