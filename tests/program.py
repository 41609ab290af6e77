"""What tests of the whole program share: runs under mpirun that can be struck, and checkpoints read without curvd."""
import argparse
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

MPI_FLAGS = "--oversubscribe --bind-to none --mca pml ob1 --mca btl self,vader".split()
ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OPENBLAS_NUM_THREADS": "1"}
LIMIT_S = 120  # of one run; each takes about a second


class Failure(Exception):
    """One sentence about what is not as it should be."""


def check(is_so, sentence):
    if not is_so:
        raise Failure(sentence)


def words_of(options):
    """{"eig_rank": 8} -> ["--eig-rank", "8"]"""
    return [w for name, value in options.items() for w in ("--" + name.replace("_", "-"), str(value))]


# ---- cases ----


def parser_of(doc, jobs):
    """Of the arguments that every program of cases takes; jobs: how many at a time, unless told."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curvd", metavar="CURVD")
    parser.add_argument("--only", default="", help="cases whose names have these letters")
    parser.add_argument("--jobs", type=int, default=jobs, help="cases at the same time (%(default)s): most of them wait")
    parser.add_argument("--mpiexec", default="mpirun")
    return parser


def outcome_of(named):
    """Its name, whether it failed, and what is to be said of it: a case may return that it was skipped, and why."""
    name, case = named
    try:
        return name, False, case() or "ok"
    except (Failure, OSError, ValueError, LookupError, subprocess.SubprocessError) as failure:
        return name, True, str(failure)


def run_cases(cases, arguments, scratch, again=""):
    """Tries those of [(name, function)] that are asked for, with a line for each; again: further arguments that repeat
    one. Returns the exit code, and removes the folder when all is well."""
    cases = [case for case in cases if arguments.only in case[0]]
    if not cases:
        print(f"no case has '{arguments.only}' in its name")
        return 2
    begin, n_done, n_failed = time.monotonic(), 0, 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for name, has_failed, outcome in pool.map(outcome_of, cases):
            n_done += 1
            if has_failed:
                n_failed += 1
                outcome = f"FAILED (again with {again}--only '{name}'): {outcome}"
            left = (time.monotonic() - begin) / n_done * (len(cases) - n_done)
            print(f"{n_done}/{len(cases)} {name}: {outcome}; {left:.0f} s left", flush=True)
    print(f"{len(cases)} cases, {n_failed} failed; {time.monotonic() - begin:.0f} s")
    if n_failed == 0:
        shutil.rmtree(scratch)
    else:
        print(f"folders and logs are in {scratch}")
    return 1 if n_failed else 0


def run_in_folders(doc, prefix, cases, bench_of, jobs=1):
    """The whole of a program of cases that are functions of bench_of(arguments, folder), a folder for each."""
    arguments = parser_of(doc, jobs).parse_args()
    scratch = tempfile.mkdtemp(prefix=prefix)

    def try_case(case):
        folder = os.path.join(scratch, case.__name__)
        os.mkdir(folder)
        return case(bench_of(arguments, folder))

    return run_cases([(c.__name__.replace("_", " "), lambda c=c: try_case(c)) for c in cases], arguments, scratch)


# ---- processes ----


def session_of(pid):
    """Session and state of a process; None: it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[3])
    except OSError:
        return None


def rank_of(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            found = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", f.read())
        return int(found.group(1)) if found else -1
    except OSError:
        return -1


class Job:
    """A command in a session of its own: whatever is in it was started here, and nothing else is."""

    def __init__(self, command, log, environment=None):
        self.log = log
        with open(log, "wb") as out:
            self.launcher = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                             start_new_session=True, env={**os.environ, **ENVIRONMENT, **(environment or {})})
        self.begin_s = time.monotonic()

    def pids(self):
        """Of the launcher and of all that it has started."""
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in numbers if session_of(pid) == self.launcher.pid]

    def ranks(self):
        """{rank: pid} of those that have begun."""
        found = {rank_of(pid): pid for pid in self.pids() if pid != self.launcher.pid}
        found.pop(-1, None)
        return found

    def kill(self, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def end(self, limit_s=LIMIT_S):
        """Its exit code, when all of it has ended; None: it had to be ended."""
        limit = self.begin_s + limit_s
        try:
            code = self.launcher.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        while code is not None and self.pids():
            if time.monotonic() > limit:
                code = None
            time.sleep(0.01)
        self.kill(self.pids())
        self.launcher.wait()
        self.seconds = time.monotonic() - self.begin_s
        return code

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()


class Run(Job):
    """curvd train under mpirun"""

    def __init__(self, curvd, mpiexec, n_ranks, options, log, environment=None):
        super().__init__([mpiexec, "-n", str(n_ranks), *MPI_FLAGS, curvd, "train", *words_of(options)], log, environment)


def tool(curvd, *words):
    """Exit code and output of a command without MPI."""
    done = subprocess.run([curvd, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          env={**os.environ, **ENVIRONMENT})
    return done.returncode, done.stdout.decode(errors="replace")


# Runs a command whose system call `call` is refused (seccomp(2), a filter for x86_64), whatever its first argument is or
# only with that one: what containers do.
REFUSING = """
import ctypes, os, struct, sys
call, argument = int(sys.argv[1]), sys.argv[2]
with_argument = ((0x20, 0, 0, 16), (0x15, 0, 1, int(argument))) if argument else ()
code = ((0x20, 0, 0, 0), (0x15, 0, len(with_argument) + 1, call), *with_argument, (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000))
code = b"".join(struct.pack("HBBI", *i) for i in code)
kept = ctypes.create_string_buffer(code, len(code))
filter = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(kept)))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
    sys.exit("no seccomp here")
os.execvp(sys.argv[3], sys.argv[3:])
"""
COPIES = (310, "")  # process_vm_readv
AMX = (158, str(0x1023))  # arch_prctl(ARCH_REQ_XCOMP_PERM)


def refusing(call):
    """Words to put before a command."""
    return [sys.executable, "-c", REFUSING, *map(str, call)]


# ---- checkpoints (https://github.com/huggingface/safetensors, "Format") ----


def steps_in(run_dir):
    """Steps of the checkpoints that have their final name, oldest first."""
    folder = os.path.join(run_dir, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d{9}", name))


def unfinished_in(run_dir):
    """What an interrupted save has left: {(name, inode)}."""
    folder = os.path.join(run_dir, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {(n, os.stat(os.path.join(folder, n)).st_ino) for n in names if n.endswith((".tmp", ".trash", ".old"))}


def checkpoint_of(run_dir, step):
    return os.path.join(run_dir, "checkpoints", f"step-{step:09d}")


def shards_of(checkpoint):
    return sorted(os.path.join(checkpoint, n) for n in os.listdir(checkpoint) if n.endswith(".safetensors"))


def read_shard(path):
    """{tensor: (dtype, shape, bytes)}"""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in header.items()}


def read_tensors(checkpoint):
    """{(shard, tensor): (dtype, shape, bytes)} of all of its ranks"""
    return {(os.path.basename(path), name): tensor for path in shards_of(checkpoint)
            for name, tensor in read_shard(path).items()}


def numbers_of(tensor):
    dtype, _, data = tensor
    size, letter = {"F32": (4, "f"), "F64": (8, "d")}[dtype]
    return struct.unpack(f"<{len(data) // size}{letter}", data)


def read_weights(checkpoint):
    """{layer: tuple of numbers}; parts NAME[a:b] of a matrix follow each other."""
    parts = {}
    for (_, name), tensor in read_tensors(checkpoint).items():
        found = re.fullmatch(r"model\.(.*)\.weight(?:\[(\d+):\d+\])?", name)
        if found:
            parts.setdefault(found.group(1), []).append((int(found.group(2) or 0), numbers_of(tensor)))
    return {layer: sum((x for _, x in sorted(of)), ()) for layer, of in parts.items()}


def different_bits(x, y):
    """Tensors of two checkpoints that are not the same bytes; clocks may differ."""
    a, b = read_tensors(x), read_tensors(y)
    return [f"{shard} {name}" for shard, name in sorted(a.keys() | b.keys())
            if not name.endswith("seconds") and a.get((shard, name)) != b.get((shard, name))]


def records_of(run_dir):
    """metrics.jsonl; a last line that was cut off is left out."""
    path = os.path.join(run_dir, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    with open(path) as f:
        lines = f.read().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def check_losses(reference, run_dir, bound):
    """There is one record of every step and evaluation, in their order, with the losses of the uninterrupted run to this
    relative distance. Returns the largest."""
    worst = 0.0
    for kind, name in (("step", "loss"), ("epoch", "test_loss")):
        mine = [r for r in records_of(run_dir) if r["kind"] == kind]
        theirs = [r for r in records_of(reference) if r["kind"] == kind]
        steps = [r["step"] for r in mine]
        check(steps == [r["step"] for r in theirs], f"records of kind {kind} are of the steps {steps}")
        for x, y in zip(mine, theirs):
            distance = abs(x[name] - y[name]) / y[name]
            check(distance <= bound, f"step {x['step']}: loss {x[name]}, and was {y[name]}")
            worst = max(worst, distance)
    return worst
