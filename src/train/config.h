/* The resolved configuration of the program: one table of options (config.c) plus the library's own options,
 * from defaults < YAML file < environment (CURVD_NAME) < flags (--name). No MPI in here. */
#ifndef TRAIN_CONFIG_H
#define TRAIN_CONFIG_H

#include "base/options.h"

#include "curvd.h"

#include <stdbool.h>

/* Positions in the options' lists of words. */
typedef enum train_optimizer { TRAIN_OPTIMIZER_AUTO, TRAIN_SGD, TRAIN_ADAMW } train_optimizer;
typedef enum train_norm { TRAIN_NORM_LOCAL, TRAIN_NORM_ALL } train_norm;
typedef enum train_augment { TRAIN_AUGMENT_NONE, TRAIN_AUGMENT_CROP_FLIP } train_augment;
typedef enum train_failure { TRAIN_FAILURE_GO_ON, TRAIN_FAILURE_STOP } train_failure;
typedef enum train_nan { TRAIN_NAN_STOP, TRAIN_NAN_SKIP, TRAIN_NAN_ROLLBACK } train_nan;
typedef enum train_damage { TRAIN_DAMAGE_STOP, TRAIN_DAMAGE_ROLLBACK } train_damage;
typedef enum train_method {
  TRAIN_METHOD_SGD,
  TRAIN_METHOD_ADAMW,
  TRAIN_METHOD_KFAC,
  TRAIN_METHOD_RS_KFAC,
  TRAIN_METHOD_SRE_KFAC,
  TRAIN_METHOD_NYSTROM_KFAC,
  TRAIN_METHOD_B_KFAC,
  TRAIN_METHOD_B_R_KFAC,
  TRAIN_METHOD_B_R_C_KFAC
} train_method;

/* Values of the program's own table; see `curvd options` for meaning, units and ranges. */
typedef struct train_config {
  int32_t method;                   /* train_method */
  char data[CV_OPTION_TEXT_MAX];    /* "fashion-mnist", "teacher", or a folder with idx(.gz), npy or .bin files */
  int64_t teacher_samples;          /* size of the synthetic data set */
  char network[CV_OPTION_TEXT_MAX]; /* "784-1000-1000-10", "autoencoder", widths with ":activation" per layer */
  int32_t norm_statistics;          /* train_norm */
  int32_t kernels;                  /* auto, plain, onednn */
  int32_t train_precision;          /* cv_precision */
  int32_t activation;               /* nn_activation_kind of the hidden layers */
  int32_t loss;                     /* nn_loss_kind, or 0: auto */
  int32_t init;                     /* auto, he, xavier */
  int64_t batch;                    /* global examples per step */
  int64_t accumulate;               /* pieces that each worker's share of the batch, or the batch, is cut into */
  double epochs;
  int64_t steps;     /* > 0: stop after so many steps instead */
  int32_t optimizer; /* train_optimizer: what applies the direction */
  cv_schedule lr;    /* 0: auto */
  int32_t lr_decay;  /* constant, linear, cosine */
  int64_t lr_warmup_steps;
  double sgd_momentum;       /* after preconditioning; -1: auto */
  double weight_decay;       /* -1: auto */
  int32_t weight_decay_kind; /* decoupled, coupled (before preconditioning), coupled-after */
  int32_t fisher;            /* empirical, sampled */
  int64_t fisher_stride;     /* statistics from every so many-th example */
  int64_t curvature_ranks;   /* -1: auto */
  int64_t validation_images; /* taken from the end of the training images and evaluated instead of the test images */
  int32_t augment;           /* train_augment */
  int64_t augment_pad;       /* pixels */
  double eval_every;         /* epochs */
  double target_accuracy;    /* percent; 0: none */
  int64_t log_every;         /* steps */
  int64_t checkpoint_steps;  /* 0: not by steps */
  double checkpoint_minutes; /* 0: not by time */
  int64_t checkpoint_keep;
  int32_t checkpoint_failure;       /* train_failure */
  char resume[CV_OPTION_TEXT_MAX];  /* "no", "auto", or a folder */
  double time_budget;               /* seconds; 0: none */
  int32_t nan;                      /* train_nan */
  int32_t damage;                   /* train_damage */
  int64_t check_steps;              /* 0: never */
  char inject[CV_OPTION_TEXT_MAX];  /* faults (inject.h) */
  char run_dir[CV_OPTION_TEXT_MAX]; /* "auto": runs/<date>-<method>-s<seed> */
  int64_t seed;
  int64_t blas_threads; /* per rank */
  double hang_timeout;  /* seconds; 0: no watchdog */
} train_config;

/* One option, of the program or of the library. */
typedef struct config_entry {
  const char *name;
  curvd_option_info info; /* type, group, unit, range, default, meaning */
  char range[160];        /* info.range of the program's rows */
  char text[CV_OPTION_TEXT_MAX];
  char origin[CV_OPTION_TEXT_MAX]; /* "default", "recipe", "run.yaml:14", "environment", "--lr", "--lr: auto -> 0.1" */
  bool is_library;                 /* handed on through curvd_set */
  bool is_set;                     /* by file, environment or flag */
} config_entry;

/* Options that both tables have (method, seed, curvature_ranks) are listed once, as the program's: the program hands
 * the resolved value on. The library's grad_reduction, loss_reduction, steps_per_epoch, momentum_place and dry_run are
 * not listed: they describe what the program hands over, so it sets them itself. */
typedef struct config {
  train_config values;
  config_entry *entry; /* n of them, in the order of help: group by group */
  int n;
  char method[32];                   /* the option's word */
  char file[CV_OPTION_TEXT_MAX];     /* of --config, "" without */
  char run_file[CV_OPTION_TEXT_MAX]; /* of the run that --resume names; counts without --config */
} config;

/* Every option at its default, whatever file, environment and flags say. */
curvd_status config_defaults(config *config, cv_error *err);

/* Reads file (--config FILE), environment and flags; argv are the words after the command. Switches: --name, --no-name.
 * CURVD_ERR_OPTION (also for a malformed file), CURVD_ERR_IO: one sentence with file:line:column or flag and the
 * nearest known name. *config is empty then and needs no config_free. */
curvd_status config_load(int argc, char *const *argv, config *config, cv_error *err);

/* The same from the bytes of a file of this name and flags, without the environment; --config is passed over. */
curvd_status config_parse(const char *bytes, size_t n_bytes, const char *file, int argc, char *const *argv,
                          config *config, cv_error *err);
void config_free(config *config);

/* Text of a value in force; NULL for an unknown name. */
const char *config_text(const config *config, const char *name);

/* Replaces an automatic value by what it resolved to (keeps "auto -> " in the origin); a library value that nobody set
 * by what the recipe implies (origin "recipe"). */
curvd_status config_resolve(config *config, const char *name, const char *text, cv_error *err);

/* Writes the configuration as YAML that config_load reads back; with_origins: each line ends with "# origin". Library
 * options at their default stand as comments: setting them would override the recipe. Returns CURVD_OK. */
curvd_status config_write(const config *config, void (*line)(void *user, const char *text), void *user,
                          bool with_origins);

#endif
