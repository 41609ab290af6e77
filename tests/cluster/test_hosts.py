#!/usr/bin/env python3
"""Training over four hosts (hosts.py), started by launch/hosts: three workers, and the curvature rank on the fourth host.

Cables are cut for 5 s and for good, and hosts lose their power: README.md says what becomes of the job. What comes out
is held against one uninterrupted run without launch/hosts and without hosts, in the shared memory of this machine."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import hosts as cluster
import program
from program import check

LAUNCH = os.path.join(HERE, "..", "..", "launch", "hosts")
END_S = 30  # a job that has lost a host is gone by then
LOST_CODE = 205

# A step takes about a millisecond. The bounds of the numbers are those of tests/kill_matrix.py, which says why.
STEPS, CHECKPOINT_STEPS, LOSS_BOUND = 3000, 250, 1e-4
WIDTHS = (40, 24, 10)
OPTIONS = {"data": "teacher", "teacher_samples": 1200, "batch": 120, "network": "-".join(map(str, WIDTHS)),
           "activation": "tanh", "steps": STEPS, "seed": 3, "lr": 2e-4, "lr_decay": "constant", "eig_rank": 8,
           "log_every": 1, "factor_update_steps": 5, "staleness": 3, "checkpoint_steps": CHECKPOINT_STEPS,
           "checkpoint_minutes": 0, "checkpoint_keep": 2, "hang_timeout": 60}
GRADIENT_BYTES = 4 * sum((n + 1) * m for n, m in zip(WIDTHS, WIDTHS[1:]))


class HostsJob(program.Job):
    """A command typed on a host. All that runs on any of them is part of it."""

    def __init__(self, hosts, at, command, log, environment=None):
        self.hosts = hosts
        super().__init__(hosts.words(at, command), log, {**hosts.way_in(), **(environment or {})})

    def pids(self):
        there = {pid for host in self.hosts.names for pid in self.hosts.pids(host)}
        return sorted({pid for pid in there if program.session_of(pid) is not None} | set(super().pids()))

    def places(self):
        """{rank: host}"""
        found = {program.rank_of(pid): host for host in self.hosts.names for pid in self.hosts.pids(host)}
        found.pop(-1, None)
        return found


class Bench:
    def __init__(self, arguments, scratch):
        self.curvd, self.mpiexec, self.scratch = os.path.abspath(arguments.curvd), arguments.mpiexec, scratch
        self.making = threading.Lock()

    def folder(self, *names):
        return os.path.join(self.scratch, *names)

    def hosts(self, case, n=4):
        return cluster.Hosts(n, self.folder(case))

    def launch(self, hosts, words, at="n0", environment=None):
        log = os.path.join(hosts.folder, f"log-{len(os.listdir(hosts.folder))}")
        return HostsJob(hosts, at, [LAUNCH, *words], log, environment)

    def train(self, hosts, names=("n0", "n1", "n2", "n3"), **more):
        """One rank on each host, the last one a curvature rank."""
        options = {**OPTIONS, "run_dir": os.path.join(hosts.folder, "run"), **more}
        return self.launch(hosts, ["--hosts", ",".join(names), "--ranks-per-host", "1", "--curvature-ranks", "1",
                                   "--curvature-last-host", "--no-binding", "--network", "eth0", "--program", self.curvd,
                                   "--", "train", *program.words_of(options)], names[0])

    def reference(self):
        """Folder of the uninterrupted run on one host, which is made once."""
        with self.making:
            folder = self.folder("reference")
            if not os.path.isdir(folder):
                run = program.Run(self.curvd, self.mpiexec, 4, {**OPTIONS, "curvature_ranks": 1, "run_dir": folder},
                                  self.folder("log"))
                check(run.end() == 0, f"the run on one host failed: {run.text()[-900:]}")
            return folder

    def check_same_bits(self, hosts):
        run_dir, reference = os.path.join(hosts.folder, "run"), self.reference()
        program.check_losses(reference, run_dir, 0)
        different = program.different_bits(program.checkpoint_of(reference, STEPS), program.checkpoint_of(run_dir, STEPS))
        check(not different, f"{len(different)} arrays are not those of the run on one host, first {different[:1]}")


def steps_of(hosts):
    return sum(r["kind"] == "step" for r in program.records_of(os.path.join(hosts.folder, "run")))


def wait_for(what, is_so, job, limit_s=30):
    limit = time.monotonic() + limit_s
    while not is_so():
        check(job.launcher.poll() is None, f"the job ended before {what}: {job.text()[-900:]}")
        check(time.monotonic() < limit, f"no {what} after {limit_s} s: {job.text()[-900:]}")
        time.sleep(0.02)


def check_done(job, code=0):
    ended = job.end()
    check(ended == code, f"ended with {ended}, not {code}: {job.text()[-1500:]}")


# ---- all hosts are well ----


def same_bits_as_on_one_host(bench):
    with bench.hosts("same") as hosts:
        job = bench.train(hosts)
        wait_for("steps", lambda: steps_of(hosts) >= 10, job)
        places = job.places()
        check(places == {0: "n0", 1: "n1", 2: "n2", 3: "n3"}, f"ranks are on {places}")
        check_done(job)
        bench.check_same_bits(hosts)
        for host in ("n0", "n1", "n2"):  # the least that a sum over workers takes
            sent = hosts.sent_bytes(host)
            check(sent >= STEPS * GRADIENT_BYTES, f"{host} has sent {sent} bytes, less than its gradients")


def ranks_where_they_were_asked_for(bench):
    said = ('echo "rank=$OMPI_COMM_WORLD_RANK host=$(uname -n) '
            'threads=$OPENBLAS_NUM_THREADS$OMP_NUM_THREADS seed=$CURVD_SEED"')
    with bench.hosts("places") as hosts:
        job = bench.launch(hosts, ["--hosts", "n1:1,n0:1,n3:1,n2:1", "--ranks", "5", "--curvature-ranks", "2",
                                   "--curvature-last-host", "--threads", "2", "--network", "10.77.0.0/24", "--program", "/bin/sh", "--", "-c", said],
                           environment={"CURVD_SEED": "17"})
        check_done(job)
        found = sorted(re.findall(r"rank=(\d) host=(\S+) threads=(\d+) seed=(\d*)", job.text()))
        expected = [("0", "n1"), ("1", "n0"), ("2", "n3"), ("3", "n2"), ("4", "n2")]
        check([f[:2] for f in found] == expected, f"ranks are on {found}")
        check(all(f[2:] == ("22", "17") for f in found), f"variables did not get there: {found}")


def core_of(cpu):
    """The hardware threads that share its core, as the kernel writes them."""
    with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as f:
        return f.read().strip()


def cpus_in(text):
    return sorted(re.findall(r"Cpus_allowed_list:\s*(\S+)", text))


def a_core_for_each_rank(bench):
    """As many ranks as hosts have cores for when nothing is said, each bound to its own; and one more, which binds none."""
    cores = sorted({core_of(cpu) for cpu in os.sched_getaffinity(0)})
    with open("/proc/self/status") as f:
        all_cores = cpus_in(f.read())
    with bench.hosts("cores") as hosts:
        for words, expected in [(["--hosts", "n0,n1"], sorted(2 * cores)),
                                (["--hosts", "n0,n1", "--threads", str(len(cores))], 2 * all_cores),
                                (["--hosts", f"n1:{len(cores) + 1}"], (len(cores) + 1) * all_cores)]:
            job = bench.launch(hosts, [*words, "--program", "/bin/sh", "--", "-c", "grep Cpus_allowed_list /proc/self/status"])
            check_done(job)
            found = cpus_in(job.text())
            check(found == expected, f"{words}: bound to {found}, not to {expected}")


def refusals(bench):
    """Each in one sentence, before anything is started."""
    with bench.hosts("refusals", 5) as hosts:
        true = ["--program", "/bin/true"]
        cases = [(["--hosts", "n0,n9", *true], 7, "launch: n9 cannot be reached (no way to n9: "),
                 (["--hosts", "n0,n1", "--network", "eth7", *true], 2, "launch: n1 has no interface eth7: "),
                 (["--hosts", "n0,n1", "--program", bench.curvd, "--", "train"], 2, f"launch: {bench.curvd} is not on n1: "),
                 (["--hosts", "n0,n2", *true], 7, "launch: n2 cannot be reached (no way to n2: "),
                 (["--hosts", "n0,n3", "--program", bench.curvd, "--", "train", "--epoch", "3"], 2, "epoch"),
                 (["--hosts", "n0,n3", "--program", "/bin/sh", "--", "-c", "exit 85"], 85, ""),
                 (["--hosts", "n0,n4", *true], 2, f"launch: the folder {os.getcwd()} is not on n4: ")]
        hosts.hide("n1", os.path.dirname(bench.curvd))
        hosts.hide("n4", bench.scratch)
        hosts.cut("n2")
        for words, code, sentence in cases:
            job = bench.launch(hosts, words)
            check_done(job, code)
            check(sentence in job.text(), f"{words}: does not say '{sentence}' but: {job.text()}")


def told_to_end(bench):
    """hosts.py leaves nothing behind when somebody ends it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        began = bench.folder(f"began-{number}")
        with subprocess.Popen([sys.executable, os.path.join(HERE, "hosts.py"), "2", "--", "sh", "-c", 'echo "$$" >"$1"; exec sleep 60',
                               "sh", began], env={**os.environ, "TMPDIR": bench.folder()}) as job:
            try:
                limit = time.monotonic() + 30
                while not os.path.exists(began):
                    check(time.monotonic() < limit and job.poll() is None, "hosts.py does not begin")
                    time.sleep(0.05)
                job.send_signal(number)
                code = job.wait(30)
            finally:
                job.kill()
        check(code == 128 + number, f"ended by signal {int(number)} with {code}")
        left = [name for name in cluster.ip("netns", "list").split() if name.startswith(f"curvd{job.pid}-")]
        check(not left, f"signal {int(number)} leaves {left}")
        left = [name for name in os.listdir(bench.folder()) if name.startswith("curvd-hosts-")]
        check(not left, f"signal {int(number)} leaves {left}")


# ---- cables and power ----


def cable_cut_for_5_s(bench):
    with bench.hosts("healed") as hosts:
        job = bench.train(hosts)
        wait_for("steps", lambda: steps_of(hosts) >= 300, job)
        hosts.cut("n2")
        time.sleep(1)
        steps = steps_of(hosts)
        time.sleep(4)
        check(steps == steps_of(hosts) < STEPS, "it went on without a cable")
        hosts.heal("n2")
        check_done(job)
        bench.check_same_bits(hosts)


def lose(bench, hosts, host, strike):
    """The job, when all of it is gone, with its exit code. It pauses, so that a slow disk has its checkpoints in time."""
    job = bench.train(hosts, inject=f"delay@{STEPS // 3}:seconds=6")
    wait_for("checkpoints", lambda: len(program.steps_in(os.path.join(hosts.folder, "run"))) >= 2, job)
    lost_s = time.monotonic()
    strike(host)
    code = job.end(lost_s - job.begin_s + END_S)
    check(code is not None, f"{END_S} s later there are still some of its processes: {job.text()[-900:]}")
    check(steps_of(hosts) < STEPS, "it was done before")
    print(f"  {host} lost: code {code} {job.seconds + job.begin_s - lost_s:.1f} s later", flush=True)
    return job, code


def go_on_without(bench, hosts, host):
    """From the newest checkpoint, to the losses of a run that lost nothing."""
    run_dir = os.path.join(hosts.folder, "run")
    newest = max(program.steps_in(run_dir))
    code, text = program.tool(bench.curvd, "checkpoint", "verify", run_dir)
    check(code == 0, f"verify: {text}")
    job = bench.train(hosts, [name for name in hosts.names if name != host], resume="auto")
    check_done(job)
    check(re.search(rf"resumed from .*, step {newest}\n", job.text()), f"not resumed from step {newest}: {job.text()[:900]}")
    distance = program.check_losses(bench.reference(), run_dir, LOSS_BOUND)
    print(f"  without {host}: losses within {distance:.1e}", flush=True)


def lost(bench, host, is_off):
    with bench.hosts(f"lost-{host}") as hosts:
        job, code = lose(bench, hosts, host, hosts.power_off if is_off else hosts.cut)
        if host == "n0":
            check(code == -9, f"mpirun ended with {code}")  # with its host
        else:
            check(code == LOST_CODE, f"ended with {code}, not {LOST_CODE}: {job.text()[-900:]}")
            check(re.search(rf"\b{host}\b", job.text()), f"nobody names {host}: {job.text()[-900:]}")
        go_on_without(bench, hosts, host)


CASES = [("cable cut for good", lambda bench: lost(bench, "n2", False)),
         ("worker's host without power", lambda bench: lost(bench, "n1", True)),
         ("curvature rank's host without power", lambda bench: lost(bench, "n3", True)),
         ("mpirun's host without power", lambda bench: lost(bench, "n0", True)),
         ("refusals", refusals),
         ("told to end", told_to_end),
         ("cable cut for 5 s", cable_cut_for_5_s),
         ("same bits as on one host", same_bits_as_on_one_host),
         ("ranks where they were asked for", ranks_where_they_were_asked_for),
         ("a core for each rank", a_core_for_each_rank)]


def main():
    arguments = program.parser_of(__doc__, 3).parse_args()
    why = cluster.reason_not()
    if why:
        print(f"SKIPPED: {why}")
        return 77
    scratch = tempfile.mkdtemp(prefix="hosts-")
    bench = Bench(arguments, scratch)
    os.mkdir(bench.folder("work"))
    os.chdir(bench.folder("work"))
    return program.run_cases([(name, lambda case=case: case(bench)) for name, case in CASES], arguments, scratch)


if __name__ == "__main__":
    sys.exit(main())
