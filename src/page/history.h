/* What a run has written into its metrics.jsonl (bench/README.md has the schema), as numbers over its steps. */
#ifndef PAGE_HISTORY_H
#define PAGE_HISTORY_H

#include "page/jsonl.h"
#include "page/series.h"

/* Columns of a history's series; the first is SERIES_STEP. */
enum { HISTORY_WALL = 1, HISTORY_CORE, HISTORY_LOSS, HISTORY_ACCURACY, HISTORY_EPOCH, HISTORY_WIDTH };
enum {
  FACTOR_N = 1,
  FACTOR_EIG_RANK,
  FACTOR_AGE,
  FACTOR_TRACE,
  FACTOR_LAMBDA_MAX,
  FACTOR_LAMBDA_MIN,
  FACTOR_TAU,
  FACTOR_MISSING,
  FACTOR_EFFECTIVE, /* trace / lambda_max: the effective rank, 1 to n */
  FACTOR_WIDTH
};

enum { HISTORY_NAME_MAX = 64, HISTORY_LAYERS_MAX = 4096 };

typedef struct history_layer {
  char name[HISTORY_NAME_MAX];
  series factor[2]; /* A and G; no rows: a layer that has one block has no G */
} history_layer;

/* All zeros: nothing. */
typedef struct history {
  json_t *run, *end; /* the last records of these kinds; NULL: none. A run that went on has not ended before */
  int64_t n_starts;  /* records of kind run: 1, more of a run that was resumed */
  bool is_cut;       /* the last line was cut off */
  series steps;      /* training loss; HISTORY_ACCURACY and HISTORY_EPOCH are NaN */
  series scores;     /* of the evaluations */
  history_layer *layer;
  int64_t n_layers, layers_room;
} history;

/* HISTORY_CORE: seconds of the processors that the run's ranks held until then, ranks times threads times wall clock of
 * each of its parts; a resumed part counts from the last record before it, as none says when it began. Records of other
 * kinds are passed over. DATA: "name:line: ..."; *h is empty then. MEMORY. */
curvd_status history_parse(const char *bytes, int64_t n, const char *name, history *h, cv_error *err);
void history_free(history *h);

#endif
