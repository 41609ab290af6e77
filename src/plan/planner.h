/* Who owns which layer: a pure function of layer sizes and owner count; and the machine that costs are told for. No
 * MPI, no BLAS. */
#ifndef CV_PLAN_PLANNER_H
#define CV_PLAN_PLANNER_H

#include <stdbool.h>
#include <stdint.h>

/* Most statistics on their way from a worker to one owner, as in link.c. */
enum { CV_PLAN_UP_SLOTS_MAX = 8 };

/* A path between two ranks: seconds until the first byte, and bytes a second behind it. */
typedef struct cv_plan_link {
  double latency_s, bytes_s;
} cv_plan_link;

/* Seconds of LAPACK's syevd with vectors at size k: square_s k^2 + cube_s k^3. */
typedef struct cv_plan_eig {
  double square_s, cube_s;
} cv_plan_eig;

/* Speed of one rank, one thread, fp32 unless a name says otherwise. */
typedef struct cv_plan_machine {
  double gemm_flops_s;          /* of a product, 2 flops a multiplication with addition */
  double syrk_flops_s;          /* of a sum of outer products, n (n + 1) flops a row of n */
  double copy_bytes_s;          /* bytes copied: each read once and written once */
  cv_plan_eig eig_f32, eig_f64; /* ssyevd, dsyevd */
  cv_plan_link within, between; /* two ranks on one node, on two nodes */
  int32_t ranks_per_node;
  double overlap; /* share of a transfer that goes on while its ranks compute, 0 .. 1 */
} cv_plan_machine;

/* Measured on one machine (2 cores of an AVX-512 Xeon, shared memory, transfers looked at every millisecond); between
 * nodes a network of 10 Gbit/s is assumed. Fixed, not measured at start: the same seed and layout take the same path.
 */
extern const cv_plan_machine cv_plan_machine_default;

/* Flops of one refresh of a factor of size n: exact (9 n^3), or randomized with k columns and q further products
 * (2 n^2 k (q + 1) + 10 n k^2 + 9 k^3). Both in one unit, so loads compare. */
double cv_plan_refresh_flops(int64_t n, int64_t k, int64_t q, bool is_exact);

/* Longest processing time first: layers by falling cost, each to the least loaded owner (the lowest number of equals).
 * owner[i] in [0, n_owners); load[o]: sum of costs. order: scratch of 2 n. At most 4/3 of the optimum (Graham 1969).
 * Returns the number of comparisons, at most 4 n (log2 n + 1): the same on every machine. */
int64_t cv_plan_owners(const double *cost, int32_t n, int32_t n_owners, int32_t *owner, double *load, int32_t *order);

/* Moves single layers from the owner that has most to do to the one that has least, while the longer of the two loads
 * gets shorter: each time the layer that shortens it most, of equals the first, and at most n layers. owner (n) is
 * changed, load (n_owners) becomes the sums of costs. Returns the number of moves. */
int32_t cv_plan_rebalance(const double *cost, int32_t n, int32_t n_owners, int32_t *owner, double *load);

/* Does every owner have room for its layers? used[o]: sum of bytes[i] over the layers of owner o; layers of owner -1
 * count nowhere. Returns the owner that is the most above room_bytes (the lowest number of equals), -1 when all fit. */
int32_t cv_plan_overfull(const double *bytes, const int32_t *owner, int32_t n, int32_t n_owners, double room_bytes,
                         double *used);

/* Of a product Y (k, n) = Q M over the ranks of a grid of one column: is one gather of Q with a local product faster
 * than ScaLAPACK's? By seconds that cv_plan_product_seconds expects of the default machine. */
typedef enum cv_plan_product { CV_PLAN_SCALAPACK, CV_PLAN_SLAB } cv_plan_product;
double cv_plan_product_seconds(cv_plan_product how, int64_t n, int64_t k, int64_t ranks);
bool cv_plan_slab_is_faster(int64_t n, int64_t k, int64_t ranks);

#endif
