/* The service with streams (linalg/stream.h), emulated in dense fp64 from its description: estimates are whole (n, n)
 * matrices, and a history is expressed anew whenever the test matrix of the coming statistic is another one.
 *
 *   estimate     M^ = N + tau (I - Omega^T Omega),  N = Y^T (Omega Y^T)^-1 Y,  tau = (trace - tr N) / (n - k)
 *   statistic    of step t is sketched by the seed that had landed before step t; keep Y + add Omega S
 *   refresh      its seed is the k leading eigenvectors of N, its preconditioner r of them and their mean tail
 *
 * A refresh of step t lands on workers in step t + staleness, behind that step's captures. An owner that gets rows
 * (carrier columns) sketches with the last refresh's seed. Factors too small for a stream keep their average. */
#ifndef TESTS_STREAM_EMULATION_H
#define TESTS_STREAM_EMULATION_H

#include "carrier_fixture.h"

enum { EMU_STEPS = 32, EMU_COLD = -1 };

typedef struct emu_case {
  const char *average; /* of kfac_reference.h; not zero */
  double decay, damping;
  int statistics, refreshes, staleness; /* steps */
  int change, refreshes_then;           /* from step change on, the interval of refreshes is another; 0: never */
  bool has_rows;                        /* carrier columns */
  int64_t r, k;
  double missing; /* adaptive rank: the fewest pairs from r_min to r that leave no more of the trace; 0: r */
  int64_t r_min;
  int failing_step; /* in which no decomposition of a stream succeeds; 0: none */
} emu_case;

/* What a refresh of one step made; kind none: nothing. */
typedef enum emu_kind { EMU_NONE, EMU_IDENTITY, EMU_MATRIX } emu_kind;

typedef struct emu_refresh {
  emu_kind kind;
  bool has_seed;
  dense seed, P; /* (k, n), (n, n) */
  int64_t r;     /* pairs of a stream */
  double margin; /* distance of the share of the trace that is missing from the one that was allowed, at least */
} emu_refresh;

typedef struct emu_factor {
  bool is_stream;
  dense Omega, Y; /* (k, n) */
  dense M;        /* (n, n) of a factor that is no stream */
  double trace;
  int updates, version; /* step of the refresh that made Omega */
  int lost;             /* statistics that came when the history could not move */
  emu_refresh made[EMU_STEPS];
} emu_factor;

/* Omega: the rows of the service's cold start. */
static inline void emu_begin(const emu_case *c, int64_t n, const float *Omega, int64_t ld, emu_factor *e) {
  memset(e, 0, sizeof *e);
  e->is_stream = Omega != NULL;
  e->version = EMU_COLD;
  e->M = dense_zero(n, n);
  if (!Omega) return;
  e->Omega = e->Y = dense_zero(c->k, n);
  for (int64_t i = 0; i < c->k; i++) {
    for (int64_t j = 0; j < n; j++) e->Omega.x[i][j] = Omega[i * ld + j];
  }
}

static inline dense emu_nystrom(const emu_factor *e) {
  if (!(e->trace > 0)) return dense_zero(e->Y.n, e->Y.n);
  dense core = dense_product(e->Omega, dense_transposed(e->Y));
  return dense_product(dense_transposed(e->Y), dense_solve(core, e->Y));
}

/* X + tau (I - B^T B) with the tau that gives it the trace */
static inline dense emu_with_tail(dense X, double trace, dense B) {
  double tau = (trace - dense_trace(X)) / (double)(B.n - B.m);
  dense rest = dense_sum(1, dense_identity(B.n), -1, dense_product(dense_transposed(B), B));
  return dense_sum(1, X, tau, rest);
}

/* The last refresh before step `before` with a seed; EMU_COLD without. */
static inline int emu_seed_before(const emu_factor *e, int before) {
  int t = before - 1;
  while (t >= 0 && !e->made[t].has_seed) t--;
  return t >= 0 ? t : EMU_COLD;
}

/* The history on the seed in use in a step; false: it had to be decomposed for that, and could not. */
static inline bool emu_change_seed(const emu_case *c, emu_factor *e, int step) {
  int version = emu_seed_before(e, c->has_rows ? step : step - c->staleness);
  if (version == e->version) return true;
  bool has_absorbed = !c->has_rows && c->statistics > 0 && (version / c->statistics + 1) * c->statistics < step &&
                      (version / c->statistics + 1) * c->statistics <= version + c->staleness;
  if (c->failing_step > 0 && step == c->failing_step && has_absorbed) return false;
  dense seed = e->made[version].seed;
  e->Y = dense_product(seed, emu_with_tail(emu_nystrom(e), e->trace, e->Omega));
  e->Omega = seed;
  e->version = version;
  return true;
}

static inline void emu_weights(const emu_case *c, int k, double *keep, double *add) {
  kfac_case average = {.average = c->average, .decay = c->decay};
  *add = kfac_weight(&average, k - 1, k);
  *keep = c->decay == 0 ? 0 : c->decay;
  if (k > 1 && c->decay > 0) *keep = kfac_weight(&average, 0, k) / kfac_weight(&average, 0, k - 1);
}

static inline void emu_absorb(const emu_case *c, emu_factor *e, int step, dense S) {
  double keep, add;
  if (e->is_stream && !emu_change_seed(c, e, step)) {
    e->lost++;
    return;
  }
  if (e->updates == 0 && kfac_is(c->average, "id")) {
    e->Y = e->Omega, e->trace = (double)S.n, e->M = dense_identity(S.n);
  }
  emu_weights(c, ++e->updates, &keep, &add);
  if (e->is_stream) e->Y = dense_sum(keep, e->Y, add, dense_product(e->Omega, S));
  if (!e->is_stream) e->M = dense_sum(keep, e->M, add, S);
  e->trace = keep * e->trace + add * dense_trace(S);
}

/* Rows 0 .. k - 1 are the leading eigenvectors. */
static inline dense emu_leading(const dense_eigen *eigen, int64_t k) {
  dense U = dense_transposed(eigen->V);
  U.m = k;
  return U;
}

static inline dense emu_truncated(dense_eigen eigen, int64_t r, double trace) {
  for (int64_t i = r; i < eigen.V.n; i++) eigen.w[i] = 0;
  return emu_with_tail(dense_composed(&eigen), trace, emu_leading(&eigen, r));
}

static inline void emu_choose_rank(const emu_case *c, const dense_eigen *eigen, double trace, emu_refresh *made) {
  double rest = trace;
  made->r = c->missing > 0 ? 0 : c->r;
  made->margin = 1;
  for (bool is_enough = c->missing == 0; !is_enough;) {
    double share = rest / trace;
    if (made->r >= c->r_min) made->margin = fmin(made->margin, fabs(share - c->missing));
    is_enough = made->r == c->r || (made->r >= c->r_min && share <= c->missing);
    if (!is_enough) rest -= eigen->w[made->r++];
  }
}

static inline void emu_refresh_one(const emu_case *c, emu_factor *e, int step) {
  emu_refresh *made = &e->made[step];
  if (e->updates == 0) return;
  if (!(e->trace > 0)) {
    made->kind = EMU_IDENTITY;
    return;
  }
  if (!e->is_stream) {
    made->kind = EMU_MATRIX;
    made->P = e->M;
    return;
  }
  if (!emu_change_seed(c, e, step) || (c->failing_step > 0 && step == c->failing_step)) return;
  dense_eigen eigen = dense_eig(emu_nystrom(e));
  *made = (emu_refresh){EMU_MATRIX, true, .seed = emu_leading(&eigen, c->k)};
  emu_choose_rank(c, &eigen, e->trace, made);
  made->P = emu_truncated(eigen, made->r, e->trace);
}

static inline bool emu_is_refresh(const emu_case *c, int step) {
  return step % (c->change > 0 && step >= c->change ? c->refreshes_then : c->refreshes) == 0;
}

/* What the workers use in a step. */
static inline const emu_refresh *emu_in_force(const emu_case *c, const emu_factor *e, int step) {
  static const emu_refresh none = {.kind = EMU_NONE};
  int t = step - c->staleness;
  while (t >= 0 && e->made[t].kind == EMU_NONE) t--;
  return t >= 0 ? &e->made[t] : &none;
}

/* M^-1 damped by a share of the mean eigenvalue. */
static inline dense emu_inverse(const emu_case *c, const emu_refresh *R, int64_t n) {
  if (R->kind != EMU_MATRIX) return dense_identity(n);
  return dense_inverse_power(R->P, c->damping * dense_trace(R->P) / (double)n, 1);
}

static inline dense emu_direction(const emu_case *c, const emu_factor *A, const emu_factor *G, int step, dense V) {
  dense left = dense_product(emu_inverse(c, emu_in_force(c, G, step), V.m), V);
  return dense_product(left, emu_inverse(c, emu_in_force(c, A, step), V.n));
}

/* One step of all layers; V: the directions. Statistics are those of the global batch. */
static inline void emu_step(const emu_case *c, const carrier_run *run, emu_factor (*e)[CV_FACTORS], int step,
                            dense *V) {
  for (int l = 0; l < RUN_LAYERS; l++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      bool is_refused = run->bad_step > 0 && step == run->bad_step && l == CARRIER_BAD_LAYER && f == CV_A;
      if (step % c->statistics == 0 && !is_refused)
        emu_absorb(c, &e[l][f], step, carrier_statistic(run, step, l, f, 0, run->base.rows));
      if (emu_is_refresh(c, step)) emu_refresh_one(c, &e[l][f], step);
    }
    V[l] = emu_direction(c, &e[l][CV_A], &e[l][CV_G], step, run_gradient(step, l, 0, run->base.rows));
  }
}

#endif
