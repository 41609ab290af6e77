"""Figures of vgg16_bn as in the paper on Randomized K-FACs: all its refreshes, from build/bench_eig, and its epochs, from
runs of bench/paper. Run i has seed i."""
import collections
import functools
import os
import statistics

import paper_run as paper
from common import ROOT, Figure, Measured, Refused, built_at, lines_of, program, say, shown

# Factors of vgg16_bn by size: A of 13 convolutions and 2 fully connected layers, then their G.
A_SIZES = {28: 1, 577: 2, 1153: 2, 2305: 3, 4609: 5, 513: 2}
G_SIZES = {64: 2, 128: 2, 256: 3, 512: 7, 10: 1}
SIZES = dict(sorted((collections.Counter(A_SIZES) + collections.Counter(G_SIZES)).items()))
RANK, OVERSAMPLING, FULL_SHARE = 220, 10, 0.75  # FULL_SHARE: the default of full_share
RESIDUAL_MAX = 0.5  # of the service's own check of a decomposition


# ---- refreshes ----


def is_exact(n):
    """The service decomposes such a factor exactly whatever the method."""
    return RANK + OVERSAMPLING >= FULL_SHARE * n


def refresh_command(build, seed, is_small):
    sizes = ",".join(str(n) for n in SIZES if is_exact(n) == is_small)
    # an exact solver costs the same for every rank, which must fit the smallest
    words = (["--eig-rank", "8", "--oversampling", "2", "--solvers", "exact", "--rounds", "5"] if is_small else
             ["--eig-rank", str(RANK), "--oversampling", str(OVERSAMPLING), "--solvers", "exact,rand", "--rounds", "1"])
    return [program(build, "bench_eig"), "--n", sizes, *words, "--matrix", "drift", "--repeats", "3", "--ssyevd", "no",
            "--seed", str(seed)]


def checked(line):
    """bench_eig has compared its error with the optimum already."""
    residual = (line["residual"] or {}).get("max")
    if residual is None or not residual <= RESIDUAL_MAX:
        raise Refused(f"{line['solver']} of n {line['n']}: residual {residual}, beyond {RESIDUAL_MAX}")
    return line["cpu_ms"]["median"]


@functools.cache
def refreshes(build, _built, seed):
    """Milliseconds of all factors: exact, cold and warm."""
    ms = {}
    for is_small in (True, False):
        command = refresh_command(build, seed, is_small)
        say(shown(command))
        for line in lines_of(command):
            ms[line["n"], line.get("start", "exact")] = checked(line)
    return {lane: sum(count * ms[n, "exact" if is_exact(n) else lane] for n, count in SIZES.items())
            for lane in ("exact", "cold", "warm")}


def built(setting):
    return tuple(sorted(built_at(setting.build).items()))


def refresh_ratio(start):
    def measure(setting):
        runs = [refreshes(setting.build, built(setting), i + 1) for i in range(setting.runs)]
        more = {f"{lane}_ms": statistics.median(run[lane] for run in runs) for lane in ("exact", start)}
        return Measured([run["exact"] / run[start] for run in runs], refresh_command(setting.build, 1, False), more=more)
    return measure


# ---- epochs ----


@functools.cache
def costs(build, _built, method, seed):
    request = paper.timed_request(method, seed, build, paper.NETWORK, paper.BATCH, paper.STEPS, [])
    say(f"bench/paper: {request.name()}")
    return paper.timed(request, paper.STEPS)


def curvature(parts):
    return sum(parts.values()) - parts["forward/backward"]


def ratio(pair, epochs, of):
    exact, other = ((method, paper.epoch_of(method, cost, epochs)) for method, cost in pair)
    return of(exact[1]) / of(other[1])


def whole_epoch(parts):
    return sum(parts.values())


def epoch_ratio(method):
    """kfac over the method. The two take turns, seed after seed."""
    first, all_epochs = range(paper.LATER), range(paper.EPOCHS)

    def measure(setting):
        pairs = [[(m, costs(setting.build, built(setting), m, i + 1)) for m in ("kfac", method)]
                 for i in range(setting.runs)]

        def median(epochs, of):
            return statistics.median(ratio(pair, epochs, of) for pair in pairs)

        def split(at):
            parts = [paper.epoch_of(*pair[at], first) for pair in pairs]
            return {part: statistics.median(p[part] for p in parts) for part in paper.PARTS}

        more = {"without_forward_backward": median(first, curvature), "all_epochs": median(all_epochs, whole_epoch),
                "all_epochs_without_forward_backward": median(all_epochs, curvature), "kfac_cpu_s": split(0),
                "other_cpu_s": split(1)}
        command = [os.path.join(ROOT, "bench", "paper"), "--methods", f"kfac,{method}", "--seed", "1"]
        return Measured([ratio(pair, first, whole_epoch) for pair in pairs], command, more=more)
    return measure


PAPER_FIGURES = [
    Figure("vgg-refresh-a", "decomposing all 30 factors of vgg16_bn exactly (eigenbasis) over cold by Nystrom (three products), "
           "rank 220, oversampling 10, factors up to 256 exactly; running averages of batches with eigenvalues (1 + i/10)^-1.5 "
           "whose directions turn (drift); CPU, one thread", "times", "at_least", 12, refresh_ratio("cold")),
    Figure("vgg-refresh-b", "the same over warm ones (one product, start: the pairs of the refresh before)", "times", "at_least",
           30, refresh_ratio("warm")),
    Figure("vgg-epoch-a", "an epoch of kfac over one of rs-kfac, vgg16_bn, batch 256, as published: statistics every 10 steps, "
           "refreshes every 30 and every 50 (epochs 1 to 20), from 6 steps by what a step, a statistic and a refresh cost",
           "ratio of CPU seconds", "at_least", 2.3, epoch_ratio("rs-kfac")),
    Figure("vgg-epoch-b", "the same over sre-kfac", "ratio of CPU seconds", "at_least", 2.8, epoch_ratio("sre-kfac")),
    Figure("vgg-epoch-c", "the same over nystrom-kfac with this program's own statistics and warm starts",
           "ratio of CPU seconds", "at_least", 3.5, epoch_ratio("nystrom-kfac")),
]
