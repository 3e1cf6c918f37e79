/*
 * fault.h - places where tests make things fail.
 *
 * fault_here("data.read") is STATUS_OK unless COHORT_FAULT names the place: "data.read" (first
 * visit), "data.read:3" (third visit), "data.read:3@1" (third visit on rank 1),
 * "data.read:1@0=kill" (SIGKILL instead of an error),
 * "=stop" (SIGSTOP), "=term" (SIGTERM, and no error), "=hang" (endless loop). Compiled into all builds: a run with COHORT_FAULT set
 * says so first.
 */
#ifndef COHORT_BASE_FAULT_H
#define COHORT_BASE_FAULT_H

#include "base/status.h"

/* Read COHORT_FAULT once; STATUS_USAGE if it cannot be understood. rank is this process's. */
NODISCARD enum status fault_setup(int rank);
/* STATUS_OK, or STATUS_IO with "fault injected at PLACE". */
NODISCARD enum status fault_here(const char *place);

#endif
