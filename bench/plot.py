"""What the drawing programs share: their look, gnuplot, and their command line."""
import argparse
import json
import os
import subprocess

from common import ROOT, Misused, Refused, say

HEAD = """set terminal svg size {size} font 'sans-serif,13' background '#ffffff'
set output '{out}'
set grid lc rgb '#dddddd'
set border 3
set tics nomirror
set key top left Left reverse samplen 3
"""
BLUE, ORANGE, GREEN, PURPLE, DARK, GREY = COLOURS = ["#1b6ca8", "#d95f02", "#2a8a3e", "#8e44ad", "#333333", "#8a8a8a"]


def read(path, program, choose):
    """What `choose` takes of the lines that a program printed."""
    try:
        with open(path, encoding="utf-8") as file:
            return choose([json.loads(line) for line in file if line.strip()])
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise Misused(f"{path}: no file of lines that {program} printed: {reason!r}") from reason


def curve(name, points, title, colour, width=2):
    """A block of points (x: y), and the words of `plot` for them."""
    rows = "\n".join(f"{x} {y}" for x, y in sorted(points.items()))
    return (f"${name} << EOD\n{rows}\nEOD\n",
            f"${name} using 1:2 with linespoints pt 7 ps 0.5 lw {width} lc rgb '{colour}' title '{title}'")


def panel(settings, curves):
    """The blocks of all curves, and one plot of them."""
    return "".join(block for block, _ in curves) + f"{settings}plot {', '.join(words for _, words in curves)}\n"


def draw(size, out, script):
    try:
        done = subprocess.run(["gnuplot"], input=HEAD.format(size=size, out=out) + script, text=True, capture_output=True,
                              check=False)
    except FileNotFoundError as reason:
        raise Misused("gnuplot is missing: apt-get install gnuplot-nox") from reason
    if done.returncode != 0:
        raise Refused(f"gnuplot: {done.stderr.strip()}")


def main(words, program, text, source, picture, draw_file):
    """draw_file(lines, out): of what `source` printed."""
    parser = argparse.ArgumentParser(prog=program, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", metavar="FILE", help=f"lines of {source}")
    parser.add_argument("--out", default=os.path.join(ROOT, "bench", picture), help="picture (%(default)s)")
    given = parser.parse_args(words)
    try:
        draw_file(given.lines, given.out)
    except (Misused, Refused) as reason:
        say(f"{program}: {reason}")
        return 2 if isinstance(reason, Misused) else 1
    return 0
