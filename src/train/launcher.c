#include "train/launcher.h"

#include "base/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct environment {
  launcher_getenv *get;
  void *user;
} environment;

static const char *text_of(const environment *e, const char *name) {
  return e->get(e->user, name);
}

/* Without one, or with anything but an integer, `otherwise`. */
static int64_t integer_of(const environment *e, const char *name, int64_t otherwise) {
  const char *text = text_of(e, name);
  int64_t value = 0;
  return text && cv_integer_parse(text, &value) ? value : otherwise;
}

/* ---- SLURM ---- */

/* Of SLURM's lists of tasks, "2(x3),1": what stands at that place; -1: nothing does. */
static int64_t task_count_at(const char *list, int64_t place) {
  for (const char *at = list; *at != '\0';) {
    char *end;
    long long count = strtoll(at, &end, 10), times = 1;
    if (end == at) return -1;
    if (strncmp(end, "(x", 2) == 0) {
      times = strtoll(end + 2, &end, 10);
      if (*end++ != ')') return -1;
    }
    if (place < times) return count;
    place -= times;
    if (*end != ',' && *end != '\0') return -1;
    at = end + (*end == ',');
  }
  return -1;
}

static int64_t count_words(const char *list) {
  int64_t n = *list != '\0';
  for (; *list != '\0'; list++) n += *list == ',';
  return n;
}

/* No step has more nodes than its job; one of a heterogeneous job has those of several. SLURM_NTASKS would not tell:
 * `srun --preserve-env` leaves the job's there. */
static bool has_too_many_nodes(const environment *e) {
  int64_t of_job = integer_of(e, "SLURM_JOB_NUM_NODES", INT64_MAX);
  return !text_of(e, "SLURM_HET_SIZE") && integer_of(e, "SLURM_STEP_NUM_NODES", 0) > of_job;
}

/* A batch script inherits what was set where it was submitted. When that was inside of a step, SLURM_STEP_* tell of the
 * step of another job; but how many tasks this node has, and nodes the job, is set anew for every batch script. */
static bool is_inherited(const environment *e) {
  if (has_too_many_nodes(e)) return true;
  const char *mine = text_of(e, "SLURM_GTIDS"), *per_node = text_of(e, "SLURM_STEP_TASKS_PER_NODE");
  int64_t node = integer_of(e, "SLURM_NODEID", -1);
  if (!mine || !per_node || node < 0) return false;
  int64_t expected = task_count_at(per_node, node);
  return expected < 0 || expected != count_words(mine);
}

/* SLURM_NTASKS and SLURM_PROCID are there in a batch script, too, whose own processes are no tasks: srun alone sets
 * SLURM_STEP_NUM_TASKS (of a heterogeneous step, all of its tasks). */
static bool is_step(const environment *e, launcher *l) {
  int64_t n_tasks = integer_of(e, "SLURM_STEP_NUM_TASKS", 0), task = integer_of(e, "SLURM_PROCID", -1);
  if (n_tasks < 1 || task < 0 || task >= n_tasks || is_inherited(e)) return false;
  const char *fence = text_of(e, "SLURM_PMIX_FENCE");
  l->kind = LAUNCHER_SRUN, l->n_ranks = n_tasks, l->rank = task;
  l->has_ring = fence && strcmp(fence, "ring") == 0;
  return true;
}

/* ---- all of them ---- */

static bool is_counted(const environment *e, launcher_kind kind, const char *size, const char *rank, launcher *l) {
  int64_t n_ranks = integer_of(e, size, 0);
  if (n_ranks < 1) return false;
  l->kind = kind, l->n_ranks = n_ranks, l->rank = integer_of(e, rank, -1);
  return true;
}

/* The innermost counts: mpirun is often started by a batch script or in a step, never the other way round. */
launcher launcher_find(launcher_getenv *get, void *user) {
  const environment e = {get, user};
  launcher l = {.kind = LAUNCHER_NONE,
                .rank = -1,
                .has_pmix = text_of(&e, "PMIX_NAMESPACE") != NULL,
                .has_step_id = text_of(&e, "SLURM_STEP_ID") != NULL};
  const char *version = text_of(&e, "PMIX_VERSION");
  if (version) snprintf(l.pmix_version, sizeof l.pmix_version, "%s", version);
  if (is_counted(&e, LAUNCHER_MPIRUN, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", &l) || is_step(&e, &l) ||
      is_counted(&e, LAUNCHER_PMI, "PMI_SIZE", "PMI_RANK", &l))
    return l;
  if (l.has_pmix) {
    l.kind = LAUNCHER_PMIX, l.rank = integer_of(&e, "PMIX_RANK", -1);
  } else if (text_of(&e, "SLURM_JOB_ID")) {
    l.job_tasks = integer_of(&e, "SLURM_NTASKS", 1);
  }
  return l;
}

static const char *from_process(void *user, const char *name) {
  (void)user;
  return getenv(name);
}

launcher launcher_of_process(void) {
  return launcher_find(from_process, NULL);
}

const char *launcher_name(const launcher *l) {
  switch (l->kind) {
  case LAUNCHER_MPIRUN:
    return "mpirun";
  case LAUNCHER_SRUN:
    return "srun";
  case LAUNCHER_PMI:
    return "mpiexec (PMI)";
  case LAUNCHER_PMIX:
    return "PMIx";
  case LAUNCHER_NONE:
    break;
  }
  return "none";
}

bool launcher_has_ranks(const launcher *l) {
  return l->kind != LAUNCHER_NONE && (l->kind != LAUNCHER_SRUN || l->n_ranks > 1 || l->has_pmix);
}

bool launcher_needs_pmi(const launcher *l) {
  return l->kind == LAUNCHER_SRUN && l->n_ranks > 1 && !l->has_pmix;
}

bool launcher_is_alone_in_step(const launcher *l) {
  bool is_alone = l->kind == LAUNCHER_NONE || (l->kind == LAUNCHER_SRUN && l->n_ranks == 1);
  return l->has_step_id && is_alone && !l->has_pmix;
}

#define SRUN_CURE                                                                                                      \
  "start them with `srun --mpi=pmix` (`srun --mpi=list` has to show pmix), or by mpirun inside of the job; for %lld "  \
  "runs that are meant to be apart, `env -u SLURM_STEP_ID -u SLURM_STEP_NUM_TASKS curvd ...`"

curvd_status launcher_failed_without_pmi(const launcher *l, cv_error *err) {
  return cv_fail(err, CURVD_ERR_LAYOUT,
                 "srun started %lld tasks and does not tell MPI how they find each other: " SRUN_CURE,
                 (long long)l->n_ranks, (long long)l->n_ranks);
}

static curvd_status srun_failed(const launcher *l, int n_ranks, cv_error *err) {
  return cv_fail(err, CURVD_ERR_LAYOUT,
                 "srun started %lld tasks, but MPI has %d in this world, and each would train alone: " SRUN_CURE,
                 (long long)l->n_ranks, n_ranks, (long long)l->n_ranks);
}

/* "Open MPI v4.1.4, package: ..." -> "Open MPI v4.1.4" */
static int name_length(const char *library) {
  enum { MOST = 60 };
  size_t n = strcspn(library, ",\n");
  return n < MOST ? (int)n : MOST;
}

curvd_status launcher_check(const launcher *l, int n_ranks, const char *library, cv_error *err) {
  if (n_ranks >= l->n_ranks) return CURVD_OK;
  if (l->kind == LAUNCHER_SRUN) return srun_failed(l, n_ranks, err);
  if (l->kind == LAUNCHER_PMI)
    return cv_fail(
        err, CURVD_ERR_LAYOUT,
        "an mpiexec that speaks PMI (MPICH, Intel MPI) started %lld ranks, but MPI has %d in this world: %.*s"
        " does not understand it; start them by the mpirun that came with it",
        (long long)l->n_ranks, n_ranks, name_length(library), library);
  return cv_fail(err, CURVD_ERR_LAYOUT,
                 "mpirun started %lld ranks, but MPI has %d in this world: that mpirun does not belong to the MPI "
                 "library of this program, %.*s; start them by the one that came with it",
                 (long long)l->n_ranks, n_ranks, name_length(library), library);
}
