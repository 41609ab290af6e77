"""The figures of the eigensolvers, from build/bench_eig. Run i has seed i."""
import functools
import statistics

from common import Figure, Measured, Refused, built_at, lines_of, program, say, shown
from train_run import MPI_FLAGS

BIG = ["--n", "4096", "--eig-rank", "128,256", "--solvers", "rand", "--rounds", "3"]
SMALL = ["--n", "1024,2048", "--eig-rank", "128", "--solvers", "rand", "--starts", "cold", "--rounds", "7"]
ERRORS = ["--n", "1024,2048", "--eig-rank", "128,256", "--solvers", "rand", "--rounds", "20", "--repeats", "1",
          "--ssyevd", "no"]
ALL = ["--matrix", "drift,steep,batch,one", "--n", "512,1024,2048", "--eig-rank", "64,128,256", "--solvers",
       "rand,dist,slab", "--rounds", "2", "--repeats", "1", "--ssyevd", "no"]
ONE_RANK = ["--n", "2048", "--eig-rank", "256", "--solvers", "rand,dist", "--starts", "warm", "--rounds", "7",
            "--repeats", "5", "--ssyevd", "no"]
TWO_RANKS = ["--n", "2048,4096", "--eig-rank", "256", "--solvers", "dist", "--starts", "warm", "--rounds", "5",
             "--repeats", "9", "--ssyevd", "no"]
EXACT = ["--n", "2048", "--eig-rank", "128", "--solvers", "dist,exact-dist", "--starts", "cold", "--rounds", "7",
         "--repeats", "5", "--ssyevd", "no"]
GRIDS = ["--compare-grids", "yes", "--n", "1000", "--eig-rank", "64"]
UNTIMED = [ERRORS, ALL, GRIDS]  # no clock in them


# ---- runs ----


def command_of(build, ranks, words, seed):
    command = [program(build, "bench_eig"), *words, "--seed", str(seed)]
    return command if ranks == 1 else ["mpirun", "-n", str(ranks), *MPI_FLAGS, *command]


@functools.cache
def cached_runs(build, _built, runs, ranks, words):
    """Each run's lines. Figures with the same command share them; _built: not those of another program."""
    result = []
    for i in range(runs):
        command = command_of(build, ranks, words, i + 1)
        say(f"{shown(command)}: run {i + 1} of {runs}")
        lines = lines_of(command)
        if list(words) not in UNTIMED and any(line["is_noisy"] for line in lines):
            say("other programs disturbed it: once more")
            again = lines_of(command)
            lines = min(lines, again, key=lambda run: sum(line["is_noisy"] for line in run))
        result.append(lines)
    return result


def runs_of(setting, ranks, words):
    built = tuple(sorted(built_at(setting.build).items()))
    return cached_runs(setting.build, built, setting.runs, ranks, tuple(words)), command_of(setting.build, ranks, words, 1)


def chosen(lines, **wanted):
    return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]


def median(values):
    return statistics.median(values)


def more_of(lines):
    """Milliseconds of the cases, and how many of them other programs disturbed."""
    return {"noisy_cases": sum(line["is_noisy"] for line in lines), "cases": len(lines)} | {
        key: median(line[key]["median"] for line in lines)
        for key in ("cpu_ms", "ssyevd_ms", "product_ms") if all(key in line for line in lines)}


# ---- kinds of figures ----


def check_quiet(lines):
    """A rank that waits for one that waits for the processor: such times say nothing, not even the least of them."""
    worst = max(line["disturbed"] for line in lines)
    if worst > 0.5:
        raise Refused(f"other programs disturbed {worst:.0%} of the solves over several ranks: wait until the machine is idle")


def of_case(words, key, statistic="median", ranks=1, worst=max, **wanted):
    """A key of the case, run by run; of several cases the worst."""
    def measure(setting):
        runs, command = runs_of(setting, ranks, words)
        cases = [chosen(lines, **wanted) for lines in runs]
        if ranks > 1:
            check_quiet([line for case in cases for line in case])
        values = [worst(line[key][statistic] for line in case) for case in cases]
        return Measured(values, command, more=more_of([line for case in cases for line in case]))
    return measure


def worst_error(start):
    """Of 20 refreshes at n 2048, rank 256 and at n 1024, rank 128, and of all seeds."""
    def measure(setting):
        runs, command = runs_of(setting, 1, ERRORS)
        cases = [[line for line in chosen(lines, start=start) if line["n"] == 8 * line["eig_rank"]] for lines in runs]
        return Measured([max(line["error_over_optimum"]["max"] for line in case) for case in cases], command, reduce=max,
                        more={"median_refresh": median(line["error_over_optimum"]["median"] for case in cases
                                                       for line in case)})
    return measure


def worst_orthogonality(setting):
    """The command is that of the many cases; n 4096 comes from another one that runs anyway."""
    runs, command = runs_of(setting, 2, ALL)
    big, _ = runs_of(setting, 1, BIG)
    worst = [[max(line["orthogonality"]["max"] for line in lines) for lines in each] for each in (runs, big)]
    return Measured([max(pair) for pair in zip(*worst)], command, reduce=max, more={"n_4096": max(worst[1])})


def other_sketches(setting):
    runs, command = runs_of(setting, 4, GRIDS)
    return Measured([len({line["grid"] for line in lines if line["other_sketch_numbers"] > 0}) for lines in runs], command,
                    reduce=max, is_fine=all(len({line["grid"] for line in lines}) == 5 for lines in runs))


def other_pairs(setting):
    runs, command = runs_of(setting, 4, GRIDS)
    return Measured([max(max(line["eigenvalues_off"], line["pairs_off"]) for line in lines) for lines in runs], command,
                    reduce=max, is_fine=all(len({line["grid"] for line in lines}) == 5 for lines in runs))


BIG_COLD = {"start": "cold", "eig_rank": 256}
EIG_FIGURES = [
    Figure("eig-warm-4096", "ssyevd over a warm refresh (Nystrom, one product, start: the pairs of the refresh before), "
           "n 4096, rank 256, one thread, fp32", "times", "at_least", 42,
           of_case(BIG, "ssyevd_over", start="warm", eig_rank=256)),
    Figure("eig-cold-4096-a", "ssyevd over a cold refresh (Nystrom, three products), n 4096, rank 256", "times", "at_least",
           16, of_case(BIG, "ssyevd_over", **BIG_COLD)),
    Figure("eig-cold-4096-b", "the same, rank 128", "times", "at_least", 27,
           of_case(BIG, "ssyevd_over", start="cold", eig_rank=128)),
    Figure("eig-cold-small-a", "the same, n 2048, rank 128", "times", "at_least", 12,
           of_case(SMALL, "ssyevd_over", n=2048)),
    Figure("eig-cold-small-b", "the same, n 1024, rank 128", "times", "at_least", 5.5,
           of_case(SMALL, "ssyevd_over", n=1024)),
    Figure("eig-limit", "a warm refresh over the bare sgemm of its one product (266 rows), n 4096, rank 256", "ratio",
           "at_most", 1.6, of_case(BIG, "over_product", start="warm", eig_rank=256)),
    Figure("eig-error-warm", "Frobenius error of the kept pairs over that of the best of their number, the worst of 20 warm "
           "refreshes in a row while the matrix drifts, of n 2048, rank 256 and n 1024, rank 128, and of all runs", "ratio",
           "at_most", 1.05, worst_error("warm")),
    Figure("eig-error-cold", "the same of cold refreshes", "ratio", "at_most", 1.08, worst_error("cold")),
    Figure("eig-orthogonality", "largest entry of U U^T - I over all pairs that the randomized solvers found, cold and warm, on "
           "one rank and over two, n 512 to 2048, also of steep, one-batch and rank-one matrices; and n 4096 on one rank", "",
           "at_most", 2e-6, worst_orthogonality),
    Figure("eig-inverse-a", "damped inverse of M applied to new examples: error with a cold refresh's pairs over error with as "
           "many exact ones, n 4096, rank 256, damping 1 % of the largest eigenvalue", "ratio", "at_most", 1.10,
           of_case(BIG, "inverse_over_truncation", **BIG_COLD)),
    Figure("eig-inverse-b", "the same: error with the tail tau over error without", "ratio", "at_most", 0.85,
           of_case(BIG, "inverse_tail_over_none", **BIG_COLD)),
    Figure("eig-dist-1", "the ScaLAPACK path on a grid of one rank over the local one, warm, n 2048, rank 256", "ratio",
           "at_most", 1.10, of_case(ONE_RANK, "over_local", solver="dist")),
    Figure("eig-dist-2", "one rank over two (grid 2x1), ScaLAPACK path, warm, rank 256, n 2048 or 4096, the lower; least times "
           "of 45 each, as a waiting rank spins through what other programs take", "times", "at_least", 1.5,
           of_case(TWO_RANKS, "one_rank_over", "of_minima", ranks=2, worst=min, grid="2x1")),
    Figure("eig-dist-exact", "pssyevd over a cold refresh by the ScaLAPACK path, both on two ranks (grid 2x1), n 2048, rank "
           "128; least times", "times", "at_least", 15,
           of_case(EXACT, "exact_over", "of_minima", ranks=2, solver="dist", grid="2x1")),
    Figure("eig-sketch-bits", "process grids of 1x1, 2x1, 1x2, 2x2 and 4x1 whose random sketch differs from the local one in "
           "any bit, n 1000, rank 64", "grids", "at_most", 0, other_sketches),
    Figure("eig-grids", "largest relative difference of eigenvalues, and of U^T D U, over those grids from the local solve",
           "", "at_most", 1e-5, other_pairs),
]
