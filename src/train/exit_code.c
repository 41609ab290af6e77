/* What the shell and the user are told of a failure. */
#include "train/commands.h"

int exit_code_of(curvd_status status) {
  switch (status) {
  case CURVD_OK:
    return EXIT_CODE_OK;
  case CURVD_ERR_OPTION:
  case CURVD_ERR_MISMATCH: /* the ranks were started with different options */
  case CURVD_ERR_SIZE:
    return EXIT_CODE_USAGE;
  case CURVD_ERR_IO:
  case CURVD_ERR_DATA:
    return EXIT_CODE_DATA;
  case CURVD_ERR_LAYOUT:
    return EXIT_CODE_LAYOUT;
  case CURVD_ERR_NUMERIC:
    return EXIT_CODE_NUMERIC;
  case CURVD_ERR_MEMORY:
    return EXIT_CODE_MEMORY;
  case CURVD_ERR_MPI:
    return EXIT_CODE_MPI;
  case CURVD_ERR_DAMAGE:
    return EXIT_CODE_DAMAGE;
  case CURVD_ERR_ARGUMENT:
  case CURVD_ERR_STATE:
  case CURVD_ERR_REMOTE:
    break;
  }
  return EXIT_CODE_INTERNAL;
}

int command_failed(const cv_error *err) {
  fprintf(stderr, "curvd: %s\n", err->text[0] != '\0' ? err->text : cv_status_text(err->code));
  return exit_code_of(err->code);
}
