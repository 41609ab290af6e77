"""Runs of bench_step and bench/epoch for the figures."""
import os
import statistics

from common import ROOT, Measured, lines_of, program, say, shown
from train_run import MPI_FLAGS


def step_runs(setting, words, curvature_ranks=0):
    """bench_step run after run: its lines, and the command of one."""
    command = [program(setting.build, "bench_step"), "--data", "fashion-mnist", *words]
    if curvature_ranks > 0:
        command = ["mpirun", "-n", str(1 + curvature_ranks), *MPI_FLAGS, *command,
                   "--curvature-ranks", str(curvature_ranks)]
    lines = []
    for i in range(setting.runs):
        say(f"{shown(command)}: run {i + 1} of {setting.runs}")
        lines += lines_of(command)
    return lines, command


def least_blocks(lines, command):
    """The method's step over that of sgd, by the least block of either, as two busy cores slow each other."""
    more = {key: statistics.median(line[key]["min"] for line in lines)
            for key in ("products_ms", "sgd_ms", "method_ms") if key in lines[0]}
    more["waited_ms"] = statistics.median(line["method_stages_ms"].get("wait for curvature", 0.0) for line in lines)
    more["median_ratio"] = statistics.median(line["method_over_sgd"]["median"] for line in lines)
    return Measured([line["method_over_sgd"]["of_minima"] for line in lines], command, more=more)


def epoch_runs(setting, methods, words):
    """bench/epoch once, which takes the methods in turn: its runs by method, in order of their seeds; and the command."""
    program(setting.build, "curvd")
    command = [os.path.join(ROOT, "bench", "epoch"), "--methods", ",".join(methods), "--seeds", str(setting.runs)]
    if setting.build != "build":
        command += ["--build", setting.build]
    command += words
    lines = [line for line in lines_of(command) if line["kind"] == "run"]
    return [[line for line in lines if line["method"] == method] for method in methods], command
