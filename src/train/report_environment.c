#include "train/report_environment.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* Of the variables only these: others may hold what is nobody's business. */
static const char *const variables[] = {"SLURM_JOB_ID",
                                        "SLURM_ARRAY_JOB_ID",
                                        "SLURM_ARRAY_TASK_ID",
                                        "SLURM_HET_SIZE",
                                        "SLURM_JOB_PARTITION",
                                        "SLURM_JOB_NODELIST",
                                        "SLURM_JOB_NUM_NODES",
                                        "SLURM_NTASKS",
                                        "SLURM_TASKS_PER_NODE",
                                        "SLURM_CPUS_PER_TASK",
                                        "PBS_JOBID",
                                        "LSB_JOBID",
                                        "OMP_NUM_THREADS",
                                        "OMP_PROC_BIND",
                                        "OMP_PLACES",
                                        "OPENBLAS_NUM_THREADS",
                                        "OPENBLAS_CORETYPE",
                                        "OMPI_MCA_pml",
                                        "OMPI_MCA_btl",
                                        "OMPI_MCA_btl_tcp_if_include",
                                        "OMPI_MCA_btl_vader_single_copy_mechanism",
                                        "OMPI_MCA_hwloc_base_binding_policy",
                                        "OMPI_MCA_mpi_yield_when_idle",
                                        "OMPI_MCA_mca_base_param_files"};

/* The value of the first "name : value" of a file of the system, cut to size; "" without. */
static void read_value(const char *path, const char *name, char *value, size_t size) {
  char line[512];
  size_t length = strlen(name);
  FILE *file = fopen(path, "r");
  value[0] = '\0';
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, length) != 0) continue;
    const char *begin = line + length + strspn(line + length, " \t:");
    snprintf(value, size, "%.*s", (int)strcspn(begin, "\n"), begin);
    break;
  }
  if (file != NULL) fclose(file);
}

void rank_place_read(rank_place *place) {
  *place = (rank_place){.host = ""};
  if (gethostname(place->host, sizeof place->host - 1) != 0) snprintf(place->host, sizeof place->host, "?");
  read_value("/proc/self/status", "Cpus_allowed_list", place->cpus, sizeof place->cpus);
}

static bool is_same_place(const rank_place *x, const rank_place *y) {
  return strcmp(x->host, y->host) == 0 && strcmp(x->cpus, y->cpus) == 0;
}

/* Ranks one after the other that share host and processors are one entry. */
static json_t *place_list(const rank_place *place, int n_ranks) {
  json_t *list = json_array();
  for (int i = 0, next; i < n_ranks; i = next) {
    for (next = i + 1; next < n_ranks && is_same_place(&place[i], &place[next]);) next++;
    json_array_append_new(
        list, json_pack("{s:s,s:i,s:s}", "name", place[i].host, "ranks", next - i, "processors", place[i].cpus));
  }
  return list;
}

static json_t *variable_list(void) {
  json_t *list = json_object();
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
    const char *value = getenv(variables[i]);
    if (value != NULL) json_object_set_new(list, variables[i], json_string(value));
  }
  return list;
}

json_t *report_environment(const rank_place *places, int n_ranks) {
  char cpu[128], date[32] = "", system[200] = "";
  struct utsname name;
  time_t now = time(NULL);
  struct tm utc;
  read_value("/proc/cpuinfo", "model name", cpu, sizeof cpu);
  if (gmtime_r(&now, &utc) != NULL) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
  if (uname(&name) == 0) snprintf(system, sizeof system, "%.60s %.60s %.60s", name.sysname, name.release, name.machine);
  return json_pack("{s:s,s:s,s:I,s:s,s:o,s:o}", "date", date, "cpu", cpu, "processors",
                   (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "system", system, "hosts", place_list(places, n_ranks),
                   "variables", variable_list());
}
