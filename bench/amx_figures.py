"""The figures of the matrix units, on a machine that has AMX; elsewhere they are skipped. Times are the least of the rounds."""
import functools
import math
import statistics
import subprocess

from bench_runs import epoch_runs, least_blocks, step_runs
from common import Figure, Measured, Refused, Skipped, built_at, lines_of, program, say, shown
from eig_figures import chosen, runs_of

UNIT = "amx"
FORCED = ["--unit", UNIT]  # a run that would take another unit ends with a sentence
DEFAULT = "nystrom-kfac"
PRODUCT = ["--m", "266", "--n", "4096", "--k", "4096", "--rounds", "21"]
WARM = ["--n", "4096", "--eig-rank", "256", "--solvers", "rand", "--starts", "warm", "--precisions", "fp32,bf16", *FORCED,
        "--rounds", "3"]
SKETCH = ["costs", "--n", "4096", "--eig-rank", "256", "--batch", "512", "--settle", "2", "--refreshes", "7", "--precision",
          "bf16x3", *FORCED]  # as the service does: one term would be of no semidefinite matrix
MLP = ["--network", "784-1000-1000-10"]
WIDE = ["--network", "784-2048-2048-10"]
APPLY = ["--apply-precision", "bf16", "--matrix-unit", UNIT]
ALL = ["--train-precision", "bf16", "--statistics-precision", "bf16", "--refresh-precision", "bf16", *APPLY]
STEP = ["--method", DEFAULT, "--factor-update-steps", "10", "--inv-update-steps", "10", "--apply", "factored", "--batch", "128"]


def on_unit(measure):
    """Skipped where the machine lacks the unit."""
    def measure_there(setting):
        command = [program(setting.build, "bench_product"), "--list"]
        listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if listed.returncode != 0:
            raise Refused(f"{shown(command)} ended with exit code {listed.returncode}")
        if UNIT not in listed.stdout.split():
            raise Skipped(f"this machine has no matrix unit {UNIT}")
        return measure(setting)
    return measure_there


@functools.cache
def cached_products(build, _built, runs):
    """Both figures of products share them; _built: not those of another program."""
    commands = [[program(build, "bench_product"), *PRODUCT, *FORCED, "--seed", str(i + 1)] for i in range(runs)]
    lines = []
    for command in commands:
        say(shown(command))
        lines += lines_of(command)
    return lines, commands[0]


def product(precision, error=math.inf):
    """error: the largest that is fine; bench_product itself refuses one that rounding does not explain."""
    @on_unit
    def measure(setting):
        lines, command = cached_products(setting.build, tuple(sorted(built_at(setting.build).items())), setting.runs)
        cases = chosen(lines, precision=precision)
        worst = max(line["error"] for line in cases)
        return Measured([line["fp32_over"]["of_minima"] for line in cases], command, is_fine=worst <= error,
                        more={"error": worst, "gflops": statistics.median(line["gflops"] for line in cases),
                              "fp32_gflops": statistics.median(line["fp32_gflops"] for line in cases)})
    return measure


@on_unit
def warm_refresh(setting):
    """The error is compared round by round, each refresh starting from the pairs of the one before in its precision."""
    runs, command = runs_of(setting, 1, WARM)
    cases = [line for lines in runs for line in chosen(lines, precision="bf16")]
    off = max(max(abs(line["error_over_fp32"][which] - 1) for which in ("min", "max")) for line in cases)
    return Measured([line["ssyevd_over"]["of_minima"] for line in cases], command, is_fine=off <= 5e-4,
                    more={"error_off": off, "cpu_ms": statistics.median(line["cpu_ms"]["min"] for line in cases),
                          "ssyevd_ms": statistics.median(line["ssyevd_ms"]["min"] for line in cases),
                          "fp32_over": statistics.median(line["fp32_over"]["of_minima"] for line in cases),
                          "noisy_cases": sum(line["is_noisy"] for line in cases)})


@on_unit
def sketch_update(setting):
    commands = [[program(setting.build, "bench_stream"), *SKETCH, "--seed", str(i + 1)] for i in range(setting.runs)]
    lines = []
    for command in commands:
        say(shown(command))
        lines += lines_of(command)
    return Measured([line["updates_ms"]["min"] / line["full_updates_ms"]["min"] for line in lines], commands[0],
                    more={key: statistics.median(line[key]["min"] for line in lines)
                          for key in ("updates_ms", "full_updates_ms")})


@on_unit
def applied_step(setting):
    """Steps between refreshes: those with statistics are taken, as the basis must have all its pairs, but not timed."""
    lines, command = step_runs(setting, [*STEP, "--updates", "no", "--eig-rank", "220", *MLP, *APPLY, "--rounds", "41"])
    if any(line["method_timed"] != line["block"] - 1 for line in lines):
        raise Refused("a block of bench_step must have one step with statistics and a refresh, which is not timed")
    return least_blocks(lines, command)


def whole_step(words):
    @on_unit
    def measure(setting):
        return least_blocks(*step_runs(setting, [*STEP, "--staleness", "10", "--carrier", "columns", *words, *ALL, "--rounds",
                                                 "41"], 1))
    return measure


@on_unit
def accuracy_lost(setting):
    """Points, seed by seed. Accuracies have no clock in them, so the two precisions need not take turns."""
    words = [*MLP, "--batch", "512", "--epochs", "3"]
    (fp32,), _ = epoch_runs(setting, [DEFAULT], words)
    (bf16,), command = epoch_runs(setting, [DEFAULT], [*words, "--", *ALL])
    pairs = [tuple(run["evaluations"][-1]["accuracy"] for run in pair) for pair in zip(fp32, bf16)]
    return Measured([exact - rounded for exact, rounded in pairs], command, reduce=statistics.mean,
                    more={"fp32_accuracy": statistics.mean(exact for exact, _ in pairs),
                          "bf16_accuracy": statistics.mean(rounded for _, rounded in pairs)})


AMX_FIGURES = [
    Figure("amx-product-a", "sgemm over the same product in bf16 by AMX, Y (266, 4096) = Q M, one thread", "times", "at_least", 3,
           product("bf16")),
    Figure("amx-product-b", "the same in three terms (bf16x3); ok needs an error of at most 1e-5 against fp64", "times",
           "at_least", 2, product("bf16x3", 1e-5)),
    Figure("amx-warm-4096", "ssyevd over a warm refresh (Nystrom, one product) whose product is in bf16 by AMX, n 4096, rank 256, "
           "one thread; ok needs Frobenius errors of the kept pairs within 5e-4 of those of fp32 refreshes in the same run",
           "times", "at_least", 70, warm_refresh),
    Figure("amx-sketch", "an update of the streaming sketch (384 rows in bf16x3 by AMX, as statistics_precision bf16 makes it, 10 "
           "probes in fp32) over one of a full factor (ssyrk), n 4096, batch 512", "ratio", "at_most", 0.25, sketch_update),
    Figure("amx-apply", "a step of the default method between refreshes, rows preconditioned in bf16 by AMX (apply factored), over "
           "an SGD step in fp32: 784-1000-1000-10, batch 128, rank 220", "ratio", "at_most", 1.2, applied_step),
    Figure("amx-step-a", "a worker's step beside one curvature rank as in step-mlp-b (rank 64), but with staleness 10, as these steps "
           "are so short; network, statistics, refreshes and apply in bf16 by AMX, over an SGD step in fp32: "
           "784-1000-1000-10, batch 128", "ratio", "at_most", 0.75,
           whole_step(["--eig-rank", "64", *MLP])),
    Figure("amx-step-b", "the same as in step-wide (rank 220): 784-2048-2048-10", "ratio", "at_most", 0.55,
           whole_step(["--eig-rank", "220", *WIDE])),
    Figure("amx-accuracy", "points of test accuracy lost by bf16 in network, statistics, refreshes and apply, after 3 epochs of "
           "the default recipe, 784-1000-1000-10, batch 512", "points", "at_most", 0.2, accuracy_lost),
]
