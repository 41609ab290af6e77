"""Scaling benchmarks: what they run, what they refuse, and their statistics against numbers made otherwise.

Run by ctest with the build folder in CURVD_BENCH_BUILD."""
import sys

sys.dont_write_bytecode = True

import collections  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
import unittest  # noqa: E402
from unittest import mock  # noqa: E402

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests"))

import provenance  # noqa: E402
import scale_points  # noqa: E402
import scale_run  # noqa: E402
import statistics_of_runs  # noqa: E402
from common import ROOT, environment  # noqa: E402
from program import session_of  # noqa: E402
from progress import clock, time_left  # noqa: E402
from scale_points import Point, points, runs  # noqa: E402
from scale_summary import efficiencies, summary  # noqa: E402
from train_run import Request  # noqa: E402

BUILD = os.environ.get("CURVD_BENCH_BUILD", "build")
SCALE = os.path.join(ROOT, "bench", "scale")
TINY = ["--network", "20-32-16-5", "--batch", "40", "--steps", "20", "--build", BUILD]
TEACHER = ["--", "--data", "teacher", "--teacher-samples", "2400"]
KEYS = {"bench", "schema", "kind", "method", "network", "seed", "repeat", "ranks", "workers", "curvature_ranks", "hosts",
        "threads", "batch", "lr", "options", "length", "steps", "wall_s", "core_s", "cpu_s", "step_s", "step_p99_s", "accuracy",
        "test_loss", "target", "target_s", "predicted_step_s", "wait_share", "run", "environment"}


def options(**changes):
    """What bench/scale makes of its words."""
    given = {"kind": "strong", "workers": [1, 2, 4], "curvature_ranks": [0, 1], "methods": ["nystrom-kfac", "sgd"],
             "network": "20-32-5", "threads": 1, "batch": 40, "rates": {}, "repeats": 2, "seeds": 1, "launcher": "mpirun",
             "hosts": None, "mpirun_flags": None, "srun_flags": None, "steps": 20, "epochs": None, "eval_every": 1, "target": 0,
             "build": BUILD, "more": []}
    return types.SimpleNamespace(**given | changes)


class Points(unittest.TestCase):
    def splits(self, **changes):
        return [(p.method, p.workers, p.curvature_ranks) for p in points(options(**changes))]

    def test_strong(self):
        # sgd also on 3 and 5 workers: as many ranks as 2+1 and 4+1
        self.assertEqual(self.splits(), [("nystrom-kfac", w, c) for w in (1, 2, 4) for c in (0, 1)] +
                         [("sgd", n, 0) for n in (1, 2, 3, 4, 5)])
        self.assertEqual({p.batch for p in points(options())}, {40})

    def test_first_order_alone_has_no_ranks_to_match(self):
        self.assertEqual(self.splits(methods=["sgd", "adamw"]), [(m, n, 0) for m in ("sgd", "adamw") for n in (1, 2, 4)])

    def test_weak_batches_follow_the_workers(self):
        for p in points(options(kind="weak")):
            self.assertEqual(p.batch, 40 * p.workers)

    def test_curvature(self):
        self.assertEqual(self.splits(kind="curvature", workers=[2], curvature_ranks=[0, 1, 4], methods=["kfac", "adamw"]),
                         [("kfac", 2, 0), ("kfac", 2, 1), ("kfac", 2, 4), ("adamw", 2, 0), ("adamw", 3, 0), ("adamw", 6, 0)])

    def test_tuning_gives_every_method_as_many_rates(self):
        given = options(kind="tune", workers=[1], curvature_ranks=[0], methods=["sgd", "adamw", "kfac"])
        self.assertEqual(set(collections.Counter(p.method for p in points(given)).values()), {6})
        given.rates = {"sgd": ["1", "2"]}
        self.assertEqual([p.lr for p in points(given) if p.method == "sgd"], ["1", "2"])

    def test_runs_take_turns(self):
        given = options(seeds=2)
        order = runs(given, points(given))
        n = len(points(given))
        self.assertEqual(len(order), 4 * n)
        self.assertEqual([(r.repeat, r.seed) for r in order[::n]], [(0, 1), (0, 2), (1, 1), (1, 2)])
        self.assertEqual([r.point for r in order], 4 * points(given))

    def test_what_starts_the_ranks(self):
        words = scale_points.launch_words
        self.assertEqual(words(options(), 3)[:4], ["mpirun", "-n", "3", "--oversubscribe"])
        over_hosts = words(options(hosts="a:2,b:2", threads=2), 4)
        self.assertEqual(over_hosts[:5], ["mpirun", "-n", "4", "--host", "a:2,b:2"])
        self.assertEqual(over_hosts[-4:], ["--map-by", "slot:PE=2", "--bind-to", "core"])
        self.assertEqual(words(options(mpirun_flags="--bind-to none"), 1), ["mpirun", "-n", "1", "--bind-to", "none"])
        self.assertEqual(words(options(launcher="srun", threads=4, srun_flags="--mem 1G"), 2),
                         ["srun", "--mpi=pmix", "-n", "2", "-c", "4", "--cpu-bind=cores", "--mem", "1G"])

    def test_ranks_fill_node_after_node(self):
        # 7 tasks on 3 nodes: up to 3 on each
        with mock.patch.dict(os.environ, {"SLURM_NTASKS": "7", "SLURM_JOB_NUM_NODES": "3"}):
            nodes = [scale_points.nodes_words(ranks) for ranks in (1, 3, 4, 7, 12)]
            self.assertIn("-N 2", " ".join(scale_points.launch_words(options(launcher="srun"), 4)))
        self.assertEqual(nodes, [["-N", n] for n in ("1", "1", "2", "3", "3")])

    def test_keys_tell_runs_apart(self):
        with mock.patch.object(scale_points, "command", lambda request, folder: [str(request)]):
            given = options(seeds=2)
            keys = [scale_points.key_of(run, given) for run in runs(given, points(given))]
            others = [scale_points.key_of(run, options(seeds=2, steps=30)) for run in runs(given, points(given))]
        self.assertEqual(len(set(keys + others)), 2 * len(keys))


class Statistics(unittest.TestCase):
    def exact(self, values):
        """The interval from all n^n resamples."""
        medians = sorted(statistics.median(s) for s in itertools.product(values, repeat=len(values)))
        n = len(medians)
        least = next(m for i, m in enumerate(medians, 1) if i >= 0.025 * n)
        most = next(m for i, m in enumerate(medians, 1) if i >= 0.975 * n)
        return least, most

    def test_interval_is_that_of_all_resamples(self):
        for values in ([1, 2], [3, 1, 2], [1, 1, 1], [5, 1, 9, 2], [1, 2, 4, 8, 16], [1, 2, 4, 8, 16, 32]):
            with self.subTest(values=values):
                self.assertEqual(statistics_of_runs.interval(values), self.exact(values))

    def test_many_runs_narrow_it(self):
        # order statistics of 100: the binomial 95 % interval of the median has ranks 40 and 61
        low, high = statistics_of_runs.interval(list(range(1, 101)))
        self.assertAlmostEqual(low, 40, delta=2)
        self.assertAlmostEqual(high, 61, delta=2)

    def test_one_run_shows_nothing(self):
        self.assertIsNone(statistics_of_runs.interval([1.0]))
        self.assertFalse(statistics_of_runs.differ([1.0], [100.0, 101.0]))

    def test_differ(self):
        self.assertTrue(statistics_of_runs.differ([1, 2, 3, 3], [4, 5, 6, 6]))
        self.assertTrue(statistics_of_runs.differ([4, 5, 6, 6], [1, 2, 3, 3]))
        self.assertFalse(statistics_of_runs.differ([1, 2, 4, 4], [3, 5, 6, 6]))
        # ranges of 3 lie apart in one of 10 cases where nothing differs, those of 4 in one of 35
        self.assertFalse(statistics_of_runs.differ([1, 2, 3], [4, 5, 6, 7, 8, 9]))
        self.assertFalse(statistics_of_runs.differ([4, 5, 6, 7, 8, 9], [1, 2, 3]))

    def test_coverage_of_a_range(self):
        # of all ways in which n runs fall below or above the true median
        for n in range(2, 8):
            ways = list(itertools.product((False, True), repeat=n))
            self.assertEqual(statistics_of_runs.range_coverage(n), sum(any(w) and not all(w) for w in ways) / len(ways))

    def test_time_left(self):
        done = [("a", 1.0), ("b", 10.0), ("a", 3.0)]
        self.assertAlmostEqual(time_left(done, ["a", "b", "c"], lambda item: item), 2 + 10 + 14 / 3)
        self.assertIsNone(time_left([], ["a"], lambda item: item))
        self.assertEqual([clock(s) for s in (None, 61.9, 3661)], ["", ", about 1:01 left", ", about 1:01:01 left"])


def line(workers, curvature_ranks, wall_s, kind="strong", method="sgd", batch=40, **more):
    ranks = workers + curvature_ranks
    return {"bench": "scale", "schema": 1, "kind": kind, "method": method, "network": "n", "seed": 1, "repeat": 0, "ranks": ranks,
            "workers": workers, "curvature_ranks": curvature_ranks, "hosts": 1, "threads": 1, "batch": batch, "steps": 100,
            "wall_s": wall_s, "core_s": ranks * wall_s, "cpu_s": wall_s, "step_s": wall_s / 200, "step_p99_s": wall_s / 50,
            "accuracy": 88.0, "test_loss": 0.5, "target": None, "target_s": None, "predicted_step_s": None, "wait_share": 0.25,
            "run": "r", "environment": {"cores": 4, "commit": "abc", "machine": "m"}} | more


class Summary(unittest.TestCase):
    def rows(self, lines):
        """{(method, ranks): words of the row}"""
        found = [re.split(r" {2,}", text) for text in summary(lines).splitlines()]
        return {(words[0], words[1]): words[2:] for words in found if len(words) > 10 and words[0] != "method"}

    def test_efficiencies_by_hand(self):
        # medians 10 and 4 s: the mean of 8, 10, 18 is 12, that of the three ratios another number again; ~: of 3 runs
        base, point = [line(1, 0, s) for s in (10, 8, 18)], [line(2, 1, s) for s in (4, 5, 1)]
        self.assertEqual(efficiencies(point, base), (2.5, 1.25, 2.5 / 3))
        cells = self.rows(base + point)["sgd", "2+1"]
        self.assertEqual(cells, ["1", "3", "40", "10 to 50", "20", "80", "~2.50", "125 %", "83 %", "12", "25.0 %", "-", "88.00"])

    def test_weak_scaling_compares_examples_a_second(self):
        base, point = [line(1, 0, 10, "weak")], [line(4, 0, 16, "weak", batch=160)]
        self.assertEqual(efficiencies(point, base), (2.5, 0.625, 0.625))

    def test_base_is_the_fewest_ranks(self):
        text = summary([line(2, 0, 7), line(1, 1, 9), line(4, 0, 3)])
        self.assertIn("base of sgd: 2+0, 70 ms a step", text)
        self.assertIn("base of sgd: 1+1, 90 ms a step", summary([line(4, 0, 3), line(1, 1, 9)]))

    def test_overlaps_are_told(self):
        apart = [line(1, 0, s) for s in (10, 11, 12, 11)] + [line(2, 0, s) for s in (5, 6, 7, 6)]
        text = summary(apart)
        self.assertNotIn("no difference shown, ", text)
        self.assertNotIn("~1", text)
        text = summary(apart + [line(3, 0, s) for s in (6.5, 8, 9, 8)] + [line(4, 0, s) for s in (9, 10.4, 10.6, 10.6)])
        told = "no difference shown, sgd (intervals overlap, or fewer than 4 runs): "
        self.assertIn(told + "1+0 and 4+0, 2+0 and 3+0, 3+0 and 4+0\n", text)
        self.assertEqual(self.rows(apart + [line(4, 0, s) for s in (9, 10.4, 10.6, 10.6)])["sgd", "4+0"][6], "~1.05")
        self.assertIn("4 runs are their range, which holds the true median in 87.5 %", text)
        self.assertEqual(self.rows(apart + [line(4, 0, s) for s in (1, 2, 3)])["sgd", "4+0"][6], "~5.50")

    def test_few_runs_are_told(self):
        lines = [line(w, 0, s) for w, n in enumerate((1, 2, 3, 5, 6), 1) for s in range(1, n + 1)]
        told = re.findall("intervals of (.) runs are their range, which holds the true median in (.*) % of cases", summary(lines))
        self.assertEqual(told, [("2", "50"), ("3", "75"), ("5", "93.75")])

    def test_points_and_tables_are_kept_apart(self):
        text = summary([line(1, 0, 1), line(1, 0, 2, batch=80), line(1, 0, 3, kind="weak"), line(1, 0, 4, steps=50),
                        line(1, 0, 5, hosts=2), line(1, 0, 6, threads=2)])
        self.assertEqual(len(re.findall("^(?:strong|weak): ", text, re.MULTILINE)), 5)
        self.assertEqual(len(re.findall("^sgd ", text, re.MULTILINE)), 6)  # that of two hosts stands in the same table
        self.assertIn("1+0 and 1+0 on 2 hosts", text)

    def test_experiments_are_not_pooled(self):
        """Medians of 10 and 30 s, or of 85 and 90 %, would be numbers of nothing."""
        told = ({"options": "--staleness 5"}, {"length": "100 steps", "lr": "0.1"}, {"target": 90},
                {"target": 90, "length": "2 epochs"})
        text = summary([line(1, 0, 10)] + [line(1, 0, 30, **more) for more in told])
        self.assertEqual(re.findall("^sgd(?:, lr 0.1)?  ", text, re.MULTILINE).count("sgd  "), 4)
        self.assertEqual(len(re.findall(r"^sgd.*1\+0 +1 +1 ", text, re.MULTILINE)), 5)
        for heading in ("100 steps\n", "100 steps, --staleness 5\n", "until 90 %\n", "until 90 %, at most 2 epochs\n"):
            self.assertIn(f"strong: n, batch 40, 1 thread a rank, {heading}", text)
        self.assertIn("base of sgd, lr 0.1: 1+0, 300 ms a step", text)

    def test_epochs_of_weak_scaling_are_one_table(self):
        text = summary([line(w, 0, 10, "weak", batch=40 * w, steps=400 // w, length="1 epoch") for w in (1, 2)])
        self.assertEqual((text.count("weak: "), text.count("base of")), (1, 1))
        self.assertIn("batch 40 a worker, 1 thread a rank, 1 epoch\n", text)

    def test_lengths_as_asked(self):
        given = [options(steps=1), options(steps=1000000), options(steps=0), options(steps=0, epochs=0.5), options(steps=0, epochs=3.0)]
        self.assertEqual([scale_run.length_of(g) for g in given], ["1 step", "1000000 steps", "1 epoch", "0.5 epochs", "3 epochs"])

    def test_rates_of_other_options_are_not_pooled(self):
        tuned = [line(1, 0, 1, kind="tune", bench="tune", lr="0.1", is_finite=True, **more)
                 for more in ({}, {"options": "--momentum 0"})]
        self.assertEqual(re.findall(", 100 steps, (.*)scores", summary(tuned)), ["", "--momentum 0, "])

    def test_shared_cores_are_marked(self):
        text = summary([line(4, 0, 1), line(4, 1, 1), line(5, 0, 1, hosts=2)])  # of 4 cores each
        self.assertEqual([name in text for name in ("4+0*", "4+1*", "5+0*")], [False, True, False])

    def test_busy_machines_are_told(self):
        for load, is_told in ((3.9, False), (4.1, True)):  # 3 ranks of our own, and one more
            lines = [line(2, 1, 1)]
            lines[0]["environment"] = lines[0]["environment"] | {"load_before": load}
            self.assertEqual("other programs" in summary(lines), is_told)

    def test_targets(self):
        reached = [line(2, 1, 9, target=80, target_s=s) for s in (6, 8, 7)]
        self.assertEqual(self.rows(reached)["sgd", "2+1"][-3:], ["3 of 3", "7", "21"])
        missed = reached + [line(2, 1, 9, target=80)]
        self.assertEqual(self.rows(missed)["sgd", "2+1"][-3:], ["3 of 4", "-", "-"])

    def test_predictions(self):
        self.assertEqual(self.rows([line(1, 0, 10, predicted_step_s=0.09)])["sgd", "1+0"][-2], "-10 %")

    def test_rates(self):
        def tuned(method, lr, accuracy):
            return line(1, 0, 1, kind="tune", method=method, lr=lr, accuracy=accuracy, test_loss=-accuracy, bench="tune",
                        is_finite=lr != "0.5")
        lines = [tuned("sgd", "0.1", 80), tuned("sgd", "0.2", 90), tuned("sgd", "0.5", 99), tuned("adamw", "1e-3", 70),
                 tuned("adamw", "1e-2", 60)]
        text = summary(lines)
        self.assertIn("--lr sgd=0.2,adamw=1e-3", text)
        self.assertEqual(text.count("edge"), 1)
        self.assertIn("adamw: 1e-3 of 2 (at the edge", text)
        self.assertIn("not finite in 1", text)
        for one in lines:
            one["accuracy"] = None
        self.assertIn("--lr sgd=0.2,adamw=1e-3", summary(lines))  # the lowest loss

    def test_nothing_yet(self):
        self.assertIn("no lines", summary([]))


class Provenance(unittest.TestCase):
    def test_variables_without_secrets(self):
        seen = {"SLURM_JOB_ID": "7", "SLURM_JWT": "secret", "OMPI_MCA_pml": "ob1", "OPENBLAS_NUM_THREADS": "1", "HOME": "/root"}
        with mock.patch.dict(os.environ, seen, clear=True):
            told = provenance.environment_of(Request("sgd", 1, threads=3, build=BUILD), "/nowhere",
                                             {"version": "1", "build": "b", "environment": {"hosts": []}}, {})
        self.assertEqual((told["scheduler"], told["variables"]["OMPI_MCA_pml"]), ({"SLURM_JOB_ID": "7"}, "ob1"))
        self.assertEqual({told["variables"][name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}, {"3"})
        self.assertNotIn("secret", json.dumps(told))

    def test_choice_of_several(self):
        self.assertEqual([provenance.chosen(t) for t in ("always [madvise] never", "off", None)], ["madvise", "off", None])


class Program(unittest.TestCase):
    def setUp(self):
        kept = tempfile.TemporaryDirectory(prefix="curvd-bench-")
        self.addCleanup(kept.cleanup)
        self.output = os.path.join(kept.name, "lines.jsonl")

    def scale(self, *words, **more):
        return subprocess.run([SCALE, *words], env=environment() | more, capture_output=True, text=True, check=False)

    def words(self, *words, kind="strong"):
        return [kind, *TINY, "--output", self.output, *words, *TEACHER]

    def saved(self):
        with open(self.output, encoding="utf-8") as file:
            return [json.loads(text) for text in file]

    def test_lines_and_going_on(self):
        words = self.words("--workers", "1,2", "--methods", "nystrom-kfac", "--repeats", "1", "--target", "99.9")
        done = self.scale(*words[:-5], "--point", "4", *TEACHER)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(x["workers"], x["curvature_ranks"]) for x in self.saved()], [(2, 1)])
        with open(self.output, "a", encoding="utf-8") as file:
            print('{"bench": "scale", "kin', end="", file=file)  # killed within a line
        done = self.scale(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 of 4 runs are in", done.stderr)
        self.assertIn("cut off", done.stderr)
        lines = self.saved()
        self.assertEqual([(x["workers"], x["curvature_ranks"]) for x in lines], [(2, 1), (1, 0), (1, 1), (2, 0)])
        for saved in lines:
            self.check_line(saved)
        before = os.stat(self.output).st_mtime_ns
        done = self.scale(*words)
        self.assertEqual((done.returncode, os.stat(self.output).st_mtime_ns), (0, before))
        self.assertIn("nystrom-kfac  1+0", done.stdout)

    def check_line(self, saved):
        self.assertEqual(set(saved), KEYS)
        self.assertEqual((saved["bench"], saved["schema"], saved["steps"], saved["hosts"]), ("scale", 1, 20, 1))
        self.assertEqual(saved["ranks"], saved["workers"] + saved["curvature_ranks"])
        self.assertAlmostEqual(saved["core_s"], saved["ranks"] * saved["wall_s"])
        self.assertGreater(saved["step_s"], 0)
        self.assertLess(saved["step_s"], saved["step_p99_s"])  # the first step is a slow one
        self.assertLess(20 * saved["step_p99_s"], 25 * saved["wall_s"])
        self.assertEqual((saved["target"], saved["target_s"]), (99.9, None))
        self.assertEqual((saved["lr"], saved["options"], saved["length"]), ("", "--data teacher --teacher-samples 2400", "20 steps"))
        told = saved["environment"]
        self.assertIn(told["build"]["CMAKE_C_COMPILER_ID"], ("GNU", "Clang"))
        self.assertIn("-Wshadow", told["build"]["flags"])
        self.assertIn("Open MPI", told["libraries"])
        self.assertEqual(sum(host["ranks"] for host in told["hosts"]), saved["ranks"])
        with open(os.path.join(saved["run"], "metrics.jsonl"), encoding="utf-8") as file:
            end = json.loads(file.read().splitlines()[-1])
        self.assertEqual((end["kind"], end["wall_s"]), ("end", saved["wall_s"]))

    def test_runs_of_one_configuration_have_one_hash(self):
        done = self.scale(*self.words("--workers", "1", "--methods", "sgd", "--repeats", "2", "--seeds", "2"))
        self.assertEqual(done.returncode, 0, done.stderr)
        hashes = collections.Counter((x["seed"], x["environment"]["config_hash"]) for x in self.saved())
        self.assertEqual((len(hashes), set(hashes.values())), (2, {2}))

    def test_a_run_that_fails_has_no_line(self):
        words = self.words("--workers", "1", "--curvature-ranks", "0", "--methods", "sgd,adamw", "--repeats", "1",
                           "--lr", "sgd=1e6,adamw=2e-3")
        for _ in range(2):  # it is tried again, in a folder of its own
            done = self.scale(*words)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, "not counted: sgd, seed 1: curvd train ended with exit code 5: .* lower lr")
            self.assertEqual([(x["method"], x["lr"]) for x in self.saved()], [("adamw", "2e-3")])
        self.assertIn("1 of 2 runs are in", done.stderr)

    def test_tune(self):
        words = self.words("--methods", "sgd", "--lr", "sgd=0.01:1e6", "--repeats", "1", kind="tune")[:-5]
        done = self.scale(*words, "--", "--data", "teacher", "--teacher-samples", "24000")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(x["bench"], x["lr"], x["is_finite"], x["steps"]) for x in self.saved()],
                         [("tune", "0.01", True, 20), ("tune", "1e6", False, 20)])  # a rate too large is a result
        self.assertIn("--lr sgd=0.01\n", done.stdout)
        with open(os.path.join(self.saved()[0]["run"], "config.yaml"), encoding="utf-8") as file:
            self.assertIn("validation_images: 10000", file.read())

    def test_points_of_an_array_are_all_runs_once(self):
        words = ["--repeats", "2", "--seeds", "2", "--methods", "kfac,sgd"]
        listed = self.scale(*self.words(*words, "--list")).stdout.splitlines()
        self.assertEqual([int(text.split()[0]) for text in listed], list(range(1, len(listed) + 1)))
        everything = self.scale(*self.words(*words, "--dry-run")).stdout.splitlines()
        tasks = [text for k in range(len(listed))
                 for text in self.scale(*self.words(*words, "--point", str(k + 1), "--dry-run")).stdout.splitlines()]
        self.assertEqual(len(everything), 4 * len(listed))
        self.assertEqual((sorted(tasks), len(set(tasks))), (sorted(everything), len(everything)))
        self.assertFalse(os.path.exists(self.output))

    def test_batch_script(self):
        script = os.path.join(ROOT, "bench", "scale.sbatch")
        ways = [(["--help"], {}, 0, "sbatch --array"), ([], {}, 2, "is missing"), (["strong"], {}, 2, "job array"),
                (["strong"], {"SLURM_ARRAY_TASK_ID": "2", "SLURM_SUBMIT_DIR": "/"}, 2, "CURVD_HOME"),
                (["strong", *TINY, "--dry-run", "--repeats", "1", *TEACHER], {"SLURM_ARRAY_TASK_ID": "2", "CURVD_HOME": ROOT}, 0,
                 "srun --mpi=pmix -n 2 ")]
        for words, variables, code, sentence in ways:
            with self.subTest(words=words, variables=variables):
                done = subprocess.run(["bash", script, *words], env=environment() | variables, capture_output=True, text=True,
                                      check=False)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(sentence, done.stdout + done.stderr)
        self.assertEqual(done.stdout.count("srun"), 1)

    def test_interrupted(self):
        """Nothing that it has started stays."""
        words = self.words("--workers", "1", "--methods", "sgd", "--repeats", "1", "--steps", "1000000")
        with subprocess.Popen([SCALE, *words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as process:
            self.addCleanup(process.kill)
            begin = time.monotonic()
            while not os.path.exists(self.output[:-6] + ".runs") and time.monotonic() - begin < 60:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and session_of(int(pid)) == process.pid]
        self.assertEqual(left, [])

    def test_other_commits_do_not_mix(self):
        with open(self.output, "w", encoding="utf-8") as file:
            print(json.dumps(line(1, 0, 1)), file=file)
        done = self.scale(*self.words("--methods", "sgd"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("holds runs of commit abc", done.stderr)

    def test_wrong_words(self):
        ways = [(["stron"], "invalid choice: 'stron'"), (["strong", "--workers", "1,0"], "from 1, not '0'"), ([], "required"),
                (["strong", "--workers", "1,1"], "twice"), (["strong", "--methods", "sgdd"], "knows no method 'sgdd'; known: sgd"),
                (["strong", "--worker", "1"], "--worker"), (["strong", "--steps", "9", "--epochs", "1"], "not allowed with"),
                (["curvature", "--workers", "1,2"], "one number of workers"),
                (["strong", "--lr", "kfac=1"], "not among the methods"),
                (["strong", "--lr", "sgd=1:2"], "only tune"), (["strong", "--lr", "sgd=x"], "not 'x'"),
                (["strong", "--point", "99"], "no point 99, only 16"),
                (["strong", "--", "--seed", "3"], "set by bench/scale itself"),
                (["strong", "--hosts", "a", "--launcher", "srun"], "for mpirun"), (["summary", "/nowhere.jsonl"], "is not there"),
                (["strong", "--output", "/nowhere/x.jsonl"], "folder of --output"),
                (["strong", "--output", "/proc/version", "--build", BUILD], "cannot be written"),
                (["summary", SCALE], "not a line of JSON"),
                (["strong", "--build", "no-such-folder"], "cmake")]
        for words, sentence in ways:
            with self.subTest(words=words):
                done = self.scale(*words)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertIn(sentence, done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_what_no_run_can_do_ends_all_at_once(self):
        for words, sentence in ((["--momentun", "0.9"], "--momentun"), (["--data", "/nowhere"], "in the folder /nowhere")):
            done = self.scale(*self.words("--methods", "sgd"), *words)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(sentence, done.stderr)
            self.assertEqual(done.stderr.count("bench/scale: run "), 1)

    def test_flags_of_a_launcher(self):
        for launcher in ("mpirun", "srun"):
            done = self.scale(*self.words("--launcher", launcher, f"--{launcher}-flags", "--quiet")[:-5], "--dry-run")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.count(" --quiet "), len(done.stdout.splitlines()))

    def test_help(self):
        for words in (["--help"], ["weak", "--help"], ["tune", "--help"], ["summary", "--help"]):
            done = self.scale(*words)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("exit codes", done.stdout)


if __name__ == "__main__":
    unittest.main()
