#include "train/mpi_end.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <mpi.h>
#include <stdio.h>

typedef struct library {
  int n_before; /* that are passed over */
  char path[PATH_MAX];
} library;

static int take_path(struct dl_phdr_info *info, size_t size, void *user) {
  library *l = user;
  (void)size;
  if (l->n_before-- > 0) return 0;
  snprintf(l->path, sizeof l->path, "%s", info->dlpi_name);
  return 1;
}

/* One at a time: a library must not be opened while others are looked through. */
static void keep_libraries(void) {
  library l = {.n_before = 0};
  for (int i = 0; l.n_before = i, dl_iterate_phdr(take_path, &l) != 0; i++)
    if (l.path[0] != '\0') dlopen(l.path, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

void mpi_end(void) {
  keep_libraries();
  MPI_Finalize();
}
