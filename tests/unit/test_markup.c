/* What may come from outside into a page: escaped, valid UTF-8, and only characters that XML 1.0 allows. */
#include "suite.h"

#include "page/markup.h"

#include <math.h>
#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])
#define BAD "\xEF\xBF\xBD"

static const struct {
  const char *given, *written;
} texts[] = {
    {"", ""},
    {"plain 1.5", "plain 1.5"},
    {"<script>alert(\"1\" & '2')</script>", "&#60;script&#62;alert(&#34;1&#34; &#38; &#39;2&#39;)&#60;/script&#62;"},
    {"a\tb\nc\rd", "a\tb\nc\rd"},
    {"\x01\x1b[31m\x7f", BAD BAD "[31m\x7f"},
    {"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"},
    {"\xE9 alone", BAD " alone"},                               /* Latin-1 */
    {"\xC3", BAD},                                              /* cut off */
    {"\xE2\x82", BAD BAD},                                      /* cut off behind two */
    {"\xE2<", BAD "&#60;"},                                     /* what follows is escaped all the same */
    {"\xC0\xBC", BAD BAD},                                      /* < in two bytes */
    {"\xE0\x80\xBC", BAD BAD BAD},                              /* and in three */
    {"\xED\xA0\x80", BAD BAD BAD},                              /* a surrogate */
    {"\xEF\xBF\xBE \xEF\xBF\xBF", BAD BAD BAD " " BAD BAD BAD}, /* U+FFFE, U+FFFF */
    {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},                   /* U+10FFFF */
    {"\xF4\x90\x80\x80", BAD BAD BAD BAD},                      /* beyond it */
    {"\xF8\x88\x80\x80\x80", BAD BAD BAD BAD BAD},
    {"\xEF\xBF\xBD", BAD}};

START_TEST(test_escapes) {
  for (size_t i = 0; i < COUNT(texts); i++) {
    markup m = {.n = 0};
    markup_put(&m, "%s", "");
    markup_text(&m, texts[i].given);
    ck_assert_msg(strcmp(m.bytes, texts[i].written) == 0, "text %d: '%s'", (int)i, m.bytes);
    ck_assert_uint_eq(m.n, strlen(m.bytes));
    markup_free(&m);
  }
}
END_TEST

START_TEST(test_elements) {
  markup m = {.n = 0};
  markup_element(&m, "td class=\"n\"", "a<b");
  markup_put(&m, "%d%s", 7, "%");
  ck_assert_str_eq(m.bytes, "<td class=\"n\">a&#60;b</td>7%");
  markup_free(&m);
  ck_assert(m.bytes == NULL && m.n == 0);
}
END_TEST

START_TEST(test_long) {
  enum { TIMES = 20000 };
  markup m = {.n = 0};
  for (int i = 0; i < TIMES; i++) markup_put(&m, "%05d", i);
  ck_assert(!m.is_lost && m.n == 5 * TIMES && strlen(m.bytes) == m.n);
  ck_assert_int_eq(strncmp(m.bytes + 5 * 12345, "12345", 5), 0);
  markup_free(&m);
}
END_TEST

static const struct {
  double value;
  const char *text;
} numbers[] = {{0, "0"},
               {-0.0, "0"},
               {NAN, "\xE2\x80\x93"},
               {-INFINITY, "\xE2\x80\x93"},
               {1234567, "1234567"},
               {12345.678, "12346"},
               {0.123456, "0.1235"},
               {99.99951, "100"},
               {1e-7, "1e-07"},
               {-3, "-3"},
               {2e9, "2e+09"}};

START_TEST(test_numbers) {
  for (size_t i = 0; i < COUNT(numbers); i++) {
    char text[NUMBER_TEXT_MAX];
    number_text(numbers[i].value, text);
    ck_assert_str_eq(text, numbers[i].text);
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_escapes, test_elements, test_long, test_numbers};
  return suite_run("markup", tests, COUNT(tests), NULL);
}
