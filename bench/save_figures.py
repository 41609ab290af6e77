"""What checkpoints cost, from build/bench_save."""
import statistics

from common import Figure, Measured, lines_of, program, say, shown
from train_run import MPI_FLAGS

SAVES = ["--network", "784-1000-1000-10", "--batch", "512", "--block", "100", "--rounds", "11"]


def saved_step(curvature_ranks, words):
    def measure(setting):
        command = [program(setting.build, "bench_save"), *SAVES, *words]
        if curvature_ranks > 0:
            command = ["mpirun", "-n", str(1 + curvature_ranks), *MPI_FLAGS, *command, "--curvature-ranks",
                       str(curvature_ranks)]
        lines = []
        for i in range(setting.runs):
            say(f"{shown(command)}: run {i + 1} of {setting.runs}")
            lines += lines_of(command)
        more = {"copy_ms": statistics.median(line["copy_ms"]["median"] for line in lines),
                "shard_bytes": statistics.median(line["shard_bytes"] for line in lines),
                "ratio_of_minima": statistics.median(line["saved_over_plain"]["of_minima"] for line in lines)}
        return Measured([line["saved_over_plain"]["median"] for line in lines], command, more=more)
    return measure


SAVE_FIGURES = [
    Figure("save-step-a", "a step with one checkpoint every 100 steps over one without, writing included: default recipe, "
           "784-1000-1000-10, batch 512, one rank, which saves everything", "ratio", "at_most", 1.02, saved_step(0, [])),
    Figure("save-step-b", "the same of a worker beside one curvature rank, staleness 5", "ratio", "at_most", 1.02,
           saved_step(1, ["--staleness", "5"])),
]
