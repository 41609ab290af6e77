#include "curvature/settings.h"

#include "product/multiply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(cv_settings, field)

const cv_option cv_settings_table[] = {
    /* name, type, group, unit, min, max, choices, initial, help, offset */
    {"method", CV_OPTION_CHOICE, "curvature", "", 0, 0,
     "none|kfac|rs-kfac|sre-kfac|nystrom-kfac|b-kfac|b-r-kfac|b-r-c-kfac", "nystrom-kfac",
     "how factors are decomposed: not at all, exactly, by a randomized range finder, or by online low-rank updates",
     AT(method)},
    {"recipe", CV_OPTION_CHOICE, "curvature", "", 0, 0, "normalised|published", "normalised",
     "where defaults come from: the normalised root step, or the step that the method was published with", AT(recipe)},
    {"seed", CV_OPTION_INTEGER, "curvature", "", 0, 9007199254740992.0, NULL, "1", "key of every random draw",
     AT(seed)},
    {"curvature_ranks", CV_OPTION_INTEGER, "curvature", "ranks", 0, 1 << 20, NULL, "0",
     "ranks that only serve curvature; 0: workers own the factors", AT(curvature_ranks)},
    {"grad_reduction", CV_OPTION_CHOICE, "curvature", "", 0, 0, "sum|mean|none", "mean",
     "how the workers' gradients combine: contributions to a sum, equal shares of a mean, or combined already",
     AT(grad_reduction)},
    {"loss_reduction", CV_OPTION_CHOICE, "curvature", "", 0, 0, "sum|mean", "mean",
     "scale of captured output gradients: of each example's loss, or of the mean over the captured rows",
     AT(loss_reduction)},
    {"steps_per_epoch", CV_OPTION_REAL, "curvature", "steps", 0, 1e15, NULL, "0",
     "length of an epoch, for schedules with pieces in epochs", AT(steps_per_epoch)},
    {"skip", CV_OPTION_TEXT, "curvature", "", 0, 0, NULL, "",
     "layers left without preconditioning: names separated by commas, * matches any characters", AT(skip)},
    {"factor_update_steps", CV_OPTION_SCHEDULE, "factors", "steps", 1, 1e9, NULL, "10", "interval of new statistics",
     AT(factor_update_steps)},
    {"inv_update_steps", CV_OPTION_SCHEDULE, "factors", "steps", 1, 1e9, NULL, "10",
     "interval of refreshed preconditioners", AT(inv_update_steps)},
    {"staleness", CV_OPTION_INTEGER, "factors", "steps", 0, 1e6, "free=-1", "0",
     "steps between the statistics of a refresh and its use, the same on every worker; 0: the step waits for it; free: "
     "as soon as all workers have it, which is not reproducible",
     AT(staleness)},
    {"rebalance_steps", CV_OPTION_INTEGER, "factors", "steps", 0, 1e9, NULL, "0",
     "interval of comparing what the owners' layers cost; layers, with all that is known of their factors, then move "
     "from "
     "busy owners to idle ones where that is a gain; 0: never",
     AT(rebalance_steps)},
    {"staleness_max", CV_OPTION_INTEGER, "factors", "steps", 1, 1e6, NULL, "50",
     "with staleness free: steps after which a step waits for the refresh", AT(staleness_max)},
    {"carrier", CV_OPTION_CHOICE, "factors", "", 0, 0, "auto|triangle|sketch|columns|local", "auto",
     "how statistics travel: packed triangles, sketches of streams, the captured rows, or not at all (local: an owner "
     "uses its own batch); auto: sketches of wide factors, else triangles or rows as costs less, rows only where "
     "capture_rows was set",
     AT(carrier)},
    {"route", CV_OPTION_CHOICE, "factors", "", 0, 0, "auto|owner|gradients", "auto",
     "how sums of statistics reach their owner: reduced straight to it, or summed with the gradients and handed over "
     "by one worker; auto: straight, since beside curvature ranks both cost about the same; without them, gradients "
     "keeps workers from waiting for each other's triangles",
     AT(route)},
    {"store", CV_OPTION_CHOICE, "factors", "", 0, 0, "auto|full|stream", "auto",
     "what an owner keeps of a factor: its running average, or a sketch of it whose size is linear in the layer's "
     "width",
     AT(store)},
    {"sample_rows", CV_OPTION_INTEGER, "factors", "rows", 0, 1 << 30, "auto=-1", "auto",
     "statistics of so many rows of a capture, drawn by their squared length, in place of all; 0: of all; auto: of all "
     "of a fully connected layer, and of so many patches of a convolution that their products take a tenth of the "
     "layer's own, at least 256, and all for a factor below 64 (convolutions: of every 2^18 rows)",
     AT(sample_rows)},
    {"weight_sharing", CV_OPTION_CHOICE, "factors", "", 0, 0, "kfc|published|expand|reduce", "kfc",
     "how a convolution's positions count: patches summed and gradients averaged over them, both as published with "
     "randomized K-FAC, the other way round (three splits of one product, alike under relative damping), or the mean "
     "patch and summed gradient of each example",
     AT(weight_sharing)},
    {"window_rows", CV_OPTION_INTEGER, "factors", "rows", 0, 1 << 30, NULL, "0",
     "carrier columns with store stream: rows that an owner keeps of a factor's last window, for a second product "
     "after "
     "a jump; 0: none",
     AT(window_rows)},
    {"online_renew", CV_OPTION_INTEGER, "factors", "refreshes", 0, 1 << 30, NULL, "5",
     "b-r-kfac, b-r-c-kfac: refreshes from one decomposition of the whole average to the next; 0: never",
     AT(online_renew)},
    {"online_correct", CV_OPTION_INTEGER, "factors", "refreshes", 0, 1 << 30, NULL, "1",
     "b-r-c-kfac: refreshes from one correction by the whole average to the next; 0: never", AT(online_correct)},
    {"online_share", CV_OPTION_REAL, "factors", "", 0, 1, NULL, "0.2", "share of the pairs in a correction",
     AT(online_share)},
    {"progress", CV_OPTION_CHOICE, "factors", "", 0, 0, "auto|test|thread", "auto",
     "what moves transfers while workers compute: looks at them inside the library's calls, or a thread of each worker "
     "(MPI_THREAD_MULTIPLE); auto: with staleness, what a trial in curvd_plan finds faster",
     AT(progress)},
    {"integrity", CV_OPTION_CHOICE, "factors", "", 0, 0, "off|transfers|all", "transfers",
     "what is looked at for changed bits, each of which fails the step: refreshes and sums when they come; or also "
     "what owners "
     "keep of factors, whenever they use it, and what is in force on workers, in curvd_check",
     AT(integrity)},
    {"average", CV_OPTION_CHOICE, "factors", "", 0, 0, "norm|id|zero|first|mg|sum", "norm",
     "running average: normalised weights, from the identity, from zero with the identity moved into the damping, "
     "from the first statistic, Martens and Grosse's mean, or a decayed sum",
     AT(average)},
    {"factor_decay", CV_OPTION_REAL, "factors", "", 0, 0.999999, NULL, "0.95",
     "decay of the running average per update", AT(factor_decay)},
    {"damping", CV_OPTION_SCHEDULE, "damping", "", 0, 1e30, NULL, "0.1",
     "added to eigenvalues, in units of damping_mode", AT(damping)},
    {"damping_mode", CV_OPTION_CHOICE, "damping", "", 0, 0, "relative-mean|relative-max|product-max|pi|scalar",
     "relative-mean",
     "unit of damping: each factor's mean or largest eigenvalue, the product of the largest ones, factored Tikhonov "
     "with pi, "
     "or absolute on the product",
     AT(damping_mode)},
    {"pi_bound", CV_OPTION_REAL, "damping", "", 1, 1e30, NULL, "1000", "pi is kept in [1 / bound, bound]",
     AT(pi_bound)},
    {"exponent_a", CV_OPTION_REAL, "damping", "", 0, 1, NULL, "0.5",
     "power of the inverse of A: 1, 0.5, 0.25; 0 leaves A out", AT(exponent_a)},
    {"exponent_g", CV_OPTION_REAL, "damping", "", 0, 1, NULL, "0.5", "power of the inverse of G", AT(exponent_g)},
    {"form", CV_OPTION_CHOICE, "decomposition", "", 0, 0, "eigen|cholesky", "eigen",
     "what kfac keeps of a factor: eigenbasis, or dense inverse by Cholesky", AT(form)},
    {"eig_rank", CV_OPTION_SCHEDULE, "decomposition", "", 1, 1 << 20, NULL, "64",
     "eigenpairs kept by a randomized method", AT(eig_rank)},
    {"oversampling", CV_OPTION_SCHEDULE, "decomposition", "", 0, 1 << 20, "auto=-1", "auto",
     "further rows of a sketch; auto: 8, and half of eig_rank for a stream", AT(oversampling)},
    {"power_iters", CV_OPTION_SCHEDULE, "decomposition", "", 0, 64, NULL, "2", "power iterations of a cold start",
     AT(power_iters)},
    {"warm_power_iters", CV_OPTION_SCHEDULE, "decomposition", "", 0, 64, NULL, "0",
     "power iterations from the previous basis (sre-kfac needs at least 1)", AT(warm_power_iters)},
    {"warm_start", CV_OPTION_SWITCH, "decomposition", "", 0, 0, NULL, "true", "start from the previous basis",
     AT(warm_start)},
    {"orthonormalise", CV_OPTION_CHOICE, "decomposition", "", 0, 0, "each|last", "each",
     "sre-kfac: after every product, or once at the end as published", AT(orthonormalise)},
    {"tail", CV_OPTION_CHOICE, "decomposition", "", 0, 0, "mean|zero|min", "mean",
     "eigenvalue assumed outside the kept span: mean of the missing trace, 0, or the smallest kept one", AT(tail)},
    {"full_share", CV_OPTION_REAL, "decomposition", "", 0, 1, NULL, "0.75",
     "a factor whose eig_rank + oversampling reaches this share of its size is decomposed exactly", AT(full_share)},
    {"range_finder", CV_OPTION_CHOICE, "decomposition", "", 0, 0, "power|krylov", "power",
     "how nystrom-kfac fills the rows that its start leaves: power iterations, or a block Krylov space of that depth",
     AT(range_finder)},
    {"missing_trace", CV_OPTION_REAL, "decomposition", "", 0, 1, NULL, "0",
     "share of a factor's trace that may be missing: the smallest eig_rank from eig_rank_min to eig_rank_max that "
     "leaves "
     "no more; 0: eig_rank is fixed",
     AT(missing_trace)},
    {"eig_rank_min", CV_OPTION_INTEGER, "decomposition", "", 1, 1 << 20, NULL, "16", "smallest adaptive eig_rank",
     AT(eig_rank_min)},
    {"eig_rank_max", CV_OPTION_INTEGER, "decomposition", "", 1, 1 << 20, NULL, "256", "largest adaptive eig_rank",
     AT(eig_rank_max)},
    {"drift_max", CV_OPTION_REAL, "decomposition", "", 0, 1, NULL, "0.3",
     "nystrom-kfac by power iterations: share of a product with the factor outside the old span above which a refresh "
     "takes another product; 0: never",
     AT(drift_max)},
    {"drift_products", CV_OPTION_INTEGER, "decomposition", "", 0, 64, NULL, "2",
     "most further products of a refresh whose basis has drifted", AT(drift_products)},
    {"skip_error", CV_OPTION_REAL, "decomposition", "", 0, 1, NULL, "0",
     "a refresh is skipped while the error of the old preconditioner has grown by no more than this share of the "
     "factor's norm; 0: never skipped",
     AT(skip_error)},
    {"grid_min_n", CV_OPTION_INTEGER, "grid", "", 2, 1 << 30, NULL, "4096",
     "factors of this size and above are spread over all owners, when there are several", AT(grid_min_n)},
    {"grid_product", CV_OPTION_CHOICE, "grid", "", 0, 0, "auto|scalapack|slab", "auto",
     "how owners multiply a spread factor: by ScaLAPACK, by one gather and local products, or as the planner has it",
     AT(grid_product)},
    {"capture_rows", CV_OPTION_INTEGER, "grid", "rows", 1, 1 << 30, NULL, "1024",
     "most rows that a worker captures in one step of a layer with a factor that is spread, or carried as columns; set "
     "to what a worker does capture, it lets carrier auto choose columns",
     AT(capture_rows)},
    {"dry_run", CV_OPTION_SWITCH, "grid", "", 0, 0, NULL, "false",
     "plan without memory: sizes and owners can be read, nothing can be run", AT(dry_run)},
    {"refresh_precision", CV_OPTION_CHOICE, "precision", "", 0, 0, CV_PRECISION_NAMES, "fp32",
     "products of a refresh with a whole factor: as they are, or with numbers rounded to bf16 (one term, or three "
     "products of two terms each) for the processor's matrix unit; all else of a refresh stays fp32 and fp64, and a "
     "factor for which that is too coarse goes on in bf16x3, or in fp32, by itself",
     AT(refresh_precision)},
    {"statistics_precision", CV_OPTION_CHOICE, "precision", "", 0, 0, CV_PRECISION_NAMES, "fp32",
     "products that make statistics of captured rows: covariances; sketches are made in three terms with bf16, too. "
     "A factor that is decomposed exactly, kept by an online method or with window_rows, or for which rounding was "
     "measured to be too coarse, keeps fp32",
     AT(statistics_precision)},
    {"apply_precision", CV_OPTION_CHOICE, "precision", "", 0, 0, CV_PRECISION_NAMES, "fp32",
     "products of gradients, or of rows, with eigenvectors; of factored layers the one that makes the gradient, too",
     AT(apply_precision)},
    {"wire_precision", CV_OPTION_CHOICE, "precision", "", 0, 0, "fp32|bf16", "fp32",
     "statistics and eigenvectors on their way between ranks: bf16 takes half the bytes, but sketches, the seeds that "
     "workers sketch with, inverses, sums that ride on the gradients' (route), and triangles too small for a "
     "randomized "
     "solver stay fp32",
     AT(wire_precision)},
    {"matrix_unit", CV_OPTION_CHOICE, "precision", "", 0, 0, CV_UNIT_NAMES, "auto",
     "what multiplies bf16 numbers; auto: the fastest that this machine has. Those without bf16 of their own are there "
     "to compare with: fp32 is faster",
     AT(matrix_unit)},
    {"step", CV_OPTION_CHOICE, "step", "", 0, 0, "normalised|kl-clip|norm-constraint|rms-clip|plain", "normalised",
     "length of the step: every layer's root mean square is 1, one of three clips, or as it comes", AT(step)},
    {"kl_clip", CV_OPTION_REAL, "step", "", 0, 1e30, NULL, "0.001",
     "bound of the clip: lr^2 <direction, gradient> for kl-clip and norm-constraint, root mean square for rms-clip",
     AT(kl_clip)},
    {"momentum", CV_OPTION_REAL, "step", "", 0, 0.999999, NULL, "0.9",
     "averaging of gradients before they are preconditioned: M <- momentum M + (1 - momentum) V", AT(momentum)},
    {"momentum_place", CV_OPTION_CHOICE, "step", "", 0, 0, "step|caller", "step",
     "who averages: the step, or the caller, whose gradients hold M already (with parameters handed over, they are "
     "left alone)",
     AT(momentum_place)},
    {"apply", CV_OPTION_CHOICE, "step", "", 0, 0, "auto|replicated|sharded|factored", "auto",
     "what is preconditioned: the averaged gradient, on every worker (replicated) or each layer's on one worker "
     "(sharded), or each worker's own rows before they make a gradient (factored, see curvd_precondition): cheaper, "
     "but momentum then averages directions; auto: replicated or sharded, layer by layer, as costs less by sizes and "
     "workers",
     AT(apply)},
};
const int cv_settings_count = sizeof cv_settings_table / sizeof cv_settings_table[0];
_Static_assert(sizeof cv_settings_table / sizeof cv_settings_table[0] <= CV_SETTINGS_MAX, "raise CV_SETTINGS_MAX");

/* What a recipe and a method imply; later rows win over earlier ones. */
static const struct {
  cv_recipe recipe;
  cv_method_kind method; /* CV_METHOD_NONE: any */
  const char *key, *value;
} implied[] = {
    {CV_RECIPE_NORMALISED, CV_METHOD_SRE, "warm_power_iters", "1"},
    /* kfac-pytorch's defaults (KAISA, Pauloski et al. 2021) */
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "momentum", "0"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "average", "id"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "exponent_a", "1"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "exponent_g", "1"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "step", "rms-clip"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "kl_clip", "0.07"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "damping_mode", "relative-max"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "damping", "0.1, 0.05@25e, 0.01@35e"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "inv_update_steps", "50, 30@20e"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "eig_rank", "220, 230@15e"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "oversampling", "10, 11@22e, 12@30e"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "power_iters", "4"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "warm_start", "false"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "orthonormalise", "last"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_NONE, "tail", "zero"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_KFAC, "damping_mode", "scalar"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_KFAC, "damping", "0.001"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_KFAC, "step", "kl-clip"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_KFAC, "kl_clip", "0.001"},
    {CV_RECIPE_PUBLISHED, CV_METHOD_KFAC, "inv_update_steps", "100"},
};

void cv_settings_init(cv_settings_book *book) {
  memset(book, 0, sizeof *book);
  for (int i = 0; i < cv_settings_count; i++) {
    snprintf(book->text[i], sizeof book->text[i], "%s", cv_settings_table[i].initial);
  }
  cv_error err = {0};
  cv_options_defaults(cv_settings_table, cv_settings_count, &book->values, &err);
}

curvd_status cv_settings_row(const char *key, int *row, cv_error *err) {
  const cv_option *option = key ? cv_option_find(cv_settings_table, cv_settings_count, key) : NULL;
  if (option) {
    *row = (int)(option - cv_settings_table);
    return CURVD_OK;
  }
  const char *names[CV_SETTINGS_MAX];
  for (int i = 0; i < cv_settings_count; i++) names[i] = cv_settings_table[i].name;
  const char *near = key ? cv_nearest_name(key, names, cv_settings_count) : NULL;
  return cv_fail(err, CURVD_ERR_OPTION, "unknown option '%.80s'%s%s%s", key ? key : "(null)",
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

curvd_status cv_settings_set(cv_settings_book *book, int row, const char *value, cv_error *err) {
  if (!value) return cv_fail(err, CURVD_ERR_ARGUMENT, "the value of option '%s' is NULL", cv_settings_table[row].name);
  CV_TRY(cv_option_set(&cv_settings_table[row], &book->values, value, err));
  snprintf(book->text[row], sizeof book->text[row], "%s", value);
  return CURVD_OK;
}

curvd_status cv_settings_put(cv_settings_book *book, const char *key, const char *value, cv_error *err) {
  int row = 0;
  CV_TRY(cv_settings_row(key, &row, err));
  CV_TRY(cv_settings_set(book, row, value, err));
  book->is_set[row] = true;
  return CURVD_OK;
}

static curvd_status refuse(cv_error *err, const char *why) {
  return cv_fail(err, CURVD_ERR_OPTION, "%s", why);
}

static curvd_status check_combinations(const cv_settings *s, cv_error *err) {
  bool is_joint = s->damping_mode == CV_DAMPING_SCALAR || s->damping_mode == CV_DAMPING_PRODUCT_MAX;
  if (is_joint && s->exponent_a != s->exponent_g)
    return refuse(err, "damping_mode scalar and product-max damp the product: exponent_a and exponent_g must be equal");
  if (is_joint && s->average == CV_AVERAGE_ZERO)
    return refuse(
        err,
        "average zero moves the identity into each factor's damping, which scalar and product-max do not have: use id");
  if (is_joint && s->apply == CV_APPLY_FACTORED)
    return refuse(err, "apply factored preconditions inputs and output gradients apart, which damping_mode scalar and "
                       "product-max do not allow: use relative-mean, relative-max or pi");
  if (s->eig_rank_min > s->eig_rank_max) return refuse(err, "eig_rank_min is above eig_rank_max");
  if (s->method == CV_METHOD_SRE && cv_schedule_min(&s->power_iters) < 1)
    return refuse(err, "sre-kfac with power_iters 0 never looks at the factor: use at least 1");
  if (s->method == CV_METHOD_SRE && s->warm_start && cv_schedule_min(&s->warm_power_iters) < 1)
    return refuse(err, "sre-kfac with warm_power_iters 0 stays in its old span: use at least 1");
  if (s->form != CV_FORM_CHOLESKY) return CURVD_OK;
  if (s->method != CV_METHOD_KFAC) return refuse(err, "form cholesky needs method kfac");
  if (is_joint || s->damping_mode == CV_DAMPING_RELATIVE_MAX)
    return refuse(err, "form cholesky knows no eigenvalues: use damping_mode pi or relative-mean");
  if (s->apply == CV_APPLY_FACTORED) return refuse(err, "apply factored needs eigenvectors: use form eigen");
  if (s->exponent_a != 1 || s->exponent_g != 1) return refuse(err, "form cholesky needs exponent_a = exponent_g = 1");
  return CURVD_OK;
}

/* A worker's sketch and its owner's must be of one test matrix, which changes when a refresh lands: before the next
 * refresh begins, and at a step that the owner knows. */
bool cv_can_sketch_on_workers(const cv_settings *s) {
  int64_t least = cv_schedule_least_gap(&s->inv_update_steps, s->steps_per_epoch), age = cv_landing_age(s);
  return age == 0 || (age > 0 && age < least);
}

int64_t cv_landing_age(const cv_settings *s) {
  return s->apply == CV_APPLY_FACTORED && s->staleness == 0 ? 1 : s->staleness;
}

bool cv_clip_needs_dot(const cv_settings *s) {
  return s->step == CV_STEP_KL_CLIP || s->step == CV_STEP_NORM_CONSTRAINT;
}

int64_t cv_oversampling(double setting, int64_t rank, bool is_stream) {
  enum { FEW = 8 };
  if (setting >= 0) return (int64_t)setting;
  return is_stream ? rank / 2 : FEW;
}

bool cv_is_online(const cv_settings *s) {
  return s->method == CV_METHOD_B || s->method == CV_METHOD_BR || s->method == CV_METHOD_BRC;
}

static curvd_status check_carriers(const cv_settings *s, cv_error *err) {
  bool can_stream = s->method == CV_METHOD_NYSTROM;
  if (s->carrier == CV_CARRY_LOCAL && s->curvature_ranks > 0)
    return refuse(err, "carrier local needs owners that are workers: curvature_ranks 0");
  if (s->carrier == CV_CARRY_LOCAL && s->rebalance_steps > 0)
    return refuse(err, "with carrier local a layer's statistics are those of its owner: rebalance_steps must be 0");
  if (s->route == CV_ROUTE_GRADIENTS && (s->carrier == CV_CARRY_LOCAL || s->grad_reduction == CV_GRAD_NONE))
    return refuse(err, "route gradients needs gradients that are summed here, and statistics that travel");
  if (s->apply == CV_APPLY_SHARDED && s->grad_reduction == CV_GRAD_NONE)
    return refuse(err, "apply sharded needs gradients that are summed here: grad_reduction sum or mean");
  if (cv_is_online(s) && (s->carrier == CV_CARRY_TRIANGLE || s->carrier == CV_CARRY_SKETCH))
    return refuse(err, "online methods update their pairs by rows: use carrier columns, local or auto");
  if (cv_is_online(s) && s->store != CV_STORE_AUTO) return refuse(err, "online methods have a store of their own");
  if (s->store == CV_STORE_STREAM && !can_stream) return refuse(err, "store stream needs method nystrom-kfac");
  if (s->store == CV_STORE_STREAM && s->carrier == CV_CARRY_TRIANGLE)
    return refuse(err, "a stream knows no triangles: use carrier sketch or columns");
  if (s->carrier != CV_CARRY_SKETCH) return CURVD_OK;
  if (!can_stream) return refuse(err, "carrier sketch needs method nystrom-kfac");
  if (s->store == CV_STORE_FULL) return refuse(err, "carrier sketch needs store stream: a sketch makes no full factor");
  if (cv_can_sketch_on_workers(s)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION,
                 "carrier sketch needs staleness (at least 1 with apply factored) below the least distance of two "
                 "refreshes by inv_update_steps, here %lld, and not free: lower it, or use carrier columns",
                 (long long)cv_schedule_least_gap(&s->inv_update_steps, s->steps_per_epoch));
}

curvd_status cv_settings_resolve(cv_settings_book *book, cv_error *err) {
  for (size_t i = 0; i < sizeof implied / sizeof implied[0]; i++) {
    int row = 0;
    if ((int)implied[i].recipe != book->values.recipe) continue;
    if (implied[i].method != CV_METHOD_NONE && (int)implied[i].method != book->values.method) continue;
    CV_TRY(cv_settings_row(implied[i].key, &row, err));
    if (!book->is_set[row]) CV_TRY(cv_settings_set(book, row, implied[i].value, err));
  }
  int capture_rows = 0;
  CV_TRY(cv_settings_row("capture_rows", &capture_rows, err));
  book->values.knows_rows = book->is_set[capture_rows];
  CV_TRY(check_combinations(&book->values, err));
  return check_carriers(&book->values, err);
}

/* FNV-1a */
uint64_t cv_settings_hash(const cv_settings_book *book) {
  uint64_t hash = 14695981039346656037u;
  for (int i = 0; i < cv_settings_count; i++) {
    for (const char *c = book->text[i];; c++) {
      hash = (hash ^ (unsigned char)*c) * 1099511628211u;
      if (!*c) break;
    }
    hash = (hash ^ book->is_set[i]) * 1099511628211u;
  }
  return hash;
}
