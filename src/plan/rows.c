#include "plan/rows.h"

#include "base/order.h"

#include <math.h>

/* Choosing takes about 30 ns a row, as its outer product does at n = 64 (and 130 Gflop/s). */
enum { PIECE_ROWS = 1 << 18, DRAWN_MIN = 256, DRAWN_MIN_N = 64 };
static const double SHARE = 0.1; /* of 6 T n other flops an example; a row costs n^2 */

int64_t cv_rows_piece(const cv_rows_rule *rule) {
  return cv_larger(PIECE_ROWS / cv_larger(rule->positions, 1), 1);
}

int64_t cv_rows_drawn(const cv_rows_rule *rule, int64_t examples) {
  bool is_conv = rule->positions > 0;
  int64_t rows = is_conv && !rule->is_reduced ? examples * rule->positions : examples;
  if (rule->sample_rows == CV_ROWS_ALL || (is_conv && rule->is_reduced)) return rows;
  if (rule->sample_rows > 0) return cv_smaller(rows, rule->sample_rows);
  if (!is_conv || rule->n < DRAWN_MIN_N) return rows;
  double drawn = ceil(6 * SHARE * (double)rows * (double)rule->other / (double)rule->n);
  return drawn < (double)rows ? cv_smaller(rows, cv_larger((int64_t)drawn, DRAWN_MIN)) : rows;
}

int64_t cv_rows_captured(const cv_rows_rule *rule, int64_t examples) {
  int64_t piece = cv_rows_piece(rule);
  if (rule->positions == 0) return cv_rows_drawn(rule, examples);
  return examples / piece * cv_rows_drawn(rule, piece) + cv_rows_drawn(rule, examples % piece);
}

/* A fully connected layer may be captured several times in a step, each time with rows of its own. */
int64_t cv_rows_room(const cv_rows_rule *rule, int64_t capture_rows) {
  return rule->positions > 0 ? cv_rows_captured(rule, capture_rows) : capture_rows;
}
