/* Who owns which layer: a pure function of layer sizes and owner count. No MPI, no BLAS. */
#ifndef CV_CURVATURE_PLANNER_H
#define CV_CURVATURE_PLANNER_H

#include <stdbool.h>
#include <stdint.h>

/* Flops of one refresh of a factor of size n: exact (9 n^3), or randomized with k columns and q further products
 * (2 n^2 k (q + 1) + 10 n k^2 + 9 k^3). Both in one unit, so loads compare. */
double cv_plan_refresh_flops(int64_t n, int64_t k, int64_t q, bool is_exact);

/* Longest processing time first: layers by falling cost, each to the least loaded owner (the lowest number of equals).
 * owner[i] in [0, n_owners); load[o]: sum of costs. order: scratch of n. At most 4/3 of the optimum (Graham 1969). */
void cv_plan_owners(const double *cost, int32_t n, int32_t n_owners, int32_t *owner, double *load, int32_t *order);

/* Of a product Y (k, n) = Q M over the ranks of a grid of one column: is one gather of Q with a local product faster
 * than ScaLAPACK's? By seconds that cv_plan_product_seconds expects. */
typedef enum cv_plan_product { CV_PLAN_SCALAPACK, CV_PLAN_SLAB } cv_plan_product;
double cv_plan_product_seconds(cv_plan_product how, int64_t n, int64_t k, int64_t ranks);
bool cv_plan_slab_is_faster(int64_t n, int64_t k, int64_t ranks);

#endif
