/* How many rows a worker's statistic is made of. A fully connected layer has one for each captured example; a
 * convolution one for each of its T output pixels of each example, and so many of them that they are drawn from
 * (linalg/thin.h). One rule for the run and for what is predicted of it. */
#ifndef CV_PLAN_ROWS_H
#define CV_PLAN_ROWS_H

#include <stdbool.h>
#include <stdint.h>

/* Values of the option sample_rows beside a number of rows. */
enum { CV_ROWS_AUTO = -1, CV_ROWS_ALL = 0 };

/* Rows up to here are safe in every kernel (dense.h), and patches are written so many at a time: from 128 to 1024 their
 * products take the same time within 5 % (n 289 to 2305), and 256 of them stay in a cache of 2 MB up to n = 2000. */
#define CV_ROWS_MAX ((int64_t)1 << 30)
enum { CV_ROWS_TILE = 256 };

/* A factor of size n, of a layer whose other factor is of size `other`. positions: T, or 0 of a fully connected layer.
 * is_reduced: the T rows of an example are reduced to one first (weight_sharing reduce). */
typedef struct cv_rows_rule {
  int64_t sample_rows; /* the option */
  int64_t n, other, positions;
  bool is_reduced;
} cv_rows_rule;

/* Examples whose rows are drawn from at once: as many as have 2^18 rows, at least one. */
int64_t cv_rows_piece(const cv_rows_rule *rule);

/* Rows in the statistic of a piece, or of a fully connected layer's capture. auto: so many that their outer products
 * take a tenth of the flops of the layer's own products for these examples (6 T n other each), or 256, if there are as
 * many; and all of them below n = 64, where drawing takes longer than it saves. */
int64_t cv_rows_drawn(const cv_rows_rule *rule, int64_t examples);

/* Of a capture, piece by piece; and the most that there is room for where rows are kept, which is for one capture of so
 * many examples. */
int64_t cv_rows_captured(const cv_rows_rule *rule, int64_t examples);
int64_t cv_rows_room(const cv_rows_rule *rule, int64_t capture_rows);

#endif
