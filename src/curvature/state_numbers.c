/* Numbers of structs as fp64, in the order of the tables below: whole numbers up to 2^53 come through unchanged. */
#include "curvature/carrier.h"
#include "curvature/state.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { NUMBERS_MAX = 32 };

typedef enum number_kind { WHOLE, REAL, FLAG } number_kind;

typedef struct number {
  size_t at;
  number_kind kind;
} number;

static const number of_state[] = {
    {offsetof(cv_factor_state, is_new), WHOLE},     {offsetof(cv_factor_state, kind), WHOLE},
    {offsetof(cv_factor_state, r), WHOLE},          {offsetof(cv_factor_state, statistics_step), WHOLE},
    {offsetof(cv_factor_state, refused), WHOLE},    {offsetof(cv_factor_state, products), WHOLE},
    {offsetof(cv_factor_state, precision), WHOLE},  {offsetof(cv_factor_state, rows), WHOLE},
    {offsetof(cv_factor_state, trace), REAL},       {offsetof(cv_factor_state, lambda_max), REAL},
    {offsetof(cv_factor_state, lambda_min), REAL},  {offsetof(cv_factor_state, tau), REAL},
    {offsetof(cv_factor_state, kept_sum), REAL},    {offsetof(cv_factor_state, missing_trace), REAL},
    {offsetof(cv_factor_state, error_bound), REAL}, {offsetof(cv_factor_state, error_norm), REAL},
    {offsetof(cv_factor_state, residual), REAL},    {offsetof(cv_factor_state, orthogonality), REAL},
    {offsetof(cv_factor_state, drift), REAL},       {offsetof(cv_factor_state, extra_damping), REAL},
    {offsetof(cv_factor_state, wire_error), REAL},
};

/* Apart: two runs that are the same have other ones. */
static const number of_clock[] = {
    {offsetof(cv_factor_state, seconds), REAL},
    {offsetof(cv_factor_state, work_s), REAL},
};

static const number of_owned[] = {
    {offsetof(cv_owned, weight), REAL},
    {offsetof(cv_owned, updates), WHOLE},
    {offsetof(cv_owned, stream.trace), REAL},
    {offsetof(cv_owned, is_reseed_due), FLAG},
    {offsetof(cv_owned, reseed_step), WHOLE},
    {offsetof(cv_owned, has_absorbed), FLAG},
    {offsetof(cv_owned, window.rows), WHOLE},
    {offsetof(cv_owned, window.weight), REAL},
    {offsetof(cv_owned, window.is_whole), FLAG},
    {offsetof(cv_owned, online.r), WHOLE},
    {offsetof(cv_owned, online.trace), REAL},
    {offsetof(cv_owned, online.error_bound), REAL},
    {offsetof(cv_owned, online.is_corrected), FLAG},
    {offsetof(cv_owned, refreshes), WHOLE},
    {offsetof(cv_owned, eig_rank), WHOLE},
    {offsetof(cv_owned, finer_left), WHOLE},
    {offsetof(cv_owned, finer_last), WHOLE},
    {offsetof(cv_owned, finer), WHOLE},
    {offsetof(cv_owned, last.found), WHOLE},
    {offsetof(cv_owned, last.kept), WHOLE},
    {offsetof(cv_owned, last.trace), REAL},
    {offsetof(cv_owned, last.missing_trace), REAL},
    {offsetof(cv_owned, last.tau), REAL},
    {offsetof(cv_owned, last.error_bound), REAL},
    {offsetof(cv_owned, last.error_norm), REAL},
    {offsetof(cv_owned, last.norm), REAL},
    {offsetof(cv_owned, last.rounding), REAL},
    {offsetof(cv_owned, last.residual), REAL},
    {offsetof(cv_owned, last.orthogonality), REAL},
    {offsetof(cv_owned, last.drift), REAL},
    {offsetof(cv_owned, last.products), WHOLE},
    {offsetof(cv_owned, last.replaced), WHOLE},
};

enum {
  STATE_NUMBERS = sizeof of_state / sizeof of_state[0],
  CLOCK_NUMBERS = sizeof of_clock / sizeof of_clock[0],
  OWNED_NUMBERS = sizeof of_owned / sizeof of_owned[0]
};
_Static_assert((int)STATE_NUMBERS <= (int)NUMBERS_MAX && (int)OWNED_NUMBERS <= (int)NUMBERS_MAX, "room for a table");

static void get(const void *from, const number *table, int n, double *x) {
  for (int i = 0; i < n; i++) {
    const char *at = (const char *)from + table[i].at;
    int64_t whole;
    bool flag;
    switch (table[i].kind) {
    case WHOLE:
      memcpy(&whole, at, sizeof whole);
      x[i] = (double)whole;
      break;
    case FLAG:
      memcpy(&flag, at, sizeof flag);
      x[i] = flag;
      break;
    case REAL:
      memcpy(&x[i], at, sizeof x[i]);
      break;
    }
  }
}

/* Whole numbers that are none have no business in a size. */
static bool is_sound(const number *table, int n, const double *x) {
  const double most = 9007199254740992.0; /* 2^53 */
  for (int i = 0; i < n; i++) {
    if (table[i].kind == WHOLE && !(fabs(x[i]) <= most && x[i] == floor(x[i]))) return false;
    if (table[i].kind == FLAG && x[i] != 0 && x[i] != 1) return false;
  }
  return true;
}

static void set(void *to, const number *table, int n, const double *x) {
  for (int i = 0; i < n; i++) {
    char *at = (char *)to + table[i].at;
    int64_t whole = table[i].kind == REAL ? 0 : (int64_t)x[i];
    bool flag = whole != 0;
    switch (table[i].kind) {
    case WHOLE:
      memcpy(at, &whole, sizeof whole);
      break;
    case FLAG:
      memcpy(at, &flag, sizeof flag);
      break;
    case REAL:
      memcpy(at, &x[i], sizeof x[i]);
      break;
    }
  }
}

static curvd_status refuse(const cv_walk *walk, const char *name) {
  return cv_fail(
      &walk->ctx->error, CURVD_ERR_DATA,
      "the numbers curvature.%s.%s.%s were not saved from such a factor: load the state of this network with "
      "the options that it was saved with",
      walk->layer, walk->part, name);
}

/* What may follow a factor's state: nothing that is larger than its room. */
static bool fits(const cv_walk *walk, const cv_factor *factor, const cv_factor_state *s) {
  bool is_inverse = cv_settings_of(walk->ctx)->form == CV_FORM_CHOLESKY, is_unit = factor->carrier == &cv_carrier_units;
  switch (s->kind) {
  case CV_KIND_IDENTITY:
    return s->r == 0;
  case CV_KIND_EIGEN:
    return !is_inverse && !is_unit && s->r >= 0 && s->r <= s->rows && s->rows <= factor->k_max;
  case CV_KIND_INVERSE:
    return is_inverse && !is_unit && s->r == factor->n;
  case CV_KIND_UNITS:
    return is_unit && s->r == factor->n;
  default:
    return false;
  }
}

static bool owned_fits(const cv_factor *factor, const cv_owned *own) {
  int64_t k = factor->k_max;
  return own->updates >= 0 && own->last.found >= 0 && own->last.found <= k && own->last.kept >= 0 &&
         own->last.kept <= own->last.found && own->online.r >= 0 && own->online.r <= k && own->eig_rank >= 0 &&
         own->eig_rank <= k && own->window.rows >= 0 && own->window.rows <= own->window.room;
}

/* A struct's numbers of one table, both ways. */
static curvd_status walk_table(const cv_walk *walk, const char *name, const number *table, int n, void *of) {
  double x[NUMBERS_MAX];
  get(of, table, n, x);
  CV_TRY(cv_walk_numbers(walk, name, x, n));
  if (!walk->is_load) return CURVD_OK;
  if (!is_sound(table, n, x)) return refuse(walk, name);
  set(of, table, n, x);
  return CURVD_OK;
}

curvd_status cv_walk_factor_state(const cv_walk *walk, const char *name, const cv_factor *factor,
                                  cv_factor_state *state) {
  cv_factor_state loaded = *state;
  char seconds[48];
  snprintf(seconds, sizeof seconds, "%s_seconds", name);
  CV_TRY(walk_table(walk, name, of_state, STATE_NUMBERS, &loaded));
  CV_TRY(walk_table(walk, seconds, of_clock, CLOCK_NUMBERS, &loaded));
  if (walk->is_load && !fits(walk, factor, &loaded)) return refuse(walk, name);
  *state = loaded;
  return CURVD_OK;
}

curvd_status cv_walk_owned(const cv_walk *walk, cv_factor *factor) {
  static const char name[] = "owner";
  cv_owned loaded = factor->own;
  CV_TRY(walk_table(walk, name, of_owned, OWNED_NUMBERS, &loaded));
  CV_TRY(cv_walk_factor_state(walk, "owner_state", factor, &loaded.fresh));
  if (walk->is_load && !owned_fits(factor, &loaded)) return refuse(walk, name);
  factor->own = loaded;
  return CURVD_OK;
}
