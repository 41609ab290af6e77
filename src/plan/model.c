#include "plan/model.h"

#include "base/order.h"

#include <math.h>

/* Extra: trace, rows and two flags (factors.c). Brand: fewest rows of a block (brand.c). */
enum { EXTRA_FLOATS = 4, BRAND_ROWS = 64 };

/* Open MPI 4.1's collectives behind the callers' backs: below SHORT_BYTES a sum to one rank takes whole messages,
 * between two ranks pieces of CHAIN_BYTES above; up to LINEAR_RANKS the root of a broadcast sends to each itself. Seen
 * in the sizes of what ranks read from each other. */
enum { SHORT_BYTES = 65536, CHAIN_BYTES = 8192, LINEAR_RANKS = 4 };

static const double FLOAT = sizeof(float), HALF = sizeof(uint16_t);
/* Relative error of a number in bf16, root mean square; and what a randomized solver may shift a core by before it
 * gives up, over the size of its product with M (eig_finish.c: 1000 times fp32's rounding). */
static const double BF16_ERROR = 1.7e-3, SHIFT_MAX = 1e-4;
/* Time of a refresh's thin products (10 n k k, half of them sums in fp64) over that of square ones with as many flops:
 * bench/eig, n 1000 and 2048, rank 64. */
static const double THIN = 1.7;
/* Time of potrf with potri (n 256 to 2000): over that of products with as many flops, and what does not grow so fast,
 * over that of a copy. */
static const double INVERSE = 0.64, INVERSE_SQUARE = 22;
static const double SCAN = 0.8; /* of a copy's time: x x summed up, measured at 2 and 6 million numbers */
static const double PASS = 1.5; /* of a copy's traffic: x <- a x + b y reads twice and writes once */

const cv_plan_run cv_plan_run_default = {.n_workers = 1,
                                         .batch_rows = 128,
                                         .statistics_rows = 128,
                                         .factor_update_steps = 10,
                                         .inv_update_steps = 10,
                                         .eig_rank = 64,
                                         .oversampling = 8,
                                         .stream_oversampling = -1,
                                         .columns_store = CV_PLAN_ONLINE,
                                         .products = 1,
                                         .full_share = 0.75,
                                         .grid_min_n = 4096,
                                         .capture_rows = 1024,
                                         .sample_rows = CV_ROWS_AUTO};

/* ---- rows ---- */

cv_rows_rule cv_plan_rule(const cv_plan_run *run, const cv_plan_layer *layer, int which) {
  bool is_a = which == CV_PLAN_A;
  return (cv_rows_rule){.sample_rows = run->sample_rows,
                        .n = is_a ? layer->n : layer->m,
                        .other = is_a ? layer->m : layer->n,
                        .positions = layer->positions,
                        .is_reduced = layer->positions > 0 && run->reduces};
}

cv_plan_run cv_plan_factor_run(const cv_plan_run *run, const cv_plan_layer *layer, int which) {
  cv_rows_rule rule = cv_plan_rule(run, layer, which);
  cv_plan_run of_factor = *run;
  of_factor.statistics_rows = cv_rows_captured(&rule, run->statistics_rows);
  of_factor.capture_rows = cv_rows_room(&rule, run->capture_rows);
  of_factor.makes_patches = layer->positions > 0;
  return of_factor;
}

double cv_plan_row_bytes(const cv_plan_run *run, const cv_plan_layer *layer) {
  enum { COUNT = 2 }; /* in floats */
  double bytes = 0;
  if (layer->is_unit) return 0; /* they are summed */
  for (int f = 0; f < CV_PLAN_FACTORS; f++) {
    cv_rows_rule rule = cv_plan_rule(run, layer, f);
    bytes += FLOAT * (double)rule.n * ((double)cv_rows_room(&rule, run->capture_rows) + COUNT);
  }
  return bytes;
}

/* ---- sizes ---- */

int32_t cv_plan_owner_count(const cv_plan_run *run) {
  return run->n_curvature > 0 ? run->n_curvature : run->n_workers;
}

int64_t cv_plan_size(const cv_plan_layer *layer, int which) {
  if (layer->is_unit) return which == CV_PLAN_A ? 2 * layer->m : 0;
  return which == CV_PLAN_A ? layer->n : layer->m;
}

int64_t cv_plan_header_bytes(const cv_plan_run *run, const cv_plan_layer *layer) {
  return layer->is_unit ? run->header_bytes / CV_PLAN_FACTORS : run->header_bytes;
}

bool cv_plan_is_local(cv_plan_carrier carrier) {
  return carrier == CV_PLAN_LOCAL || carrier == CV_PLAN_LOCAL_UNITS;
}

static bool is_of_units(cv_plan_carrier carrier) {
  return carrier == CV_PLAN_UNITS || carrier == CV_PLAN_LOCAL_UNITS;
}

/* Three numbers for each two parameters. */
static int64_t unit_floats(int64_t n) {
  return 3 * (n / 2);
}

static int64_t basis_wanted(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  bool is_low = carrier == CV_PLAN_SKETCH || (carrier == CV_PLAN_COLUMNS && run->columns_store != CV_PLAN_FULL) ||
                (carrier == CV_PLAN_LOCAL && run->local_store == CV_PLAN_STREAM);
  int64_t of_stream = run->stream_oversampling < 0 ? run->eig_rank / 2 : run->stream_oversampling;
  return cv_smaller(run->eig_rank + (is_low ? of_stream : run->oversampling), n);
}

bool cv_plan_is_full(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  return is_of_units(carrier) || run->is_exact || n <= run->full_n ||
         (double)basis_wanted(run, n, carrier) >= run->full_share * (double)n;
}

cv_plan_store cv_plan_store_of(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  const cv_plan_store store[] = {
      [CV_PLAN_TRIANGLE] = CV_PLAN_FULL,   [CV_PLAN_SKETCH] = CV_PLAN_STREAM, [CV_PLAN_COLUMNS] = run->columns_store,
      [CV_PLAN_LOCAL] = run->local_store,  [CV_PLAN_CARRIERS] = CV_PLAN_FULL, [CV_PLAN_UNITS] = CV_PLAN_FULL,
      [CV_PLAN_LOCAL_UNITS] = CV_PLAN_FULL};
  return cv_plan_is_full(run, n, carrier) ? CV_PLAN_FULL : store[carrier];
}

bool cv_plan_can_carry(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  if (carrier == CV_PLAN_LOCAL) return run->n_curvature == 0;
  bool is_stored = carrier == CV_PLAN_COLUMNS && run->columns_store == CV_PLAN_FULL;
  return carrier == CV_PLAN_TRIANGLE || is_stored || !cv_plan_is_full(run, n, carrier);
}

int64_t cv_plan_basis(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  return cv_plan_is_full(run, n, carrier) ? n : basis_wanted(run, n, carrier);
}

int64_t cv_plan_pairs(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  int64_t k = cv_plan_basis(run, n, carrier);
  return k == n ? k : cv_smaller(run->eig_rank, k);
}

int64_t cv_plan_refresh_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int64_t columns) {
  int64_t pairs = cv_plan_pairs(run, n, carrier);
  if (is_of_units(carrier)) return unit_floats(n);
  if (run->is_inverse) return columns * (columns + 1) / 2;
  return (carrier == CV_PLAN_SKETCH ? cv_plan_basis(run, n, carrier) : pairs) * columns + pairs;
}

/* ---- rounded numbers ---- */

static bool rounds(const cv_plan_run *run) {
  return run->is_bf16 && run->n_workers + run->n_curvature > 1;
}

/* By workers, and on the way: as cv_coll_roundings. */
static double roundings(const cv_plan_run *run) {
  bool is_of_parts = run->n_curvature > 0 && run->n_workers <= CV_PLAN_PARTS_MAX;
  return is_of_parts ? 1 : 2 + ceil(log2(run->n_workers + (run->n_curvature > 0)));
}

/* Of a rounded triangle M the core Q M Q^T (k, k) of a Nystrom estimate has an eigenvalue down to
 * -2 sqrt(k) e |M| / n, for its numbers are off by e |M| / n, e = BF16_ERROR sqrt(roundings). */
static bool keeps_definite(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  double k = (double)cv_plan_basis(run, n, carrier), rounded = BF16_ERROR * sqrt(roundings(run));
  return cv_plan_is_full(run, n, carrier) || 2 * sqrt(k) * rounded <= SHIFT_MAX * (double)n;
}

bool cv_plan_sends_bf16(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route) {
  if (!rounds(run)) return false;
  bool is_sum = carrier == CV_PLAN_TRIANGLE && (route == CV_PLAN_TO_OWNER || run->n_workers == 1);
  return carrier == CV_PLAN_COLUMNS || (is_sum && keeps_definite(run, n, carrier));
}

bool cv_plan_publishes_bf16(const cv_plan_run *run, cv_plan_carrier carrier) {
  return rounds(run) && !run->is_inverse && carrier != CV_PLAN_SKETCH && !is_of_units(carrier);
}

/* Up to the next place for a float. */
int64_t cv_plan_pairs_bytes(const cv_plan_run *run, cv_plan_carrier carrier, int64_t pairs, int64_t rows,
                            int64_t columns) {
  enum { SIZE = sizeof(float) };
  bool is_half = cv_plan_publishes_bf16(run, carrier);
  return SIZE * (pairs + (is_half ? cv_divide_up(rows * columns, 2) : rows * columns));
}

int64_t cv_plan_refresh_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int64_t columns) {
  int64_t pairs = cv_plan_pairs(run, n, carrier);
  if (is_of_units(carrier) || run->is_inverse)
    return (int64_t)sizeof(float) * cv_plan_refresh_floats(run, n, carrier, columns);
  int64_t rows = carrier == CV_PLAN_SKETCH ? cv_plan_basis(run, n, carrier) : pairs;
  return cv_plan_pairs_bytes(run, carrier, pairs, rows, columns);
}

bool cv_plan_is_spread(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  bool is_of_rows =
           carrier == CV_PLAN_COLUMNS && run->spreads_rows && cv_plan_store_of(run, n, carrier) == CV_PLAN_FULL,
       may_be = carrier == CV_PLAN_TRIANGLE || is_of_rows;
  return may_be && cv_plan_owner_count(run) > 1 && run->grid_min_n > 0 && n >= run->grid_min_n &&
         run->capture_rows <= CV_ROWS_MAX;
}

/* Floats of the blocks first, first + step, ... of a spread factor, each from row 0 down to its last column; the last
 * one may be narrower. */
static int64_t block_floats(int64_t n, int64_t first, int64_t step) {
  int64_t width = CV_PLAN_SPREAD_BLOCK, whole = n / width, rest = n % width,
          count = first < whole ? cv_divide_up(whole - first, step) : 0,
          heights = count * (first + 1) + step * (count * (count - 1) / 2); /* in blocks */
  bool has_last = rest > 0 && whole % step == first;
  return width * width * heights + (has_last ? rest * n : 0);
}

/* Of a factor that lies with one owner, or that goes to each of them whole. */
static int64_t whole_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  switch (carrier) {
  case CV_PLAN_SKETCH:
    return (cv_plan_basis(run, n, carrier) + CV_PLAN_PROBES) * n;
  case CV_PLAN_COLUMNS:
    return run->statistics_rows * n;
  case CV_PLAN_LOCAL:
  case CV_PLAN_LOCAL_UNITS:
    return 0;
  case CV_PLAN_UNITS:
    return unit_floats(n);
  case CV_PLAN_TRIANGLE:
  case CV_PLAN_CARRIERS:
    break;
  }
  return n * (n + 1) / 2;
}

static int64_t body_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int32_t owner) {
  bool has_blocks = carrier == CV_PLAN_TRIANGLE && cv_plan_is_spread(run, n, carrier);
  return has_blocks ? block_floats(n, owner, cv_plan_owner_count(run)) : whole_floats(run, n, carrier);
}

int64_t cv_plan_statistic_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int32_t owner) {
  return cv_plan_is_local(carrier) ? 0 : body_floats(run, n, carrier, owner) + EXTRA_FLOATS;
}

static int32_t owners_of(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  return cv_plan_is_spread(run, n, carrier) ? cv_plan_owner_count(run) : 1;
}

/* Over all owners of the factor, without the extra floats. */
static double all_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier) {
  int32_t owners = owners_of(run, n, carrier);
  bool has_blocks = carrier == CV_PLAN_TRIANGLE && owners > 1;
  return has_blocks ? (double)block_floats(n, 0, 1) : (double)owners * (double)whole_floats(run, n, carrier);
}

/* ---- transfers ---- */

/* x <- x + y of what has arrived. */
static double add_s(const cv_plan_machine *machine, double bytes) {
  return PASS * bytes / machine->copy_bytes_s;
}

static double message_s(const cv_plan_link *link, double bytes) {
  return link->latency_s + bytes / link->bytes_s;
}

/* Rounds up a tree, with a sum in each. */
static double tree_s(const cv_plan_machine *machine, const cv_plan_link *link, double rounds, double bytes) {
  return rounds * (message_s(link, bytes) + add_s(machine, bytes));
}

/* Two ranks: pieces, one behind the other, each of which is announced and then fetched. More of them: halves of halves
 * are summed and gathered, by the largest power of two of them; the others first share theirs with one of these. */
static double reduce_s(const cv_plan_machine *machine, const cv_plan_link *link, double p, double bytes) {
  double rounds = floor(log2(p)), part = (1 - 1 / exp2(rounds)) * bytes, pieces = ceil(bytes / CHAIN_BYTES),
         fold = 2 * message_s(link, bytes / 2) + add_s(machine, bytes / 2);
  if (bytes < SHORT_BYTES) return tree_s(machine, link, ceil(log2(p)), bytes);
  if (p <= 2) return 2 * pieces * link->latency_s + bytes / link->bytes_s + add_s(machine, bytes);
  double halves = 2 * (rounds * link->latency_s + part / link->bytes_s) + add_s(machine, part);
  return halves + (p > exp2(rounds) ? fold : 0);
}

double cv_plan_transfer_s(const cv_plan_machine *machine, cv_plan_transfer kind, int64_t ranks, double bytes) {
  const cv_plan_link *link = ranks <= machine->ranks_per_node ? &machine->within : &machine->between;
  double p = (double)ranks, rounds = ceil(log2(p));
  if (ranks <= 1) return 0;
  switch (kind) {
  case CV_PLAN_SUM:
    return 2 * (rounds * link->latency_s + (p - 1) / p * bytes / link->bytes_s) + add_s(machine, (p - 1) / p * bytes);
  case CV_PLAN_REDUCE:
    return reduce_s(machine, link, p, bytes);
  case CV_PLAN_BROADCAST:
    return (ranks <= LINEAR_RANKS ? p - 1 : rounds) * message_s(link, bytes);
  case CV_PLAN_SEND:
    break;
  }
  return message_s(link, bytes);
}

/* The workers and an owner. */
static int64_t group(const cv_plan_run *run) {
  return run->n_workers + (run->n_curvature > 0);
}

static cv_plan_up up_of(cv_plan_carrier carrier, cv_plan_route route, double body, double extra) {
  if (cv_plan_is_local(carrier)) return (cv_plan_up){0};
  double columns = carrier == CV_PLAN_COLUMNS ? body : 0, fused = body - columns + extra;
  if (route == CV_PLAN_WITH_GRADIENTS) return (cv_plan_up){.summed = fused, .columns = columns};
  return (cv_plan_up){.reduced = fused, .columns = columns};
}

static double body_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route,
                         double floats) {
  return (cv_plan_sends_bf16(run, n, carrier, route) ? HALF : FLOAT) * floats;
}

cv_plan_up cv_plan_up_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route,
                            int32_t owner) {
  double floats = (double)body_floats(run, n, carrier, owner);
  return up_of(carrier, route, body_bytes(run, n, carrier, route, floats), FLOAT * EXTRA_FLOATS);
}

cv_plan_up cv_plan_all_up_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route) {
  double body = body_bytes(run, n, carrier, route, all_floats(run, n, carrier));
  return up_of(carrier, route, body, FLOAT * EXTRA_FLOATS * owners_of(run, n, carrier));
}

int64_t cv_plan_rounded(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route,
                        int32_t owner) {
  bool is_any = carrier != CV_PLAN_COLUMNS && cv_plan_sends_bf16(run, n, carrier, route);
  return is_any ? body_floats(run, n, carrier, owner) : 0;
}

double cv_plan_up_s(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_up *up) {
  int64_t ranks = group(run);
  double sum_s = cv_plan_transfer_s(machine, CV_PLAN_SUM, run->n_workers, up->summed) -
                 cv_plan_transfer_s(machine, CV_PLAN_SUM, run->n_workers, 0); /* no messages of its own */
  bool is_of_parts = run->n_curvature > 0 && run->n_workers <= CV_PLAN_PARTS_MAX;
  double workers = run->n_workers;
  if (up->reduced > 0 && is_of_parts)
    sum_s += workers * cv_plan_transfer_s(machine, CV_PLAN_SEND, ranks, up->reduced) +
             (workers - 1) * add_s(machine, up->reduced);
  if (up->reduced > 0 && !is_of_parts) sum_s += cv_plan_transfer_s(machine, CV_PLAN_REDUCE, ranks, up->reduced);
  if (up->summed > 0 && run->n_curvature > 0) sum_s += cv_plan_transfer_s(machine, CV_PLAN_SEND, ranks, up->summed);
  if (up->columns > 0) sum_s += cv_plan_transfer_s(machine, CV_PLAN_SEND, ranks, run->n_workers * up->columns);
  return sum_s;
}

double cv_plan_down_s(const cv_plan_machine *machine, const cv_plan_run *run, double bytes) {
  return bytes > 0 ? cv_plan_transfer_s(machine, CV_PLAN_BROADCAST, group(run), bytes) : 0;
}

/* ---- stages of a factor ---- */

static cv_plan_cost product(const cv_plan_machine *machine, double flops) {
  return (cv_plan_cost){.flops = flops, .seconds = flops / machine->gemm_flops_s};
}

static cv_plan_cost copy(const cv_plan_machine *machine, double floats) {
  return (cv_plan_cost){.seconds = FLOAT * floats / machine->copy_bytes_s};
}

/* x <- a x + b y */
static cv_plan_cost mix(const cv_plan_machine *machine, double floats) {
  return (cv_plan_cost){.flops = 3 * floats, .seconds = PASS * FLOAT * floats / machine->copy_bytes_s};
}

static cv_plan_cost plus(cv_plan_cost x, cv_plan_cost y) {
  return (cv_plan_cost){x.flops + y.flops, x.seconds + y.seconds, x.bytes + y.bytes};
}

static cv_plan_cost times(double factor, cv_plan_cost x) {
  return (cv_plan_cost){factor * x.flops, factor * x.seconds, factor * x.bytes};
}

static cv_plan_cost eigenproblem(const cv_plan_eig *eig, double k) {
  return (cv_plan_cost){.flops = 9 * k * k * k, .seconds = (eig->square_s + eig->cube_s * k) * k * k};
}

/* Patches are copied into tiles first. */
static cv_plan_cost capture(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                            cv_plan_carrier carrier) {
  double rows = (double)run->statistics_rows, N = (double)n, flops = rows * N * (N + 1);
  if (is_of_units(carrier)) return mix(machine, rows * (double)unit_floats(n));
  cv_plan_cost patches = run->makes_patches ? copy(machine, rows * N) : (cv_plan_cost){0};
  if (carrier == CV_PLAN_SKETCH)
    return plus(patches, product(machine, 4 * rows * N * (double)(cv_plan_basis(run, n, carrier) + CV_PLAN_PROBES)));
  bool is_of_rows = carrier == CV_PLAN_LOCAL && cv_plan_store_of(run, n, carrier) != CV_PLAN_FULL;
  if (carrier == CV_PLAN_COLUMNS || is_of_rows || cv_plan_is_spread(run, n, carrier))
    return plus(patches, copy(machine, rows * N));
  return plus(patches, (cv_plan_cost){.flops = flops, .seconds = flops / machine->syrk_flops_s});
}

/* Rows of a spread factor become blocks only now. */
static cv_plan_cost statistics(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                               cv_plan_carrier carrier) {
  bool is_spread = cv_plan_is_spread(run, n, carrier);
  double floats = all_floats(run, n, carrier), owners = owners_of(run, n, carrier);
  if (cv_plan_is_local(carrier)) return (cv_plan_cost){0};
  cv_plan_cost cost = is_spread && carrier == CV_PLAN_TRIANGLE
                          ? product(machine, 2 * (double)run->statistics_rows * floats)
                          : copy(machine, floats);
  cost.bytes = body_bytes(run, n, carrier, CV_PLAN_TO_OWNER, floats) + FLOAT * owners * EXTRA_FLOATS;
  return cost;
}

/* Brand's updates of r pairs, in blocks of rows (brand.h); c c products in fp64. */
static cv_plan_cost update_pairs(const cv_plan_machine *machine, int64_t n, int64_t pairs, int64_t rows) {
  int64_t block = cv_smaller(cv_larger(BRAND_ROWS, pairs / 2), rows);
  double N = (double)n, r = (double)pairs, c = (double)block;
  if (rows == 0) return (cv_plan_cost){0};
  cv_plan_cost one = product(machine, 4 * N * r * c + 2 * N * c * c + 2 * N * r * (r + c));
  one = plus(one, eigenproblem(&machine->eig_f64, r + c));
  return times((double)rows / c, one);
}

/* Rows into a stored average: outer products of all of it, or of each owner's blocks, which the old average enters
 * with. */
static cv_plan_cost add_rows(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n, cv_plan_carrier carrier,
                             int64_t rows) {
  double R = (double)rows, flops = R * (double)n * (double)(n + 1), owners = owners_of(run, n, carrier);
  if (owners > 1) return product(machine, 2 * R * (double)block_floats(n, 0, 1) / owners);
  return (cv_plan_cost){.flops = flops, .seconds = flops / machine->syrk_flops_s};
}

/* Rows of all workers, or the owner's own. */
static cv_plan_cost average_rows(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                                 cv_plan_carrier carrier) {
  int64_t rows = run->statistics_rows * (cv_plan_is_local(carrier) ? 1 : run->n_workers),
          k = cv_plan_basis(run, n, carrier);
  switch (cv_plan_store_of(run, n, carrier)) {
  case CV_PLAN_ONLINE:
    return update_pairs(machine, n, k, rows);
  case CV_PLAN_STREAM:
    return product(machine, 4 * (double)rows * (double)n * (double)(k + CV_PLAN_PROBES));
  case CV_PLAN_FULL:
    break;
  }
  return add_rows(machine, run, n, carrier, rows);
}

static cv_plan_cost average(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                            cv_plan_carrier carrier) {
  if (is_of_units(carrier)) return mix(machine, (double)unit_floats(n));
  bool is_full_local = carrier == CV_PLAN_LOCAL && cv_plan_store_of(run, n, carrier) == CV_PLAN_FULL;
  if (is_full_local) return mix(machine, (double)n * (double)(n + 1) / 2);
  if (carrier == CV_PLAN_COLUMNS || carrier == CV_PLAN_LOCAL) return average_rows(machine, run, n, carrier);
  double owners = owners_of(run, n, carrier);
  return mix(machine, all_floats(run, n, carrier) / owners);
}

/* Products with a factor that lies over the owners take the faster of their two ways. */
static cv_plan_cost products(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n, int64_t k,
                             int64_t owners) {
  cv_plan_product how = cv_plan_slab_is_faster(n, k, owners) ? CV_PLAN_SLAB : CV_PLAN_SCALAPACK;
  cv_plan_cost one = product(machine, 2 * (double)n * (double)n * (double)k / (double)owners);
  if (owners > 1) one.seconds = cv_plan_product_seconds(how, n, k, owners);
  return times((double)run->products, one);
}

/* Beyond the flops that owners are chosen by: the certificate's probes, and the lower triangle mirrored. */
static double certificate_s(const cv_plan_machine *machine, double n, double owners) {
  double probes = 2 * n * n * CV_PLAN_PROBES / owners;
  return probes / machine->gemm_flops_s + copy(machine, n * n / 2 / owners).seconds;
}

/* LAPACK's potrf and potri, n n n / 3 and 2 n n n / 3 flops. */
static cv_plan_cost inversion(const cv_plan_machine *machine, double n) {
  cv_plan_cost cost = product(machine, n * n * n);
  cost.seconds *= INVERSE;
  return plus(cost, copy(machine, INVERSE_SQUARE * n * n));
}

/* A sketch has its product already; expressing it on the new seed takes two of k k n. */
static cv_plan_cost refresh(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                            cv_plan_carrier carrier) {
  int64_t owners = owners_of(run, n, carrier), k = cv_plan_basis(run, n, carrier);
  double N = (double)n, K = (double)k;
  cv_plan_store store = cv_plan_store_of(run, n, carrier);
  if (store == CV_PLAN_ONLINE) return (cv_plan_cost){0};
  if (is_of_units(carrier)) return copy(machine, (double)unit_floats(n));
  if (run->is_inverse) return inversion(machine, N);
  if (cv_plan_is_full(run, n, carrier)) return times(1 / (double)owners, eigenproblem(&machine->eig_f32, N));
  cv_plan_cost finish = product(machine, 10 * N * K * K / (double)owners);
  finish.seconds *= THIN;
  finish = plus(finish, eigenproblem(&machine->eig_f64, K));
  if (store == CV_PLAN_STREAM) return plus(finish, product(machine, 4 * N * K * K));
  finish.seconds += certificate_s(machine, N, (double)owners);
  return plus(finish, products(machine, run, n, k, owners));
}

void cv_plan_factor_costs(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n, cv_plan_carrier carrier,
                          cv_plan_cost cost[CV_PLAN_STAGES]) {
  double owners = owners_of(run, n, carrier),
         floats = (double)cv_plan_refresh_floats(run, n, carrier, n) +
                  (owners - 1) * (double)cv_plan_pairs(run, n, carrier); /* eigenvalues come with each part */
  for (int i = 0; i < CV_PLAN_STAGES; i++) cost[i] = (cv_plan_cost){0};
  cost[CV_PLAN_CAPTURE] = capture(machine, run, n, carrier);
  cost[CV_PLAN_STATISTICS] = statistics(machine, run, n, carrier);
  cost[CV_PLAN_AVERAGE] = average(machine, run, n, carrier);
  cost[CV_PLAN_REFRESH] = refresh(machine, run, n, carrier);
  cost[CV_PLAN_RECEIVE] = copy(machine, floats);
  cost[CV_PLAN_RECEIVE].bytes =
      (double)cv_plan_refresh_bytes(run, n, carrier, n) + FLOAT * (owners - 1) * (double)cv_plan_pairs(run, n, carrier);
  cost[CV_PLAN_PUBLISH] = times(1 / owners, cost[CV_PLAN_RECEIVE]);
}

/* ---- stages of a layer ---- */

/* One side of a layer with `other` rows on its other side: both halves of the projection, n its own size. */
static double side_flops(const cv_plan_run *run, int64_t n, int64_t other, const cv_plan_choice *choice, int which) {
  cv_plan_carrier carrier = choice->carrier[which];
  bool is_factored = choice->apply == CV_PLAN_FACTORED;
  double rows = is_factored ? (double)run->batch_rows : (double)other, N = (double)n;
  if (cv_plan_is_full(run, n, carrier)) return (is_factored || run->is_inverse ? 2 : 4) * rows * N * N;
  return 4 * rows * N * (double)cv_plan_pairs(run, n, carrier);
}

/* The core between two sides of low rank. */
static double core_flops(const cv_plan_run *run, const cv_plan_layer *layer, const cv_plan_choice *choice) {
  int64_t a = cv_plan_pairs(run, layer->n, choice->carrier[CV_PLAN_A]),
          g = cv_plan_pairs(run, layer->m, choice->carrier[CV_PLAN_G]);
  bool is_low = !cv_plan_is_full(run, layer->n, choice->carrier[CV_PLAN_A]) &&
                !cv_plan_is_full(run, layer->m, choice->carrier[CV_PLAN_G]);
  return is_low && choice->apply != CV_PLAN_FACTORED ? 2 * (double)a * (double)g * (double)(layer->m + layer->n) : 0;
}

/* Projections that follow the gradient: of the rows in every step, and whole ones after a refresh. */
static cv_plan_cost project(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                            const cv_plan_choice *choice, double whole) {
  double pairs = (double)cv_plan_pairs(run, layer->n, choice->carrier[CV_PLAN_A]) +
                 (double)cv_plan_pairs(run, layer->m, choice->carrier[CV_PLAN_G]),
         followed = 2 * (double)run->batch_rows * (double)(layer->m + layer->n) * pairs;
  bool is_gain = run->batch_rows * (layer->m + layer->n) < layer->m * layer->n;
  if (!run->follows || layer->positions > 0 || run->n_workers > 1 || !is_gain) return product(machine, whole);
  return product(machine, followed + whole / (double)run->inv_update_steps);
}

/* Of low rank, one half of the flops projects and one expands; a full side, or rows, are done at once. */
static void apply_costs(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                        const cv_plan_choice *choice, cv_plan_cost cost[CV_PLAN_STAGES]) {
  if (layer->is_unit) {
    cost[CV_PLAN_PROJECT] = mix(machine, (double)layer->m * (double)layer->n);
    return; /* it is written at once */
  }
  double core = core_flops(run, layer, choice), flops = core;
  flops += side_flops(run, layer->n, layer->m, choice, CV_PLAN_A);
  flops += side_flops(run, layer->m, layer->n, choice, CV_PLAN_G);
  double later = core > 0 ? flops / 2 : 0;
  cost[CV_PLAN_PROJECT] =
      core > 0 ? project(machine, run, layer, choice, flops - later) : product(machine, flops - later);
  cost[CV_PLAN_APPLY] = plus(product(machine, later), mix(machine, (double)layer->m * (double)layer->n));
}

void cv_plan_layer_costs(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                         const cv_plan_choice *choice, cv_plan_cost cost[CV_PLAN_STAGES]) {
  double weights = (double)layer->m * (double)layer->n;
  for (int i = 0; i < CV_PLAN_STAGES; i++) cost[i] = (cv_plan_cost){0};
  cost[CV_PLAN_TRAIN] =
      product(machine, 6 * (double)run->batch_rows * (double)cv_larger(layer->positions, 1) * weights);
  cost[CV_PLAN_MOMENTUM] = run->momentum_is_callers ? copy(machine, SCAN * weights) : mix(machine, weights);
  cost[CV_PLAN_APPLY] = mix(machine, weights);
  if (run->n_workers > 1) cost[CV_PLAN_GRADIENTS] = copy(machine, weights);
  if (run->n_workers > 1) cost[CV_PLAN_GRADIENTS].bytes = FLOAT * weights;
  if (!layer->is_skipped) apply_costs(machine, run, layer, choice, cost);
}
