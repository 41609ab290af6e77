#!/usr/bin/env python3
"""curvd report: pages of made-up runs are taken apart, and their lines turned back into numbers by the ticks beside them."""
import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

from program import ENVIRONMENT, Failure, Run, check

XHTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"
SUPERSCRIPTS = {"⁻": "-", **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))}
NASTY = "a<b>&\"quoted\" 'x' é"
ALL_FIGURES = {"training", "stages", "spectra", "ranks", "service", "traffic", "prediction", "summary", "runs"}


# ---- made-up runs ----


def loss_at(seed, step):
    return 2.5 * math.exp(-step / 60) + 0.1 + 0.02 * math.sin(step + 3 * seed)


def stage(worker_s, curvature_s):
    return {"wall_min_s": 0, "wall_mean_s": max(worker_s, curvature_s), "wall_max_s": 1, "worker_mean_s": worker_s,
            "curvature_mean_s": curvature_s, "cpu_sum_s": 1}


def end_record(steps):
    pair = {"predicted_s": 0.002, "measured_s": 0.0025}
    return {"kind": "end", "step": steps, "wall_s": 0.02 * steps, "cpu_s": 3.0, "waited_share": 0.04, "age_mean": 4.5, "age_p99": 9,
            "age_max": 11, "curvature_busy": [0.3, 0.5], "curvature_busy_min": 0.3, "curvature_busy_max": 0.5,
            "stages": {"forward": stage(0.4, 0), "backward": stage(0.8, 0), "refresh": stage(0, 0.7), "wait for workers": stage(0, 9)},
            "sent_bytes": {"gradients": 40e6, "statistics": 20e6, "preconditioners": 10e6, "control": 5, "moved factors": 0},
            "predicted": {"step_s": 0.018, "measured_step_s": 0.02, "stages": {"capture": pair, "refresh": pair}}}


def run_records(seed, method="nystrom-kfac", steps=100, workers=3, curvature=1, layer="fc1"):
    records = [{"kind": "run", "step": 0, "schema": 1, "version": "0", "method": method, "network": "20-10-5", "batch": 64, "seed": seed,
                "workers": workers, "curvature_ranks": curvature, "threads": 2,
                "environment": {"cpu": NASTY, "hosts": [{"name": "n1", "ranks": 4, "processors": "0-3"}]}}]
    for step in range(10, steps + 1, 10):
        wall_s = 0.02 * step * (1 + 0.01 * seed)
        records.append({"kind": "step", "step": step, "loss": loss_at(seed, step), "lr": 0.1, "wall_s": wall_s})
        if step % 50 == 0:
            records.append({"kind": "epoch", "step": step, "epoch": step / 50, "test_loss": loss_at(seed, step) + 0.05,
                            "test_accuracy": 80 + seed + step / 50, "wall_s": wall_s})
            factor = {"n": 21, "eig_rank": 8, "age": 3, "trace": 10.0, "lambda_max": 4.0, "lambda_min": 0.5, "tau": 0.1, "missing_trace": 0.07}
            records.append({"kind": "layer", "step": step, "layer": layer, "A": factor, "G": factor})
    return records + [end_record(steps)]


def write_run(folder, records, settings=None, tail=""):
    os.makedirs(folder)
    with open(os.path.join(folder, b"metrics.jsonl" if isinstance(folder, bytes) else "metrics.jsonl"), "w", encoding="utf-8") as f:
        f.write("".join(json.dumps(r) + "\n" for r in records) + tail)
    if settings is not None:
        with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as f:
            f.write("".join(f"{name}: {value}  # --{name}\n" for name, value in settings.items()))


def scaling_line(kind, method, workers, curvature, step_s, repeat, **more):
    ranks = workers + curvature
    return {"bench": "scale", "schema": 1, "kind": kind, "method": method, "network": "20-10-5", "seed": 1, "repeat": repeat,
            "ranks": ranks, "workers": workers, "curvature_ranks": curvature, "hosts": 1, "threads": 1, "batch": 64, "steps": 10,
            "wall_s": 10 * step_s, "core_s": 10 * step_s * ranks, "cpu_s": 1.0, "step_s": step_s / 2, "step_p99_s": step_s,
            "accuracy": None, "test_loss": 0.5, "target": None, "target_s": None, "predicted_step_s": None, "wait_share": 0.1,
            "run": "r", "environment": {"cpu": NASTY}} | more


# ---- a page, taken apart ----


class Page:
    def __init__(self, curvd, folder, *paths):
        self.path = os.path.join(folder, "page.html")
        self.output = curvd_says(curvd, 0, "report", "--output", self.path, *paths)
        with open(self.path, "rb") as f:
            self.bytes = f.read()
        try:
            self.root = ElementTree.fromstring(self.bytes)
        except ElementTree.ParseError as error:
            raise Failure(f"the page is not well-formed: {error}") from error
        self.text = "".join(self.root.itertext())

    def sections(self):
        return {s.get("id") for s in self.root.iter(XHTML + "section")}

    def panel(self, name):
        found = [g for g in self.root.iter(SVG + "g") if g.get("data-panel") == name]
        check(len(found) == 1, f"{len(found)} panels named {name!r}")
        return found[0]

    def rows(self, section, summary):
        """Cells of the table with this summary, as texts."""
        for s in self.root.iter(XHTML + "section"):
            for details in s.iter(XHTML + "details") if s.get("id").startswith(section) else ():
                if details.find(XHTML + "summary").text == summary:
                    return [["".join(cell.itertext()) for cell in row] for row in details.iter(XHTML + "tr")][1:]
        raise Failure(f"no table {summary!r} in {section}")


def tick_value(text):
    if text.startswith("10") and any(c in SUPERSCRIPTS for c in text):
        return 10.0 ** int("".join(SUPERSCRIPTS[c] for c in text[2:]))
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)
    return float(text.rstrip("kMG")) * factor


def axis_of(panel, is_x):
    """(value -> pixel and back) from the outermost ticks; whether it is logarithmic is in the title, or seen from a third one."""
    anchor, at = ("middle", "x") if is_x else ("end", "y")
    texts = [t for t in panel.iter(SVG + "text") if t.get("text-anchor") == anchor and t.get("class") == "tick"]
    ticks = [(tick_value(t.text), float(t.get(at)) - (0 if is_x else 3.8)) for t in texts if re.match(r"^[-\d.]+[kMG⁰-⁻¹²³]*$", t.text)]
    check(len(ticks) >= 2, "an axis has fewer than two ticks")
    (v0, p0), (v1, p1) = ticks[0], ticks[-1]
    middle = ticks[len(ticks) // 2]
    is_titled = not is_x and any((t.text or "").endswith(", logarithmic") for t in panel.iter(SVG + "text"))
    is_even = not is_titled and abs(p0 + (middle[0] - v0) / (v1 - v0) * (p1 - p0) - middle[1]) < 0.05
    if is_even:
        return lambda p: v0 + (p - p0) / (p1 - p0) * (v1 - v0)
    for value, place in ticks:
        expected = p0 + math.log(value / v0) / math.log(v1 / v0) * (p1 - p0)
        check(abs(expected - place) < 0.05, f"tick {value} of a logarithmic axis stands at {place}, not {expected}")
    return lambda p: v0 * (v1 / v0) ** ((p - p0) / (p1 - p0))


def points_of(element):
    return [tuple(float(n) for n in pair.split(",")) for pair in element.get("points").split()]


def line_of(panel, name, x_of, y_of):
    found = [p for line in panel.iter(SVG + "polyline") if line.get("data-series") == name for p in points_of(line)]
    check(found, f"no line of {name!r}")
    return [(x_of(x), y_of(y)) for x, y in found]


def check_points(found, expected, what):
    check(len(found) == len(expected), f"{what}: {len(found)} points, not {len(expected)}")
    x_span = max(x for x, _ in expected) - min(x for x, _ in expected)
    largest = max(abs(y) for _, y in expected)
    for (x, y), (wanted_x, wanted_y) in zip(found, expected):
        # pixels are written to 0.01 of some 200, ticks, too
        check(abs(x - wanted_x) < 3e-4 * x_span and abs(y - wanted_y) < 3e-4 * largest, f"{what}: ({x}, {y}), not ({wanted_x}, {wanted_y})")


def curvd_says(curvd, code, *words):
    """stdout of a command that ends with this code; of one that fails stderr."""
    done = subprocess.run([curvd, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60,
                          env={**os.environ, **ENVIRONMENT})
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    check(done.returncode == code, f"curvd {words[:3]}...: code {done.returncode}, not {code}: {err}{out}")
    check(code != 0 or err == "", f"curvd {words[0]} writes to stderr: {err}")
    return err if code else out


# ---- tests ----


def test_numbers(curvd, folder):
    """Medians and bands of three seeds, against steps, seconds and core-seconds."""
    for seed in (1, 2, 3):
        write_run(f"{folder}/s{seed}", run_records(seed), {"method": "nystrom-kfac", "seed": seed, "run_dir": f"s{seed}"})
    page = Page(curvd, folder, *(f"{folder}/s{seed}" for seed in (1, 2, 3)))
    check("3 runs of 1 configuration." in page.text, "seeds are not one configuration")
    steps = range(10, 101, 10)
    losses = [statistics.median(loss_at(seed, step) for seed in (1, 2, 3)) for step in steps]
    walls = [statistics.median(0.02 * step * (1 + 0.01 * seed) for seed in (1, 2, 3)) for step in steps]
    first = page.panel("Training loss, steps")
    y_of = axis_of(first, False)
    for against, xs in (("steps", steps), ("seconds", walls), ("core-seconds, of all ranks", [8 * w for w in walls])):
        panel = page.panel("Training loss, " + against)
        found = line_of(panel, "nystrom-kfac", axis_of(panel, True), y_of)
        check_points(found, list(zip(xs, losses)), against)
    band = points_of(next(first.iter(SVG + "polygon")))
    x_of = axis_of(first, True)
    ends = [min(loss_at(s, step) for s in (1, 2, 3)) for step in steps], [max(loss_at(s, step) for s in (1, 2, 3)) for step in steps]
    check_points([(x_of(x), y_of(y)) for x, y in band], list(zip([*steps, *reversed(steps)], ends[0] + ends[1][::-1])), "band")
    panel = page.panel("Test accuracy, %, steps")
    check_points(line_of(panel, "nystrom-kfac", axis_of(panel, True), axis_of(panel, False)), [(50, 83), (100, 84)], "accuracy")
    check(page.sections() == ALL_FIGURES | {"missing"}, f"sections {sorted(page.sections())}")


def test_seed_that_ends_first(curvd, folder):
    """Where one of three seeds has ended, its line and band end: of the fast ones that are left the seconds would be fewer."""
    for seed, steps, factor in ((1, 100, 1), (2, 60, 2), (3, 40, 3)):
        records = [{**r, "wall_s": factor * r["wall_s"]} if "wall_s" in r else r for r in run_records(seed, steps=steps)]
        write_run(f"{folder}/s{seed}", records, {"seed": seed, "log_every": 10})
    write_run(f"{folder}/s4", run_records(4)[:2] + run_records(4)[3:4], {"seed": 4, "log_every": 20})
    page = Page(curvd, folder, *(f"{folder}/s{seed}" for seed in (1, 2, 3, 4)))
    check("4 runs of 2 configurations." in page.text, "records at other steps are no other configuration")
    panel = page.panel("Training loss, seconds")
    x_of, y_of = axis_of(panel, True), axis_of(page.panel("Training loss, steps"), False)
    expected = [(2 * 0.02 * step * 1.02, statistics.median(loss_at(seed, step) for seed in (1, 2, 3))) for step in (10, 20, 30, 40)]
    check_points(line_of(panel, "nystrom-kfac, log_every 10", x_of, y_of), expected, "seeds of which one ends first")
    check(len(points_of(next(panel.iter(SVG + "polygon")))) == 8, "a band goes on behind a seed's end")


def test_stages(curvd, folder):
    """ms of a step by role; curvature ranks' waits end with the step, as evaluations are no part of it."""
    write_run(f"{folder}/s1", run_records(1))
    page = Page(curvd, folder, f"{folder}/s1")
    rows = {(row[1], row[2]): float(row[3]) for row in page.rows("stages", "Numbers of the stages")}
    expected = {("workers", "forward"): 4, ("workers", "backward"): 8, ("workers", "anything else"): 8,
                ("curvature ranks", "refresh"): 7, ("curvature ranks", "wait for workers"): 13}
    check(rows.keys() == expected.keys() and all(abs(rows[k] - v) < 1e-3 for k, v in expected.items()), f"stages {rows}")
    resumed = {**end_record(100), "process_steps": 50}
    write_run(f"{folder}/s2", run_records(1)[:-1] + [resumed])
    rows = Page(curvd, folder, f"{folder}/s2").rows("stages", "Numbers of the stages")
    check(["workers", "forward", "8"] in [row[1:4] for row in rows], f"stages of a resumed run {rows}")
    sent = page.rows("traffic", "Numbers of the bytes, of a mean step")[0]
    check(sent[1:4] == ["0.4", "0.2", "0.1"], f"bytes {sent}")
    ages = page.rows("service", "Numbers of ages and waits")[0]
    check(ages[1:] == ["4.5", "9", "11", "4.00", "30.0", "50.0"], f"ages {ages}")
    predicted = page.rows("prediction", "Numbers predicted and measured, of a mean step")
    check(predicted[0][1:] == ["step", "18", "20", "1.111"], f"prediction {predicted[0]}")
    layer = page.rows("spectra", "Last values of all factors, of the first run of each configuration")[0]
    check(layer[1:] == ["fc1", "A", "21", "8", "2.5", "4", "0.5", "0.1", "10", "7.00", "3"], f"layer {layer}")


def test_scaling(curvd, folder):
    """Efficiencies by hand: 40 ms on 1 rank, 20 ms on 2 workers + 1; of z, whose smallest run has 1 + 1 ranks, 40 and 25 ms."""
    lines = [scaling_line("strong", "m", 1, 0, 0.04 + 0.001 * d, d) for d in (-1, 0, 1)]
    lines += [scaling_line("strong", "m", 2, 1, 0.02, d) for d in range(3)]
    lines += [scaling_line("strong", "m", 4, 1, 0.0125, d) for d in range(3)]
    lines += [scaling_line("strong", "z", 1, 1, 0.04, 0), scaling_line("strong", "z", 2, 1, 0.025, 0)]
    page = scaling_page(curvd, folder, lines)
    rows = page.rows("scaling", "Numbers of the points")
    check([row[6:10] for row in rows][:3] == [["3", "40", "39", "41"], ["3", "20", "20", "20"], ["3", "12.5", "12.5", "12.5"]], f"points {rows}")
    efficiency = [(float(row[11]), float(row[12])) for row in rows]
    for (workers, ranks), wanted in zip(efficiency, ((100, 100), (100, 200 / 3), (80, 64), (100, 100), (80, 320 / 3))):
        check(abs(workers - wanted[0]) < 0.05 and abs(ranks - wanted[1]) < 0.05, f"efficiencies {efficiency}")
    panel = page.panel("Efficiency, all ranks, %")
    found = line_of(panel, "m, C = 1", axis_of(panel, True), axis_of(panel, False))
    check_points(found, [(3, 200 / 3), (5, 64)], "efficiency")
    check({"missing", "runs"} <= page.sections() and "training" not in page.sections(), f"sections {page.sections()}")
    for words in ("Loss and accuracy.", "Where a step goes.", "Spectra", "Ages and waits.", "Bytes by kind.", "Predicted against"):
        check(words in page.text, f"nothing says that {words!r} is missing")


def scaling_page(curvd, folder, lines):
    path = f"{folder}/scale.jsonl"
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(json.dumps(line) + "\n" for line in lines))
    return Page(curvd, folder, path)


def test_targets(curvd, folder):
    """A time to the target is one of all runs: of some it would be that of the lucky ones."""
    reached = [scaling_line("strong", "m", 2, 0, 0.02, d, target=89, target_s=s) for d, s in enumerate((8, 6, 7))]
    missed = [scaling_line("strong", "m", 1, 0, 0.04, d, target=89, target_s=s) for d, s in enumerate((12, None, None))]
    rows = scaling_page(curvd, folder, reached + missed).rows("scaling", "Numbers of the points")
    check([row[15:17] for row in rows] == [["1 of 3", "–"], ["3 of 3", "7"]], f"targets {rows}")
    rows = scaling_page(curvd, folder, [scaling_line("strong", "m", 1, 0, 0.04, 0)]).rows("scaling", "Numbers of the points")
    check(rows[0][15:17] == ["–", "–"], f"without a target {rows}")


def test_experiments(curvd, folder):
    """Runs with other options, rates, targets or lengths are no runs of one point; a figure says which they are."""
    told = ({}, {"options": "--staleness 5"}, {"options": "--staleness " + 200 * "0"}, {"options": "--staleness " + 200 * "0" + "1"},
            {"steps": 20}, {"length": "1 epoch", "lr": "0.1"}, {"length": "1 epoch", "lr": "0.2"}, {"target": 89},
            {"target": 89, "length": "2 epochs"})
    page = scaling_page(curvd, folder, [scaling_line("strong", "m", 1, 0, 0.04, 0, **more) for more in told])
    titles = [s.find(XHTML + "h2").text for s in page.root.iter(XHTML + "section") if s.get("id").startswith("scaling-")]
    ends = ["10 steps", "20 steps", "1 epoch", "until 89 %", "until 89 %, at most 2 epochs", "10 steps, --staleness 5"]
    wanted = [f"Scaling, strong: 20-10-5, {end}" for end in ends]
    check(len(titles) == 8 and sorted(t for t in titles if "00" not in t) == sorted(wanted), f"titles {titles}")
    rows = [row for s in page.root.iter(XHTML + "section") if s.get("id").startswith("scaling-") for row in s.iter(XHTML + "tr")]
    names = [row[0].text for row in rows if row[0].text != "method"]
    check(sorted(names) == 7 * ["m"] + ["m, lr 0.1", "m, lr 0.2"], f"points {names}")


def of_panel(page, name, series):
    panel = page.panel(name)
    return line_of(panel, series, axis_of(panel, True), axis_of(panel, False))


def test_bases(curvd, folder):
    """Batches have bases of their own, 100 and 64 % by hand; hosts that grow with the ranks are one line, others are not."""
    large = {"batch": 512}
    lines = [scaling_line("strong", "m", w, 0, s, 0) for w, s in ((1, 0.04), (2, 0.025))]
    lines += [scaling_line("strong", "m", w, 0, s, 0, **large) for w, s in ((1, 0.16), (2, 0.125))]
    page = scaling_page(curvd, folder, lines)
    rows = page.rows("scaling", "Numbers of the points")
    check([(row[5], row[11]) for row in rows] == [("64", "100"), ("512", "100"), ("64", "80"), ("512", "64")], f"strong {rows}")
    check_points(of_panel(page, "Efficiency, workers only, %", "m, batch 512"), [(1, 100), (2, 64)], "batch 512")
    check("m, batch 64 on 1 + 0 ranks; m, batch 512 on 1 + 0 ranks." in page.text, "the caption does not name both bases")
    weak = [scaling_line("weak", "m", w, 0, s, 0, batch=b * w)
            for w, b, s in ((1, 64, 0.04), (2, 64, 0.05), (1, 128, 0.1), (2, 128, 0.16))]
    page = scaling_page(curvd, folder, weak)
    check_points(of_panel(page, "Efficiency, workers only, %", "m, batch 128 a worker"), [(1, 100), (2, 62.5)], "weak")
    curvature = [scaling_line("curvature", "m", 2, c, s, 0, batch=b)
                 for c, b, s in ((0, 64, 0.04), (1, 64, 0.02), (0, 512, 0.1), (1, 512, 0.08))]
    page = scaling_page(curvd, folder, curvature)
    check_points(of_panel(page, "Step, ms", "m, batch 512"), [(0, 100), (1, 80)], "curvature")


def test_hosts(curvd, folder):
    """Hosts that grow with the ranks are one line; ranks on one and on two hosts are two, over the same base."""
    grow = [scaling_line("strong", "m", w, 0, s, 0, hosts=h) for w, h, s in ((1, 1, 0.04), (2, 1, 0.025), (4, 2, 0.0125))]
    page = scaling_page(curvd, folder, grow)
    check_points(of_panel(page, "Efficiency, workers only, %", "m"), [(1, 100), (2, 80), (4, 80)], "growing hosts")
    check(len(list(page.panel("Step, ms").iter(SVG + "polyline"))) == 1, "growing hosts are several lines")
    page = scaling_page(curvd, folder, [*grow, scaling_line("strong", "m", 2, 0, 0.04, 0, hosts=2)])
    check_points(of_panel(page, "Efficiency, workers only, %", "m, 1 host"), [(1, 100), (2, 80)], "1 host")
    check_points(of_panel(page, "Efficiency, workers only, %", "m, 2 hosts"), [(2, 50), (4, 80)], "2 hosts")


def test_efficiency_bars(curvd, folder):
    """By hand: 40 ms (39 to 41) on 1 worker, 25 ms (24 to 27) on 2: 80 %, from 39 / 54 to 41 / 48; the base has no bar."""
    lines = [scaling_line("strong", "m", w, 0, s, d) for w, times in ((1, (0.039, 0.04, 0.041)), (2, (0.024, 0.025, 0.027)))
             for d, s in enumerate(times)]
    page = scaling_page(curvd, folder, lines)
    for panel in ("Efficiency, workers only, %", "Efficiency, all ranks, %"):
        said = [title.text for title in page.panel(panel).iter(SVG + "title")]
        check(said == ["m, 1 + 0 ranks: 100 (100 to 100), 3 runs", "m, 2 + 0 ranks: 80 (72.22 to 85.42), 3 runs"], f"bars {said}")
    steps = [title.text for title in page.panel("Step, ms").iter(SVG + "title")]
    check("m, 1 + 0 ranks: 40 (39 to 41), 3 runs" in steps, f"steps {steps}")
    check("the smallest run's, at their worst ends" in page.text, "the caption does not say what the bars are")


def test_coverage(curvd, folder):
    """Of all ways in which 3 runs fall below or above the true median, 6 of 8 have it in their range; of 5, 30 of 32."""
    lines = [scaling_line("strong", "m", w, 0, 0.04 + 0.001 * d, d)
             for w, n in ((1, 3), (2, 5), (3, 6), (4, 1)) for d in range(n)]
    page = scaling_page(curvd, folder, lines)
    told = re.findall(r"Intervals of (\d) runs are their range, which holds the true median in ([\d.]+) % of cases\.", page.text)
    check(told == [("3", "75"), ("5", "93.75")], f"coverages {told}")
    for row, n in zip(page.rows("scaling", "Numbers of the points"), (3, 5)):
        check(row[8:10] == ["40", f"{39 + n}"], f"the interval of {n} runs is not their range: {row}")


def test_nothing_from_outside(curvd, folder):
    """Names that try to be markup stay text; nothing is loaded; the same runs give the same bytes."""
    write_run(f"{folder}/{NASTY}", run_records(1, method="</title><script>alert(1)</script>", layer=NASTY), {"network": NASTY})
    write_run(f"{folder}/latin-".encode() + b"\xe9\xff", run_records(2))
    page = Page(curvd, folder, f"{folder}/{NASTY}", os.fsencode(f"{folder}/latin-") + b"\xe9\xff")
    tags = {element.tag.rpartition("}")[2] for element in page.root.iter()}
    check(not tags & {"script", "link", "img", "iframe", "object", "image", "use", "a", "foreignObject"}, f"elements {sorted(tags)}")
    for element in page.root.iter():
        outside = [k for k, v in element.attrib.items() if k.lower().startswith(("on", "href", "src", "{")) or "url(" in v]
        check(not outside, f"attributes {outside} of {element.tag}")
    style = page.root.find(f"{XHTML}head/{XHTML}style").text
    check("url(" not in style and "@import" not in style, "the style loads something")
    check(NASTY in page.text and "</title><script>alert(1)</script>" in page.text, "names are not shown as they are")
    check("latin-\ufffd\ufffd" in page.text, "bytes that are no UTF-8 are not replaced")
    check("prefers-color-scheme: dark" in style and "@media print" in style, "no looks for dark screens and paper")
    before = page.bytes
    check(Page(curvd, folder, f"{folder}/{NASTY}", os.fsencode(f"{folder}/latin-") + b"\xe9\xff").bytes == before, "two pages differ")


def test_configurations(curvd, folder):
    """What tells configurations of one method apart stands in their names; seeds and folders do not."""
    for name, staleness, seed in (("a", 0, 1), ("b", 5, 1), ("c", 5, 2)):
        write_run(f"{folder}/{name}", run_records(seed), {"staleness": staleness, "seed": seed, "run_dir": name})
    write_run(f"{folder}/d", run_records(1, method="sgd", workers=1, curvature=0), {"seed": 1})
    page = Page(curvd, folder, *(f"{folder}/{name}" for name in "abcd"))
    check("4 runs of 3 configurations." in page.text, "not three configurations")
    names = {line.get("data-series") for line in page.panel("Training loss, steps").iter(SVG + "polyline")}
    check(names == {"nystrom-kfac, staleness 0", "nystrom-kfac, staleness 5", "sgd"}, f"names {names}")
    colours = {line.get("data-series"): line.get("stroke") for line in page.panel("Training loss, steps").iter(SVG + "polyline")}
    check(len(set(colours.values())) == 3, f"colours {colours}")
    page = Page(curvd, folder, *(f"{folder}/{name}/metrics.jsonl" for name in "ab"), f"{folder}/c")
    check("3 runs of 2 configurations." in page.text, "a path of a metrics.jsonl is read without the settings beside it")


def test_unknown_settings(curvd, folder):
    """What ran with settings that are not known is no seed of anything."""
    for name, settings in (("a", {"lr": 0.1}), ("b", None), ("c", None)):
        write_run(f"{folder}/{name}", run_records(1), settings)
    os.rename(f"{folder}/c/metrics.jsonl", f"{folder}/a/c.jsonl")  # beside the settings of another run
    page = Page(curvd, folder, f"{folder}/a", f"{folder}/b", f"{folder}/a/c.jsonl")
    check("3 runs of 3 configurations." in page.text, "runs without settings are taken for seeds")


def test_broken_off(curvd, folder):
    """A run that was killed while it wrote, and one that was resumed."""
    records = run_records(1)[:-1]
    write_run(f"{folder}/cut", records, tail='{"kind":"step","st')
    page = Page(curvd, folder, f"{folder}/cut")
    check("was cut off" in page.output and "was cut off" in page.text and "no record of its end" in page.text, "nothing tells that it was cut")
    again = [{**records[0], "workers": 1, "curvature_ranks": 0}] + [{**r, "loss": 7.0} for r in records[5:] if r["kind"] == "step"]
    write_run(f"{folder}/again", records + again)
    page = Page(curvd, folder, f"{folder}/again")
    panel = page.panel("Training loss, steps")
    found = line_of(panel, "nystrom-kfac", axis_of(panel, True), axis_of(panel, False))
    expected = [(s, loss_at(1, s)) for s in range(10, 101, 10) if s < again[1]["step"]] + [(r["step"], 7.0) for r in again[1:]]
    check_points(found, expected, "resumed")
    check("was resumed" in page.text, "nothing tells that it was resumed")


def test_refusals(curvd, folder):
    """One sentence and a code; nothing is written."""
    write_run(f"{folder}/good", run_records(1))
    write_run(f"{folder}/bad", run_records(1)[:3], tail="{]\n{}\n")
    os.makedirs(f"{folder}/empty")
    with open(f"{folder}/bad.jsonl", "w", encoding="utf-8") as f:
        f.write(json.dumps(scaling_line("strong", "m", 1, 0, 0.1, 0)) + "\n" + '{"bench":"scale","schema":1,"ranks":-1}\n')
    os.mkfifo(f"{folder}/pipe")
    out = f"{folder}/p.html"
    cases = [(2, (), "a path is missing"), (2, (f"{folder}/good", "--outptu", out), "unknown option '--outptu'"),
             (2, (f"{folder}/good", "--output"), "a value is missing"),
             (2, (f"{folder}/good", "--output", f"{folder}/good/metrics.jsonl"), "does not end in .html"),
             (3, (f"{folder}/none", "--output", out), "No such file"), (3, (f"{folder}/empty", "--output", out), "no metrics.jsonl in it"),
             (3, (f"{folder}/bad", "--output", out), "metrics.jsonl:4: no JSON object"),
             (3, (f"{folder}/bad.jsonl", "--output", out), 'bad.jsonl:2: "ranks" is missing or out of range'),
             (3, (f"{folder}/pipe", "--output", out), "no regular file"), (3, ("/dev/null", "--output", out), "no regular file"),
             (3, (f"{folder}/good", "--output", f"{folder}/none/p.html"), "No such file or directory; choose another place")]
    for code, words, sentence in cases:
        said = curvd_says(curvd, code, "report", *words)
        check(sentence in said and said.startswith("curvd: ") and said.count("\n") == 1, f"{words[-1:]} says {said!r}, not {sentence!r}")
        check(not os.path.exists(out) and not os.path.exists(out + ".part"), "a page is left behind")
    check("curvd report [--output FILE.html] PATH..." in curvd_says(curvd, 0, "report", "--help"), "no help")


def test_long_run(curvd, folder):
    """100 000 records make a page of a size that a browser opens."""
    records = run_records(1)[:1] + [{"kind": "step", "step": s, "loss": 1 + 1 / s, "wall_s": s} for s in range(1, 100001)]
    write_run(f"{folder}/long", records)
    page = Page(curvd, folder, f"{folder}/long")
    check(len(page.bytes) < 200000, f"{len(page.bytes)} bytes")
    points = sum(len(points_of(line)) for line in page.panel("Training loss, steps").iter(SVG + "polyline"))
    check(400 <= points <= 800, f"{points} points")


def test_real_run(curvd, folder, mpiexec):
    """Two workers and a curvature rank: every figure that runs can fill is there."""
    options = {"data": "teacher", "teacher_samples": 2000, "network": "20-30-5", "batch": 50, "epochs": 2, "eval_every": 0.5, "log_every": 5,
               "method": "nystrom-kfac", "curvature_ranks": 1, "staleness": 2, "factor_update_steps": 2, "inv_update_steps": 4,
               "eig_rank": 8, "checkpoint_steps": 1000, "run_dir": f"{folder}/real"}
    code = Run(curvd, mpiexec, 3, options, f"{folder}/log").end()
    check(code == 0, f"the run ends with {code}")
    with open(f"{folder}/real/metrics.jsonl", encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    begin, end = records[0], records[-1]
    places = begin["environment"]["hosts"]
    check(sum(p["ranks"] for p in places) == 3 and places[0]["name"] == os.uname().nodename, f"hosts {places}")
    check(begin["threads"] == 1 and end["process_steps"] == end["step"], "threads or process_steps are wrong")
    sums = {role: sum(s[role] for name, s in end["stages"].items() if name != "evaluate") for role in ("worker_mean_s", "curvature_mean_s")}
    check(0 < sums["worker_mean_s"] <= 1.05 * end["wall_s"], f"workers' stages {sums} of {end['wall_s']} s")
    check(end["stages"]["forward"]["curvature_mean_s"] == 0 and end["stages"]["refresh"]["curvature_mean_s"] > 0, "roles are mixed")
    page = Page(curvd, folder, f"{folder}/real")
    check(page.sections() == ALL_FIGURES | {"missing"}, f"sections {sorted(page.sections())}")
    panel = page.panel("Training loss, steps")
    expected = [(r["step"], r["loss"]) for r in records if r["kind"] == "step"]
    check_points(line_of(panel, "nystrom-kfac", axis_of(panel, True), axis_of(panel, False)), expected, "a real run's loss")
    code = Run(curvd, mpiexec, 2, {"resume": f"{folder}/real", "epochs": 3}, f"{folder}/log").end()
    with open(f"{folder}/real/metrics.jsonl", encoding="utf-8") as f:
        last = json.loads(f.readlines()[-1])
    check(code == 0 and last["kind"] == "end", f"a resumed run ends with {code} and a record {last['kind']}")
    check(last["process_steps"] == last["step"] - end["step"], f"the resumed run took {last['process_steps']} steps, not those behind {end['step']}")
    check("was resumed" in Page(curvd, folder, f"{folder}/real").text, "nothing tells that a real run was resumed")
    check(any(row[:3] == ["eig_rank", "8", "--eig-rank"] for row in page.rows("runs", "Configuration in force")), "no configuration with origins")


TESTS = (test_numbers, test_seed_that_ends_first, test_stages, test_scaling, test_targets, test_experiments, test_bases, test_hosts,
         test_efficiency_bars, test_coverage, test_nothing_from_outside, test_configurations, test_unknown_settings, test_broken_off,
         test_refusals, test_long_run)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curvd")
    parser.add_argument("--mpiexec", default="mpirun")
    arguments = parser.parse_args()
    failed = 0
    for test in (*TESTS, test_real_run):
        with tempfile.TemporaryDirectory() as folder:
            try:
                test(arguments.curvd, folder, *([arguments.mpiexec] if test is test_real_run else []))
                print(f"{test.__name__}: ok", flush=True)
            except Failure as failure:
                failed += 1
                print(f"{test.__name__}: {failure}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
