"""What the measuring programs need to know: where things are, what a number belongs to, and what a figure is."""
import dataclasses
import functools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD_COMMAND = "cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release && ninja -C build"


class Refused(Exception):
    """A check failed, so there is no number; the sentence says which."""


class Skipped(Exception):
    """This machine cannot measure it; the sentence says why."""


class Misused(Exception):
    """Wrong words, or programs that are not there."""


def say(line):
    print(line, file=sys.stderr, flush=True)


@functools.cache
def program(build, name):
    """Path of a built program; build is seen from the project's folder. Warns once of one that is older than its sources."""
    path = os.path.join(ROOT, build, name)
    if not os.access(path, os.X_OK):
        raise Misused(f"{os.path.join(build, name)} is missing; in the project's folder: {BUILD_COMMAND}")
    newest = max(os.path.getmtime(os.path.join(folder, file))
                 for top in ("src", "include") for folder, _, files in os.walk(os.path.join(ROOT, top)) for file in files)
    if newest > os.path.getmtime(path):
        say(f"warning: {os.path.join(build, name)} is older than the sources: the commit named is not what is measured")
    return path


def built_at(build):
    """When each program was built, to see that none was replaced while it was measured."""
    paths = (os.path.join(ROOT, build, name) for name in ("curvd", "bench_step", "bench_eig", "bench_stream", "bench_schedule",
                                                      "bench_conv", "bench_save", "bench_product"))
    return {path: os.stat(path).st_mtime_ns for path in paths if os.path.exists(path)}


def shown(words):
    """A command as one line to type in the project's folder."""
    return shlex.join(os.path.relpath(w, ROOT) if w.startswith(ROOT + os.sep) else w for w in words)


def _git(*words):
    try:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a machine without git
        return ""


@functools.cache  # a commit made while a program measures changes nothing of what it measures
def commit():
    name = _git("rev-parse", "--short", "HEAD")
    if not name:
        return "unknown"
    return name + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def machine():
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
        model = models[0] if models else model
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"


def environment(threads=1):
    """So many threads a rank, and no option from outside but the place of the data."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CURVD_") or k == "CURVD_DATA_DIR"}
    kept |= {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if os.geteuid() == 0:
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept


def lines_of(words):
    """The JSON lines that a program printed; Refused when it ended otherwise than well."""
    done = subprocess.run(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                          check=False)
    if done.returncode != 0:
        raise Refused(f"{shown(words)} ended with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def lines_of_file(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@dataclasses.dataclass
class Measured:
    values: list  # one a run
    command: list  # words, programs by their whole path
    reduce: Callable = statistics.median
    is_fine: bool = True  # what else the figure asks for
    more: dict = dataclasses.field(default_factory=dict)  # further keys of the line


@dataclasses.dataclass
class Figure:
    id: str
    text: str
    unit: str
    bound: str  # "at_most" or "at_least"
    limit: float
    measure: Callable  # of (setting) -> Measured


@dataclasses.dataclass
class Setting:
    build: str
    runs: int
