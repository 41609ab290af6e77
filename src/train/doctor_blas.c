#include "train/doctor_blas.h"

#include "net/kernel.h"
#include "train/doctor_system.h"

#include <cblas.h>
#include <stdbool.h>
#include <string.h>
#ifdef CURVD_HAS_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

void doctor_blas_ask(int n_threads, doctor_blas *blas) {
  openblas_set_num_threads(n_threads);
  *blas = (doctor_blas){.pool = (doctor_pool)openblas_get_parallel(), .n_threads = openblas_get_num_threads()};
  snprintf(blas->config, sizeof blas->config, "%s", openblas_get_config());
  snprintf(blas->core, sizeof blas->core, "%s", openblas_get_corename());
  doctor_blas_ask_paths(blas);
}

/* "OpenBLAS 0.3.21 DYNAMIC_ARCH ..." -> "OpenBLAS 0.3.21" */
static int version_length(const char *config) {
  size_t n = strcspn(config, " ");
  return (int)(n + (config[n] == ' ' ? 1 + strcspn(config + n + 1, " ") : 0));
}

/* Debian's libblas.so.3 of OpenBLAS has the functions of BLAS alone and lets libopenblas compute. */
static bool is_openblas(const char *path) {
  return strstr(path, "openblas") != NULL;
}

void doctor_check_blas(const doctor_blas *blas, doctor_findings *to) {
  static const char *const pools[] = {"no", "pthread", "OpenMP"};
  if (!is_openblas(blas->c_calls)) {
    doctor_add(to, DOCTOR_ERROR, "BLAS",
               "products are computed by %s, while threads are set in %s; link with -lopenblas first, and look at "
               "LD_PRELOAD",
               blas->c_calls, blas->sets_threads);
  } else if (!is_openblas(blas->fortran_calls)) {
    doctor_add(to, DOCTOR_WARNING, "BLAS",
               "ScaLAPACK and LAPACK compute by %s, which is slow; Debian: update-alternatives --config "
               "libblas.so.3-x86_64-linux-gnu, and choose OpenBLAS",
               blas->fortran_calls);
  } else if (blas->pool == DOCTOR_POOL_NONE && blas->n_threads > 1) {
    doctor_add(to, DOCTOR_WARNING, "BLAS", "%s has no threads, and %d are wanted; Debian: libopenblas0-pthread",
               blas->c_calls, blas->n_threads);
  } else {
    doctor_add(to, DOCTOR_OK, "BLAS", "%.*s, %s kernels, %s threads (%d a rank), %s", version_length(blas->config),
               blas->config, blas->core, pools[blas->pool <= DOCTOR_POOL_OPENMP ? blas->pool : 0], blas->n_threads,
               blas->c_calls);
  }
}

/* ---- what else is loaded ---- */

static const char *file_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* The first loaded library of that beginning that is not `but`; NULL: none. */
static const char *loaded(const doctor_blas *blas, const char *beginning, const char *but) {
  for (int i = 0; i < blas->n_libraries; i++) {
    const char *path = blas->library[i];
    if (strncmp(file_of(path), beginning, strlen(beginning)) == 0 && strcmp(path, but) != 0) return path;
  }
  return NULL;
}

void doctor_check_pools(const doctor_blas *blas, doctor_findings *to) {
  const char *first = loaded(blas, "libopenblas", ""), *second = loaded(blas, "libopenblas", first ? first : ""),
             *reference = loaded(blas, "libblas.", ""), *mkl = loaded(blas, "libmkl", ""),
             *omp = loaded(blas, "libgomp", "");
  const char *other_omp = loaded(blas, "libiomp", "") ? loaded(blas, "libiomp", "") : loaded(blas, "libomp", "");
  bool has_reference = reference && !is_openblas(reference);
  if (second)
    doctor_add(to, DOCTOR_WARNING, "thread pools",
               "two OpenBLAS are loaded, %s and %s, each with threads of its own; leave one of them installed", first,
               second);
  else if (mkl || (omp && other_omp))
    doctor_add(to, DOCTOR_WARNING, "thread pools",
               "%s is loaded beside %s: threads of both would share the cores; take it out of LD_PRELOAD and "
               "LD_LIBRARY_PATH",
               mkl ? mkl : other_omp, first ? first : omp);
  else if (omp && blas->pool == DOCTOR_POOL_PTHREAD && blas->n_threads > 1)
    doctor_add(to, DOCTOR_WARNING, "thread pools",
               "OpenBLAS has %d pthreads and oneDNN as many of OpenMP, which wait for work on the same cores; Debian: "
               "libopenblas0-openmp has one pool for both, or --blas-threads 1",
               blas->n_threads);
  else
    doctor_add(to, DOCTOR_OK, "thread pools", "%s%s%s", blas->n_threads > 1 ? "one" : "none: 1 thread a rank",
               has_reference ? "; loaded, and not called: " : "", has_reference ? reference : "");
}

void doctor_check_convolutions(const char *kernels, doctor_findings *to) {
  const nn_kernels *found = NULL;
  cv_error err = {0};
  if (nn_kernels_find(kernels, &found, &err) != CURVD_OK) {
    doctor_add_failure(to, "convolutions", &err);
    return;
  }
#ifdef CURVD_HAS_ONEDNN
  const dnnl_version_t *v = dnnl_version();
  if (strcmp(found->name, "onednn") == 0) {
    doctor_add(to, DOCTOR_OK, "convolutions", "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return;
  }
#endif
  doctor_add(to, DOCTOR_OK, "convolutions",
             "%s loops, some times slower than oneDNN, which matters to networks with convolutions alone (Debian: "
             "libdnnl-dev, and build again)",
             found->name);
}
