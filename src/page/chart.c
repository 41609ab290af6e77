/* What charts are made of, as SVG. */
#include "page/chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Okabe and Ito, "Color Universal Design" (2008), without yellow and black, and two more; the same ones, lighter. */
static const char *const on_white[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                       "#56b4e9", "#7a5c2e", "#7b68c8", "#6b6b6b"};
static const char *const on_dark[] = {"#4da8e0", "#f08c4e", "#2cc79c", "#e8a6c9", "#f3b740",
                                      "#93d3f6", "#c7a576", "#b0a3ee", "#a6a6a6"};
static const char *const dashes[] = {"", " stroke-dasharray=\"6 3\"", " stroke-dasharray=\"2 2.5\"",
                                     " stroke-dasharray=\"8 3 2 3\""};
enum { COLOURS = sizeof on_white / sizeof on_white[0] };

static const double TICK_LENGTH = 4, LINE_WIDTH = 1.7;

static int colour_of(chart_style style) {
  return style.colour >= 0 && style.colour < COLOURS ? style.colour : CHART_GREY;
}

static const char *dash_of(chart_style style) {
  return dashes[style.dash >= 0 ? style.dash % CHART_DASHES : 0];
}

void chart_begin(markup *m, double width, double height, const char *title) {
  markup_put(m,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
             "height=\"%.0f\" font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif\" "
             "font-size=\"11\">\n",
             width, height, width, height);
  markup_element(m, "title", title);
  markup_put(m, "\n");
}

void chart_end(markup *m) {
  markup_put(m, "</svg>\n");
}

void chart_dark_style(markup *m) {
  for (int i = 0; i < COLOURS; i++)
    markup_put(m, "  .s%d { stroke: %s; }\n  .f%d { fill: %s; }\n", i, on_dark[i], i, on_dark[i]);
  markup_put(m, "  .axis { stroke: #8a8a8a; }\n  .grid { stroke: #363636; }\n  .tick { fill: #a8a8a8; }\n"
                "  .strong { fill: #e6e6e6; }\n  .open { fill: #161616; }\n");
}

/* ---- panels ---- */

void chart_panel_fit(chart_panel *p, chart_range x, chart_range y) {
  p->x.at = p->left, p->x.length = p->width;
  p->y.at = p->top + p->height, p->y.length = -p->height;
  chart_axis_fit(&p->x, x, 0);
  chart_axis_fit(&p->y, y, 0.06);
  chart_ticks_make(&p->x, p->width < 170 ? 4 : 6, &p->x_ticks);
  chart_ticks_make(&p->y, p->height < 130 ? 4 : 6, &p->y_ticks);
}

static void line_of(markup *m, const char *kind, const char *colour, double x0, double y0, double x1, double y1) {
  markup_put(m,
             "<line class=\"%s\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"%s\" stroke-width=\"0.8\"/>",
             kind, x0, y0, x1, y1, colour);
}

static void y_ticks(markup *m, const chart_panel *p) {
  char text[CHART_TICK_TEXT_MAX];
  for (int i = 0; i < p->y_ticks.n; i++) {
    double y = chart_place(&p->y, p->y_ticks.value[i]);
    line_of(m, "grid", "#e4e4e4", p->left, y, p->left + p->width, y);
    chart_tick_text(&p->y, &p->y_ticks, p->y_ticks.value[i], text);
    if (p->has_y_texts) chart_words(m, p->left - 7, y + 3.8, CHART_TEXT_TICK, CHART_END, text);
  }
}

static void x_ticks(markup *m, const chart_panel *p) {
  char text[CHART_TICK_TEXT_MAX];
  double bottom = p->top + p->height;
  for (int i = 0; i < p->x_ticks.n; i++) {
    double x = chart_place(&p->x, p->x_ticks.value[i]);
    line_of(m, "axis", "#555555", x, bottom, x, bottom + TICK_LENGTH);
    chart_tick_text(&p->x, &p->x_ticks, p->x_ticks.value[i], text);
    chart_words(m, x, bottom + 16, CHART_TEXT_TICK, CHART_MIDDLE, text);
  }
}

void chart_frame(markup *m, const chart_panel *p) {
  double bottom = p->top + p->height;
  y_ticks(m, p);
  line_of(m, "axis", "#555555", p->left, bottom, p->left + p->width, bottom);
  x_ticks(m, p);
  if (p->title[0] != '\0') chart_words(m, p->left, p->top - 9, CHART_TEXT_TITLE, CHART_START, p->title);
  if (p->x_title[0] != '\0')
    chart_words(m, p->left + p->width / 2, bottom + 31, CHART_TEXT_TICK, CHART_MIDDLE, p->x_title);
  markup_put(m, "\n");
}

/* ---- lines ---- */

static void points_begin(markup *m, chart_style style, const char *name) {
  int colour = colour_of(style);
  markup_put(m,
             "<polyline class=\"s%d\" fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\" stroke-linejoin=\"round\"%s "
             "data-series=\"",
             colour, on_white[colour], LINE_WIDTH, dash_of(style));
  markup_text(m, name);
  markup_put(m, "\" points=\"");
}

/* Of the points in [from, to): which have the least and the largest y? They may be one; -1: none has a place. */
static void extremes(const chart_panel *p, int64_t from, int64_t to, const double *y, int64_t *least, int64_t *most) {
  *least = *most = -1;
  for (int64_t i = from; i < to; i++) {
    if (isnan(chart_place(&p->y, y[i]))) continue;
    if (*least < 0 || y[i] < y[*least]) *least = i;
    if (*most < 0 || y[i] > y[*most]) *most = i;
  }
}

/* Which of n points are drawn, in their order: at most CHART_POINTS_MAX. Returns how many. */
static int64_t choose_points(const chart_panel *p, int64_t n, const double *y, int64_t chosen[CHART_POINTS_MAX]) {
  int64_t n_chosen = 0, pieces = CHART_POINTS_MAX / 2;
  for (int64_t i = 0; n <= CHART_POINTS_MAX && i < n; i++) chosen[n_chosen++] = i;
  for (int64_t i = 0; n > CHART_POINTS_MAX && i < pieces; i++) {
    int64_t least, most;
    extremes(p, n * i / pieces, n * (i + 1) / pieces, y, &least, &most);
    if (least >= 0) chosen[n_chosen++] = least < most ? least : most;
    if (least >= 0 && least != most) chosen[n_chosen++] = least < most ? most : least;
  }
  return n_chosen;
}

void chart_line(markup *m, const chart_panel *p, chart_style style, const char *name, int64_t n, const double *x,
                const double *y) {
  int64_t chosen[CHART_POINTS_MAX], n_chosen = choose_points(p, n, y, chosen);
  bool is_open = false;
  for (int64_t i = 0; i < n_chosen; i++) {
    double at = chart_place(&p->x, x[chosen[i]]), height = chart_place(&p->y, y[chosen[i]]);
    bool is_there = !isnan(at) && !isnan(height);
    if (is_open && !is_there) markup_put(m, "\"/>\n");
    if (!is_open && is_there) points_begin(m, style, name);
    is_open = is_there;
    if (is_there) markup_put(m, "%.2f,%.2f ", at, height);
  }
  if (is_open) markup_put(m, "\"/>\n");
}

static void band_points(markup *m, const chart_panel *p, int64_t n, const double *x, const double *y, bool is_back) {
  int64_t chosen[CHART_POINTS_MAX], n_chosen = choose_points(p, n, y, chosen);
  for (int64_t i = 0; i < n_chosen; i++) {
    int64_t at = chosen[is_back ? n_chosen - 1 - i : i];
    double px = chart_place(&p->x, x[at]), py = chart_place(&p->y, y[at]);
    if (!isnan(px) && !isnan(py)) markup_put(m, "%.2f,%.2f ", px, py);
  }
}

void chart_band(markup *m, const chart_panel *p, chart_style style, int64_t n, const double *x, const double *low,
                const double *high) {
  int colour = colour_of(style);
  markup_put(m, "<polygon class=\"f%d\" fill=\"%s\" fill-opacity=\"0.17\" points=\"", colour, on_white[colour]);
  band_points(m, p, n, x, low, false);
  band_points(m, p, n, x, high, true);
  markup_put(m, "\"/>\n");
}

/* ---- marks ---- */

static void mark_end(markup *m, const char *element, const char *text) {
  markup_put(m, ">");
  if (text[0] != '\0') markup_element(m, "title", text);
  markup_put(m, "</%s>\n", element);
}

void chart_dot(markup *m, double x, double y, chart_style style, bool is_open, const char *text) {
  int colour = colour_of(style);
  if (isnan(x) || isnan(y)) return;
  if (is_open)
    markup_put(m,
               "<circle class=\"s%d open\" cx=\"%.2f\" cy=\"%.2f\" r=\"3.6\" fill=\"#ffffff\" stroke=\"%s\" "
               "stroke-width=\"1.5\"",
               colour, x, y, on_white[colour]);
  else
    markup_put(m, "<circle class=\"f%d\" cx=\"%.2f\" cy=\"%.2f\" r=\"3.4\" fill=\"%s\"", colour, x, y,
               on_white[colour]);
  mark_end(m, "circle", text);
}

void chart_rule(markup *m, double x0, double y0, double x1, double y1, chart_style style) {
  int colour = colour_of(style);
  if (isnan(x0 + y0 + x1 + y1)) return;
  markup_put(
      m, "<line class=\"s%d\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"%s\" stroke-width=\"1.1\"%s/>\n",
      colour, x0, y0, x1, y1, on_white[colour], dash_of(style));
}

void chart_point(markup *m, const chart_panel *p, chart_style style, double x, double y, double low, double high,
                 const char *text) {
  double at = chart_place(&p->x, x), bottom = chart_place(&p->y, low), top = chart_place(&p->y, high);
  chart_style solid = {style.colour, 0};
  if (low < high && !isnan(bottom) && !isnan(top)) {
    chart_rule(m, at, bottom, at, top, solid);
    chart_rule(m, at - 3, bottom, at + 3, bottom, solid);
    chart_rule(m, at - 3, top, at + 3, top, solid);
  }
  chart_dot(m, at, chart_place(&p->y, y), style, false, text);
}

void chart_bar(markup *m, double x, double y, double width, double height, chart_style style, double opacity,
               const char *text) {
  int colour = colour_of(style);
  if (!(width > 0) || !(height > 0) || !isfinite(x + y)) return;
  markup_put(
      m, "<rect class=\"f%d\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\" fill-opacity=\"%.2f\"",
      colour, x, y, width, height, on_white[colour], opacity);
  mark_end(m, "rect", text);
}

void chart_key(markup *m, chart_style style) {
  int colour = colour_of(style);
  markup_put(m,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"key\" viewBox=\"0 0 22 10\" width=\"22\" height=\"10\">"
             "<line class=\"s%d\" x1=\"0\" y1=\"5\" x2=\"22\" y2=\"5\" stroke=\"%s\" stroke-width=\"3\"%s/></svg>",
             colour, on_white[colour], dash_of(style));
}

/* ---- words ---- */

static const char *const anchors[] = {"start", "middle", "end"};

void chart_words(markup *m, double x, double y, chart_text kind, chart_anchor anchor, const char *text) {
  static const char *const look[] = {"class=\"tick\" fill=\"#555555\"", "class=\"strong\" fill=\"#222222\"",
                                     "class=\"strong\" fill=\"#222222\" font-weight=\"600\" font-size=\"12\""};
  markup_put(m, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\" %s>", x, y, anchors[anchor], look[kind]);
  markup_text(m, text);
  markup_put(m, "</text>\n");
}

void chart_words_of(markup *m, double x, double y, chart_style style, chart_anchor anchor, const char *text) {
  int colour = colour_of(style);
  markup_put(m, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\" class=\"f%d\" fill=\"%s\" font-weight=\"600\">", x, y,
             anchors[anchor], colour, on_white[colour]);
  markup_text(m, text);
  markup_put(m, "</text>\n");
}

/* Bytes that begin a character. */
static bool is_first_byte(char c) {
  return ((unsigned char)c & 0xC0) != 0x80;
}

/* Pixels of a character of 11 px, in a font that is rather wide. */
static double character_width(char c) {
  if (!is_first_byte(c)) return 0;
  return strchr("mwMW%", c) != NULL ? 10.2 : strchr("iljtfr.,:;|'! ", c) != NULL ? 4.4 : 7.0;
}

double chart_text_width(const char *text) {
  double width = 0;
  for (const char *c = text; *c != '\0'; c++) width += character_width(*c);
  return width;
}

void chart_text_cut(const char *text, double width, char *cut, size_t size) {
  static const char ellipsis[] = "\xE2\x80\xA6";
  size_t n = 0;
  double taken = 10; /* the ellipsis */
  if (chart_text_width(text) <= width && strlen(text) < size) {
    snprintf(cut, size, "%s", text);
    return;
  }
  for (; text[n] != '\0' && n + sizeof ellipsis < size; n++) {
    taken += character_width(text[n]);
    if (taken > width) break;
  }
  while (n > 0 && !is_first_byte(text[n])) n--;
  snprintf(cut, size, "%.*s%s", (int)n, text, ellipsis);
}

static int by_height(const void *x, const void *y) {
  double a = ((const chart_label *)x)->y, b = ((const chart_label *)y)->y;
  return (a > b) - (a < b);
}

void chart_labels_spread(chart_label *label, int n, double gap, double top, double bottom) {
  if (n == 0) return;
  qsort(label, (size_t)n, sizeof *label, by_height);
  label[0].y = fmax(label[0].y, top);
  for (int i = 1; i < n; i++) label[i].y = fmax(label[i].y, label[i - 1].y + gap);
  label[n - 1].y = fmin(label[n - 1].y, fmax(bottom, top + (n - 1) * gap));
  for (int i = n - 2; i >= 0; i--) label[i].y = fmin(label[i].y, label[i + 1].y - gap);
}

/* What stands behind the first comma comes on a second line, in grey. */
static void write_label(markup *m, const chart_label *label, double x, double width, bool has_two_lines) {
  char line[160], cut[170];
  const char *comma = strchr(label->text, ',');
  size_t n = comma != NULL && has_two_lines ? (size_t)(comma - label->text) : strlen(label->text);
  snprintf(line, sizeof line, "%.*s", (int)n, label->text);
  chart_text_cut(line, width, cut, sizeof cut);
  chart_words_of(m, x, label->y + 3.8, label->style, CHART_START, cut);
  if (comma == NULL || !has_two_lines) return;
  chart_text_cut(comma + 1 + strspn(comma + 1, " "), width, cut, sizeof cut);
  chart_words(m, x, label->y + 16, CHART_TEXT_TICK, CHART_START, cut);
}

void chart_labels_write(markup *m, chart_label *label, int n, double x, double width, double top, double bottom) {
  int n_there = 0;
  bool has_two_lines = false;
  for (int i = 0; i < n; i++)
    if (!isnan(label[i].y)) label[n_there++] = label[i];
  for (int i = 0; i < n_there; i++) has_two_lines = has_two_lines || strchr(label[i].text, ',') != NULL;
  if (has_two_lines && (n_there - 1) * 29.0 + 12 > bottom - top) has_two_lines = false;
  double gap = has_two_lines ? 29 : 14, last = has_two_lines ? bottom - 12 : bottom;
  int room = (int)((last - top) / gap) + 1, shown = n_there <= room ? n_there : room - 1;
  if (shown < n_there) {
    char text[40];
    snprintf(text, sizeof text, "and %d more", n_there - shown);
    chart_words(m, x, bottom + 3.8, CHART_TEXT_TICK, CHART_START, text);
    last -= gap;
  }
  chart_labels_spread(label, shown, gap, top, last);
  for (int i = 0; i < shown; i++) write_label(m, &label[i], x, width, has_two_lines);
}
