/* The library's options: one table (settings.c), their values, and the recipes that fill what the caller left open. */
#ifndef CV_CURVATURE_SETTINGS_H
#define CV_CURVATURE_SETTINGS_H

#include "base/options.h"

#include <stdbool.h>

typedef enum cv_method_kind {
  CV_METHOD_NONE,
  CV_METHOD_KFAC,
  CV_METHOD_RS,
  CV_METHOD_SRE,
  CV_METHOD_NYSTROM,
  CV_METHOD_B,
  CV_METHOD_BR,
  CV_METHOD_BRC
} cv_method_kind;
typedef enum cv_recipe { CV_RECIPE_NORMALISED, CV_RECIPE_PUBLISHED } cv_recipe;
typedef enum cv_average {
  CV_AVERAGE_NORM,
  CV_AVERAGE_ID,
  CV_AVERAGE_ZERO,
  CV_AVERAGE_FIRST,
  CV_AVERAGE_MG,
  CV_AVERAGE_SUM
} cv_average;
typedef enum cv_damping_mode {
  CV_DAMPING_RELATIVE_MEAN, /* damping * trace / n on each factor */
  CV_DAMPING_RELATIVE_MAX,  /* damping * largest eigenvalue on each factor */
  CV_DAMPING_PRODUCT_MAX,   /* damping * product of the largest eigenvalues on the product */
  CV_DAMPING_PI,            /* factored Tikhonov with the trace-norm pi */
  CV_DAMPING_SCALAR         /* damping on the product: exact Tikhonov in the eigenbasis */
} cv_damping_mode;
typedef enum cv_form { CV_FORM_EIGEN, CV_FORM_CHOLESKY } cv_form;
typedef enum cv_step_kind {
  CV_STEP_NORMALISED,
  CV_STEP_KL_CLIP,
  CV_STEP_NORM_CONSTRAINT,
  CV_STEP_RMS_CLIP,
  CV_STEP_PLAIN
} cv_step_kind;
typedef enum cv_grad_reduction { CV_GRAD_SUM, CV_GRAD_MEAN, CV_GRAD_NONE } cv_grad_reduction;
typedef enum cv_loss_reduction { CV_LOSS_SUM, CV_LOSS_MEAN } cv_loss_reduction;
typedef enum cv_momentum_place { CV_MOMENTUM_STEP, CV_MOMENTUM_CALLER } cv_momentum_place;
typedef enum cv_range_finder { CV_RANGE_POWER, CV_RANGE_KRYLOV } cv_range_finder;
typedef enum cv_apply { CV_APPLY_AUTO, CV_APPLY_REPLICATED, CV_APPLY_SHARDED, CV_APPLY_FACTORED } cv_apply;
typedef enum cv_carrier_kind {
  CV_CARRY_AUTO,
  CV_CARRY_TRIANGLE,
  CV_CARRY_SKETCH,
  CV_CARRY_COLUMNS,
  CV_CARRY_LOCAL
} cv_carrier_kind;
typedef enum cv_route_kind { CV_ROUTE_AUTO, CV_ROUTE_OWNER, CV_ROUTE_GRADIENTS } cv_route_kind;
typedef enum cv_progress_choice { CV_PROGRESS_AUTO, CV_PROGRESS_TEST, CV_PROGRESS_THREAD } cv_progress_choice;
typedef enum cv_store_kind { CV_STORE_AUTO, CV_STORE_FULL, CV_STORE_STREAM } cv_store_kind;
typedef enum cv_sharing { CV_SHARING_KFC, CV_SHARING_PUBLISHED, CV_SHARING_EXPAND, CV_SHARING_REDUCE } cv_sharing;
enum { CV_STALENESS_FREE = -1 };
typedef enum cv_integrity { CV_INTEGRITY_OFF, CV_INTEGRITY_TRANSFERS, CV_INTEGRITY_ALL } cv_integrity;
typedef enum cv_grid_product { CV_PRODUCT_AUTO, CV_PRODUCT_SCALAPACK, CV_PRODUCT_SLAB } cv_grid_product;

typedef struct cv_settings {
  int32_t method, recipe;
  int64_t seed, curvature_ranks;
  int32_t grad_reduction, loss_reduction;
  double steps_per_epoch;
  char skip[CV_OPTION_TEXT_MAX];
  cv_schedule factor_update_steps, inv_update_steps;
  int64_t staleness, staleness_max, rebalance_steps;
  int32_t carrier, route, store;
  int32_t weight_sharing; /* cv_sharing */
  int64_t sample_rows;    /* as cv_rows_rule has it */
  int64_t window_rows, online_renew, online_correct;
  double online_share;
  int32_t progress, integrity;
  int32_t average;
  double factor_decay;
  cv_schedule damping;
  int32_t damping_mode, form;
  double pi_bound, exponent_a, exponent_g;
  cv_schedule eig_rank, oversampling, power_iters, warm_power_iters;
  int32_t orthonormalise; /* cv_orthonormalise */
  bool warm_start;
  int32_t tail; /* cv_tail */
  double full_share;
  int32_t range_finder;
  double missing_trace;
  int64_t eig_rank_min, eig_rank_max;
  double drift_max;
  int64_t drift_products;
  double skip_error;
  int64_t grid_min_n;
  int32_t grid_product;
  int64_t capture_rows;
  bool knows_rows; /* no option: capture_rows was set, so it is about what a worker captures in a step */
  bool dry_run;
  int32_t refresh_precision, statistics_precision, apply_precision, wire_precision; /* cv_precision */
  int32_t matrix_unit;
  int32_t step;
  double kl_clip, momentum;
  int32_t momentum_place, apply;
} cv_settings;

enum { CV_SETTINGS_MAX = 72 };
extern const cv_option cv_settings_table[];
extern const int cv_settings_count;

/* Values with their texts, row by row. */
typedef struct cv_settings_book {
  cv_settings values;
  char text[CV_SETTINGS_MAX][CV_OPTION_TEXT_MAX];
  bool is_set[CV_SETTINGS_MAX]; /* by the caller */
} cv_settings_book;

/* The momentum that the step itself applies. */
static inline double cv_momentum_here(const cv_settings *s) {
  return s->momentum_place == CV_MOMENTUM_STEP ? s->momentum : 0;
}

void cv_settings_init(cv_settings_book *book);

/* Row of key; OPTION: unknown, with the nearest name. */
curvd_status cv_settings_row(const char *key, int *row, cv_error *err);

/* Stores value in row; OPTION when it is out of range. */
curvd_status cv_settings_set(cv_settings_book *book, int row, const char *value, cv_error *err);

/* What a caller sets: both of the above, and noted. */
curvd_status cv_settings_put(cv_settings_book *book, const char *key, const char *value, cv_error *err);

/* Is the method one of online updates? */
bool cv_is_online(const cv_settings *s);

/* May workers sketch statistics themselves? */
bool cv_can_sketch_on_workers(const cv_settings *s);

/* Steps from a refresh to the one in which it lands, below 0 when that is not known: factored layers have been
 * preconditioned when the refresh of a step without staleness comes. */
int64_t cv_landing_age(const cv_settings *s);

/* Does the length of the step depend on <direction, gradient> (clip.c)? */
bool cv_clip_needs_dot(const cv_settings *s);

/* Further rows of a sketch of rank pairs, by the option's value. */
int64_t cv_oversampling(double setting, int64_t rank, bool is_stream);

/* Fills what the caller left open from recipe and method. OPTION: combinations that mean nothing. */
curvd_status cv_settings_resolve(cv_settings_book *book, cv_error *err);

/* Hash of all texts, and of which were set, for comparison over ranks. */
uint64_t cv_settings_hash(const cv_settings_book *book);

#endif
