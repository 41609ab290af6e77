/* What a prediction says of owners, carriers, applies, spread factors and memory, against the dry plan of the service
 * itself, on every rank and for every split of the ranks. Also without a hint from the tests: by the same texts of
 * options. */
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#include "curvd_experimental.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 4, BATCH = 240 };

/* fc3 is so small that its factors are decomposed exactly; rows are padded by at most 31 floats of 600. */
static const service_layer layers[LAYERS] = {
    {"fc0", 1500, 1000, true}, {"fc1", 1000, 700, true}, {"fc2", 700, 900, false}, {"fc3", 900, 60, true}};

static int size, rank;

/* is_local: only without curvature ranks. */
static const struct {
  const char *options;
  bool is_local, has_memory;
} cases[] = {
    {"method=nystrom-kfac", false, true},
    {"method=nystrom-kfac carrier=sketch", false, true},
    {"method=nystrom-kfac store=stream staleness=4 oversampling=20", false, true},
    {"method=nystrom-kfac store=stream staleness=40", false, false},
    {"method=rs-kfac grid_min_n=950 skip=fc1", false, true},
    {"method=kfac grid_min_n=1200", false, true},
    {"method=b-kfac eig_rank=40", false, true},
    {"method=b-kfac eig_rank=40 carrier=local", true, true},
    {"method=nystrom-kfac carrier=columns", false, true},
    {"method=nystrom-kfac carrier=columns store=stream staleness=free", false, true},
    {"method=nystrom-kfac carrier=columns grid_min_n=950", false, true},
    {"method=nystrom-kfac carrier=local", true, true},
    {"method=nystrom-kfac carrier=local store=stream", true, true},
    {"method=kfac form=cholesky exponent_a=1 exponent_g=1 staleness=free staleness_max=25", false, true},
    {"method=nystrom-kfac apply=replicated", false, true},
    {"method=nystrom-kfac apply=sharded skip=fc1", false, true},
    {"method=kfac skip=fc0,fc1", false, true}, /* one layer alone is worth sharing out: it is not */
    {"method=nystrom-kfac apply=factored", false, false},
    {"method=nystrom-kfac apply=sharded missing_trace=0.1 eig_rank_max=100", false, false},
    {"method=none", false, false},
};

static curvd_prediction *prediction_of(const char *text, int n_curvature) {
  static char words[512], servers[16], rows[16];
  static curvd_option_value options[16];
  curvd_layer_shape shapes[LAYERS];
  curvd_run_shape shape = {
      .layers = shapes, .n_layers = LAYERS, .options = options, .n_ranks = size, .batch_rows = BATCH};
  snprintf(words, sizeof words, "%s", text);
  for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
    char *value = strchr(word, '=');
    *value++ = '\0';
    options[shape.n_options++] = (curvd_option_value){word, value};
  }
  snprintf(servers, sizeof servers, "%d", n_curvature);
  snprintf(rows, sizeof rows, "%d", (BATCH + size - n_curvature - 1) / (size - n_curvature));
  options[shape.n_options++] = (curvd_option_value){"curvature_ranks", servers};
  options[shape.n_options++] = (curvd_option_value){"capture_rows", rows};
  for (int i = 0; i < LAYERS; i++)
    shapes[i] = (curvd_layer_shape){layers[i].name, layers[i].d_in, layers[i].d_out, layers[i].has_bias};
  curvd_prediction *p = NULL;
  char message[480] = "";
  mpi_assert_msg(curvd_predict(&shape, &p, message, sizeof message) == CURVD_OK, "%s: %s", text, message);
  return p;
}

static curvd_ctx *service_of(const char *text, int n_curvature) {
  char options[512];
  snprintf(options, sizeof options, "%s curvature_ranks=%d capture_rows=%d dry_run=true", text, n_curvature,
           (BATCH + size - n_curvature - 1) / (size - n_curvature));
  return service_open(MPI_COMM_WORLD, options, LAYERS, layers);
}

static void check_layers(const char *text, int c, const curvd_ctx *ctx, const curvd_prediction *p) {
  for (int32_t i = 0; i < LAYERS; i++) {
    curvd_layer_metrics real;
    curvd_predicted_layer said;
    mpi_assert(curvd_layer_metrics_read(ctx, i, &real) == CURVD_OK);
    mpi_assert(curvd_prediction_layer(p, i, &said) == CURVD_OK);
    mpi_assert_msg(real.owner == said.owner, "%s, %d of %d ranks serve, layer %d: owner %d, predicted %d", text, c,
                   size, (int)i, real.owner, said.owner);
    mpi_assert_msg(strcmp(real.apply, said.apply) == 0, "%s, %d of %d ranks serve, layer %d: %s, predicted %s", text, c,
                   size, (int)i, real.apply, said.apply);
    for (int f = 0; f < 2 && real.owner >= 0; f++) {
      bool is_local = strcmp(said.carrier[f], "local") == 0; /* as its own rows' travel */
      const char *carrier = !is_local                                   ? said.carrier[f]
                            : strcmp(real.factor[f].store, "full") == 0 ? "triangle"
                                                                        : "columns";
      mpi_assert_msg(strcmp(real.factor[f].carrier, carrier) == 0, "%s, layer %d, factor %d: %s, predicted %s", text,
                     (int)i, f, real.factor[f].carrier, carrier);
      mpi_assert_msg(real.factor[f].ranks == said.ranks[f], "%s, layer %d, factor %d: on %d ranks, predicted %d", text,
                     (int)i, f, real.factor[f].ranks, said.ranks[f]);
    }
  }
}

/* As in test_plan_bytes.c: padding, small change, and scratch of solvers that is bounded. Kinds whose size says which
 * carrier and how many pairs there are. */
static void check_memory(const char *text, int c, const curvd_ctx *ctx, const curvd_prediction *p) {
  static const curvd_memory kinds[] = {CURVD_MEMORY_STATISTICS, CURVD_MEMORY_FACTORS, CURVD_MEMORY_PRECONDITIONERS,
                                       CURVD_MEMORY_TRANSFER, CURVD_MEMORY_MOMENTUM};
  curvd_predicted_rank said;
  curvd_metrics metrics = service_metrics(ctx);
  mpi_assert(curvd_prediction_rank(p, rank, &said) == CURVD_OK);
  for (size_t i = 0; i < COUNT(kinds); i++) {
    double real = (double)metrics.memory_bytes[kinds[i]], expected = (double)said.memory_bytes[kinds[i]];
    mpi_assert_msg(real >= expected && real <= expected * (1 + 62.0 / 600) + 262144,
                   "%s, %d of %d ranks serve: %s: %.0f bytes, predicted %.0f", text, c, size,
                   curvd_memory_name(kinds[i]), real, expected);
  }
}

START_TEST(predictions_are_those_of_the_plan) {
  for (size_t i = 0; i < COUNT(cases); i++) {
    for (int c = 0; c < (cases[i].is_local ? 1 : size); c++) {
      curvd_prediction *p = prediction_of(cases[i].options, c);
      curvd_ctx *ctx = service_of(cases[i].options, c);
      check_layers(cases[i].options, c, ctx, p);
      if (cases[i].has_memory) check_memory(cases[i].options, c, ctx, p);
      curvd_prediction_free(&p);
      curvd_destroy(&ctx);
    }
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {predictions_are_those_of_the_plan};
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return service_suite("forecast ranks", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
