#include "train/doctor_ranks.h"

#include "train/trainer.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 8 };

/* ---- launcher and MPI ---- */

void doctor_check_launcher(const launcher *l, int n_ranks, const char *library, doctor_findings *to) {
  cv_error err = {0};
  char pmix[48] = "";
  if (l->pmix_version[0] != '\0') snprintf(pmix, sizeof pmix, ", PMIx %s", l->pmix_version);
  if (launcher_check(l, n_ranks, library, &err) != CURVD_OK) {
    doctor_add_failure(to, "launcher", &err);
  } else if (l->job_tasks > 1) {
    doctor_add(to, DOCTOR_WARNING, "launcher",
               "none: 1 rank in a job of %lld tasks; start it by `srun --mpi=pmix` or mpirun to have them all",
               (long long)l->job_tasks);
  } else if (l->kind == LAUNCHER_NONE) {
    doctor_add(to, DOCTOR_OK, "launcher", "none: 1 rank");
  } else {
    bool may_die = l->kind == LAUNCHER_SRUN && n_ranks > 1 && !l->has_ring;
    doctor_add(to, may_die ? DOCTOR_WARNING : DOCTOR_OK, "launcher", "%s%s: %d rank%s%s%s", launcher_name(l), pmix,
               n_ranks, n_ranks > 1 ? "s" : "", l->n_ranks > 0 ? ", as promised" : "",
               may_die
                   ? "; SLURM 22.05 may let some out of MPI_Init before others are in it, and one of 40 starts died "
                     "so: export SLURM_PMIX_FENCE=ring"
                   : "");
  }
}

void doctor_check_mpi(const char *library, int built_major, int built_minor, int built_release, doctor_findings *to) {
  int major = 0, minor = 0, release = 0;
  if (sscanf(library, "Open MPI v%d.%d.%d", &major, &minor, &release) != 3 || major != built_major) {
    doctor_add(to, DOCTOR_ERROR, "MPI",
               "%.60s is loaded, but the program was built with Open MPI %d.%d.%d; build it again, or let "
               "LD_LIBRARY_PATH name that one",
               library, built_major, built_minor, built_release);
  } else if (minor < built_minor) {
    doctor_add(to, DOCTOR_WARNING, "MPI",
               "Open MPI %d.%d.%d is loaded, older than the %d.%d.%d that the program was built with; build it again, "
               "or let LD_LIBRARY_PATH name the newer one",
               major, minor, release, built_major, built_minor, built_release);
  } else {
    doctor_add(to, DOCTOR_OK, "MPI", "Open MPI %d.%d.%d, built with %d.%d.%d", major, minor, release, built_major,
               built_minor, built_release);
  }
}

void doctor_check_threads(int level, doctor_findings *to) {
  if (level >= MPI_THREAD_MULTIPLE)
    doctor_add(to, DOCTOR_OK, "MPI threads", "multiple: a thread of its own may move transfers on");
  else
    doctor_add(to, DOCTOR_WARNING, "MPI threads",
               "%s: no thread may move transfers on, so the program's own calls have to; take an Open MPI that was "
               "built with MPI_THREAD_MULTIPLE",
               level == MPI_THREAD_SERIALIZED ? "serialized"
               : level == MPI_THREAD_FUNNELED ? "funneled"
                                              : "single");
}

/* ---- hosts ---- */

int doctor_hosts(const doctor_rank *rank, int n, int *host_of) {
  int n_hosts = 0;
  for (int r = 0; r < n; r++) {
    host_of[r] = 0;
    while (strcmp(rank[host_of[r]].host, rank[r].host) != 0) host_of[r]++;
    n_hosts += host_of[r] == r;
  }
  return n_hosts;
}

typedef struct writer {
  char text[320];
  size_t n;
} writer;

static void put(writer *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(writer *to, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(to->text + to->n, sizeof to->text - to->n, format, arguments);
  va_end(arguments);
  to->n = n < 0 || to->n + (size_t)n >= sizeof to->text ? sizeof to->text - 1 : to->n + (size_t)n;
}

/* The item of that number (from 0) in a list of which SHOWN are shown: what stands before it; false: it is left out. */
static bool put_item(writer *to, int number) {
  if (number <= SHOWN && number > 0) put(to, number < SHOWN ? ", " : ", ...");
  return number < SHOWN;
}

static void put_ranks(writer *to, const int *host_of, int n, int host) {
  for (int r = host, number = 0; r < n; r++)
    if (host_of[r] == host && put_item(to, number++)) put(to, "%d", r);
}

void doctor_check_hosts(const doctor_rank *rank, int n, doctor_findings *to) {
  writer list = {.n = 0};
  int *host_of = malloc((size_t)n * sizeof *host_of), number = 0;
  if (!host_of) return;
  int n_hosts = doctor_hosts(rank, n, host_of);
  for (int h = 0; h < n; h++) {
    if (host_of[h] != h || !put_item(&list, number++)) continue;
    put(&list, "%s (rank ", rank[h].host);
    put_ranks(&list, host_of, n, h);
    put(&list, ")");
  }
  free(host_of);
  doctor_add(to, DOCTOR_OK, "hosts", "%d: %s", n_hosts, list.text);
}

/* ---- cores ---- */

static int count_cores(const doctor_rank *rank) {
  int n = 0;
  for (int i = 0; i < DOCTOR_MASK_WORDS; i++) n += __builtin_popcountll(rank->may[i]);
  return n;
}

static bool may_core(const doctor_rank *rank, int core) {
  return rank->may[core / 64] >> core % 64 & 1;
}

/* "0-3, 8" */
static void put_cores(writer *to, const doctor_rank *rank) {
  int number = 0;
  for (int c = 0; c < DOCTOR_CORES_MAX; c++) {
    if (!may_core(rank, c)) continue;
    int last = c;
    while (last + 1 < DOCTOR_CORES_MAX && may_core(rank, last + 1)) last++;
    if (put_item(to, number++)) put(to, "%d", c);
    if (number <= SHOWN && last > c) put(to, "-%d", last);
    c = last;
  }
}

static bool is_bound(const doctor_rank *rank) {
  return count_cores(rank) < rank->n_cores;
}

/* Ranks of r's host that have no other cores than r has, itself counted, and their threads. */
typedef struct crowd {
  int n_ranks, neighbour; /* the lowest of them but r; -1: none */
  int64_t n_threads;
} crowd;

static crowd crowd_of(const doctor_rank *rank, int n, int r) {
  crowd found = {.neighbour = -1};
  for (int s = 0; s < n; s++) {
    bool is_within = strcmp(rank[s].host, rank[r].host) == 0;
    for (int i = 0; i < DOCTOR_MASK_WORDS && is_within; i++) is_within = (rank[s].may[i] & ~rank[r].may[i]) == 0;
    if (!is_within) continue;
    found.n_ranks++, found.n_threads += rank[s].blas_threads;
    if (s != r && found.neighbour < 0) found.neighbour = s;
  }
  return found;
}

/* Cores may be shared by ranks that have as many between them, as two ranks bound to a socket do. */
static doctor_level level_of(const doctor_rank *rank, const crowd *around) {
  int cores = count_cores(rank);
  if (around->n_ranks > cores) return is_bound(rank) ? DOCTOR_ERROR : DOCTOR_WARNING;
  return around->n_threads > cores ? DOCTOR_WARNING : DOCTOR_OK;
}

static void add_crowd(const doctor_rank *rank, int r, const crowd *around, doctor_findings *to) {
  writer cores = {.n = 0};
  int n_cores = count_cores(&rank[r]), each = around->n_ranks > 0 ? n_cores / around->n_ranks : n_cores;
  put_cores(&cores, &rank[r]);
  if (around->n_ranks <= n_cores)
    doctor_add(to, DOCTOR_WARNING, "binding",
               "rank %d on %s and those beside it have %lld BLAS threads for cores %s; --blas-threads %d, or mpirun "
               "--map-by slot:PE=%d, gives each a core",
               r, rank[r].host, (long long)around->n_threads, cores.text, each > 1 ? each : 1,
               (int)rank[r].blas_threads);
  else if (is_bound(&rank[r]))
    doctor_add(to, DOCTOR_ERROR, "binding",
               "ranks %d, %d on %s: %d ranks are bound to %d core%s (%s); give each its own (mpirun --bind-to core, "
               "srun --cpu-bind=cores), start fewer, or bind none (--bind-to none)",
               r < around->neighbour ? r : around->neighbour, r < around->neighbour ? around->neighbour : r,
               rank[r].host, around->n_ranks, n_cores, n_cores > 1 ? "s" : "", cores.text);
  else
    doctor_add(to, DOCTOR_WARNING, "binding",
               "%d ranks share the %d cores of %s: those that wait slow down those that compute; start at most %d on "
               "it, or look at times of such a run as no measurement",
               around->n_ranks, n_cores, rank[r].host, n_cores);
}

static void add_sound(const doctor_rank *rank, int n, doctor_findings *to) {
  writer list = {.n = 0};
  int n_bound = 0, number = 0;
  for (int r = 0; r < n; r++) {
    if (!is_bound(&rank[r])) continue;
    n_bound++;
    if (!put_item(&list, number++)) continue;
    put(&list, "rank %d to ", r);
    put_cores(&list, &rank[r]);
  }
  if (n_bound == 0)
    doctor_add(to, DOCTOR_OK, "binding", "none: a rank may run on all %d cores of %s", count_cores(rank), rank->host);
  else
    doctor_add(to, DOCTOR_OK, "binding", "%d of %d ranks are bound: %s", n_bound, n, list.text);
}

void doctor_check_binding(const doctor_rank *rank, int n, doctor_findings *to) {
  doctor_level level = DOCTOR_OK;
  crowd worst = {.n_ranks = 1, .neighbour = -1};
  int at = 0;
  for (int r = 0; r < n; r++) {
    if (count_cores(&rank[r]) == 0) {
      doctor_add(to, DOCTOR_WARNING, "binding", "rank %d on %s: the system does not tell its cores", r, rank[r].host);
      return;
    }
    crowd around = crowd_of(rank, n, r);
    doctor_level mine = level_of(&rank[r], &around);
    if (mine > level) level = mine, worst = around, at = r;
  }
  if (level == DOCTOR_OK)
    add_sound(rank, n, to);
  else
    add_crowd(rank, at, &worst, to);
}
