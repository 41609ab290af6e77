"""The figure of the convolutions, from build/bench_conv. Run i has seed i."""
import os
import statistics

from common import ROOT, Figure, Measured, Refused, lines_of, program, say, shown


def conv_rate(setting):
    name = "bench_conv"
    if os.path.exists(os.path.join(ROOT, setting.build, "bench_step")) and not os.path.exists(
            os.path.join(ROOT, setting.build, name)):
        raise Refused(f"{os.path.join(setting.build, name)} is missing: the build found no oneDNN 2 (Debian: libdnnl-dev)")
    commands = [[program(setting.build, name), "--rounds", "11", "--seed", str(i + 1)] for i in range(setting.runs)]
    lines = []
    for command in commands:
        say(shown(command))
        lines += lines_of(command)
    more = {key: statistics.median(line[key] for line in lines) for key in ("ours_ms", "bare_ms")}
    return Measured([line["ours_over_bare"]["median"] for line in lines], commands[0], more=more)


CONV_FIGURES = [
    Figure("conv-rate", "process CPU of forward and backward (weight; input but in the first layers) of all convolutions of VGG16 "
           "for 32 x 32 images, 64 rows, and of a network of five, 128 rows, our kernels over oneDNN called bare in its own "
           "layouts, one thread", "ratio", "at_most", 1.10, conv_rate),
]
