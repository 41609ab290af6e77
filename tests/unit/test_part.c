/* What the library is told of a network's layers: their number, names, shapes, and where their rows and gradients lie;
 * and the whole way from a model to a direction, against K-FAC with KFC's factors in fp64.
 *
 * Tolerance of the direction: fp32 eigenpairs of factors of n <= 37 whose quotient (lambda_max + damping) / damping is
 * below 200 in each: 6e-8 sqrt(37) 200 in each of two factors is 1.5e-4 in the worst direction, and 2e-5 in one that
 * points everywhere. */
#include "data_files.h"
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "reference_layers.h"

#include "net/model_build.h"
#include "train/network.h"
#include "train/run_options.h"
#include "train/trainer.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static const double TOLERANCE = 5e-5;

static part list[PARTS_MAX];
static int first[MODEL_LAYERS_MAX + 1];

static model_spec spec_of(const char *text) {
  static model_spec spec;
  ck_assert_msg(network_file_parse(text, strlen(text), "net.yaml", &spec, &err) == CURVD_OK, "%s", err.text);
  return spec;
}

static model model_of(const model_spec *spec, int64_t rows) {
  model net;
  const model_settings how = {.rows_max = rows, .seed = 1};
  ck_assert_msg(model_create(spec, &how, &memory, &net, &err) == CURVD_OK, "%s", err.text);
  return net;
}

static const char mixed[] = "- input: 6x5x4\n"
                            "- conv: 6\n  kernel: 3x2\n  groups: 2\n  bias: false\n"
                            "- norm: batch\n  name: scales\n  activation: relu\n"
                            "- max: 2\n"
                            "- conv: 2\n  kernel: 1\n"
                            "- dropout: 0.5\n"
                            "- dense: 3\n";

enum { CONV = 0, NORM = 1, POINT = 3, DENSE = 6, PARTS = 5 }; /* layer 5 flattens */

/* ---- lists and names ---- */

START_TEST(parts_are_groups_and_layers_with_weights) {
  static const part expected[PARTS] = {{CONV, 0}, {CONV, 1}, {NORM, 0}, {POINT, 0}, {DENSE, 0}};
  static const int begins[] = {0, 2, 3, 3, 4, 4, 4, 5};
  model_spec spec = spec_of(mixed);
  ck_assert_int_eq(spec.n_layers, COUNT(begins) - 1);
  ck_assert_int_eq(part_list(&spec, list, first, &err), CURVD_OK);
  for (size_t i = 0; i < COUNT(begins); i++) ck_assert_int_eq(first[i], begins[i]);
  for (int p = 0; p < PARTS; p++) ck_assert(list[p].layer == expected[p].layer && list[p].group == expected[p].group);
}
END_TEST

START_TEST(as_many_parts_as_there_is_room_for) {
  char text[200];
  for (int more = 0; more < 2; more++) {
    cv_error_clear(&err);
    int groups = PARTS_MAX - 1 + more;
    snprintf(text, sizeof text, "- input: 1x1x%d\n- conv: %d\n  name: wide\n  kernel: 1\n  groups: %d\n- dense: 2\n",
             groups, groups, groups);
    model_spec spec = spec_of(text);
    ck_assert_int_eq(part_list(&spec, list, first, &err), more ? CURVD_ERR_OPTION : CURVD_OK);
    if (more) ck_assert_msg(strstr(err.text, "fc1") != NULL && strstr(err.text, "4096") != NULL, "%s", err.text);
    if (!more) ck_assert_int_eq(first[spec.n_layers], PARTS_MAX);
  }
  model_spec spec = spec_of("- input: 1x1x8192\n- conv: 8192\n  name: wide\n  kernel: 1\n  groups: 8192\n- dense: 2\n");
  cv_error_clear(&err);
  ck_assert_int_eq(part_list(&spec, list, first, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "wide"));
}
END_TEST

START_TEST(shapes_and_names) {
  static const struct {
    const char *name;
    int64_t d_in, d_out, positions;
    bool has_bias;
    curvd_layer_kind kind;
  } expected[PARTS] = {{"conv1.0", 3 * 2 * 2, 3, 4 * 4, false, CURVD_LAYER_DENSE},
                       {"conv1.1", 3 * 2 * 2, 3, 4 * 4, false, CURVD_LAYER_DENSE},
                       {"scales", 1, 6, 0, true, CURVD_LAYER_NORM},
                       {"conv2", 6, 2, 2 * 2, true, CURVD_LAYER_DENSE},
                       {"fc1", 8, 3, 0, true, CURVD_LAYER_DENSE}};
  model_spec spec = spec_of(mixed);
  ck_assert_int_eq(part_list(&spec, list, first, &err), CURVD_OK);
  for (int p = 0; p < PARTS; p++) {
    char text[NN_NAME_MAX];
    curvd_layer_shape shape = part_shape(&spec, list[p], text);
    ck_assert_str_eq(shape.name, expected[p].name);
    ck_assert_int_eq(shape.d_in, expected[p].d_in);
    ck_assert_int_eq(shape.d_out, expected[p].d_out);
    ck_assert_int_eq(shape.positions, expected[p].positions);
    ck_assert_int_eq(shape.has_bias, expected[p].has_bias);
    ck_assert_int_eq(shape.kind, expected[p].kind);
  }
}
END_TEST

/* Every group's name differs from every other, however long the layer's is. */
START_TEST(long_names_keep_their_group) {
  static const char text[] = "- input: 2x2x12\n- conv: 12\n  kernel: 1\n  groups: 12\n"
                             "  name: a_name_of_sixty_three_characters_which_is_the_most_that_fits_in\n- dense: 2\n";
  model_spec spec = spec_of(text);
  char names[13][NN_NAME_MAX];
  ck_assert_uint_eq(strlen(spec.layer[0].name), NN_NAME_MAX - 1);
  ck_assert_int_eq(part_list(&spec, list, first, &err), CURVD_OK);
  for (int p = 0; p < 13; p++) {
    part_shape(&spec, list[p], names[p]);
    for (int q = 0; q < p; q++) ck_assert_str_ne(names[p], names[q]);
  }
  ck_assert_ptr_nonnull(strstr(names[11], ".11"));
}
END_TEST

/* ---- where things lie ---- */

/* Rows and columns of a part's gradient are its channels' rows of the layer's; the groups fill it without overlap. */
START_TEST(gradients_and_weights_of_groups) {
  model_spec spec = spec_of(mixed);
  model net = model_of(&spec, 2);
  ck_assert_int_eq(part_list(&spec, list, first, &err), CURVD_OK);
  for (int p = 0; p < PARTS; p++) {
    const nn_layer *layer = &net.layer[list[p].layer];
    int64_t row = list[p].layer == CONV ? 3 * list[p].group : 0, d_in[] = {12, 12, 1, 6, 8};
    curvd_gradient g = part_gradient(&net, list[p]);
    ck_assert_ptr_eq(g.weight, layer->gradient + row * layer->ld);
    ck_assert_ptr_eq(part_weight(&net, list[p]), layer->weight + row * layer->ld);
    ck_assert_int_eq(g.ld, layer->ld);
    ck_assert_ptr_eq(g.bias, g.weight + d_in[p]);
    ck_assert_int_eq(g.bias_stride, layer->ld);
    ck_assert_ptr_null(g.parameter);
  }
  model_free(&memory, &net);
}
END_TEST

/* Row i of a part's inputs is pixel i (flat: example i) at its group's first channel. */
START_TEST(captured_rows_of_groups) {
  model_spec spec = spec_of(mixed);
  model net = model_of(&spec, 2);
  ck_assert_int_eq(part_list(&spec, list, first, &err), CURVD_OK);
  for (int64_t group = 0; group < 2; group++) {
    part_rows rows = part_look(&net, (part){CONV, group});
    ck_assert_ptr_eq(rows.a, net.x[0] + 2 * group);
    ck_assert_ptr_eq(rows.g, net.g[CONV + 1] + 3 * group);
    ck_assert(rows.lda == 4 && rows.ldg == 6);
  }
  part_rows point = part_look(&net, (part){POINT, 0}), dense_rows = part_look(&net, (part){DENSE, 0});
  ck_assert_ptr_eq(point.a, net.x[POINT]);
  ck_assert_ptr_eq(point.g, net.g[POINT + 1]);
  ck_assert(point.lda == 6 && point.ldg == 2);
  ck_assert_ptr_eq(dense_rows.a, net.x[DENSE]);
  ck_assert_ptr_eq(dense_rows.g, net.g[DENSE + 1]);
  ck_assert(dense_rows.lda == nn_ld(8) && dense_rows.ldg == nn_ld(3));
  model_free(&memory, &net);
}
END_TEST

/* A normalisation's rows are examples: gradients in scale and shift, which sum to that of the weight. */
START_TEST(captured_rows_of_a_normalisation) {
  enum { EXAMPLES = 3, CHANNELS = 6 };
  model_spec spec = spec_of(mixed);
  model net = model_of(&spec, EXAMPLES);
  const nn_pass pass = {.is_training = true, .seed = 1};
  for (int64_t i = 0; i < EXAMPLES * nn_size(spec.input); i++) net.x[0][i] = (float)(i * 7 % 11) - 5;
  model_forward(&net, &pass, EXAMPLES);
  for (int64_t i = 0; i < EXAMPLES; i++)
    for (int64_t j = 0; j < 3; j++) net.g[spec.n_layers][i * nn_ld(3) + j] = (float)(i + 1) - (float)j;
  model_backward(&net, &pass, EXAMPLES, true, 1, 0, NULL, NULL);
  part_rows rows = part_look(&net, (part){NORM, 0});
  curvd_gradient g = part_gradient(&net, (part){NORM, 0});
  ck_assert(rows.lda == CHANNELS && rows.ldg == CHANNELS);
  double largest = 0;
  for (int64_t j = 0; j < CHANNELS; j++) {
    double scale = 0, shift = 0;
    for (int64_t i = 0; i < EXAMPLES; i++) scale += rows.a[i * rows.lda + j], shift += rows.g[i * rows.ldg + j];
    ck_assert_double_eq_tol(g.weight[j * g.ld], scale, 1e-5);
    ck_assert_double_eq_tol(g.bias[j * g.bias_stride], shift, 1e-5);
    largest = fmax(largest, fabs(scale - shift));
  }
  ck_assert_double_gt(largest, 0.01); /* the two are not the same */
  model_free(&memory, &net);
}
END_TEST

/* ---- from a model to a direction ---- */

static const char tiny[] = "- input: 4x5x2\n"
                           "- conv: 4\n  kernel: 2\n  pad: 1\n  stride: 2\n  activation: tanh\n"
                           "- conv: 4\n  kernel: 1x2\n  groups: 2\n  activation: tanh\n"
                           "- dense: 3\n";

enum { BATCH = 24, LAYERS = 4 }; /* conv, conv, flatten, dense */

static const kfac_case rule = {"relative-mean", "norm", "eigen", 0.2, 1, 0.5, 0.9};

/* The network again in fp64 with the gradient of every example in every layer's output before its activation. */
typedef struct twin {
  reference_layers net;
  double *g[LAYERS];
} twin;

static void configure(config *c) {
  char text[1024], *words[96];
  int n = 0;
  write_parts("net.yaml", tiny, strlen(tiny), "", 0);
  snprintf(text, sizeof text,
           "--data teacher --teacher-samples 144 --network %s --batch %d --steps 1 --seed 3 --lr 1 --lr-decay constant "
           "--curvature-ranks 0 --method kfac --fisher empirical --fisher-stride 1 --weight-decay 0 --momentum 0 "
           "--sgd-momentum 0 --step plain --factor-update-steps 1 --inv-update-steps 1 --damping-mode %s --damping %g "
           "--exponent-a %g --exponent-g %g --average %s",
           in_folder("net.yaml"), (int)BATCH, rule.mode, rule.damping, rule.exponent_a, rule.exponent_g, rule.average);
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) words[n++] = word;
  ck_assert_msg(config_load(n, words, c, &err) == CURVD_OK, "%s", err.text);
}

/* Weights, and the examples of the first batch. */
static void twin_new(const trainer *t, twin *to, int32_t *labels) {
  int64_t order[144], size = nn_size(t->model.spec.input);
  reference_layers_new(&to->net, &t->model.spec, BATCH);
  for (int l = 0; l < LAYERS; l++) {
    const nn_layer *layer = &t->model.layer[l];
    to->g[l] = reference_numbers(BATCH * nn_size(layer->spec.out));
    for (int64_t i = 0; i < layer->d_out * (layer->d_in + 1) && layer->weight; i++)
      to->net.weight[l][i] = layer->weight[i / (layer->d_in + 1) * layer->ld + i % (layer->d_in + 1)];
  }
  data_order(3, 0, t->data.train.n, order);
  for (int64_t i = 0; i < BATCH; i++) {
    labels[i] = t->data.train.labels[order[i]];
    for (int64_t j = 0; j < size; j++) to->net.x[0][i * size + j] = t->data.train.features[order[i] * size + j];
  }
}

static void twin_free(twin *t) {
  for (int l = 0; l < LAYERS; l++) free(t->g[l]);
  reference_layers_free(&t->net);
}

/* One column of a patch: the place in x that tap k of group `group` sees from output pixel t; -1: the border. */
static int64_t tap(const nn_layer_spec *s, int64_t b, int64_t t, int64_t group, int64_t k) {
  int64_t per = s->in.channels / s->groups, c = k % per, kx = k / per % s->window.kernel[1];
  int64_t y = t / s->out.width * s->window.stride[0] - s->window.pad[0] + k / per / s->window.kernel[1];
  int64_t x = t % s->out.width * s->window.stride[1] - s->window.pad[1] + kx;
  bool is_inside = y >= 0 && y < s->in.height && x >= 0 && x < s->in.width;
  return is_inside ? reference_at(s->in, b, y, x, group * per + c) : -1;
}

static void back_through(const twin *t, int l, double *dx) {
  const nn_layer_spec *s = &t->net.spec->layer[l];
  int64_t columns = nn_weight_columns(s), pixels = s->out.height * s->out.width, c = s->out.channels;
  for (int64_t i = 0; i < BATCH * nn_size(s->out); i++) {
    int64_t b = i / nn_size(s->out), o = i % c, group = s->kind == NN_CONV ? o / (c / s->groups) : 0;
    for (int64_t k = 0; k < columns; k++) {
      int64_t to = s->kind == NN_CONV ? tap(s, b, i / c % pixels, group, k) : b * columns + k;
      if (to >= 0) dx[to] += t->g[l][i] * t->net.weight[l][o * (columns + 1) + k];
    }
  }
}

static void twin_run(twin *t, const int32_t *labels) {
  int64_t d = model_output(t->net.spec).channels;
  for (int l = 0; l < LAYERS; l++) reference_layer(&t->net, l);
  for (int64_t i = 0; i < BATCH; i++)
    reference_loss(NN_SOFTMAX_CE, d, t->net.x[LAYERS] + i * d, labels[i], NULL, t->g[LAYERS - 1] + i * d);
  for (int l = LAYERS - 1; l > 0; l--) {
    const nn_layer_spec *below = &t->net.spec->layer[l - 1];
    int64_t count = BATCH * nn_size(below->out);
    if (t->net.spec->layer[l].kind == NN_FLATTEN)
      memcpy(t->g[l - 1], t->g[l], (size_t)count * sizeof(double));
    else
      back_through(t, l, t->g[l - 1]);
    for (int64_t i = 0; i < count; i++) {
      double y = t->net.x[l][i];
      if (below->activation == NN_TANH) t->g[l - 1][i] *= 1 - y * y;
    }
  }
}

/* Inputs (with the bias's 1) and gradients of a part at pixel t of example b. */
static void rows_of(const twin *t, part p, int64_t b, int64_t pixel, double *a, double *g) {
  const nn_layer_spec *s = &t->net.spec->layer[p.layer];
  int64_t n = nn_weight_columns(s), groups = s->kind == NN_CONV ? s->groups : 1, made = s->out.channels / groups;
  int64_t pixels = s->out.height * s->out.width;
  for (int64_t k = 0; k < n; k++) {
    int64_t from = s->kind == NN_CONV ? tap(s, b, pixel, p.group, k) : b * n + k;
    a[k] = from < 0 ? 0 : t->net.x[p.layer][from];
  }
  a[n] = 1;
  for (int64_t j = 0; j < made; j++) g[j] = t->g[p.layer][(b * pixels + pixel) * s->out.channels + p.group * made + j];
}

/* A sums over positions and G averages over them, both average over examples (Grosse and Martens, arXiv:1602.01407). */
static dense direction_of(const twin *t, part p) {
  const nn_layer_spec *s = &t->net.spec->layer[p.layer];
  int64_t n = nn_weight_columns(s) + 1, m = nn_weight_rows(s) / (s->kind == NN_CONV ? s->groups : 1);
  int64_t pixels = s->out.height * s->out.width;
  dense A = dense_zero(n, n), G = dense_zero(m, m), V = dense_zero(m, n);
  for (int64_t i = 0; i < BATCH * pixels; i++) {
    double a[DENSE_MAX], g[DENSE_MAX];
    rows_of(t, p, i / pixels, i % pixels, a, g);
    for (int64_t j = 0; j < n * n; j++) A.x[j / n][j % n] += a[j / n] * a[j % n] / BATCH;
    for (int64_t j = 0; j < m * m; j++) G.x[j / m][j % m] += g[j / m] * g[j % m] / (double)(BATCH * pixels);
    for (int64_t j = 0; j < m * n; j++) V.x[j / n][j % n] += g[j / n] * a[j % n] / BATCH;
  }
  return kfac_apply(&rule, 1, A, G, V);
}

/* What one step at learning rate 1 has subtracted. */
static dense moved(const twin *before, const trainer *t, part p) {
  const nn_layer *layer = &t->model.layer[p.layer];
  int64_t groups = layer->spec.kind == NN_CONV ? layer->spec.groups : 1, m = layer->d_out / groups, n = layer->d_in + 1;
  dense D = dense_zero(m, n);
  for (int64_t i = 0; i < m * n; i++) {
    int64_t row = p.group * m + i / n;
    D.x[i / n][i % n] = before->net.weight[p.layer][row * n + i % n] - layer->weight[row * layer->ld + i % n];
  }
  return D;
}

START_TEST(whole_way_to_a_direction) {
  static trainer t;
  config c;
  twin before;
  int32_t labels[BATCH];
  configure(&c);
  ck_assert_msg(trainer_create(&c, MPI_COMM_SELF, &t, &err) == CURVD_OK, "%s", err.text);
  ck_assert(t.model.spec.n_layers == LAYERS && t.first[LAYERS] == 4);
  twin_new(&t, &before, labels);
  twin_run(&before, labels);
  ck_assert_msg(trainer_step(&t, &err) == CURVD_OK, "%s", err.text);
  for (int p = 0; p < t.first[LAYERS]; p++) {
    double distance = dense_distance(moved(&before, &t, t.part[p]), direction_of(&before, t.part[p]));
    ck_assert_msg(distance < TOLERANCE, "part %d: %.1e", p, distance);
  }
  ck_assert_int_eq(trainer_finish(&t, &err), CURVD_OK);
  trainer_free(&t);
  config_free(&c);
  twin_free(&before);
}
END_TEST

/* A step of which only the decay is seen: the library shrinks what it is handed, but no scale. */
START_TEST(scales_do_not_shrink) {
  static const char net[] = "- input: 3x3x2\n- conv: 4\n  kernel: 2\n- norm: batch\n- dense: 3\n";
  static trainer t;
  config c;
  static char path[CV_OPTION_TEXT_MAX];
  write_parts("net.yaml", net, strlen(net), "", 0);
  snprintf(path, sizeof path, "%s", in_folder("net.yaml"));
  const char *const words[] = {"--data",     "teacher",  "--teacher-samples", "144",  "--network",      path,
                               "--batch",    "24",       "--steps",           "1",    "--lr",           "1e-6",
                               "--lr-decay", "constant", "--method",          "kfac", "--weight-decay", "1e5"};
  ck_assert_msg(config_load(COUNT(words), (char *const *)words, &c, &err) == CURVD_OK, "%s", err.text);
  ck_assert_msg(trainer_create(&c, MPI_COMM_SELF, &t, &err) == CURVD_OK, "%s", err.text);
  const nn_layer *conv = &t.model.layer[0], *norm = &t.model.layer[1];
  float before = conv->weight[0];
  ck_assert_msg(trainer_step(&t, &err) == CURVD_OK, "%s", err.text);
  ck_assert_double_eq_tol(conv->weight[0], 0.9 * before, 1e-4); /* lr times decay is 0.1, a direction has length 1 */
  for (int64_t i = 0; i < norm->d_out; i++) ck_assert_double_eq_tol(norm->weight[i * norm->ld], 1, 1e-4);
  ck_assert_int_eq(trainer_finish(&t, &err), CURVD_OK);
  trainer_free(&t);
  config_free(&c);
}
END_TEST

/* Automatic learning rates, as the README's commands meet them. */
START_TEST(rates_of_convolutional_networks) {
  static const struct {
    const char *network, *method, *lr;
  } cases[] = {{"cnn", "nystrom-kfac", "0.0005"},
               {"cnn", "sgd", "0.02"},
               {"12-8-3", "nystrom-kfac", "0.001"},
               {"12-8-3", "sgd", "0.1"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    config c;
    model_spec spec;
    const char *const words[] = {"--network", cases[i].network, "--method", cases[i].method};
    ck_assert_int_eq(config_load(COUNT(words), (char *const *)words, &c, &err), CURVD_OK);
    ck_assert_int_eq(network_parse(cases[i].network, NN_RELU, NN_LOSS_AUTO, &spec, &err), CURVD_OK);
    ck_assert_int_eq(run_resolve(&c, &spec, 1, &err), CURVD_OK);
    ck_assert_str_eq(config_text(&c, "lr"), cases[i].lr);
    config_free(&c);
  }
}
END_TEST

static void make_folder(void) {
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
  rmdir(folder);
}

static Suite *make_suite(void) {
  const TTest *const tests[] = {parts_are_groups_and_layers_with_weights,
                                as_many_parts_as_there_is_room_for,
                                shapes_and_names,
                                long_names_keep_their_group,
                                gradients_and_weights_of_groups,
                                captured_rows_of_groups,
                                captured_rows_of_a_normalisation,
                                whole_way_to_a_direction,
                                scales_do_not_shrink,
                                rates_of_convolutional_networks};
  Suite *suite = suite_create("part");
  TCase *tcase = tcase_create("part");
  tcase_add_unchecked_fixture(tcase, make_folder, remove_folder);
  tcase_add_checked_fixture(tcase, NULL, after_each);
  for (size_t i = 0; i < COUNT(tests); i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  return suite;
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
