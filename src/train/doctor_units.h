/* The matrix units of a rank's processor, and whether the options ask for what it has none for. */
#ifndef TRAIN_DOCTOR_UNITS_H
#define TRAIN_DOCTOR_UNITS_H

#include "train/config.h"
#include "train/doctor.h"

typedef struct doctor_units {
  char there[128]; /* "amx, avx512-bf16, ...", the best one first */
  char chosen[24]; /* by option matrix_unit */
  bool has_amx;    /* in the processor, whether the kernel permits it or not */
  char asked[24];  /* the first option that asks for bf16; "": none */
  char isa[64];    /* what oneDNN uses; "": it is not in this build */
  cv_error none;   /* this machine has no such unit */
} doctor_units;

void doctor_units_ask(const config *c, doctor_units *units);

/* Adds one line. */
void doctor_check_units(const doctor_units *units, doctor_findings *to);

#endif
