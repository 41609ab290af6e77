/* The words of a usage line. */
#include "train/usage.h"

#include "suite.h"

#include <string.h>

static void assert_words(const char *usage, const usage_word *expected, int n) {
  usage_word word;
  const char *at = usage_words(usage);
  for (int i = 0; i < n; i++) {
    ck_assert(usage_next(&at, &word));
    ck_assert_str_eq(word.flag, expected[i].flag);
    ck_assert_str_eq(word.value, expected[i].value);
  }
  ck_assert(!usage_next(&at, &word));
}

START_TEST(test_flags_and_values) {
  assert_words("curvd x", NULL, 0);
  assert_words(
      "curvd plan [--ranks N [--json]] --all --to FILE [--name value ...]",
      (const usage_word[]){{"--ranks", "N"}, {"--json", ""}, {"--all", ""}, {"--to", "FILE"}, {"--name", "value"}}, 5);
  assert_words("curvd checkpoint list|verify FOLDER ...", (const usage_word[]){{"", "list|verify"}, {"", "FOLDER"}}, 2);
  assert_words("curvd x [--format a|b] [RUN ...]", (const usage_word[]){{"--format", "a|b"}, {"", "RUN"}}, 2);
}
END_TEST

START_TEST(test_kinds) {
  const usage_word all = {"--name", "value"}, file = {"--to", "FILE.html"}, count = {"--ranks", "N"},
                   choice = {"", "a|b"}, folder = {"", "RUN"}, flag = {"--json", ""};
  ck_assert(usage_is_all_options(&all) && !usage_is_all_options(&file));
  ck_assert(usage_is_path(&file) && usage_is_path(&folder) && !usage_is_path(&count) && !usage_is_path(&choice));
  ck_assert(usage_is_choice(&choice) && !usage_is_choice(&folder));
  ck_assert(!usage_is_path(&flag));
}
END_TEST

START_TEST(test_texts) {
  char text[16];
  usage_flag("lr_decay", text, sizeof text);
  ck_assert_str_eq(text, "--lr-decay");
  usage_spread("a|b|c", " | ", text, sizeof text);
  ck_assert_str_eq(text, "a | b | c");
  usage_spread("aaa|bbb|ccc|ddd|eee", ", ", text, sizeof text); /* cut, not overrun */
  ck_assert_str_eq(text, "aaa, bbb, ccc");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_flags_and_values, test_kinds, test_texts};
  return suite_run("usage", tests, sizeof tests / sizeof tests[0], NULL);
}
