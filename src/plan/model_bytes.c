/* What each rank of a run sends, and what it holds. */
#include "base/order.h"
#include "plan/model.h"

enum {
  FLOAT = sizeof(float),
  HALF = sizeof(uint16_t),
  COMMAND = sizeof(int64_t),
  COUNT = sizeof(int64_t),
  THIN_ROWS = 128,
  FUNCTION_BLOCK = 64
};

/* One factor of a layout. */
typedef struct place {
  cv_plan_run run; /* of the factor */
  const cv_plan_choice *choice;
  int64_t n, other; /* its own size, and that of the layer's other factor */
  cv_plan_carrier carrier;
  int32_t owner; /* of the layer */
  bool is_spread;
} place;

static place place_of(const cv_plan_layout *l, int32_t i, int which) {
  const cv_plan_layer *layer = &l->layer[i];
  int64_t n = cv_plan_size(layer, which);
  cv_plan_carrier carrier = l->choice[i].carrier[which];
  place p = {cv_plan_factor_run(l->run, layer, which),
             &l->choice[i],
             n,
             layer->m + layer->n - n,
             carrier,
             n > 0 ? l->owner[i] : -1,
             false};
  p.is_spread = cv_plan_is_spread(&p.run, n, carrier);
  return p;
}

static bool is_of_units(const place *p) {
  return p->carrier == CV_PLAN_UNITS || p->carrier == CV_PLAN_LOCAL_UNITS;
}

static bool holds(const place *p, int32_t owner) {
  return p->owner >= 0 && owner >= 0 && (p->is_spread || p->owner == owner);
}

/* None, the layer's, or all. */
static int32_t owners_of(const place *p) {
  if (p->owner < 0) return 0;
  return p->is_spread ? cv_plan_owner_count(&p->run) : 1;
}

static bool is_worker(const cv_plan_run *run, int32_t rank) {
  return rank < run->n_workers;
}

/* Its number as an owner, -1 when it is none. */
static int32_t owner_of(const cv_plan_run *run, int32_t rank) {
  if (run->n_curvature == 0) return rank;
  return is_worker(run, rank) ? -1 : rank - run->n_workers;
}

/* Columns of a spread factor dealt out in blocks of 64, as grid.h has it. */
static int64_t mine(const place *p, int32_t owner) {
  cv_cyclic piece = {.n = p->n, .block = CV_PLAN_SPREAD_BLOCK, .parts = cv_plan_owner_count(&p->run), .part = owner};
  return p->is_spread ? cv_cyclic_count(&piece) : p->n;
}

/* ---- traffic ---- */

/* Steps of n_steps in which something of this interval is due: 0, interval, 2 interval, ... */
static int64_t times(int64_t n_steps, int64_t interval) {
  return cv_divide_up(n_steps, interval);
}

static int64_t common(int64_t x, int64_t y) {
  while (y > 0) {
    int64_t rest = x % y;
    x = y;
    y = rest;
  }
  return x;
}

/* Steps with statistics or a refresh; each is told, and the end of the run. */
static int64_t commands(const cv_plan_run *run, int64_t n_steps) {
  int64_t f = run->factor_update_steps, i = run->inv_update_steps, both = f / common(f, i) * i;
  return times(n_steps, f) + times(n_steps, i) - times(n_steps, both) + 1;
}

/* Of what was summed with the gradients, from worker o mod W to curvature rank o. */
static int64_t handed_over(const place *p, int32_t rank) {
  const cv_plan_run *run = &p->run;
  int64_t bytes = 0;
  if (run->n_curvature == 0 || p->choice->route != CV_PLAN_WITH_GRADIENTS) return 0;
  for (int32_t o = rank; o < run->n_curvature; o += run->n_workers) {
    if (holds(p, o)) bytes += (int64_t)cv_plan_up_bytes(run, p->n, p->carrier, p->choice->route, o).summed;
  }
  return bytes;
}

/* Of one statistic, by one worker: to all owners but itself, their number before rows. */
static int64_t statistic_bytes(const place *p, int32_t rank) {
  const cv_plan_run *run = &p->run;
  if (p->owner < 0) return 0;
  cv_plan_up all = cv_plan_all_up_bytes(run, p->n, p->carrier, p->choice->route), own = {0};
  bool is_mine = holds(p, owner_of(run, rank));
  if (is_mine) own = cv_plan_up_bytes(run, p->n, p->carrier, p->choice->route, owner_of(run, rank));
  int64_t counts = p->carrier == CV_PLAN_COLUMNS ? COUNT * (owners_of(p) - is_mine) : 0;
  return counts + handed_over(p, rank) + (int64_t)(all.reduced - own.reduced + all.columns - own.columns) +
         (run->n_workers > 1 ? (int64_t)all.summed : 0);
}

/* Largest refresh of a factor, by owners that have so many columns of it together. */
static int64_t most_bytes(const place *p, int64_t columns, int64_t owners) {
  int64_t k = cv_plan_basis(&p->run, p->n, p->carrier);
  if (is_of_units(p)) return cv_plan_refresh_bytes(&p->run, p->n, p->carrier, columns);
  return cv_plan_pairs_bytes(&p->run, p->carrier, owners * k, k, columns);
}

/* Of one refresh, by one owner; nothing when it holds no factor. */
static int64_t parcel_bytes(const cv_plan_layout *l, int32_t owner, bool is_most) {
  int64_t bytes = 0;
  for (int32_t i = 0; i < l->n_layers; i++) {
    bool is_held = false;
    for (int f = 0; f < CV_PLAN_FACTORS; f++) {
      place p = place_of(l, i, f);
      if (!holds(&p, owner)) continue;
      int64_t columns = mine(&p, owner);
      is_held = true;
      bytes += is_most ? most_bytes(&p, columns, 1) : cv_plan_refresh_bytes(&p.run, p.n, p.carrier, columns);
    }
    bytes += is_held ? cv_plan_header_bytes(l->run, &l->layer[i]) : 0;
  }
  return bytes > 0 ? bytes + l->run->event_bytes : 0;
}

static bool is_any_spread(const cv_plan_layout *l) {
  for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
    place p = place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS);
    if (p.owner >= 0 && p.is_spread) return true;
  }
  return false;
}

/* Owners with a layer, or a part of a spread factor. */
static int32_t senders(const cv_plan_layout *l) {
  int32_t n = 0;
  if (is_any_spread(l)) return cv_plan_owner_count(l->run);
  for (int32_t i = 0; i < l->n_layers; i++) {
    bool is_first = l->owner[i] >= 0;
    for (int32_t before = 0; before < i && is_first; before++) is_first = l->owner[before] != l->owner[i];
    n += is_first;
  }
  return n;
}

/* Largest of all owners together. */
static int64_t all_parcel_bytes(const cv_plan_layout *l) {
  int64_t bytes = l->run->event_bytes * senders(l);
  for (int32_t i = 0; i < l->n_layers; i++) {
    int32_t most = 0;
    for (int f = 0; f < CV_PLAN_FACTORS; f++) {
      place p = place_of(l, i, f);
      int32_t owners = owners_of(&p);
      if (owners > 0) bytes += most_bytes(&p, p.n, owners);
      most = owners > most ? owners : most;
    }
    bytes += most * cv_plan_header_bytes(l->run, &l->layer[i]);
  }
  return bytes;
}

/* Of one step. A sharded gradient is scattered whole, and each worker gathers out the layers that it made. */
static int64_t gradient_bytes(const cv_plan_layout *l, int32_t rank) {
  int64_t bytes = 0;
  for (int32_t i = 0; i < l->n_layers && l->run->n_workers > 1; i++) {
    int64_t weights = FLOAT * l->layer[i].m * l->layer[i].n;
    bytes += weights + (l->shard[i] == rank ? weights : 0);
  }
  return bytes;
}

/* Statistics that ride with the gradients lie behind the place of a vote. */
static int64_t vote_bytes(const cv_plan_layout *l) {
  for (int32_t i = 0; i < l->n_layers && l->run->n_workers > 1; i++) {
    if (!l->layer[i].is_skipped && l->choice[i].route == CV_PLAN_WITH_GRADIENTS) return FLOAT;
  }
  return 0;
}

void cv_plan_traffic_of(const cv_plan_layout *l, int32_t rank, int64_t n_steps, int64_t bytes[CV_PLAN_TRAFFICS]) {
  const cv_plan_run *run = l->run;
  int32_t ranks = run->n_workers + run->n_curvature;
  for (int i = 0; i < CV_PLAN_TRAFFICS; i++) bytes[i] = 0;
  if (is_worker(run, rank)) {
    bytes[CV_PLAN_TRAFFIC_GRADIENTS] =
        n_steps * gradient_bytes(l, rank) + times(n_steps, run->factor_update_steps) * vote_bytes(l);
    for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
      place p = place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS);
      bytes[CV_PLAN_TRAFFIC_STATISTICS] += times(n_steps, run->factor_update_steps) * statistic_bytes(&p, rank);
    }
  }
  if (ranks > 1)
    bytes[CV_PLAN_TRAFFIC_PRECONDITIONERS] =
        times(n_steps, run->inv_update_steps) * parcel_bytes(l, owner_of(run, rank), false);
  if (rank == 0) bytes[CV_PLAN_TRAFFIC_CONTROL] = commands(run, n_steps) * COMMAND * run->n_curvature;
}

/* ---- memory ---- */

static int64_t ring(const cv_plan_run *run, int64_t interval) {
  return cv_larger(cv_divide_up(run->staleness, interval), 1);
}

/* Does the worker collect rows, to send them or for itself? */
static bool is_of_rows(const place *p) {
  bool is_local = p->carrier == CV_PLAN_LOCAL && cv_plan_store_of(&p->run, p->n, p->carrier) != CV_PLAN_FULL;
  return p->carrier == CV_PLAN_COLUMNS || is_local;
}

static int64_t unit_floats(const place *p) {
  return cv_plan_refresh_floats(&p->run, p->n, p->carrier, p->n);
}

static void hold_statistic(const place *p, int64_t *bytes) {
  int64_t rows = p->n; /* a triangle is kept as a square */
  if (p->is_spread || is_of_rows(p)) rows = p->run.capture_rows;
  if (p->carrier == CV_PLAN_SKETCH)
    rows = 3 * (cv_plan_basis(&p->run, p->n, p->carrier) + CV_PLAN_PROBES); /* and its seeds */
  bytes[CV_MEMORY_STATISTICS] += FLOAT * rows * p->n;
}

/* Average, or seed and sketch, or none; and the basis with its probes and eigenvalues. */
static void hold_factor(const place *p, int32_t owner, int64_t *bytes) {
  int64_t k = cv_plan_basis(&p->run, p->n, p->carrier), rows = p->n;
  if (!holds(p, owner)) return;
  if (is_of_units(p)) {
    bytes[CV_MEMORY_FACTORS] += FLOAT * unit_floats(p);
    return;
  }
  cv_plan_store store = cv_plan_store_of(&p->run, p->n, p->carrier);
  if (store == CV_PLAN_ONLINE) rows = 0;
  if (store == CV_PLAN_STREAM) rows = 2 * (k + CV_PLAN_PROBES);
  bytes[CV_MEMORY_FACTORS] += FLOAT * ((rows + k + CV_PLAN_PROBES) * mine(p, owner) + k);
}

static int64_t basis_of(const place *p) {
  return cv_plan_basis(&p->run, p->n, p->carrier);
}

/* How a layer is applied: are its rows preconditioned, are whole matrices projected (pair.h), onto two bases of low
 * rank, and do projections follow? */
typedef struct apply_way {
  bool is_factored, has_pair, is_low, follows;
} apply_way;

static apply_way way_of(const cv_plan_layout *l, int32_t i) {
  place A = place_of(l, i, CV_PLAN_A), G = place_of(l, i, CV_PLAN_G);
  apply_way way = {.is_factored = A.choice->apply == CV_PLAN_FACTORED};
  way.has_pair = !way.is_factored || l->run->clips_by_dot;
  way.is_low = way.has_pair && !cv_plan_is_full(&A.run, A.n, A.carrier) && !cv_plan_is_full(&G.run, G.n, G.carrier);
  way.follows = way.is_low && !way.is_factored && l->run->n_workers == 1 && l->layer[i].positions == 0;
  return way;
}

/* A function of a factor that rows are multiplied by (lrps_rows.h): floats that it is made in, and packed bytes, of
 * both of its operands. */
static int64_t function_bytes(const place *p) {
  int64_t k = basis_of(p), squares = cv_divide_up(k, CV_PLAN_SQUARE) * cv_divide_up(p->n, CV_PLAN_SQUARE);
  int64_t rows = k == p->n ? p->n + cv_smaller(p->n, FUNCTION_BLOCK) : k;
  return FLOAT * rows * p->n + 2 * squares * p->run.square_bytes;
}

/* Bases with room for the other side's pairs, a spectral table, and with one worker projections that follow; or
 * functions of both sides, with the bases that they are made of. */
static int64_t preconditioner_bytes(const cv_plan_layout *l, int32_t i) {
  place A = place_of(l, i, CV_PLAN_A), G = place_of(l, i, CV_PLAN_G);
  int64_t a = basis_of(&A), g = basis_of(&G);
  apply_way way = way_of(l, i);
  if (A.run.is_inverse) return FLOAT * (A.n * A.n + G.n * G.n);
  int64_t floats = (way.is_low ? g + a : a) * A.n + (way.is_low ? g + a : g) * G.n + a + g;
  if (way.has_pair) floats += (a + 1) * (g + 1);
  if (way.follows) floats += g * A.n + a * G.n;
  return FLOAT * floats + (way.is_factored ? function_bytes(&A) + function_bytes(&G) : 0);
}

/* A statistic; on who applies them the blocks, and their powers. */
static void hold_units(const place *p, bool applies, int64_t *bytes) {
  bytes[CV_MEMORY_STATISTICS] += FLOAT * unit_floats(p);
  bytes[CV_MEMORY_PRECONDITIONER] += applies ? unit_floats(p) * 2 * FLOAT : 0;
}

/* Workspace of captures (capture.c): a tile, and where rows are drawn lengths of those that are drawn from at once, and
 * weights and numbers of the drawn ones. */
static void hold_captures(const cv_plan_layout *l, int64_t *bytes) {
  int64_t widest = 0, rows = 0, drawn = 0;
  for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
    const cv_plan_layer *layer = &l->layer[i / CV_PLAN_FACTORS];
    cv_rows_rule rule = cv_plan_rule(l->run, layer, i % CV_PLAN_FACTORS);
    bool is_conv = layer->positions > 0, may_draw = is_conv || rule.sample_rows > 0,
         draws = may_draw && rule.sample_rows != CV_ROWS_ALL && !rule.is_reduced;
    int64_t examples = is_conv ? cv_rows_piece(&rule) : l->run->capture_rows;
    if (layer->is_skipped || layer->is_unit) continue;
    if (draws || is_conv) widest = cv_larger(widest, rule.n);
    if (!draws) continue;
    rows = cv_larger(rows, examples * cv_larger(rule.positions, 1));
    drawn = cv_larger(drawn, cv_rows_drawn(&rule, examples));
  }
  bytes[CV_MEMORY_WORKSPACE] += widest * FLOAT * CV_ROWS_TILE + (int64_t)sizeof(double) * (rows + 2 * drawn);
}

static void hold_worker(const cv_plan_layout *l, int32_t rank, int64_t *bytes) {
  int64_t all = 0, momentum = 0, summed = 0, largest = 0, plane = 0, core = 0, thin = 0, rows = 0;
  for (int32_t i = 0; i < l->n_layers; i++) {
    place A = place_of(l, i, CV_PLAN_A), G = place_of(l, i, CV_PLAN_G);
    int64_t weights = l->layer[i].m * l->layer[i].n, a = basis_of(&A), g = basis_of(&G);
    bool applies = l->shard[i] < 0 || l->shard[i] == rank;
    all += weights;
    momentum += applies ? weights : 0;
    summed += l->shard[i] == rank ? weights : 0;
    if (l->layer[i].is_skipped) continue;
    largest = cv_larger(largest, weights);
    if (l->layer[i].is_unit) {
      hold_units(&A, applies, bytes);
      continue;
    }
    apply_way way = way_of(l, i);
    hold_statistic(&A, bytes);
    hold_statistic(&G, bytes);
    bytes[CV_MEMORY_PRECONDITIONER] += applies ? preconditioner_bytes(l, i) : A.run.is_inverse ? 0 : FLOAT * (a + g);
    if (way.is_factored) rows = cv_larger(rows, CV_PLAN_ROWS_BLOCK * (A.n + G.n + cv_larger(a, g)));
    if (way.has_pair) core = cv_larger(core, a * g);
    if (way.has_pair && !way.is_low) plane = cv_larger(plane, 2 * weights);
    if (way.follows) thin = cv_larger(thin, cv_larger(THIN_ROWS * cv_larger(a, g), A.n + G.n));
  }
  hold_captures(l, bytes);
  bytes[CV_MEMORY_MOMENTUM] += FLOAT * momentum;
  bytes[CV_MEMORY_WORKSPACE] += FLOAT * (largest + plane + core + thin + rows);
  if (l->run->n_workers > 1) bytes[CV_MEMORY_TRANSFER] += FLOAT * (all + 1 + summed);
}

static bool rides(const place *p) {
  return p->run.n_workers > 1 && p->choice->route == CV_PLAN_WITH_GRADIENTS;
}

static cv_plan_route route_of(const place *p) {
  return rides(p) ? CV_PLAN_WITH_GRADIENTS : CV_PLAN_TO_OWNER;
}

/* A slot of what is reduced to one owner; rows have messages of their own, with their number in front. */
static int64_t slot_bytes(const place *p) {
  if (p->is_spread) return 0;
  if (p->carrier == CV_PLAN_LOCAL_UNITS) return FLOAT * unit_floats(p);
  if (p->carrier == CV_PLAN_LOCAL && !is_of_rows(p)) return FLOAT * (p->n * (p->n + 1) / 2);
  cv_plan_up up = cv_plan_up_bytes(&p->run, p->n, p->carrier, route_of(p), p->owner);
  return (int64_t)(up.reduced + up.summed);
}

/* The same at the owner, where sums are floats, and so many of them were rounded. */
static int64_t rounded_in_slot(const place *p) {
  return p->is_spread ? 0 : cv_plan_rounded(&p->run, p->n, p->carrier, route_of(p), p->owner);
}

static int64_t sums_bytes(const place *p) {
  return slot_bytes(p) + (FLOAT - HALF) * rounded_in_slot(p);
}

static int64_t row_bytes(const place *p) {
  int64_t number = cv_plan_sends_bf16(&p->run, p->n, p->carrier, route_of(p)) ? HALF : FLOAT;
  return is_of_rows(p) ? COUNT + number * p->run.capture_rows * p->n : 0;
}

/* Room for numbers before and after they are rounded: the sums of one owner that this rank is linked with, or the rows
 * of one factor that it owns. */
static int64_t wide_bytes(const cv_plan_layout *l, int32_t rank) {
  int32_t owners = cv_plan_owner_count(l->run), me = owner_of(l->run, rank);
  int64_t most = 0;
  for (int32_t o = 0; o < owners; o++) {
    int64_t sums = 0, rounded = 0;
    if (!is_worker(l->run, rank) && o != me) continue;
    for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
      place p = place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS);
      if (!holds(&p, o)) continue;
      sums += sums_bytes(&p);
      rounded += rounded_in_slot(&p);
      bool is_of_bf16_rows = is_of_rows(&p) && cv_plan_sends_bf16(&p.run, p.n, p.carrier, route_of(&p));
      if (o == me && is_of_bf16_rows) most = cv_larger(most, FLOAT * p.run.capture_rows * p.n);
    }
    if (rounded > 0) most = cv_larger(most, sums);
  }
  return most;
}

/* Does a curvature rank add up what each of a few workers sends (cv_coll_sums_parts)? Then it has room for one more;
 * of one worker only where its numbers have to be widened. */
static bool sums_parts(const cv_plan_run *run, bool is_rounded) {
  return run->n_curvature > 0 && (run->n_workers > 1 || is_rounded) && run->n_workers <= CV_PLAN_PARTS_MAX;
}

/* Rings of both ways to all owners; an owner has one slot, and an inbox for one worker's. */
static void hold_links(const cv_plan_layout *l, int32_t rank, int64_t *bytes) {
  const cv_plan_run *run = l->run;
  bool trains = is_worker(run, rank), is_rounded = false;
  int64_t up_slots = run->n_curvature > 0 ? cv_smaller(ring(run, run->factor_update_steps), CV_PLAN_UP_SLOTS_MAX) : 1,
          down_slots = trains ? ring(run, run->inv_update_steps) : 1, inbox_rows = 0, inbox_sum = 0;
  for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
    place p = place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS);
    if (trains) bytes[CV_MEMORY_TRANSFER] += owners_of(&p) * up_slots * (slot_bytes(&p) + row_bytes(&p));
    if (trains && rides(&p) && p.owner >= 0) /* behind the gradients, before it is handed over */
      bytes[CV_MEMORY_TRANSFER] += owners_of(&p) * slot_bytes(&p);
    if (!holds(&p, owner_of(run, rank))) continue;
    bytes[CV_MEMORY_TRANSFER] += trains ? sums_bytes(&p) - slot_bytes(&p) : sums_bytes(&p);
    inbox_rows += row_bytes(&p);
    inbox_sum += rides(&p) ? 0 : slot_bytes(&p);
    is_rounded = is_rounded || rounded_in_slot(&p) > 0;
  }
  if (!sums_parts(run, is_rounded)) inbox_sum = 0;
  if (run->n_workers + run->n_curvature > 1) bytes[CV_MEMORY_TRANSFER] += cv_larger(inbox_rows, inbox_sum);
  int64_t parcels = trains ? all_parcel_bytes(l) : parcel_bytes(l, owner_of(run, rank), true);
  bytes[CV_MEMORY_TRANSFER] += down_slots * parcels + wide_bytes(l, rank);
}

/* The largest solver: LAPACK's 3 n n of an exact one, the products of a randomized one; a spread factor is mirrored in
 * the same place, two blocks at a time. And a block on its way. */
static void hold_solver(const cv_plan_layout *l, int32_t rank, int64_t *bytes) {
  int32_t owner = owner_of(l->run, rank);
  int64_t most = 0, block = 0;
  for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
    place p = place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS);
    int64_t k = cv_plan_basis(&p.run, p.n, p.carrier);
    bool is_full = cv_plan_is_full(&p.run, p.n, p.carrier);
    if (p.owner >= 0 && p.is_spread) block = cv_larger(block, CV_PLAN_SPREAD_BLOCK * p.n);
    if (!holds(&p, owner) || p.run.is_inverse || is_of_units(&p)) continue;
    if (p.is_spread) most = cv_larger(most, p.n * 2 * CV_PLAN_SPREAD_BLOCK);
    most = cv_larger(most, (is_full ? 3 * p.n : k + (int64_t)2 * CV_PLAN_PROBES) * mine(&p, owner));
  }
  bytes[CV_MEMORY_WORKSPACE] += FLOAT * most;
  bytes[CV_MEMORY_TRANSFER] +=
      FLOAT * block * (!is_worker(l->run, rank) && sums_parts(l->run, l->run->is_bf16) ? 2 : 1);
}

/* To measure rounding with (rounding.h). */
static int64_t rounding_bytes(const cv_plan_layout *l) {
  int64_t widest = 0;
  for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++)
    widest = cv_larger(widest, place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS).n);
  return FLOAT * l->run->rounding_rows * widest;
}

void cv_plan_memory_of(const cv_plan_layout *l, int32_t rank, int64_t bytes[CV_MEMORY_KINDS]) {
  int32_t owner = owner_of(l->run, rank);
  for (int i = 0; i < CV_MEMORY_KINDS; i++) bytes[i] = 0;
  bytes[CV_MEMORY_WORKSPACE] = l->run->unit_room_bytes + rounding_bytes(l);
  if (is_worker(l->run, rank)) hold_worker(l, rank, bytes);
  for (int32_t i = 0; i < CV_PLAN_FACTORS * l->n_layers; i++) {
    place p = place_of(l, i / CV_PLAN_FACTORS, i % CV_PLAN_FACTORS);
    hold_factor(&p, owner, bytes);
  }
  hold_links(l, rank, bytes);
  hold_solver(l, rank, bytes);
}

int64_t cv_plan_factor_bytes(const cv_plan_run *run, const cv_plan_layer *layer, const cv_plan_choice *choice) {
  const int32_t first = 0, everywhere = -1;
  cv_plan_layout l = {run, 1, layer, choice, &first, &everywhere};
  int64_t bytes[CV_MEMORY_KINDS] = {0};
  for (int f = 0; f < CV_PLAN_FACTORS; f++) {
    place p = place_of(&l, 0, f);
    if (!p.is_spread) hold_factor(&p, 0, bytes);
  }
  return bytes[CV_MEMORY_FACTORS];
}
