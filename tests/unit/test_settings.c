/* The library's options as an embedder meets them: the table, curvd_set, what recipes imply, what is refused. */
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/settings.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static const service_layer fc = {"fc", 3, 2, true};

static curvd_ctx *make(const char *options) {
  return service_make(MPI_COMM_SELF, options, 1, &fc);
}

/* key=value words that curvd_get must give back. */
static void check_values(const curvd_ctx *ctx, const char *const (*expected)[2], size_t n) {
  for (size_t i = 0; i < n; i++) {
    const char *value = curvd_get(ctx, expected[i][0]);
    ck_assert_msg(value && strcmp(value, expected[i][1]) == 0, "%s is '%s', not '%s'", expected[i][0], value,
                  expected[i][1]);
  }
}

static void check_planned(const char *options, const char *const (*expected)[2], size_t n) {
  curvd_ctx *ctx = make(options);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s: %s", options, curvd_last_error(ctx));
  check_values(ctx, expected, n);
  service_close(&ctx);
}

START_TEST(every_default_is_allowed_and_told) {
  curvd_ctx *ctx = make("seed=1");
  ck_assert_int_ge(curvd_option_count(), 30);
  for (int i = 0; i < curvd_option_count(); i++) {
    curvd_option_info info;
    ck_assert_int_eq(curvd_option_get(i, &info), CURVD_OK);
    ck_assert_int_eq(curvd_option_check(info.name, info.initial, NULL, 0), CURVD_OK);
    ck_assert_int_eq(curvd_set(ctx, info.name, info.initial), CURVD_OK);
    ck_assert_str_eq(curvd_get(ctx, info.name), info.initial);
    ck_assert(*info.help && *info.type && *info.group && *info.range);
  }
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(table_has_two_ends) {
  curvd_option_info info = {.name = "kept"};
  ck_assert_int_eq(curvd_option_get(-1, &info), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_option_get(curvd_option_count(), &info), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_option_get(0, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_str_eq(info.name, "kept");
}
END_TEST

START_TEST(names_of_options_are_unique) {
  for (int i = 0; i < cv_settings_count; i++) {
    for (int j = 0; j < i; j++) ck_assert_str_ne(cv_settings_table[i].name, cv_settings_table[j].name);
  }
}
END_TEST

START_TEST(unknown_option_names_the_nearest) {
  curvd_ctx *ctx = make("seed=1");
  char message[256];
  ck_assert_int_eq(curvd_set(ctx, "dampin", "1"), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "'damping'"));
  ck_assert_int_eq(curvd_set(ctx, "nothing_like_it", "1"), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "nothing_like_it"));
  ck_assert_int_eq(curvd_set(ctx, NULL, "1"), CURVD_ERR_OPTION);
  ck_assert_int_eq(curvd_option_check("eigrank", "1", message, sizeof message), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(message, "'eig_rank'"));
  ck_assert_ptr_null(curvd_get(ctx, "dampin"));
  ck_assert_ptr_null(curvd_get(NULL, "damping"));
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(refused_value_leaves_the_old_one) {
  static const char *const bad[][2] = {
      {"damping", "-1"},         {"damping", "nan"},       {"damping", "0.1,"},    {"method", "adam"},
      {"momentum", "1"},         {"factor_decay", "1"},    {"eig_rank", "0"},      {"full_share", "1.5"},
      {"curvature_ranks", "-1"}, {"exponent_a", "1.01"},   {"pi_bound", "0.5"},    {"warm_start", "perhaps"},
      {"inv_update_steps", "0"}, {"seed", "1.5"},          {"kl_clip", "inf"},     {"range_finder", "lanczos"},
      {"drift_max", "1.5"},      {"drift_products", "-1"}, {"skip_error", "-0.1"}, {"grid_min_n", "1"},
      {"grid_product", "mpi"},   {"capture_rows", "0"},    {"dry_run", "maybe"},   {"missing_trace", "nan"}};
  for (size_t i = 0; i < COUNT(bad); i++) {
    curvd_ctx *ctx = make("damping=0.25 method=kfac momentum=0.5 factor_decay=0.5 eig_rank=7");
    char before[64], message[8] = "1234567";
    snprintf(before, sizeof before, "%s", curvd_get(ctx, bad[i][0]));
    ck_assert_msg(curvd_set(ctx, bad[i][0], bad[i][1]) == CURVD_ERR_OPTION, "%s=%s", bad[i][0], bad[i][1]);
    ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), bad[i][0]));
    ck_assert_str_eq(curvd_get(ctx, bad[i][0]), before);
    ck_assert_int_eq(curvd_option_check(bad[i][0], bad[i][1], message, sizeof message), CURVD_ERR_OPTION);
    ck_assert_int_eq(strlen(message), sizeof message - 1); /* cut, and ended */
    ck_assert_int_eq(curvd_set(ctx, bad[i][0], NULL), CURVD_ERR_ARGUMENT);
    ck_assert_int_eq(curvd_option_check(bad[i][0], NULL, message, sizeof message), CURVD_ERR_ARGUMENT);
    curvd_destroy(&ctx);
  }
}
END_TEST

START_TEST(options_are_fixed_by_the_plan) {
  curvd_ctx *ctx = make("method=kfac");
  ck_assert_int_eq(curvd_plan(ctx), CURVD_OK);
  ck_assert_int_eq(curvd_set(ctx, "damping", "0.2"), CURVD_ERR_STATE);
  ck_assert_str_eq(curvd_get(ctx, "damping"), "0.1");
  service_close(&ctx);
}
END_TEST

/* Pauloski et al.'s kfac-pytorch: its defaults. */
START_TEST(published_kfac) {
  static const char *const expected[][2] = {
      {"momentum", "0"},    {"average", "id"},   {"factor_decay", "0.95"},      {"exponent_a", "1"},
      {"exponent_g", "1"},  {"step", "kl-clip"}, {"kl_clip", "0.001"},          {"damping_mode", "scalar"},
      {"damping", "0.001"}, {"form", "eigen"},   {"factor_update_steps", "10"}, {"inv_update_steps", "100"}};
  check_planned("method=kfac recipe=published", expected, COUNT(expected));
}
END_TEST

/* Puiu's runs of RS-KFAC and SRE-KFAC on CIFAR10: intervals, ranks, damping by epoch, clip of the root mean square. */
START_TEST(published_randomized_kfac) {
  static const char *const expected[][2] = {{"momentum", "0"},
                                            {"average", "id"},
                                            {"factor_decay", "0.95"},
                                            {"exponent_a", "1"},
                                            {"exponent_g", "1"},
                                            {"step", "rms-clip"},
                                            {"kl_clip", "0.07"},
                                            {"damping_mode", "relative-max"},
                                            {"damping", "0.1, 0.05@25e, 0.01@35e"},
                                            {"factor_update_steps", "10"},
                                            {"inv_update_steps", "50, 30@20e"},
                                            {"eig_rank", "220, 230@15e"},
                                            {"oversampling", "10, 11@22e, 12@30e"},
                                            {"power_iters", "4"},
                                            {"warm_start", "false"},
                                            {"orthonormalise", "last"},
                                            {"tail", "zero"}};
  static const char *const methods[] = {"rs-kfac", "sre-kfac", "nystrom-kfac"};
  for (size_t i = 0; i < COUNT(methods); i++) {
    char options[64];
    snprintf(options, sizeof options, "method=%s recipe=published", methods[i]);
    check_planned(options, expected, COUNT(expected));
  }
}
END_TEST

START_TEST(normalised_recipe_is_the_default) {
  static const char *const expected[][2] = {{"recipe", "normalised"},
                                            {"momentum", "0.9"},
                                            {"average", "norm"},
                                            {"exponent_a", "0.5"},
                                            {"exponent_g", "0.5"},
                                            {"step", "normalised"},
                                            {"damping_mode", "relative-mean"},
                                            {"damping", "0.1"},
                                            {"eig_rank", "64"},
                                            {"factor_update_steps", "10"},
                                            {"inv_update_steps", "10"},
                                            {"warm_start", "true"},
                                            {"tail", "mean"},
                                            {"range_finder", "power"},
                                            {"missing_trace", "0"},
                                            {"drift_max", "0.3"},
                                            {"skip_error", "0"},
                                            {"dry_run", "false"}};
  static const char *const one[][2] = {{"warm_power_iters", "1"}}, *const none[][2] = {{"warm_power_iters", "0"}};
  check_planned("method=nystrom-kfac", expected, COUNT(expected));
  check_planned("method=sre-kfac", one, 1);
  check_planned("method=rs-kfac", none, 1);
}
END_TEST

/* What the caller sets wins over what the recipe implies, whichever comes first. */
START_TEST(caller_wins_over_recipe) {
  static const char *const orders[] = {"method=rs-kfac recipe=published tail=mean kl_clip=0.5 momentum=0.9",
                                       "momentum=0.9 kl_clip=0.5 tail=mean recipe=published method=rs-kfac"};
  static const char *const expected[][2] = {
      {"tail", "mean"}, {"kl_clip", "0.5"}, {"momentum", "0.9"}, {"step", "rms-clip"}, {"warm_start", "false"}};
  for (size_t i = 0; i < COUNT(orders); i++) check_planned(orders[i], expected, COUNT(expected));
}
END_TEST

START_TEST(combinations_that_mean_nothing) {
  static const char *const bad[][2] = {
      {"damping_mode=scalar exponent_a=1 exponent_g=0.5", "exponent_a and exponent_g must be equal"},
      {"damping_mode=product-max exponent_a=0 exponent_g=0.5", "exponent_a and exponent_g must be equal"},
      {"eig_rank_min=9 eig_rank_max=8", "eig_rank_min is above eig_rank_max"},
      {"method=sre-kfac power_iters=0", "power_iters 0"},
      {"method=sre-kfac warm_power_iters=0", "warm_power_iters 0"},
      {"method=rs-kfac form=cholesky exponent_a=1 exponent_g=1", "needs method kfac"},
      {"method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=scalar", "damping_mode pi or relative-mean"},
      {"method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=relative-max", "damping_mode pi"},
      {"method=kfac form=cholesky exponent_a=1", "exponent_a = exponent_g = 1"}};
  for (size_t i = 0; i < COUNT(bad); i++) {
    curvd_ctx *ctx = make(bad[i][0]);
    ck_assert_msg(curvd_plan(ctx) == CURVD_ERR_OPTION, "%s", bad[i][0]);
    ck_assert_msg(strstr(curvd_last_error(ctx), bad[i][1]), "%s: %s", bad[i][0], curvd_last_error(ctx));
    curvd_destroy(&ctx);
  }
}
END_TEST

/* sre-kfac is refused when any piece of a schedule has no product, not the first alone. */
START_TEST(schedule_that_stops_looking_at_the_factor) {
  static const char *const bad[] = {"method=sre-kfac power_iters=2,0@10", "method=sre-kfac warm_power_iters=1,0@10"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    curvd_ctx *ctx = make(bad[i]);
    ck_assert_msg(curvd_plan(ctx) == CURVD_ERR_OPTION, "%s", bad[i]);
    curvd_destroy(&ctx);
  }
}
END_TEST

/* A value that the option takes and that is not its default. */
static const char *another_value(const cv_option *option) {
  static const char *const values[] = {"1", "2", "0.75", "false", "x"};
  static char first[64];
  if (option->type == CV_OPTION_CHOICE) {
    snprintf(first, sizeof first, "%.*s", (int)strcspn(option->choices, "|"), option->choices);
    return strcmp(first, option->initial) == 0 ? strrchr(option->choices, '|') + 1 : first;
  }
  for (size_t i = 0; i < COUNT(values); i++) {
    bool is_default = strcmp(values[i], option->initial) == 0;
    if (!is_default && cv_option_set(option, NULL, values[i], NULL) == CURVD_OK) return values[i];
  }
  ck_abort_msg("no other value for %s", option->name);
  return NULL;
}

START_TEST(hash_tells_every_option) {
  static cv_settings_book one, other;
  for (int i = 0; i < cv_settings_count; i++) {
    cv_settings_init(&one);
    cv_settings_init(&other);
    ck_assert(cv_settings_hash(&one) == cv_settings_hash(&other));
    ck_assert_int_eq(cv_settings_set(&other, i, another_value(&cv_settings_table[i]), NULL), CURVD_OK);
    ck_assert_msg(cv_settings_hash(&one) != cv_settings_hash(&other), "%s", cv_settings_table[i].name);
    cv_settings_init(&other);
    other.is_set[i] = true; /* to its default: recipes leave it alone */
    ck_assert_msg(cv_settings_hash(&one) != cv_settings_hash(&other), "%s, set", cv_settings_table[i].name);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_default_is_allowed_and_told,
                                table_has_two_ends,
                                names_of_options_are_unique,
                                unknown_option_names_the_nearest,
                                refused_value_leaves_the_old_one,
                                options_are_fixed_by_the_plan,
                                published_kfac,
                                published_randomized_kfac,
                                normalised_recipe_is_the_default,
                                caller_wins_over_recipe,
                                combinations_that_mean_nothing,
                                schedule_that_stops_looking_at_the_factor,
                                hash_tells_every_option};
  return service_suite("settings", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
