#include "train/doctor_system.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- cores ---- */

void doctor_rank_ask(doctor_rank *rank) {
  cpu_set_t *set = CPU_ALLOC(DOCTOR_CORES_MAX);
  size_t size = CPU_ALLOC_SIZE(DOCTOR_CORES_MAX);
  gethostname(rank->host, sizeof rank->host - 1);
  rank->host[sizeof rank->host - 1] = '\0';
  rank->n_cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
  if (set && sched_getaffinity(0, size, set) == 0)
    for (int c = 0; c < DOCTOR_CORES_MAX; c++)
      if (CPU_ISSET_S(c, size, set)) rank->may[c / 64] |= (uint64_t)1 << c % 64;
  if (set) CPU_FREE(set);
}

/* ---- libraries ---- */

static void follow_links(const char *path, char real[DOCTOR_PATH_MAX]) {
  char *found = realpath(path, NULL);
  snprintf(real, DOCTOR_PATH_MAX, "%s", found ? found : path);
  free(found);
}

/* "": there is no such function. */
static void path_of(const char *function, char path[DOCTOR_PATH_MAX]) {
  Dl_info info;
  void *address = dlsym(RTLD_DEFAULT, function);
  path[0] = '\0';
  if (address && dladdr(address, &info) && info.dli_fname) follow_links(info.dli_fname, path);
}

static bool is_of_interest(const char *path) {
  static const char *const names[] = {"libblas.",  "libopenblas", "libmkl_rt", "libmkl_core", "libatlas", "libsatlas",
                                      "libtatlas", "libblis",     "libgomp",   "libiomp",     "libomp"};
  const char *name = strrchr(path, '/');
  name = name ? name + 1 : path;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
  return false;
}

static int take_library(struct dl_phdr_info *info, size_t size, void *user) {
  doctor_blas *blas = user;
  (void)size;
  if (blas->n_libraries < DOCTOR_LIBRARIES_MAX && is_of_interest(info->dlpi_name))
    follow_links(info->dlpi_name, blas->library[blas->n_libraries++]);
  return 0;
}

void doctor_blas_ask_paths(doctor_blas *blas) {
  path_of("cblas_sgemm", blas->c_calls);
  path_of("sgemm_", blas->fortran_calls);
  path_of("openblas_set_num_threads", blas->sets_threads);
  dl_iterate_phdr(take_library, blas);
}

/* ---- memory of neighbours, files ---- */

int doctor_read_neighbour(pid_t neighbour, void *there, void *here, size_t n) {
  struct iovec from = {there, n}, to = {here, n};
  ssize_t got = process_vm_readv(neighbour, &to, 1, &from, 1, 0);
  return got == (ssize_t)n ? 0 : got < 0 ? errno : EIO;
}

int doctor_write_directly(int folder, const char *name) {
  enum { BLOCK = 4096 };
  void *block = NULL;
  int fd = openat(folder, name, O_WRONLY | O_DIRECT | O_CLOEXEC), why = fd < 0 ? errno : 0;
  if (why == 0) why = posix_memalign(&block, BLOCK, BLOCK);
  if (why == 0) {
    memset(block, 0, BLOCK);
    ssize_t put = pwrite(fd, block, BLOCK, 0);
    why = put == BLOCK ? 0 : put < 0 ? errno : EIO;
  }
  free(block);
  if (fd >= 0) close(fd);
  return why;
}
