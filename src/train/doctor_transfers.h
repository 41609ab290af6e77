/* What is measured between ranks: how far their clocks are apart, and how well transfers hide behind products. */
#ifndef TRAIN_DOCTOR_TRANSFERS_H
#define TRAIN_DOCTOR_TRANSFERS_H

#include "train/doctor.h"

#include "curvd.h"

#include <stdbool.h>

typedef struct doctor_skew {
  double seconds; /* a host's wall clock minus that of rank 0, of the host where that is largest; 0 with one host */
  double within;  /* known to so many seconds */
  int rank;       /* on that host */
} doctor_skew;

/* [collective over world] Rank 0 asks one rank of each host; the result is rank 0's. leads: this rank answers for its
 * host; host_of (rank 0 alone; n of them): the rank that answers for each rank's. */
doctor_skew doctor_skew_ask(MPI_Comm world, bool leads, const int *host_of);

typedef struct doctor_overlap {
  bool is_tried;
  double share; /* that went on behind products; -1: too short to measure */
  curvd_progress_kind by;
} doctor_overlap;

/* [collective over world] The library's own trial, on two layers of 1024. On failure every rank has the code. */
curvd_status doctor_overlap_ask(MPI_Comm world, int64_t curvature_ranks, doctor_overlap *overlap, cv_error *err);

/* Each adds one line. level: as of MPI_Query_thread; is_crowded: there are more ranks than cores somewhere. */
void doctor_check_skew(const doctor_skew *skew, int n_hosts, const char *host, doctor_findings *to);
void doctor_check_overlap(const doctor_overlap *overlap, int level, bool is_crowded, doctor_findings *to);

#endif
