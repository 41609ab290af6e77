#include "page/page.h"

#include "curvd.h"
#include "page/page_parts.h"

#include <stdio.h>
#include <string.h>

/* ---- what figures share ---- */

void page_section_begin(page *p, const char *id, const char *title) {
  markup_put(p->out, "<section id=\"%s\">\n", id);
  markup_element(p->out, "h2", title);
  markup_put(p->out, "\n");
}

void page_section_end(page *p) {
  markup_put(p->out, "</section>\n");
}

void page_caption(page *p, const char *text) {
  markup_element(p->out, "p class=\"caption\"", text);
  markup_put(p->out, "\n");
}

void page_missing(page *p, const char *title, const char *what_fills_it) {
  markup_put(&p->missing, "<li><b>");
  markup_text(&p->missing, title);
  markup_put(&p->missing, "</b> ");
  markup_text(&p->missing, what_fills_it);
  markup_put(&p->missing, "</li>\n");
}

void page_table_begin(page *p, const char *summary, const char *const *heads, int n_names) {
  markup_put(p->out, "<details>");
  markup_element(p->out, "summary", summary);
  markup_put(p->out, "\n<div class=\"wide\"><table><thead><tr>");
  for (int i = 0; heads[i] != NULL; i++) markup_element(p->out, i < n_names ? "th" : "th class=\"n\"", heads[i]);
  markup_put(p->out, "</tr></thead><tbody>\n");
}

void page_table_end(page *p) {
  markup_put(p->out, "</tbody></table></div></details>\n");
}

double page_swatches(markup *m, const page_swatch *swatch, int n, double x, double y, double width) {
  double at = x, top = y;
  for (int i = 0; i < n; i++) {
    double length = chart_text_width(swatch[i].name) + 30;
    if (at > x && at + length > x + width) at = x, top += 18;
    chart_bar(m, at, top, 11, 11, swatch[i].style, swatch[i].opacity, "");
    chart_words(m, at + 16, top + 9.5, CHART_TEXT_NAME, CHART_START, swatch[i].name);
    at += length;
  }
  return n > 0 ? top - y + 18 : 0;
}

/* ---- the page ---- */

static const char style_text[] =
    "<style>\n"
    ":root { color-scheme: light dark; }\n"
    "body { font: 15px/1.5 system-ui, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif; color: #222;\n"
    "  background: #fff; max-width: 1040px; margin: 2rem auto 4rem; padding: 0 1.5rem; }\n"
    "h1 { font-size: 1.5rem; font-weight: 600; line-height: 1.25; margin: 0 0 .2rem; }\n"
    "h2 { font-size: 1.08rem; font-weight: 600; margin: 2.6rem 0 .4rem; }\n"
    "h3 { font-size: .95rem; font-weight: 600; margin: 1.2rem 0 .3rem; }\n"
    "svg { display: block; width: 100%; height: auto; }\n"
    ".caption, .about, .missing { color: #555; font-size: .86rem; margin: .4rem 0; max-width: 52rem; }\n"
    ".missing { padding-left: 1.1rem; }\n"
    ".wide { overflow-x: auto; }\n"
    "table { border-collapse: collapse; font-size: .83rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }\n"
    "th, td { text-align: left; padding: .16rem .9rem .16rem 0; vertical-align: top; }\n"
    "th { font-weight: 600; border-bottom: 1px solid #999; vertical-align: bottom; }\n"
    "td { border-bottom: 1px solid #eee; overflow-wrap: anywhere; }\n"
    ".n { text-align: right; white-space: nowrap; }\n"
    "td.n { overflow-wrap: normal; }\n"
    "details { font-size: .86rem; margin: .3rem 0; }\n"
    "summary { cursor: pointer; color: #555; }\n"
    "svg.key { display: inline-block; width: 22px; height: 10px; margin-right: .5em; }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "  body { color: #ddd; background: #161616; }\n"
    "  .caption, .about, .missing, summary { color: #a8a8a8; }\n"
    "  td { border-bottom-color: #2c2c2c; }\n"
    "  th { border-bottom-color: #666; }\n";

static const char print_text[] = "}\n"
                                 "@media print {\n"
                                 "  body { font-size: 10pt; margin: 0; max-width: none; padding: 0; }\n"
                                 "  section { break-inside: avoid; }\n"
                                 "  details:not([open]) { display: none; }\n"
                                 "  .wide { overflow: visible; }\n"
                                 "  table { font-size: 7.5pt; }\n"
                                 "  th, td { padding-right: .45rem; }\n"
                                 "}\n"
                                 "@page { margin: 14mm; }\n"
                                 "</style>\n";

/* On paper there is no dark ground, whatever the reader prefers: its colours are for screens. */
static void write_style(markup *m) {
  const char *split = strstr(style_text, "@media (prefers");
  markup_put(m, "%.*s", (int)(split - style_text), style_text);
  markup_put(m, "@media screen and %s", split + strlen("@media "));
  chart_dark_style(m);
  markup_put(m, "%s", print_text);
}

/* "nystrom-kfac, sgd on 784-1000-1000-10" */
static void write_title(const page_data *d, markup *m) {
  enum { SHOWN = 4 };
  const char *network = "";
  for (int i = 0; i < d->n_methods && i < SHOWN; i++) {
    markup_put(m, "%s", i > 0 ? ", " : "");
    markup_text(m, d->method[i]);
  }
  if (d->n_methods > SHOWN) markup_put(m, " and %d more", d->n_methods - SHOWN);
  if (d->n_runs > 0) network = jsonl_text(d->run[0].history.run, "network");
  if (d->n_runs == 0 && d->scaling.n_points > 0) network = d->scaling.point[0].key.network;
  if (network[0] == '\0') return;
  markup_put(m, " on ");
  markup_text(m, network);
}

static void write_about(const page_data *d, markup *m) {
  markup_put(m, "<p class=\"about\">");
  if (d->n_runs > 0)
    markup_put(m, "%d run%s of %d configuration%s", d->n_runs, d->n_runs == 1 ? "" : "s", d->n_groups,
               d->n_groups == 1 ? "" : "s");
  if (d->scaling.n_lines > 0)
    markup_put(m, "%s%lld benchmark run%s at %lld point%s", d->n_runs > 0 ? ", " : "", (long long)d->scaling.n_lines,
               d->scaling.n_lines == 1 ? "" : "s", (long long)d->scaling.n_points, d->scaling.n_points == 1 ? "" : "s");
  markup_put(m, ". Drawn by curvd %s.</p>\n", curvd_version());
}

static void write_missing(page *p) {
  if (p->missing.n == 0 || p->missing.is_lost) return;
  page_section_begin(p, "missing", "Not shown, for want of data");
  markup_put(p->out, "<ul class=\"missing\">\n%s</ul>\n", p->missing.bytes);
  page_section_end(p);
}

static curvd_status write_figures(page *p, cv_error *err) {
  CV_TRY(page_training(p, err));
  page_stages(p);
  page_scaling(p);
  CV_TRY(page_layers(p, err));
  page_service(p);
  page_traffic(p);
  page_prediction(p);
  return CURVD_OK;
}

curvd_status page_write(const page_data *d, markup *m, cv_error *err) {
  page p = {.data = d, .out = m};
  markup_put(m, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n"
                "<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width\"/>\n<title>curvd: ");
  write_title(d, m);
  markup_put(m, "</title>\n");
  write_style(m);
  markup_put(m, "</head>\n<body>\n<h1>");
  write_title(d, m);
  markup_put(m, "</h1>\n");
  write_about(d, m);
  page_summary(&p);
  curvd_status status = write_figures(&p, err);
  write_missing(&p);
  page_runs(&p);
  markup_put(m, "</body>\n</html>\n");
  bool is_lost = m->is_lost || p.missing.is_lost;
  markup_free(&p.missing);
  if (status == CURVD_OK && is_lost) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the page: give fewer runs");
  return status;
}
