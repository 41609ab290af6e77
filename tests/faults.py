#!/usr/bin/env python3
"""Every fault that --inject knows, signals, time budgets, full disks, damaged and foreign checkpoints, folders in use:
each ends as README.md says, with its exit code, its sentence and in its time; and where a run goes back or goes on, it
comes to the bits of an undisturbed one."""
import fcntl
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time

import program
from program import check

# README.md: the job ends within 7 s where a rank failed or was killed. Other cases run at the same time, on two cores.
STEPS, BUSY_S = 40, 3
MPI_DEATH_S = 7 + BUSY_S

# Steps take less than a millisecond, saves some 50: a delay behind a save lets it be there when the fault strikes.
SAVED = "delay@12:seconds=0.3,delay@22:seconds=0.3"
OPTIONS = {"data": "teacher", "teacher_samples": 1200, "batch": 120, "network": "40-24-10", "activation": "tanh",
           "steps": STEPS, "seed": 3, "lr": 2e-4, "lr_decay": "constant", "eig_rank": 8, "log_every": 1,
           "factor_update_steps": 5, "checkpoint_steps": 10, "checkpoint_minutes": 0, "checkpoint_keep": 10,
           "check_steps": 5, "curvature_ranks": 1, "hang_timeout": 60}


class Bench:
    def __init__(self, arguments, scratch):
        self.curvd, self.mpiexec, self.scratch = os.path.abspath(arguments.curvd), arguments.mpiexec, scratch
        self.is_long, self.seed, self.n_started = arguments.long, arguments.seed, 0
        self.lock, self.making = threading.Lock(), threading.Lock()

    def folder(self, name):
        return os.path.join(self.scratch, name)

    def start(self, run_dir, n_ranks=3, environment=None, **more):
        with self.lock:
            self.n_started += 1
            log = self.folder(f"log-{self.n_started}")
        options = {**OPTIONS, "run_dir": self.folder(run_dir), **more}
        return program.Run(self.curvd, self.mpiexec, n_ranks, options, log, environment)

    def run(self, run_dir, code, words="", limit_s=MPI_DEATH_S, **more):
        """Runs to the end, which has to be this one. Returns the run."""
        run = self.start(run_dir, **more)
        ended = run.end()
        text = run.text()
        check(ended == code, f"ended with {ended}, not {code}: {text[-600:]}")
        check(run.seconds <= limit_s, f"took {run.seconds:.1f} s, more than {limit_s} s")
        check(re.search(words, text), f"nobody says '{words}': {text[-900:]}")
        return run

    def undisturbed(self, **more):
        """Folder of a run without faults, made once for each set of options."""
        name = "sound" + "".join(f"-{k}-{v}" for k, v in sorted(more.items()))
        with self.making:
            if not os.path.isdir(self.folder(name)):
                self.run(name, 0, limit_s=60, **more)
        return self.folder(name)

    def check_same(self, run_dir, step=STEPS, **more):
        reference, mine = self.undisturbed(**more), self.folder(run_dir)
        losses = [[(r["step"], r["loss"]) for r in program.records_of(d) if r["kind"] == "step"]
                  for d in (reference, mine)]
        check(losses[0] == losses[1], "losses or steps are not those of an undisturbed run")
        if step is not None:
            different = program.different_bits(program.checkpoint_of(reference, step), program.checkpoint_of(mine, step))
            check(not different, f"{len(different)} arrays are not an undisturbed run's, first {different[:1]}")

    def newest(self, run_dir):
        return max(program.steps_in(self.folder(run_dir)), default=None)

    def check_sound(self, run_dir):
        code, text = program.tool(self.curvd, "checkpoint", "verify", self.folder(run_dir))
        check(code == 0, f"verify: {text}")


# ---- faults by --inject ----

SAME, OTHER, RESUMED, UNSAVED = "the same bits", "other numbers", "the same bits after --resume", "the same losses"
BACK = "warning: back from step "
OUT = r"stands still since 2(\.\d+)? s in "

# name: inject, further options, exit code, words, what becomes of the numbers, seconds
FAULTS = {
    "kill a worker": ("kill@25:rank=0", {}, 137, "exited on signal 9", RESUMED, MPI_DEATH_S),
    "kill a curvature rank": ("kill@25:rank=2", {}, 137, "exited on signal 9", RESUMED, MPI_DEATH_S),
    "hang a worker": ("hang@25:rank=1", {"hang_timeout": 2}, 8, "curvd: rank 1 on .* " + OUT, RESUMED, 2 + 11 + BUSY_S),
    "hang a curvature rank": ("hang@20:rank=2", {"hang_timeout": 2}, 8,
                              "curvd: rank [01] on .* " + OUT, RESUMED, 2 + 11 + BUSY_S),
    "delay a worker": ("delay@25:rank=1:seconds=0.8", {}, 0, "", SAME, 12),
    "delay a curvature rank": ("delay@25:rank=2:seconds=0.8", {}, 0, "", SAME, 12),
    "nan, stop": ("nan@25:rank=1:layer=fc2", {}, 5,
                  "curvd: layer fc2, step 25: the gradient of rank 1 is not finite", RESUMED, MPI_DEATH_S),
    "nan, skip": ("nan@25:rank=1:layer=fc2", {"nan": "skip"}, 0,
                  "warning: step 25 is left out: layer fc2, step 25: the gradient of rank 1 is not finite", OTHER, 12),
    "nan, rollback": ("nan@25:rank=1", {"nan": "rollback"}, 0,
                      BACK + "25 to step 20: layer fc1, step 25: the gradient of rank 1 is not finite", SAME, 12),
    "nan, no way back": ("nan@3", {"nan": "rollback"}, 5, r"step 3: the gradient of rank 0 .*no way back", None,
                         MPI_DEATH_S),
    "weight": ("weight@23:rank=1:bit=20", {}, 0,
               BACK + "25 to step 20: step 25: the parameters of rank 1 are not those of rank 0", SAME, 12),
    "weight, stop": ("weight@23:rank=1:bit=20:layer=fc2", {"damage": "stop"}, 9,
                     "curvd: step 25: the parameters of rank 1 are not those", RESUMED, MPI_DEATH_S),
    "weight of rank 0 of three": ("weight@23:rank=0:bit=3", {"curvature_ranks": 0}, 0,
                                  BACK + "25 to step 20: step 25: the parameters of rank 0 are not those of the other",
                                  SAME, 12),
    "weight, no way back": ("weight@3:rank=1:bit=20", {}, 9, "step 5: the parameters of rank 1 .*no way back", None,
                            MPI_DEATH_S),
    "factor": ("factor@25:rank=2:layer=fc2:factor=G:bit=20", {"integrity": "all"}, 0,
               BACK + r"3\d to step \d+: rank \d, step \d+: layer fc2, G: what rank 2 keeps of it changed", SAME, 12),
    "factor, saved before it is used": ("factor@25:rank=2:layer=fc1:factor=A:bit=21",
                                        {"integrity": "all", "checkpoint_steps": 9}, 0,
                                        "layer fc1, A: what rank 2 keeps of it changed", SAME, 12),
    "preconditioner": ("preconditioner@23:rank=1:bit=20", {"integrity": "all"}, 0,
                       BACK + r"25 to step 20: rank 1, step 25: layer fc1, A: the preconditioner in force", SAME, 12),
    "transfer": ("transfer@25:rank=1:bit=20", {}, 0,
                 BACK + r"3\d to step \d+: rank 1, step 30: the preconditioners of rank 2 of step 30 changed", SAME, 12),
    "transfer, nobody looks": ("transfer@25:rank=1:bit=20", {"integrity": "off"}, 0,
                               BACK + r"3\d to step \d+: step 3\d: the parameters of rank 1 are not those", SAME, 12),
    "solver": ("solver@25:rank=2", {}, 0, "decompositions done by the exact solver instead: 1", OTHER, 12),
    "disk": ("disk@30:rank=0", {}, 0,
             "warning: the checkpoint of step 40 was not written: .*No space left on device", UNSAVED, 12),
    "disk of a curvature rank": ("disk@30:rank=2", {}, 0, "rank 2: .*No space left on device; those before it are",
                                 UNSAVED, 12),
    "disk, stop": ("disk@30:rank=0", {"checkpoint_failure": "stop"}, 3, "curvd: .*shard-00000.* cannot be written "
                   r"\(\d+ bytes\): No space left on device", RESUMED, MPI_DEATH_S),
    "disk of another worker, stop": ("disk@30:rank=1", {"checkpoint_failure": "stop"}, 3,
                                     "curvd: rank 1: .*No space left on device", RESUMED, MPI_DEATH_S),
    "sync": ("sync@30:rank=0", {}, 0, "warning: the checkpoint of step 40 was not written: .*Input/output error",
             UNSAVED, 12),
    "sync of a curvature rank, stop": ("sync@30:rank=2", {"checkpoint_failure": "stop"}, 3,
                                       "curvd: rank 2: .*Input/output error", RESUMED, MPI_DEATH_S),
    "shard": ("shard@24:rank=0:bit=70000,nan@25", {"nan": "rollback"}, 0,
              "warning: the checkpoint of step 20 is not used: .*shard-00000(.*\n)+" + BACK + "25 to step 10", SAME, 12),
    "shard of another worker": ("shard@24:rank=1:bit=50000,nan@25", {"nan": "rollback"}, 0,
                                "step 20 is not used: .*shard-00001", SAME, 12),
}


def try_fault(bench, name):
    inject, more, code, words, numbers, limit_s = FAULTS[name]
    run_dir = "fault-" + re.sub(r"\W+", "-", name)
    bench.run(run_dir, code, words, limit_s, inject=f"{inject},{SAVED}", **more)
    like = {k: v for k, v in more.items() if k in ("curvature_ranks", "checkpoint_steps", "integrity")}
    if numbers in (SAME, RESUMED, UNSAVED):
        bench.check_sound(run_dir)
    if name.startswith("hang"):
        check(os.path.exists(bench.folder(run_dir) + "/hang-rank-0.txt"), "no hang-rank-0.txt")
    if numbers == RESUMED:
        bench.run(run_dir, 0, "resumed from .*, step ", resume="auto", **like)
    if numbers in (SAME, RESUMED, UNSAVED):
        bench.check_same(run_dir, None if numbers == UNSAVED else STEPS, **like)


def rollback_is_told(bench):
    """5 steps are taken again; what they took before, a pause among it, stays spent."""
    bench.run("told", 0, BACK + "25 to step 20", nan="rollback", inject=f"nan@25,{SAVED},delay@24:seconds=1.5")
    records = program.records_of(bench.folder("told"))
    end = records[-1]
    check((end["kind"], end["step"], end["process_steps"]) == ("end", STEPS, STEPS + 5), f"the end record is {end}")
    check(next(r for r in records if r["kind"] == "step" and r["step"] == 21)["wall_s"] > 1.5, "a pause is not counted")


# ---- told to stop ----


def wait_for_steps(bench, run_dir, n):
    end = time.monotonic() + 30
    while sum(r["kind"] == "step" for r in program.records_of(bench.folder(run_dir))) < n:
        check(time.monotonic() < end, "the run does not get on")
        time.sleep(0.02)


def check_stopped(bench, run_dir):
    """What was saved is all that was done; 10 more steps are those of an undisturbed run."""
    done = max(r["step"] for r in program.records_of(bench.folder(run_dir)) if r["kind"] == "step")
    check(bench.newest(run_dir) == done, f"{done} steps were done, the newest checkpoint is {bench.newest(run_dir)}")
    bench.check_sound(run_dir)
    bench.run(run_dir, 0, f"resumed from .*, step {done}\n", 60, resume="auto", steps=done + 10, checkpoint_steps=500)
    bench.check_same(run_dir, done + 10, steps=done + 10, checkpoint_steps=500)


def signal_user(bench):
    run = bench.start("usr1", steps=1000000, checkpoint_steps=500)
    wait_for_steps(bench, "usr1", 100)
    run.launcher.send_signal(signal.SIGUSR1)
    code = run.end()
    check(code == 85, f"ended with {code}: {run.text()[-600:]}")
    check("asked to stop: saved in front of step" in run.text(), run.text()[-600:])
    check_stopped(bench, "usr1")


def is_starting(pid):
    """Is MPI about to start, which loads its components, or are signals taken already?"""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/status") as status:
        taken = int(re.search(r"SigCgt:\s*(\w+)", status.read()).group(1), 16)
        return "/mca_" in maps.read() or taken >> (signal.SIGUSR1 - 1) & 1 == 1


def signal_while_mpi_starts(bench):
    options = {**OPTIONS, "run_dir": bench.folder("starting"), "curvature_ranks": 0, "steps": 1000000}
    run = program.Job([bench.curvd, "train", *program.words_of(options)], bench.folder("log-starting"))
    end = time.monotonic() + 30
    while run.launcher.poll() is None and not is_starting(run.launcher.pid):
        check(time.monotonic() < end, "MPI does not start")
    run.launcher.send_signal(signal.SIGUSR1)
    code = run.end()
    check(code == 85, f"ended with {code}: {run.text()[-600:]}")
    check("asked to stop: saved in front of step 1;" in run.text(), run.text()[-600:])
    bench.check_sound("starting")


def signal_term(bench):
    settings = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "launch", "openmpi.conf")
    run = bench.start("term", environment={"OMPI_MCA_mca_base_param_files": settings}, steps=1000000, checkpoint_steps=500)
    wait_for_steps(bench, "term", 100)
    told_s = time.monotonic()
    run.launcher.send_signal(signal.SIGTERM)
    code = run.end()
    check(code == 1, f"ended with {code}: {run.text()[-600:]}")
    check(time.monotonic() - told_s < 7 + BUSY_S, f"it took {time.monotonic() - told_s:.1f} s")
    check_stopped(bench, "term")


def stopped_and_not_saved(bench):
    bench.run("unsaved", 85, r"the time budget is used up in front of step \d+, which could not be saved; the newest "
              "checkpoint is of step 10", time_budget=3, steps=1000000, checkpoint_steps=10, inject="disk@15,delay@12:seconds=0.3")
    check(bench.newest("unsaved") == 10, f"the newest is {bench.newest('unsaved')}")


def time_budget(bench):
    run = bench.run("budget", 85, r"the time budget is used up: saved in front of step \d+; go on with --resume",
                    time_budget=3, steps=1000000, checkpoint_steps=500)
    check(run.seconds < 3 + 2, f"3 s were given, and it took {run.seconds:.1f} s")
    check_stopped(bench, "budget")


# ---- damaged and foreign checkpoints ----


def copy_sound(bench, run_dir):
    """A finished run that goes on: its last two checkpoints are of the steps 30 and 40. Pauses are for slow disks."""
    source = bench.undisturbed(inject="delay@12:seconds=1.5,delay@22:seconds=1.5,delay@32:seconds=1.5")
    check(program.steps_in(source) == [10, 20, 30, 40], f"it has {program.steps_in(source)}")
    shutil.rmtree(bench.folder(run_dir), ignore_errors=True)
    shutil.copytree(source, bench.folder(run_dir))
    return program.checkpoint_of(bench.folder(run_dir), STEPS)


def check_previous(bench, run_dir, named):
    """verify names what is damaged, and the run goes on from the checkpoint before."""
    code, text = program.tool(bench.curvd, "checkpoint", "verify", program.checkpoint_of(bench.folder(run_dir), STEPS))
    check(code == 3 and named in text, f"verify ends with {code} and does not name {named}: {text}")
    bench.run(run_dir, 0, r"warning: the checkpoint of step 40 is not used: (.*\n)+.*resumed from .*, step 30\n",
              resume="auto")
    bench.check_same(run_dir)


def flipped_bits(bench):
    rng = random.Random(bench.seed)
    for i in range(100 if bench.is_long else 10):
        checkpoint = copy_sound(bench, "bit")
        name = rng.choice(["manifest.json", "shard-00000.safetensors", "shard-00001.safetensors",
                           "shard-00002.safetensors"])
        path = os.path.join(checkpoint, name)
        bit = rng.randrange(8 * os.path.getsize(path))
        with open(path, "r+b") as f:
            f.seek(bit // 8)
            byte = f.read(1)[0] ^ 1 << bit % 8
            f.seek(bit // 8)
            f.write(bytes([byte]))
        try:
            check_previous(bench, "bit", name)
        except program.Failure as failure:
            raise program.Failure(f"bit {bit} of {name} (--seed {bench.seed}, number {i}): {failure}") from None


def truncated_shard(bench):
    path = os.path.join(copy_sound(bench, "short"), "shard-00001.safetensors")
    os.truncate(path, os.path.getsize(path) - 1)
    check_previous(bench, "short", "shard-00001")


def missing_shard(bench):
    os.unlink(os.path.join(copy_sound(bench, "missing"), "shard-00002.safetensors"))
    check_previous(bench, "missing", "shard-00002")


def missing_manifest(bench):
    os.unlink(os.path.join(copy_sound(bench, "bare"), "manifest.json"))
    bench.run("bare", 0, r"resumed from .*, step 30\n", resume="auto")
    bench.check_same("bare")


def shard_of_another_step(bench):
    path = copy_sound(bench, "other-step")
    shutil.copy(os.path.join(program.checkpoint_of(bench.folder("other-step"), 30), "shard-00001.safetensors"), path)
    check_previous(bench, "other-step", "shard-00001")


def foreign_files(bench):
    checkpoint = copy_sound(bench, "foreign")
    folder = os.path.dirname(checkpoint)
    with open(os.path.join(checkpoint, "notes.txt"), "w") as f:
        f.write("not ours")
    for name in ("step-000000050", "step-60", "step-000000070.tmp"):
        os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, "step-000000080"), "w") as f:
        f.write("no folder")
    bench.run("foreign", 0, r"resumed from .*, step 40\n", resume="auto")
    bench.check_same("foreign")


def another_network(bench):
    copy_sound(bench, "network")
    bench.run("network", 2, "another network: fc1 is 24 x 41, the network has 30 x 41; fc2 is 10 x 25, the network has "
              "10 x 31", resume="auto", network="40-30-10")
    bench.check_sound("network")


def none_sound(bench):
    copy_sound(bench, "none")
    for step in program.steps_in(bench.folder("none")):
        os.truncate(program.shards_of(program.checkpoint_of(bench.folder("none"), step))[0], 100)
    bench.run("none", 3, "curvd: .* holds no sound checkpoint to go on from", resume="auto")
    check(program.steps_in(bench.folder("none")) == [10, 20, 30, 40], "damaged checkpoints have been removed")


# ---- folders ----


def finished(bench):
    copy_sound(bench, "finished")
    bench.run("finished", 0, r"resumed from .*, step 40\n(.*\n)*accuracy ", resume="auto")
    bench.check_same("finished")
    kinds = [(r["kind"], r["step"]) for r in program.records_of(bench.folder("finished")) if r["kind"] != "layer"]
    check(kinds.count(("epoch", STEPS)) == 1 and kinds.count(("end", STEPS)) == 1, f"records of the end: {kinds[-6:]}")


def without_checkpoints(bench):
    os.mkdir(bench.folder("empty"))
    bench.run("other", 3, "holds no checkpoint; give a run folder, or --resume no", resume=bench.folder("empty"))
    check(not os.path.exists(bench.folder("other")), "a folder was made")


def killed_before_the_first(bench):
    bench.run("early", 137, inject="kill@5:rank=1")
    check(program.steps_in(bench.folder("early")) == [], "there is a checkpoint")
    bench.run("early", 0, resume="auto")
    bench.check_same("early")


def contents(folder):
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as f:
                found[os.path.join(place, name)] = f.read()
    return found


def used_folder(bench):
    copy_sound(bench, "used")
    before = contents(bench.folder("used"))
    bench.run("used", 3, "config.yaml is there already: the folder holds a run; choose another --run-dir")
    check(contents(bench.folder("used")) == before, "something has been overwritten")


def try_in_use(bench, run_dir, path, lock):
    """Somebody else has the lock: for a second, and for good."""
    copy_sound(bench, run_dir)
    before = contents(bench.folder(run_dir))
    held = os.open(os.path.join(bench.folder(run_dir), path), os.O_RDWR if path else os.O_RDONLY)
    try:
        lock(held)
        run = bench.run(run_dir, 3, "another run still writes there", 10 + MPI_DEATH_S, resume="auto")
        check(run.seconds >= 10, f"it gave up after {run.seconds:.1f} s")
        check(contents(bench.folder(run_dir)) == before, "something has been overwritten")
        run = bench.start(run_dir, resume="auto")
        time.sleep(2)
        check(run.launcher.poll() is None, "it did not wait")
    finally:
        os.close(held)
    code = run.end()
    check(code == 0, f"ended with {code}: {run.text()[-600:]}")
    bench.check_same(run_dir)


def folder_in_use(bench):
    try_in_use(bench, "busy", "", lambda folder: fcntl.flock(folder, fcntl.LOCK_EX))


def folder_in_use_on_another_host(bench):
    """NFS tells of locks on files; struct flock: type, whence, start, length, process."""
    whole = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try_in_use(bench, "far", "lock", lambda file: fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole))


def records_cannot_be_cut(bench):
    """Rank 0 alone sees it; all have to end."""
    copy_sound(bench, "records")
    os.mkdir(bench.folder("records/metrics.jsonl.new"))
    bench.run("records", 3, "curvd: .*metrics.jsonl.new", resume="auto")


OTHERS = [rollback_is_told, signal_user, signal_while_mpi_starts, signal_term, time_budget, stopped_and_not_saved, flipped_bits,
          truncated_shard, missing_shard, missing_manifest, shard_of_another_step, foreign_files, another_network,
          none_sound, finished, without_checkpoints, killed_before_the_first, used_folder, folder_in_use,
          folder_in_use_on_another_host, records_cannot_be_cut]


def main():
    parser = program.parser_of(__doc__, 3)
    parser.add_argument("--long", action="store_true", help="100 flipped bits in place of 10")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix="faults-")
    bench = Bench(arguments, scratch)
    cases = [(name, lambda name=name: try_fault(bench, name)) for name in FAULTS]
    cases += [(f.__name__.replace("_", " "), lambda f=f: f(bench)) for f in OTHERS]
    return program.run_cases(cases, arguments, scratch, f"--seed {arguments.seed} ")


if __name__ == "__main__":
    sys.exit(main())
