"""The table of a scaling benchmark. Every number of a point is a median over its runs; a ratio is one of two medians."""
import itertools
import math
import statistics

from statistics_of_runs import FEWEST, differ, interval, range_coverage

POINT = ("method", "lr", "ranks", "workers", "curvature_ranks", "hosts", "threads", "batch")
RATIOS = ("speed-up", "eff. workers", "eff. ranks")


def middle(lines, key):
    """Median of what the runs have; None when one has it not."""
    values = [line[key] for line in lines]
    return None if any(v is None for v in values) else statistics.median(values)


def steps_ms(lines):
    """Mean step of each run: what all steps cost, those with a refresh as well."""
    return [1e3 * line["wall_s"] / line["steps"] for line in lines]


def digits(value, pattern="{:.4g}", scale=1):
    return "-" if value is None else pattern.format(scale * value)


def short(line):
    """3 workers and 1 curvature rank: 3+1; a star where ranks share cores."""
    cores = line["environment"].get("cores")
    shares = cores is not None and line["ranks"] * line["threads"] > line["hosts"] * cores
    return f"{line['workers']}+{line['curvature_ranks']}{'*' if shares else ''}"


def named(line):
    return short(line) + (f" on {line['hosts']} hosts" if line["hosts"] > 1 else "")


def grouped(lines, key):
    groups = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return groups


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)


# ---- scaling ----


def length(line):
    """What ends a run. Runs to a target do as many steps as they need; older lines do not say what was asked for."""
    asked = line.get("length", "")
    if line["target"]:
        return f"until {line['target']:g} %" + (f", at most {asked}" if asked else "")
    return asked or f"{line['steps']} steps"


def table_key(line):
    """What all points of a table have in common."""
    batch = line["batch"] // line["workers"] if line["kind"] == "weak" else line["batch"]
    return line["kind"], line["network"], batch, line["threads"], line.get("options", ""), line["target"], length(line)


def point_key(line):
    return tuple(line.get(name, "") for name in POINT)


def method_name(line):
    return line["method"] + (f", lr {line['lr']}" if line.get("lr") else "")


def heading(key):
    kind, network, batch, threads, options, _, until = key
    of = " a worker" if kind == "weak" else ""
    said = f"{kind}: {network}, batch {batch}{of}, {threads} thread{'s'[:threads > 1]} a rank, {until}"
    return said + (f", {options}" if options else "")


def efficiencies(lines, base):
    """Speed-up over the base, and what of it each worker, and each rank, keeps; examples a second are compared."""
    rate = lines[0]["batch"] / statistics.median(steps_ms(lines))
    rate_base = base[0]["batch"] / statistics.median(steps_ms(base))
    gain = rate / rate_base
    return gain, gain * base[0]["workers"] / lines[0]["workers"], gain * base[0]["ranks"] / lines[0]["ranks"]


def step_cells(lines):
    ms, sure = steps_ms(lines), interval(steps_ms(lines))
    between = f"{sure[0]:.4g} to {sure[1]:.4g}" if sure else "-"
    return [f"{statistics.median(ms):.4g}", between, digits(middle(lines, "step_s"), scale=1e3),
            digits(middle(lines, "step_p99_s"), scale=1e3)]


def predicted_cell(lines):
    predicted = middle(lines, "predicted_step_s")
    return "-" if predicted is None else f"{100 * (1e3 * predicted / statistics.median(steps_ms(lines)) - 1):+.0f} %"


def target_cells(lines):
    reached = [line for line in lines if line["target_s"] is not None]
    seconds, cores = middle(lines, "target_s"), None
    if seconds is not None:
        cores = statistics.median(line["target_s"] * line["ranks"] * line["threads"] for line in lines)
    return [f"{len(reached)} of {len(lines)}", digits(seconds), digits(cores)]


def row(lines, base):
    first = lines[0]
    gain = efficiencies(lines, base)
    is_unsure = lines is not base and not differ(steps_ms(lines), steps_ms(base)) and first["batch"] == base[0]["batch"]
    return [method_name(first), short(first), str(first["hosts"]), str(len(lines)), *step_cells(lines),
            f"{'~' * is_unsure}{gain[0]:.2f}", f"{100 * gain[1]:.0f} %", f"{100 * gain[2]:.0f} %",
            digits(middle(lines, "core_s")), digits(middle(lines, "wait_share"), "{:.1f} %", 100), predicted_cell(lines),
            digits(middle(lines, "accuracy"), "{:.2f}"), *(target_cells(lines) if first["target"] else [])]


def titles(key):
    more = ["reached", "to target s", "core-s"] if key[5] else []
    return ["method", "ranks", "hosts", "runs", "step ms", "95 % interval", "median step", "p99", *RATIOS, "core-s", "wait",
            "predicted", "accuracy", *more]


def pairs_alike(points):
    """Of points of one method: names of the pairs whose intervals overlap."""
    return [f"{named(a[0])} and {named(b[0])}" for a, b in itertools.combinations(points, 2)
            if a[0]["batch"] == b[0]["batch"] and not differ(steps_ms(a), steps_ms(b))]


def notes(methods):
    said = []
    for method, points in methods.items():
        base = points[0]
        said.append(f"base of {method}: {named(base[0])}, {statistics.median(steps_ms(base)):.4g} ms a step")
        alike = pairs_alike(points)
        if alike:
            said.append(f"no difference shown, {method} (intervals overlap, or fewer than {FEWEST} runs): {', '.join(alike)}")
    return said


def scaling_table(key, lines):
    of_points = grouped(lines, point_key)
    methods = grouped(of_points.values(), lambda point: method_name(point[0]))
    rows = [titles(key)]
    for points in methods.values():
        points.sort(key=lambda p: (p[0]["ranks"], p[0]["curvature_ranks"], p[0]["hosts"]))
        rows += [row(point, points[0]) for point in points]
    return "\n".join([heading(key), "", aligned(rows), "", *notes(methods)])


def legend(lines):
    numbers = {len(g) for g in grouped(lines, lambda line: (table_key(line), point_key(line))).values()}
    said = ["ranks: workers+curvature ranks; * more threads than cores, which shows how ranks share them, not how they scale",
            "step ms: wall clock of a run over its steps, evaluation left out; median step, p99: of single steps, with the first",
            "eff.: speed-up over the base for each worker, and for each rank, curvature ranks counted; ~: no difference shown",
            "core-s: ranks x threads x wall clock; predicted: the model's step against the measured one"]
    said += [f"intervals of {n} runs are their range, which holds the true median in {100 * range_coverage(n):.4g} % of cases"
             for n in sorted(numbers) if 1 < n < 6]
    load, own = max(line["environment"].get("load_before", 0) for line in lines), max(l["ranks"] * l["threads"] for l in lines)
    if load > own + 1:  # what is left of the run before is no more than its ranks
        said.append(f"other programs took part: the load was {load:.1f} before a run, of which ours is {own} at most")
    commits = sorted({line["environment"].get("commit", "?") for line in lines})
    machines = sorted({line["environment"].get("machine", "?") for line in lines})
    return said + [f"commit {', '.join(commits)}; {'; '.join(machines)}"]


# ---- rates ----


def score(lines):
    """The larger the better."""
    if not all(line["is_finite"] for line in lines):
        return -math.inf
    accuracy = middle(lines, "accuracy")
    return -middle(lines, "test_loss") if accuracy is None else accuracy


def rate_cells(lines):
    lost = sum(not line["is_finite"] for line in lines)
    if lost:
        return [str(len(lines)), "-", f"not finite in {lost}"]
    return [str(len(lines)), digits(middle(lines, "accuracy"), "{:.2f}"), digits(middle(lines, "test_loss"))]


def advice(method, rates):
    best = max(rates, key=lambda rate: score(rates[rate]))
    ordered = sorted(rates, key=float)
    edge = f" (at the edge of its {len(rates)} rates: try more)" if len(rates) > 1 and best in (ordered[0], ordered[-1]) else ""
    return best, f"{method}: {best} of {len(rates)}{edge}"


def tuning_key(line):
    return "tune", line["network"], line["batch"], line["steps"], line.get("options", "")


def tuning_table(key, lines):
    kind, network, batch, steps, options = key
    methods = grouped(lines, lambda line: line["method"])
    rows, best, said = [["method", "lr", "runs", "accuracy", "loss"]], {}, []
    for method, of_method in methods.items():
        rates = grouped(of_method, lambda line: line["lr"])
        rows += [[method, rate, *rate_cells(some)] for rate, some in rates.items()]
        best[method], sentence = advice(method, rates)
        said.append(sentence)
    told = [f"{kind}: {network}, batch {batch}", f"{steps} steps", *([options] if options else [])]
    return "\n".join([", ".join([*told, "scores of training images that were left out"]), "",
                      aligned(rows), "", *said, "--lr " + ",".join(f"{m}={rate}" for m, rate in best.items())])


def summary(lines):
    scaling, tuned = ([line for line in lines if line.get("bench") == bench] for bench in ("scale", "tune"))
    parts = [tuning_table(key, some) for key, some in grouped(tuned, tuning_key).items()]
    parts += [scaling_table(key, some) for key, some in grouped(scaling, table_key).items()]
    if scaling:
        parts.append("\n".join(legend(scaling)))
    return "\n\n".join(parts) if parts else "no lines of bench/scale yet"
