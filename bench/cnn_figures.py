"""Figures of the network `cnn`, from build/bench_step and bench/epoch."""
import statistics

from bench_runs import epoch_runs, least_blocks, step_runs
from common import Figure, Measured, built_at

DEFAULT = "nystrom-kfac"
CNN = ["--network", "cnn", "--batch", "128"]
FACTOR_STEPS = 10  # between two factor updates
REFRESH_STEPS = 100
# A block holds one period of refreshes; 6 blocks of 100 steps of both methods, the first of each uncounted, take two minutes.
# At its automatic rate of 0.1 sgd diverges, at 0.02 it learns.
STEPS = ["--method", DEFAULT, "--factor-update-steps", str(FACTOR_STEPS), "--inv-update-steps", str(REFRESH_STEPS), *CNN,
         "--block", str(REFRESH_STEPS), "--rounds", "5", "--sgd-lr", "0.02"]
UPDATE = ("backward for sampled targets", "reduce statistics", "running average")  # the first contains the captures
_alone = {}  # lines of bench_step on one rank, which two figures share


def alone_runs(setting):
    key = (setting.runs, *built_at(setting.build).items())
    if key not in _alone:
        _alone[key] = step_runs(setting, STEPS)
    return _alone[key]


def step_alone(setting):
    return least_blocks(*alone_runs(setting))


def step_served(setting):
    return least_blocks(*step_runs(setting, [*STEPS, "--staleness", "5"], 1))


def factor_update(setting):
    """Stages are given for a mean step, and one step in FACTOR_STEPS updates; forward and backward are those of sgd."""
    lines, command = alone_runs(setting)
    update_ms = [FACTOR_STEPS * sum(line["method_stages_ms"][stage] for stage in UPDATE) for line in lines]
    pass_ms = [line["sgd_stages_ms"]["forward"] + line["sgd_stages_ms"]["backward"] for line in lines]
    return Measured([u / p for u, p in zip(update_ms, pass_ms)], command,
                    more={"update_ms": statistics.median(update_ms), "forward_backward_ms": statistics.median(pass_ms)})


def accuracy(epochs):
    def measure(setting):
        (runs,), command = epoch_runs(setting, [DEFAULT], [*CNN, "--epochs", str(epochs)])
        return Measured([run["evaluations"][-1]["accuracy"] for run in runs], command, reduce=min,
                        more={"cpu_s": statistics.median(run["cpu_s_per_epoch"] * run["epochs"] for run in runs)})
    return measure


CNN_FIGURES = [
    Figure("cnn-step-a", "the default recipe's step over an SGD step, the least of all blocks each: cnn, batch 128, intervals 10 "
           "and 100", "ratio", "at_most", 1.35, step_alone),
    Figure("cnn-step-b", "the same of a worker beside one curvature rank, what it sleeps until that has sent something included, "
           "staleness 5", "ratio", "at_most", 1.15, step_served),
    Figure("conv-factors", "a factor update of cnn, batch 128, default recipe (backward pass for sampled targets, captures, "
           "running averages) over forward and backward of an SGD step", "ratio of CPU seconds", "at_most", 0.5, factor_update),
    Figure("cnn-accuracy-1", "test accuracy of cnn after 1 epoch of the default recipe, Fashion-MNIST, batch 128, the worst "
           "seed", "%", "at_least", 88.8, accuracy(1)),
    Figure("cnn-accuracy-2", "the same after 2 epochs", "%", "at_least", 90, accuracy(2)),
]
