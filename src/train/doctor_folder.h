/* Where the run folder is: what kind of file system, how fast it is safe there, and who sees it. */
#ifndef TRAIN_DOCTOR_FOLDER_H
#define TRAIN_DOCTOR_FOLDER_H

#include "train/doctor.h"

#include <mpi.h>

typedef struct doctor_folder {
  char path[DOCTOR_PATH_MAX]; /* the run folder, or the nearest folder above it that is there */
  long kind;                  /* as of statfs */
  int write_errno;            /* of writing a small file there; 0: it can be written */
  int direct_errno;           /* of writing past the page cache */
  double sync_s;              /* until it is safe */
  int64_t free_bytes;         /* -1: unknown */
} doctor_folder;

/* Writes a small file, and removes it. run_dir: the option. */
void doctor_folder_ask(const char *run_dir, doctor_folder *folder);

/* [collective over world] Rank 0 writes a file, the ranks that look for it read it; returns the lowest of them that
 * does not find it. -1: all see it; -2: rank 0 could not write. */
enum { DOCTOR_FOLDER_SEEN = -1, DOCTOR_FOLDER_UNWRITTEN = -2 };
int doctor_folder_compare(MPI_Comm world, const doctor_folder *folder, bool looks);

const char *doctor_file_system(long kind);

/* Each adds one line. needed: bytes that checkpoints will take, about. host: of the rank that does not see it. */
void doctor_check_folder(const doctor_folder *folder, double needed, doctor_findings *to);
void doctor_check_sharing(int unseen_by, const char *host, int n_hosts, const doctor_folder *folder,
                          doctor_findings *to);

#endif
