"""Figures of the service behind the workers' backs, from runs of build/curvd train under mpirun. Run i has seed i."""
import statistics

from common import Figure, Measured, Refused, lines_of, program, say, shown
from train_run import MPI_FLAGS, Request, check, command, start

DEFAULT = "nystrom-kfac"
RUN_FOLDER = "RUN"


def ended(request):
    """The checked end record of a run."""
    say(f"{shown(command(request, RUN_FOLDER))}")
    return check(request, start(request))[1]


def stall(setting):
    """Seconds that the worker stood still for curvature, over those that its refreshes took to arrive."""
    def request(seed):
        return Request(DEFAULT, seed, network="784-2048-2048-10", batch=256, epochs=1, ranks=2, curvature_ranks=1,
                       build=setting.build, more=["--staleness", "5", "--eig-rank", "220"])

    def share(end):
        return 100 * end["stages"]["wait for curvature"]["wall_mean_s"] / (end["latency_mean_s"] * end["refreshes_arrived"])

    ends = [ended(request(i + 1)) for i in range(setting.runs)]
    if any(end["latency_mean_s"] <= 0 for end in ends):
        raise Refused("no refresh was waited for or noticed")
    return Measured([share(end) for end in ends], command(request(1), RUN_FOLDER),
                    more={"latency_ms": statistics.median(1e3 * end["latency_mean_s"] for end in ends),
                          "age_p99": max(end["age_p99"] for end in ends)})


def bytes_sent(setting):
    """Statistics and preconditioners of the sketch way over those of packed triangles and full eigenbases."""
    def request(method, seed, *more):
        return Request(method, seed, network="2047-2048-10", batch=128, epochs=0.3, eval_every=0.3, ranks=2,
                       curvature_ranks=1, build=setting.build,
                       more=["--data", "teacher", "--teacher-samples", "12000", *more])

    def sent(end):
        return end["sent_bytes"]["statistics"] + end["sent_bytes"]["preconditioners"]

    sketch = [request(DEFAULT, i + 1, "--eig-rank", "220", "--carrier", "sketch") for i in range(setting.runs)]
    full = [request("kfac", i + 1, "--carrier", "triangle") for i in range(setting.runs)]
    pairs = [(sent(ended(s)), sent(ended(f))) for s, f in zip(sketch, full)]
    return Measured([s / f for s, f in pairs], command(sketch[0], RUN_FOLDER),
                    more={"sketch_bytes": float(pairs[0][0]), "full_bytes": float(pairs[0][1])})


def stale_accuracy(setting):
    """Points of accuracy that staleness 5 loses after 3 epochs: the mean over the seeds of either."""
    def request(seed, staleness):
        return Request(DEFAULT, seed, epochs=3, eval_every=3, curvature_ranks=0, build=setting.build,
                       more=["--staleness", str(staleness)])

    pairs = [tuple(ended(request(i + 1, s))["test_accuracy"] for s in (0, 5)) for i in range(setting.runs)]
    return Measured([now - stale for now, stale in pairs], command(request(1, 5), RUN_FOLDER), reduce=statistics.mean,
                    more={"accuracy": statistics.mean(now for now, _ in pairs),
                          "stale_accuracy": statistics.mean(stale for _, stale in pairs)})


SPLITS = [(2, 1), (4, 2), (4, 1), (4, 0), (8, 2), (8, 0)]  # ranks, curvature ranks among them


def schedule_command(setting, ranks, curvature_ranks):
    return ["mpirun", "-n", str(ranks), *MPI_FLAGS, program(setting.build, "bench_schedule"), "--curvature-ranks",
            str(curvature_ranks)]


def schedule_error(setting):
    """The worst case of all; each is the median of the runs."""
    cases = {}
    for split in SPLITS:
        words = schedule_command(setting, *split)
        for i in range(setting.runs):
            say(f"{shown(words)}: run {i + 1} of {setting.runs}")
            for line in lines_of(words):
                key = (*split, line["staleness"], line["inv_update_steps"])
                cases.setdefault(key, []).append(line)
    errors = {key: statistics.median(line["step_error"] for line in lines) for key, lines in cases.items()}
    worst = max(errors, key=errors.get)
    lines = [line for of_case in cases.values() for line in of_case]
    return Measured(list(errors.values()), schedule_command(setting, *worst[:2]), reduce=max,
                    more={"worst_case": cases[worst][0], "median_error": statistics.median(errors.values()),
                          "load_error": max(line["load_error"] for line in lines),
                          "free_ages_off": max(abs(line["age_mean"][0] - line["age_mean"][1]) for line in lines)})


SERVICE_FIGURES = [
    Figure("stall", "share of a refresh's duration, from its step until a worker has all of it, in which the worker stands "
           "still; 784-2048-2048-10, batch 256, rank 220, staleness 5, 1 worker and 1 curvature rank", "%", "at_most", 2,
           stall),
    Figure("bytes", "bytes of statistics and preconditioners by sketches of rank 220 over those of packed triangles and full "
           "eigenbases, 2047-2048-10, intervals 10, 1 worker and 1 curvature rank", "ratio", "at_most", 0.25, bytes_sent),
    Figure("stale-accuracy", "points of accuracy lost by staleness 5, after 3 epochs of the default recipe, batch 512",
           "points", "at_most", 0.3, stale_accuracy),
    Figure("schedule-error", "share by which a simulated mean step is off, the worst of 72 runs whose work is sleep: 1 + 1 to "
           "6 + 2 workers and curvature ranks, 4 and 8 workers that own, staleness 0, 1, 5 and free, intervals 1, 4 and 10; "
           "ages must be equal", "", "at_most", 0.1, schedule_error),
]
