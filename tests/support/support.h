/* support.h - what every test includes: cmocka with its headers, and small helpers. */
#ifndef COHORT_TESTS_SUPPORT_H
#define COHORT_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/status.h"

/* The call succeeds, or the test fails with the sentence. */
#define assert_ok(expr)                                                                                                \
    do {                                                                                                               \
        enum status assert_ok_status_ = (expr);                                                                        \
        if (assert_ok_status_ != STATUS_OK)                                                                            \
            fail_msg("%s: %s: %s", #expr, status_name(assert_ok_status_), status_message());                           \
    } while (0)

/* The call fails with this status and its sentence contains text. */
#define assert_fails(expr, wanted, text)                                                                               \
    do {                                                                                                               \
        enum status assert_fails_status_ = (expr);                                                                     \
        if (assert_fails_status_ != (wanted))                                                                          \
            fail_msg("%s: %s (%s), wanted %s", #expr, status_name(assert_fails_status_), status_message(),             \
                     status_name(wanted));                                                                             \
        support_assert_contains(status_message(), text);                                                              \
    } while (0)

void support_assert_contains(const char *text, const char *part);
/* |a - b| <= bound, or the test fails with both values. */
void support_assert_near(double a, double b, double bound, const char *what);
/* A fresh empty folder for this test, removed when the process ends; valid until then. */
const char *support_folder(void);
/* Write a file in support_folder(); returns its path, valid until the process ends. */
const char *support_file(const char *name, const void *bytes, size_t n);
/* Keep a string of mem_strdup() or path_join() until the process ends; returns it. */
const char *support_keep(char *path);

#endif
