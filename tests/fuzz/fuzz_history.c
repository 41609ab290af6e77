/* What a page is drawn from: the first byte says whether the rest is metrics.jsonl, scaling lines or config.yaml. What
 * is accepted is drawn, twice over, as two runs of one configuration would be. */
#include "page/page.h"

#include "fuzz.h"

static const char name[] = "hostile/metrics.jsonl";

static void check_series(const series *s) {
  for (int64_t i = 0; i < s->n; i++) {
    fuzz_require(series_at(s, i, SERIES_STEP) >= 0, "steps are no less than 0");
    fuzz_require(i == 0 || series_at(s, i, SERIES_STEP) > series_at(s, i - 1, SERIES_STEP), "steps rise");
    for (int j = 1; j < s->width; j++) {
      double value = series_at(s, i, j);
      fuzz_require(!(value > 1e60 || value < -1e60), "numbers can be drawn");
    }
  }
}

/* Names cannot look like these: quotes in them are escaped. */
static void check_places(const markup *m) {
  static const char *const attributes[] = {"x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height", "points"};
  static const char *const bad[] = {"nan", "-nan", "inf", "-inf"};
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
    for (size_t j = 0; j < sizeof bad / sizeof *bad; j++) {
      char words[40];
      snprintf(words, sizeof words, " %s=\"%s", attributes[i], bad[j]);
      fuzz_require(strstr(m->bytes, words) == NULL, "everything that is drawn has a place");
    }
}

/* Markup is balanced as far as a count tells, and holds no byte that XML does not. */
static void check_page(const markup *m) {
  int64_t n_open = 0, n_close = 0;
  static const char end[] = "</html>\n";
  fuzz_require(m->n > sizeof end && strcmp(m->bytes + m->n - (sizeof end - 1), end) == 0, "a page has an end");
  for (size_t i = 0; i < m->n; i++) {
    unsigned char c = (unsigned char)m->bytes[i];
    fuzz_require(c >= ' ' || c == '\n' || c == '\t' || c == '\r', "a page has no control characters");
    n_open += c == '<';
    n_close += c == '>';
  }
  fuzz_require(n_open <= n_close, "every tag ends"); /* CSS may hold > by itself, but no < */
  check_places(m);
}

static void draw(page_data *d) {
  cv_error err = {.code = CURVD_OK};
  markup m = {.n = 0};
  for (int i = 0; i < d->n_runs; i++) {
    check_series(&d->run[i].history.steps);
    check_series(&d->run[i].history.scores);
    for (int64_t j = 0; j < d->run[i].history.n_layers; j++) check_series(&d->run[i].history.layer[j].factor[0]);
  }
  fuzz_require(page_data_arrange(d, &err) == CURVD_OK, "what is accepted can be arranged");
  fuzz_require(page_write(d, &m, &err) == CURVD_OK, "what is accepted can be drawn");
  check_page(&m);
  markup_free(&m);
}

static void check_settings(const char *text, size_t n) {
  cv_error err = {.code = CURVD_OK};
  settings s = {.n = 0};
  fuzz_require(settings_parse(text, (int64_t)n, &s, &err) == CURVD_OK, "any bytes are a configuration");
  for (int i = 0; i < s.n; i++) fuzz_require(settings_find(&s, s.entry[i].name) != NULL, "an entry is found");
  settings_free(&s);
}

void fuzz_history(const uint8_t *bytes, size_t n_bytes) {
  cv_error err = {.code = CURVD_OK};
  page_data d = {.n_runs = 0};
  if (n_bytes == 0) return;
  char *text = fuzz_text(bytes + 1, n_bytes - 1);
  if (bytes[0] == 'c') {
    check_settings(text, n_bytes - 1);
  } else {
    curvd_status status = CURVD_OK;
    for (int i = 0; i < 2 && status == CURVD_OK; i++)
      status = page_data_take(&d, name, name, bytes[0] == 'r', text, (int64_t)n_bytes - 1, &err);
    fuzz_outcome(status, &err);
    static const char seeds[] = "seed: 1\n"; /* runs without settings are no seeds of one configuration */
    for (int i = 0; i < d.n_runs && status == CURVD_OK; i++)
      status = settings_parse(seeds, sizeof seeds - 1, &d.run[i].settings, &err);
    if (status == CURVD_OK) draw(&d);
    page_data_free(&d);
  }
  free(text);
}
