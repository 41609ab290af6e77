/* The typed option table: what is accepted, what is refused and with which words, and spelling help. */
#include "base/number.h"
#include "base/options.h"

#include "suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct settings {
  int64_t batch;
  double momentum;
  bool warm_start;
  int32_t method;
  char data[CV_OPTION_TEXT_MAX];
  cv_schedule lr;
  int64_t guard; /* nobody sets it */
} settings;

enum { BATCH, MOMENTUM, WARM_START, METHOD, DATA, LR, N_ROWS };

static const cv_option table[N_ROWS] = {
    {"batch", CV_OPTION_INTEGER, "g", "examples", 1, 1000, "all=0", "512", "h", offsetof(settings, batch)},
    {"momentum", CV_OPTION_REAL, "g", "", 0, 0.99, "auto=-1", "auto", "h", offsetof(settings, momentum)},
    {"warm_start", CV_OPTION_SWITCH, "g", "", 0, 0, NULL, "true", "h", offsetof(settings, warm_start)},
    {"method", CV_OPTION_CHOICE, "g", "", 0, 0, "sgd|rs-kfac|kfac", "kfac", "h", offsetof(settings, method)},
    {"data", CV_OPTION_TEXT, "g", "", 0, 0, NULL, "teacher", "h", offsetof(settings, data)},
    {"lr", CV_OPTION_SCHEDULE, "g", "", 0, INFINITY, "auto=-1|off=-2", "0.1, 0.01@3e", "h", offsetof(settings, lr)},
};

static settings defaults(void) {
  settings made;
  memset(&made, 0x5a, sizeof made);
  ck_assert_int_eq(cv_options_defaults(table, N_ROWS, &made, NULL), CURVD_OK);
  return made;
}

START_TEST(test_defaults) {
  settings made = defaults();
  ck_assert_int_eq(made.batch, 512);
  ck_assert(made.momentum == -1);
  ck_assert(made.warm_start);
  ck_assert_int_eq(made.method, 2);
  ck_assert_str_eq(made.data, "teacher");
  ck_assert_int_eq(made.lr.n, 2);
  ck_assert_int_eq(made.guard, 0x5a5a5a5a5a5a5a5a);
}
END_TEST

START_TEST(test_wrong_default_is_reported) {
  const cv_option wrong = {"batch", CV_OPTION_INTEGER, "g", "", 1, 10, NULL, "11", "h", 0};
  int64_t batch = 3;
  ck_assert_int_eq(cv_options_defaults(&wrong, 1, &batch, NULL), CURVD_ERR_OPTION);
  ck_assert_int_eq(batch, 3);
}
END_TEST

START_TEST(test_values_are_stored) {
  settings s = defaults();
  ck_assert_int_eq(cv_option_set(&table[BATCH], &s, "1000", NULL), CURVD_OK);
  ck_assert_int_eq(s.batch, 1000);
  ck_assert_int_eq(cv_option_set(&table[BATCH], &s, "all", NULL), CURVD_OK);
  ck_assert_int_eq(s.batch, 0);
  ck_assert_int_eq(cv_option_set(&table[MOMENTUM], &s, "9e-1", NULL), CURVD_OK);
  ck_assert(s.momentum == 0.9);
  ck_assert_int_eq(cv_option_set(&table[METHOD], &s, "rs-kfac", NULL), CURVD_OK);
  ck_assert_int_eq(s.method, 1);
  ck_assert_int_eq(cv_option_set(&table[DATA], &s, "", NULL), CURVD_OK);
  ck_assert_str_eq(s.data, "");
  ck_assert_int_eq(cv_option_set(&table[LR], &s, "off", NULL), CURVD_OK);
  ck_assert_int_eq(s.lr.n, 1);
  ck_assert(s.lr.piece[0].value == -2);
  static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
  for (int i = 0; i < 4; i++) {
    ck_assert_int_eq(cv_option_set(&table[WARM_START], &s, no[i], NULL), CURVD_OK);
    ck_assert(!s.warm_start);
    ck_assert_int_eq(cv_option_set(&table[WARM_START], &s, yes[i], NULL), CURVD_OK);
    ck_assert(s.warm_start);
  }
  ck_assert_int_eq(s.guard, 0x5a5a5a5a5a5a5a5a);
}
END_TEST

START_TEST(test_refused_values_leave_the_old_one) {
  static const struct {
    int row;
    const char *text;
  } refused[] = {
      {BATCH, "0"},
      {BATCH, "1001"},
      {BATCH, "1.5"},
      {BATCH, "1e2"},
      {BATCH, "12x"},
      {BATCH, ""},
      {BATCH, " 12"},
      {BATCH, "0x10"},
      {BATCH, "auto"},
      {BATCH, "al"},
      {BATCH, "all=0"},
      {BATCH, "--1"},
      {BATCH, "99999999999999999999"},
      {MOMENTUM, "-1"},
      {MOMENTUM, "1"},
      {MOMENTUM, "nan"},
      {MOMENTUM, "inf"},
      {MOMENTUM, "1e-3x"},
      {MOMENTUM, "0x1p-3"},
      {MOMENTUM, ""},
      {MOMENTUM, "0,5"},
      {MOMENTUM, "1e999"},
      {MOMENTUM, "AUTO"},
      {WARM_START, "maybe"},
      {WARM_START, "True"},
      {WARM_START, ""},
      {METHOD, "rs"},
      {METHOD, "kfac|sgd"},
      {METHOD, ""},
      {METHOD, "KFAC"},
      {METHOD, "kfac "},
      {DATA, "a\nb"},
      {DATA, "\x1b[0m"},
      {LR, "-1"},
      {LR, "auto, 1@3"},
      {LR, ""},
      {LR, "fast"},
      {LR, "1, auto@3"},
  };
  const settings before = defaults();
  settings s = before;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    const cv_option *option = &table[refused[i].row];
    cv_error err = {.code = CURVD_OK};
    ck_assert_msg(cv_option_set(option, &s, refused[i].text, &err) == CURVD_ERR_OPTION, "%s accepted '%s'",
                  option->name, refused[i].text);
    ck_assert_msg(strncmp(err.text, option->name, strlen(option->name)) == 0, "%s", err.text);
    ck_assert_int_eq(cv_option_set(option, NULL, refused[i].text, NULL), CURVD_ERR_OPTION);
    ck_assert_mem_eq(&s, &before, sizeof s);
  }
}
END_TEST

START_TEST(test_sentences) {
  cv_error err = {.code = CURVD_OK};
  cv_option_set(&table[BATCH], NULL, "0", &err);
  ck_assert_str_eq(err.text, "batch = '0': expected integer, [1, 1000] or all");
  cv_error_clear(&err);
  cv_option_set(&table[METHOD], NULL, "adam", &err);
  ck_assert_str_eq(err.text, "method = 'adam': expected choice, sgd|rs-kfac|kfac");
  cv_error_clear(&err);
  cv_option_set(&table[LR], NULL, "0.1, 0.2", &err);
  ck_assert_ptr_nonnull(strstr(err.text, "later one says when it starts"));
  ck_assert_ptr_nonnull(strstr(err.text, ">= 0 or auto or off"));
}
END_TEST

START_TEST(test_length_of_text) {
  settings s = defaults();
  char text[CV_OPTION_TEXT_MAX + 1];
  memset(text, 'x', sizeof text);
  text[CV_OPTION_TEXT_MAX - 1] = '\0';
  ck_assert_int_eq(cv_option_set(&table[DATA], &s, text, NULL), CURVD_OK);
  ck_assert_str_eq(s.data, text);
  text[CV_OPTION_TEXT_MAX - 1] = 'x';
  text[CV_OPTION_TEXT_MAX] = '\0';
  ck_assert_int_eq(cv_option_set(&table[DATA], &s, text, NULL), CURVD_ERR_OPTION);
}
END_TEST

START_TEST(test_text_is_printable) {
  static const char *const taken[] = {"",
                                      "a b~",
                                      "\xc2\xa0",
                                      "gr\xc3\xb6\xc3\x9f"
                                      "e",
                                      "\xe2\x82\xac",
                                      "\xf0\x9f\x98\x80",
                                      "\xed\x9f\xbf",
                                      "\xf4\x8f\xbf\xbf"};
  static const char *const refused[] = {"a\n",
                                        "\x7f",
                                        "\xc2\x85" /* next line */,
                                        "\xe2\x80\xa8" /* line separator */,
                                        "\x80",
                                        "\xff",
                                        "\xc3",
                                        "\xe2\x82",
                                        "\xc0\xaf",
                                        "\xe0\x80\xaf",
                                        "\xf0\x80\x80\xaf" /* "/", too long */,
                                        "\xed\xa0\x80" /* half of a pair */,
                                        "\xef\xbb\xbf" /* byte order */,
                                        "\xf4\x90\x80\x80" /* beyond Unicode */,
                                        "\xf8\x88\x80\x80\x80"};
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
    ck_assert_msg(cv_text_is_printable(taken[i]), "text %zu is refused", i);
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    ck_assert_msg(!cv_text_is_printable(refused[i]), "text %zu is taken", i);
}
END_TEST

START_TEST(test_find) {
  ck_assert_ptr_eq(cv_option_find(table, N_ROWS, "warm_start"), &table[WARM_START]);
  ck_assert_ptr_eq(cv_option_find(table, N_ROWS, "warm-start"), &table[WARM_START]);
  ck_assert_ptr_null(cv_option_find(table, N_ROWS, "warm"));
  ck_assert_ptr_null(cv_option_find(table, N_ROWS, "warm_starts"));
  ck_assert_ptr_null(cv_option_find(table, N_ROWS, ""));
}
END_TEST

START_TEST(test_nearest_name) {
  static const char *const names[] = {"damping", "damping_mode", "lr", "momentum", "skip", "step", "steps"};
  enum { N = sizeof names / sizeof names[0] };
  ck_assert_str_eq(cv_nearest_name("dampng", names, N), "damping");
  ck_assert_str_eq(cv_nearest_name("dmapign", names, N), "damping"); /* two such swaps */
  ck_assert_ptr_null(cv_nearest_name("dmapig", names + 1, N - 1));
  ck_assert_str_eq(cv_nearest_name("damping-mod", names, N), "damping_mode");
  ck_assert_str_eq(cv_nearest_name("mometnum", names, N), "momentum"); /* neighbours swapped */
  ck_assert_str_eq(cv_nearest_name("stpes", names, N), "steps");
  ck_assert_str_eq(cv_nearest_name("step", names, N), "step");
  ck_assert_ptr_null(cv_nearest_name("rl", names, N)); /* half of the word would have to change */
  ck_assert_ptr_null(cv_nearest_name("", names, N));
  ck_assert_ptr_null(cv_nearest_name("kfac", names, N));
  ck_assert_ptr_null(cv_nearest_name("damping", names, 0));
  char longest[300];
  memset(longest, 'd', sizeof longest);
  longest[sizeof longest - 1] = '\0';
  ck_assert_ptr_null(cv_nearest_name(longest, names, N));
}
END_TEST

START_TEST(test_ranges) {
  static const struct {
    double min, max;
    const char *words, *text;
  } ranges[] = {{0, 1, NULL, "[0, 1]"},
                {0, INFINITY, NULL, ">= 0"},
                {-INFINITY, 0.5, NULL, "<= 0.5"},
                {-INFINITY, INFINITY, NULL, "any"},
                {1, 0x1p53, "auto=-1", ">= 1 or auto"}};
  char text[64];
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    const cv_option option = {
        .type = CV_OPTION_REAL, .min = ranges[i].min, .max = ranges[i].max, .choices = ranges[i].words};
    cv_option_range(&option, text, sizeof text);
    ck_assert_str_eq(text, ranges[i].text);
  }
  cv_option_range(&table[METHOD], text, sizeof text);
  ck_assert_str_eq(text, "sgd|rs-kfac|kfac");
  cv_option_range(&table[LR], text, 6); /* cut, never overrun */
  ck_assert_str_eq(text, ">= 0 ");
  ck_assert_str_eq(cv_option_type_name(CV_OPTION_SCHEDULE), "schedule");
}
END_TEST

START_TEST(test_numbers) {
  int64_t integer = 7;
  double real = 7;
  ck_assert(cv_integer_parse("-9223372036854775808", &integer) && integer == INT64_MIN);
  ck_assert(!cv_integer_parse("9223372036854775808", &integer) && integer == INT64_MIN);
  ck_assert(cv_real_parse("-1.5e+2", &real) && real == -150);
  ck_assert(cv_real_parse(".5", &real) && real == 0.5);
  static const char *const wrong[] = {"", "e5", ".", "-", "1e", "1.2.3", "+-1", "1 ", " 1", "NaN", "1_000", "infinity"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    ck_assert_msg(!cv_real_parse(wrong[i], &real), "accepted '%s'", wrong[i]);
    ck_assert_msg(!cv_integer_parse(wrong[i], &integer), "accepted '%s'", wrong[i]);
  }
  ck_assert(real == 0.5);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_defaults,          test_wrong_default_is_reported,
      test_values_are_stored, test_refused_values_leave_the_old_one,
      test_sentences,         test_length_of_text,
      test_text_is_printable, test_find,
      test_nearest_name,      test_ranges,
      test_numbers,
  };
  return suite_run("options", tests, sizeof tests / sizeof tests[0], NULL);
}
