/* Lines of bench/scale, one a run, and the points that repeated runs make. */
#ifndef PAGE_SCALING_H
#define PAGE_SCALING_H

#include "page/interval.h"
#include "page/jsonl.h"

enum { SCALING_TEXT_MAX = 96, SCALING_LINES_MAX = 1 << 20 };

/* What has to agree for runs to be one point. */
typedef struct scaling_key {
  char kind[SCALING_TEXT_MAX]; /* strong, weak, curvature */
  char method[SCALING_TEXT_MAX], network[SCALING_TEXT_MAX];
  char lr[SCALING_TEXT_MAX];     /* "": the program's own, or an older line */
  char length[SCALING_TEXT_MAX]; /* as asked for; of older lines the steps that were done, "" where they had a target */
  const char *options;           /* words for curvd train, of any length; "": none, or an older line */
  int64_t ranks, workers, curvature_ranks, hosts, threads, batch;
  double target; /* percent; 0: none was asked for */
} scaling_key;

/* What is measured of a run; NaN: it was not. */
typedef enum scaling_measure {
  SCALING_STEP_S, /* mean of its steps: a median one would be without a refresh */
  SCALING_TARGET_S,
  SCALING_PREDICTED_S,
  SCALING_WAIT,
  SCALING_CORE_S,
  SCALING_ACCURACY,
  SCALING_LOSS,
  SCALING_MEASURES
} scaling_measure;

typedef struct scaling_line {
  scaling_key key;
  json_t *options; /* what key.options is of; may be NULL */
  double measure[SCALING_MEASURES];
} scaling_line;

typedef struct scaling_point {
  scaling_key key;
  int64_t n_runs;
  interval measure[SCALING_MEASURES];
} scaling_point;

typedef struct scaling {
  scaling_line *line;
  int64_t n_lines, room;
  scaling_point *point; /* made by scaling_points, whose keys need the lines: by kind, network, options, target, length,
                           method, lr, threads, then ranks, curvature ranks, batch, hosts */
  int64_t n_points;
  json_t *environment;           /* of the first line that has one; NULL: none */
  bool is_cut, has_environments; /* lines differ in their environment */
} scaling;

/* Appends the lines of n bytes; those of other benchmarks are passed over. DATA: "name:line: ..."; what was there
 * stays, for scaling_free. MEMORY. */
curvd_status scaling_parse(const char *bytes, int64_t n, const char *name, scaling *s, cv_error *err);

/* Makes the points of all lines. MEMORY. */
curvd_status scaling_points(scaling *s, cv_error *err);
void scaling_free(scaling *s);

/* Examples that a rank of n takes a second, over those of base's n_base ranks: 1 is ideal. Of strong scaling T(1) / (n
 * T(n)), of weak scaling T(1) / T(n), where base has one rank. */
double scaling_efficiency(const scaling_point *point, double n, const scaling_point *base, double n_base);

#endif
