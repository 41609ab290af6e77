"""The figures of the streaming sketch, from build/bench_stream. Run i has seed i; every size is a command of its own."""
import functools
import statistics

from common import Figure, Measured, built_at, lines_of, program, say, shown

SIZES = [(1024, 128), (2048, 256), (4096, 256)]  # n, kept pairs
SETTLE = 5  # refreshes before the counted ones


def command_of(build, what, n, eig_rank, words, seed):
    return [program(build, "bench_stream"), what, "--n", str(n), "--eig-rank", str(eig_rank), *words, "--seed", str(seed)]


@functools.cache
def cached_line(build, _built, what, n, eig_rank, words, seed):
    """Figures with the same command share its line; _built: not that of another program."""
    command = command_of(build, what, n, eig_rank, words, seed)
    say(shown(command))
    return lines_of(command)[0]


def lines_for(setting, what, n, eig_rank, *words):
    """A line a run."""
    built = tuple(sorted(built_at(setting.build).items()))
    return [cached_line(setting.build, built, what, n, eig_rank, words, i + 1) for i in range(setting.runs)]


def worst_error(*words):
    """Of all sizes and runs; the command is that of the largest."""
    def measure(setting):
        words_all = ["--settle", str(SETTLE), *words]
        by_size = {n: lines_for(setting, "errors", n, eig_rank, *words_all) for n, eig_rank in SIZES}
        runs = [max(lines[i]["error_over_optimum"]["max"] for lines in by_size.values()) for i in range(setting.runs)]
        more = {f"n_{n}": {"worst": max(line["error_over_optimum"]["max"] for line in lines),
                           "median": statistics.median(line["error_over_optimum"]["median"] for line in lines),
                           "cold": [max(at) for at in zip(*(line["cold"] for line in lines))]}
                for n, lines in by_size.items()}
        return Measured(runs, command_of(setting.build, "errors", *SIZES[-1], words_all, 1), reduce=max, more=more)
    return measure


def cold_error(setting):
    """Shares its runs with worst_error()."""
    words = ["--settle", str(SETTLE)]
    by_size = [lines_for(setting, "errors", n, eig_rank, *words) for n, eig_rank in SIZES]
    runs = [max(lines[i]["cold"][-1] for lines in by_size) for i in range(setting.runs)]
    return Measured(runs, command_of(setting.build, "errors", *SIZES[-1], words, 1), reduce=max)


def cost(n, eig_rank):
    words = ["--settle", "2", "--refreshes", "11"]  # the first one is cold

    def measure(setting):
        lines = lines_for(setting, "costs", n, eig_rank, *words)
        parts = ("updates_ms", "refresh_ms", "full_updates_ms", "full_refresh_ms")
        return Measured([line["over_full"]["median"] for line in lines],
                        command_of(setting.build, "costs", n, eig_rank, words, 1),
                        more={key: statistics.median(line[key]["median"] for line in lines) for key in parts})
    return measure


STREAM_FIGURES = [
    Figure("seed-error", "Frobenius error of the streaming sketch's kept pairs over the least possible, the worst of 100 "
           "refreshes from the 6th on while the average drifts by 0.1 rad a refresh, 10 updates of 128 rows each, of n 1024, "
           "rank 128 and n 2048 and 4096, rank 256, and of all runs", "ratio", "at_most", 1.05, worst_error()),
    Figure("seed-cold", "the same of the 5th refresh after an empty start with a Gaussian seed", "ratio", "at_most", 1.10,
           cold_error),
    Figure("seed-cost", "process CPU of 10 updates of 128 rows and a refresh (solve, reseed) of the streaming sketch over those "
           "of a full factor (ssyrk; one warm Nystrom product), n 4096, rank 256", "ratio", "at_most", 0.55, cost(4096, 256)),
]
