#include "train/commands.h"
#include "train/config.h"
#include "train/run_shape.h"

#include <stdio.h>
#include <stdlib.h>

/* All values together, as a plan under MPI would look at them; one worker will do. */
static curvd_status check_together(config *c, cv_error *err) {
  run_shape *run = NULL;
  char message[sizeof err->text] = "";
  int64_t n_ranks = 1 + (c->values.curvature_ranks > 0 ? c->values.curvature_ranks : 0);
  if (n_ranks > CURVD_PREDICTED_RANKS_MAX)
    return cv_fail(err, CURVD_ERR_LAYOUT, "curvature_ranks %lld: a check knows up to %d ranks",
                   (long long)c->values.curvature_ranks, CURVD_PREDICTED_RANKS_MAX);
  CV_TRY(run_shape_make(c, (int)n_ranks, &run, err));
  curvd_status status = curvd_shape_check(&run->shape, message, sizeof message);
  free(run);
  return status == CURVD_OK ? CURVD_OK : cv_fail(err, status, "%s", message);
}

int cmd_check(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  config loaded;
  if (config_load(argc, argv, &loaded, &err) != CURVD_OK) return command_failed(&err);
  int n_set = 0;
  for (int i = 0; i < loaded.n; i++) n_set += loaded.entry[i].is_set;
  curvd_status status = check_together(&loaded, &err);
  if (status == CURVD_OK)
    printf("%s: ok (%d value%s set)\n", loaded.file[0] != '\0' ? loaded.file : "command line", n_set,
           n_set == 1 ? "" : "s");
  config_free(&loaded);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}
