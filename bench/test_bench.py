"""The measuring programs on networks of no size, and the checks that must keep a wrong number from being printed.

Run by ctest with the build folder in CURVD_BENCH_BUILD."""
import sys

sys.dont_write_bytecode = True

import copy  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import unittest  # noqa: E402
from unittest import mock  # noqa: E402

import cnn_figures  # noqa: E402
import conv_figures  # noqa: E402
import paper_figures  # noqa: E402
import paper_run  # noqa: E402
import save_figures  # noqa: E402
import stream_figures  # noqa: E402
from common import ROOT, Refused, Setting, built_at, environment  # noqa: E402
from train_run import MPI_FLAGS, Request, check, evaluation_steps  # noqa: E402

BUILD = os.environ.get("CURVD_BENCH_BUILD", "build")
BENCH = os.path.join(ROOT, "bench")
TINY = ["--network", "20-32-16-5", "--batch", "40"]
TEACHER = ["--data", "teacher", "--teacher-samples", "2400"]


def run(*words):
    return subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)


class Step(unittest.TestCase):
    step = os.path.join(ROOT, BUILD, "bench_step")

    def test_line(self):
        done = run(self.step, *TINY, "--rounds", "5")
        self.assertEqual(done.returncode, 0, done.stderr)
        line = json.loads(done.stdout)
        # a step contains its products and more; a K-FAC step contains an SGD step and more
        self.assertGreater(line["sgd_over_products"]["median"], 1)
        self.assertGreater(line["method_over_sgd"]["median"], 1)
        self.assertLessEqual(line["sgd_ms"]["min"], line["sgd_ms"]["median"])

    def test_networks_without_bare_products(self):
        convolution = "- conv: 4\n  kernel: 3\n  activation: relu\n- norm: batch\n- dense: 5\n"
        around = "- dense: 60\n- dense: 60\n- add: fc1\n- dense: 5\n"
        for layers, products in ((convolution, False), (around, False), ("- dense: 9\n- dense: 5\n", True)):
            shape = "6x5x2" if layers is convolution else "60"
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as network, self.subTest(layers=layers):
                print(f"- input: {shape}\n{layers}", end="", file=network, flush=True)
                done = run(self.step, "--network", network.name, "--batch", "40", "--rounds", "3", "--sgd-lr", "0.01")
                self.assertEqual(done.returncode, 0, done.stderr)
                line = json.loads(done.stdout)
                for key in ("products_ms", "products_gflops", "sgd_over_products"):
                    self.assertEqual(key in line, products)
                self.assertGreater(line["method_over_sgd"]["median"], 1)
                self.assertGreater(line["method_stages_ms"]["backward for sampled targets"],
                                   line["method_stages_ms"]["capture statistics"])

    def test_rate_of_sgd(self):
        done = run(self.step, *TINY, "--rounds", "5", "--sgd-lr", "100")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("check loss: sgd", done.stderr)
        done = run(self.step, *TINY, "--rounds", "5", "--sgd-lr")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--sgd-lr needs", done.stderr)

    def test_worker_and_curvature_rank(self):
        for apply in ("replicated", "factored"):
            with self.subTest(apply=apply):
                done = run("mpirun", "-n", "2", *MPI_FLAGS, self.step, *TINY, "--rounds", "3", "--curvature-ranks", "1",
                           "--staleness", "5", "--apply", apply)
                self.assertEqual(done.returncode, 0, done.stderr)
                (line,) = (json.loads(text) for text in done.stdout.splitlines())
                self.assertEqual(line["curvature_ranks"], 1)
                self.assertGreater(line["sent_bytes"]["statistics"], 0)
                self.assertGreater(line["sent_bytes"]["preconditioners"], 0)
                # the worker decomposes nothing, the other rank does
                self.assertNotIn("refresh", line["method_stages_ms"])
                self.assertGreater(line["curvature_stages_ms"]["refresh"], 0)

    def test_refuses_ranks_without_a_use(self):
        for words in (["--method", "sgd"], ["--curvature-ranks", "0"]):
            done = run("mpirun", "-n", "2", *MPI_FLAGS, self.step, *TINY, "--rounds", "2", *words)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn("one worker", done.stderr)

    def test_refuses_a_loss_that_rises(self):
        done = run(self.step, *TINY, "--rounds", "5", "--lr", "1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("check loss", done.stderr)

    def test_steps_between_refreshes(self):
        lines = {}
        for updates in ("yes", "no"):
            done = run(self.step, *TINY, "--rounds", "5", "--factor-update-steps", "5", "--updates", updates, "--block", "20")
            self.assertEqual(done.returncode, 0, done.stderr)
            lines[updates] = json.loads(done.stdout)
        # one step in five has statistics, one in ten a refresh; both are taken in either case
        self.assertEqual([lines[updates]["method_timed"] for updates in ("yes", "no")], [20, 16])
        self.assertLess(lines["no"]["method_over_sgd"]["of_minima"], lines["yes"]["method_over_sgd"]["of_minima"])
        self.assertGreater(lines["no"]["method_stages_ms"]["refresh"], 0)
        for words, code, sentence in ((["--updates", "never"], 2, "--updates is yes or no"), (["--updates"], 2, "--updates is"),
                                      (["--updates", "no", "--factor-update-steps", "1"], 2, "no step to time")):
            done = run(self.step, *TINY, "--rounds", "2", *words)
            self.assertEqual((done.returncode, done.stdout), (code, ""))
            self.assertIn(sentence, done.stderr)

    def test_precisions_are_those_of_the_method(self):
        words = ["--train-precision", "bf16", "--apply-precision", "bf16x3", "--matrix-unit", "portable"]
        done = run(self.step, *TINY, "--rounds", "3", "--method", "nystrom-kfac", *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        line = json.loads(done.stdout)
        self.assertEqual(line["sgd_precision"], "fp32")
        self.assertEqual(line["precisions"], {"train_precision": "bf16", "apply_precision": "bf16x3", "refresh_precision": "fp32",
                                              "statistics_precision": "fp32", "matrix_unit": "portable"})

    def test_refuses_blocks_that_cut_a_period(self):
        done = run(self.step, *TINY, "--rounds", "2", "--inv-update-steps", "15")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("inv_update_steps", done.stderr)


class Predict(unittest.TestCase):
    def test_lines(self):
        done = run(os.path.join(BENCH, "predict"), "--build", BUILD, "--steps", "12", "--repeats", "1", "--networks", "20-32-10")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([(line["workers"], line["curvature_ranks"]) for line in lines], [(1, 0), (2, 0), (1, 1)])
        for line in lines:
            self.assertAlmostEqual(line["error"], abs(line["predicted_ms"] / line["measured_ms"] - 1), delta=0.02)
            self.assertGreater(line["stages_ms"]["refresh"][1], 0)

    def test_wrong_words(self):
        self.assertEqual(run(os.path.join(BENCH, "predict"), "--steps", "0").returncode, 2)


class Schedule(unittest.TestCase):
    schedule = os.path.join(ROOT, BUILD, "bench_schedule")
    tiny = ["--train-ms", "0.5", "--steps", "2"]

    def test_lines(self):
        for ranks, curvature_ranks in ((2, 1), (3, 2), (3, 0)):
            done = run("mpirun", "-n", str(ranks), *MPI_FLAGS, self.schedule, "--curvature-ranks", str(curvature_ranks),
                       *self.tiny)
            with self.subTest(ranks=ranks, curvature_ranks=curvature_ranks):
                self.assertEqual(done.returncode, 0, done.stderr)
                lines = [json.loads(line) for line in done.stdout.splitlines()]
                self.assertEqual([(line["staleness"], line["inv_update_steps"]) for line in lines],
                                 [(s, i) for s in (0, 1, 5, 12) for i in (1, 4, 10)])
                for line in lines:
                    self.assertEqual(line["workers"] + line["curvature_ranks"], ranks)
                    # sleeps end late, never early
                    self.assertGreater(line["step_ms"][1], 0.999 * line["step_ms"][0])
                    self.assertAlmostEqual(line["step_error"], line["step_ms"][1] / line["step_ms"][0] - 1, delta=1e-3)
                    self.assertGreater(line["latency_ms"][1], 0.5)

    def test_wrong_words(self):
        for words, sentence in ((["--curvature-ranks", "2"], "--curvature-ranks takes no '2' on 2"), (["--steps", "0"], "--steps"),
                                (["--train-ms", "-1"], "--train-ms"), (["--ms", "1"], "no option --ms"), (["--steps"], "a value")):
            done = run("mpirun", "-n", "2", *MPI_FLAGS, self.schedule, *words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)
        done = run(self.schedule)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("mpirun", done.stderr)


class Eig(unittest.TestCase):
    eig = os.path.join(ROOT, BUILD, "bench_eig")
    tiny = ["--n", "96", "--eig-rank", "8,16", "--rounds", "2", "--repeats", "2"]

    def lines(self, *words):
        done = run(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_lines(self):
        lines = self.lines(self.eig, *self.tiny)
        # each rank: local, dist and slab, cold and warm; the largest: both exact solvers
        self.assertEqual([line["solver"] for line in lines].count("rand"), 4)
        self.assertEqual(len(lines), 2 * 3 * 2 + 2)
        for line in lines:
            self.assertGreaterEqual(line["error_over_optimum"]["median"], 0.999)
            self.assertLess(line["orthogonality"]["max"], 1e-5)
            self.assertLessEqual(line["cpu_ms"]["min"], line["cpu_ms"]["median"])
            self.assertGreater(line["error_bound"]["median"], 0)
            self.assertLess(line["inverse_tail_over_none"]["max"], 1)
            self.assertIn("ssyevd_over", line)
            self.assertEqual("over_product" in line, line["solver"] not in ("exact", "exact-dist"))
        self.assertTrue(all(line["products"] == (1 if line["start"] == "warm" else 3) for line in lines if "start" in line))

    def test_precisions(self):
        lines = self.lines(self.eig, *self.tiny, "--solvers", "exact,rand,dist,slab", "--precisions", "fp32,bf16,bf16x3", "--unit",
                           "portable", "--matrix", "drift,steep")
        self.assertEqual({line["precision"] for line in lines if line["solver"] == "dist"}, {"fp32"})
        for line in lines:
            rounded = line.get("precision", "fp32") != "fp32"
            self.assertEqual("error_over_fp32" in line, rounded)
            self.assertEqual(line.get("unit", ""), "portable" if rounded else "")
        # rounding changes the pairs, of one term a hundred times as much as of three; and hardly their error
        for solver in ("rand", "slab"):
            off = {p: max(max(abs(line["error_over_fp32"][which] - 1) for which in ("min", "max")) for line in lines
                          if (line["solver"], line.get("precision"), line["matrix"]) == (solver, p, "drift")) for p in ("bf16", "bf16x3")}
            self.assertLess(off["bf16"], 5e-3)
            self.assertGreater(off["bf16"], 10 * off["bf16x3"])

    def test_matrices_of_low_rank(self):
        lines = self.lines(self.eig, *self.tiny, "--matrix", "steep,batch,one", "--solvers", "rand", "--ssyevd", "no")
        self.assertEqual({line["matrix"] for line in lines}, {"steep", "batch", "one"})
        self.assertTrue(all(line["kept"] == 1 for line in lines if line["matrix"] == "one"))
        self.assertNotIn("ssyevd_over", lines[0])

    def test_grid_of_two_ranks(self):
        lines = self.lines("mpirun", "-n", "2", *MPI_FLAGS, self.eig, *self.tiny, "--solvers", "dist,exact-dist")
        self.assertEqual({line["grid"] for line in lines}, {"1x1", "2x1"})
        self.assertTrue(all("one_rank_over" in line for line in lines if line["grid"] == "2x1"))

    def test_grids_agree(self):
        lines = self.lines("mpirun", "-n", "4", *MPI_FLAGS, self.eig, "--compare-grids", "yes", "--n", "300", "--eig-rank",
                           "16")
        self.assertEqual({line["grid"] for line in lines}, {"1x1", "2x1", "1x2", "2x2", "4x1"})
        self.assertTrue(all(line["other_sketch_numbers"] == 0 and line["pairs_off"] < 1e-5 for line in lines))

    def test_wrong_words(self):
        for words, sentence in ((["--solver", "rand"], "--solvers"), (["--n", "1O24"], "1O24"), (["--rounds", "0"], "from 1"),
                                (["--solvers", "rnad"], "rand"), (["--n", "64", "--eig-rank", "64"], "more than n"),
                                (["--grid", "2x2"], "ranks"), (["--rounds"], "needs a value")):
            done = run(self.eig, *words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)

    def test_refuses_an_error_far_from_the_optimum(self):
        # one sketch of sre without a power keeps half of what the best pairs keep
        done = run(self.eig, "--n", "512", "--eig-rank", "64", "--oversampling", "0", "--solvers", "rand", "--starts", "cold",
                   "--method", "sre", "--power-iters", "0", "--rounds", "1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("check error over optimum", done.stderr)


class Stream(unittest.TestCase):
    stream = os.path.join(ROOT, BUILD, "bench_stream")
    tiny = ["--n", "96", "--eig-rank", "8", "--settle", "2", "--refreshes", "4"]

    def line(self, *words):
        done = run(self.stream, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_errors(self):
        line = self.line("errors", *self.tiny, "--jump", "1")
        for errors in (line, line["full"]):
            self.assertEqual([len(errors[part]) for part in ("cold", "settled", "after_jump")], [2, 4, 6])
            self.assertGreaterEqual(min(errors["cold"] + errors["settled"] + errors["after_jump"]), 0.998)
            self.assertEqual(errors["error_over_optimum"]["max"], max(errors["settled"]))
            self.assertEqual(errors["error_over_optimum"]["min"], min(errors["settled"]))
            self.assertGreater(errors["after_jump"][0], errors["settled"][-1])
        # an empty start knows less than three products with the average
        self.assertGreater(line["cold"][0], 1.05)
        self.assertLess(line["full"]["cold"][0], 1.05)
        self.assertLess(abs(line["reference_off"]), 2e-3)

    def test_repair_lowers_errors_of_the_sketch_alone(self):
        without, repaired = (self.line("errors", *self.tiny, "--repair", word) for word in ("no", "yes"))
        self.assertEqual([without["is_repaired"], repaired["is_repaired"]], [False, True])
        self.assertLess(repaired["cold"][0], without["cold"][0])
        self.assertEqual(repaired["full"], without["full"])
        self.assertNotIn("after_jump", without)

    def test_precisions_change_the_sketch_alone(self):
        lines = {p: self.line("errors", *self.tiny, "--precision", p, "--unit", "portable") for p in ("fp32", "bf16", "bf16x3")}
        off = {p: max(abs(x - y) for x, y in zip(lines[p]["settled"], lines["fp32"]["settled"])) for p in lines}
        self.assertGreater(off["bf16"], 10 * off["bf16x3"])
        self.assertLess(off["bf16"], 5e-3)
        for line in lines.values():
            self.assertEqual(line["full"], lines["fp32"]["full"])

    def test_costs(self):
        line = self.line("costs", *self.tiny, "--precision", "bf16", "--unit", "portable")
        self.assertEqual((line["precision"], line["unit"]), ("bf16", "portable"))
        for key in ("over_full", "updates_over_full", "updates_ms", "refresh_ms", "full_updates_ms", "full_refresh_ms"):
            self.assertGreater(line[key]["min"], 0)
            self.assertLessEqual(line[key]["min"], line[key]["median"])
            self.assertLessEqual(line[key]["median"], line[key]["max"])

    def test_wrong_words(self):
        for words, sentence in (([], "errors or costs"), (["error"], "errors or costs"), (["errors", "--n", "1O24"], "1O24"),
                                (["errors", "--refreshes", "0"], "--refreshes"), (["costs", "--rank", "8"], "--rank"),
                                (["errors", "--n", "64", "--eig-rank", "60"], "more than n"), (["errors", "--jump"], "value"),
                                (["errors", "--jump", "4"], "radians"), (["errors", "--precision", "fp16"], "fp16"),
                                (["errors", "--precision", "bf16", "--unit", "abacus"], "it has "), (["errors", "--repair", "maybe"], "maybe")):
            done = run(self.stream, *words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)

    def test_refuses_what_has_no_optimum(self):
        # ten rows a window: the average has fewer pairs than are kept, and the least error is rounding
        done = run(self.stream, "errors", "--n", "96", "--eig-rank", "20", "--batch", "1", "--settle", "0", "--refreshes", "1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("check reference", done.stderr)


class StreamFigures(unittest.TestCase):
    """What the figures take of the lines, whose errors here are those of n and seed."""

    def measured(self, name, runs):
        def line(_build, _built, _what, n, _eig_rank, _words, seed):
            worst = 1 + seed / 100 + n / 1e6
            over = {"min": 1, "median": worst - 0.005, "max": worst}
            cost = {"min": 0.1, "median": seed / 10, "max": 9}
            parts = ("over_full", "updates_ms", "refresh_ms", "full_updates_ms", "full_refresh_ms")
            return {"cold": [1.9, 1.5, worst + 0.1], "error_over_optimum": over} | {key: cost for key in parts}
        figure = next(f for f in stream_figures.STREAM_FIGURES if f.id == name)
        with mock.patch.object(stream_figures, "cached_line", line):
            measured = figure.measure(Setting(BUILD, runs))
        return measured.reduce(measured.values), measured

    def test_error_is_the_worst_of_sizes_and_runs(self):
        value, measured = self.measured("seed-error", 3)
        self.assertAlmostEqual(value, 1 + 0.03 + 4096 / 1e6)
        self.assertEqual((len(measured.values), measured.command[1:4]), (3, ["errors", "--n", "4096"]))

    def test_cold_error_is_that_of_the_last_settling_refresh(self):
        self.assertAlmostEqual(self.measured("seed-cold", 2)[0], 1.1 + 0.02 + 4096 / 1e6)

    def test_a_program_built_anew_is_seen(self):
        self.assertIn(os.path.join(ROOT, BUILD, "bench_stream"), built_at(BUILD))

    def test_cost_is_the_median(self):
        value, measured = self.measured("seed-cost", 3)
        self.assertAlmostEqual(value, 0.2)
        self.assertEqual(measured.command[1:4], ["costs", "--n", "4096"])


class Save(unittest.TestCase):
    save = os.path.join(ROOT, BUILD, "bench_save")
    setting = Setting(BUILD, 3)

    def test_line(self):
        done = run(self.save, "--rounds", "2", "--block", "4", "--data", "teacher", "--teacher-samples", "240", "--network",
                   "20-10-4", "--batch", "20")
        self.assertEqual(done.returncode, 0, done.stderr)
        line = json.loads(done.stdout)
        self.assertEqual((line["rounds"], line["block"], line["curvature_ranks"]), (2, 4, 0))
        self.assertGreater(line["shard_bytes"], 8 * (20 * 11 + 10 * 5))  # weights and their momentum at least
        self.assertLessEqual(line["saved_ms"]["min"], line["saved_ms"]["median"])

    def test_wrong_words(self):
        for words, sentence in ((["--rounds", "0"], "--rounds"), (["--bloc", "4"], "--bloc")):
            done = run(self.save, *words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)

    def test_figure_is_the_median(self):
        calls = []

        def lines(command):
            calls.append(command)
            number = len(calls)
            return [{"saved_over_plain": {"median": number, "of_minima": 7}, "copy_ms": {"median": 2}, "shard_bytes": 3}]
        with mock.patch.object(save_figures, "lines_of", lines):
            measured = save_figures.saved_step(1, ["--staleness", "5"])(self.setting)
        self.assertEqual((measured.values, measured.reduce(measured.values)), ([1, 2, 3], 2))
        self.assertEqual((calls[0][:3], calls[0][-4:]), (["mpirun", "-n", "2"], ["--staleness", "5", "--curvature-ranks", "1"]))
        self.assertEqual(measured.more["ratio_of_minima"], 7)


@unittest.skipUnless(os.path.exists(os.path.join(ROOT, BUILD, "bench_conv")), "the build found no oneDNN")
class Conv(unittest.TestCase):
    conv = os.path.join(ROOT, BUILD, "bench_conv")

    def test_line(self):
        for kernels in ("onednn", "plain"):
            done = run(self.conv, "--rows", "1", "--rounds", "2", "--kernels", kernels)
            self.assertEqual(done.returncode, 0, done.stderr)
            line = json.loads(done.stdout)
            self.assertEqual((line["kernels"], sum(s["layers"] for s in line["shapes"])), (kernels, 13 + 5))
            self.assertGreater(line["ours_over_bare"]["min"], 0)
            self.assertLessEqual(line["ours_over_bare"]["min"], line["ours_over_bare"]["max"])
            for side in ("ours_ms", "bare_ms"):  # medians of two sums are means, and so are those of their parts
                self.assertAlmostEqual(line[side] / sum(s["layers"] * s[side] for s in line["shapes"]), 1, places=3)

    def test_precision(self):
        for kernels in ("onednn", "plain"):
            done = run(self.conv, "--rows", "1", "--rounds", "1", "--kernels", kernels, "--precision", "bf16")
            self.assertEqual(done.returncode, 0, done.stderr)
            line = json.loads(done.stdout)
            self.assertEqual((line["precision"], {s["y"] == "plain" for s in line["shapes"]}), ("bf16", {kernels == "plain"}))

    def test_wrong_words(self):
        for words, sentence in ((["--row", "1"], "--row"), (["--rows", "0"], "0"), (["--rounds"], "value"),
                                (["--kernels", "mkl"], "mkl"), (["--precision", "bf16x3"], "bf16x3")):
            done = run(self.conv, *words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)

    def test_figure_is_the_median(self):
        def lines(command):
            return [{"ours_over_bare": {"median": float(command[-1])}, "ours_ms": 2, "bare_ms": 1}]  # the seed
        with mock.patch.object(conv_figures, "lines_of", lines):
            measured = conv_figures.conv_rate(Setting(BUILD, 3))
        self.assertEqual((measured.values, measured.reduce(measured.values)), ([1, 2, 3], 2))


class CnnFigures(unittest.TestCase):
    """What the figures take of the lines. Run i: stages of i + 1 ms in a mean step."""
    setting = Setting(BUILD, 3)

    def figure(self, name):
        return next(f for f in cnn_figures.CNN_FIGURES if f.id == name)

    def measured(self, *names):
        """The figures, and the words of every call of bench_step."""
        calls = []

        def runs(setting, words, curvature_ranks=0):
            calls.append([*words, curvature_ranks])
            return [{"sgd_stages_ms": {"make batch": 7, "forward": 40, "backward": 60},
                     "method_stages_ms": {"backward for sampled targets": i + 1, "capture statistics": 0.5 * (i + 1),
                                          "reduce statistics": i + 1, "running average": i + 1, "precondition": 9},
                     "sgd_ms": {"median": 200, "min": 100}, "method_ms": {"median": 300, "min": 110 + i},
                     "method_over_sgd": {"median": 1.5, "of_minima": 1.1 + i / 100}} for i in range(setting.runs)], words
        with mock.patch.object(cnn_figures, "step_runs", runs), mock.patch.dict(cnn_figures._alone, clear=True):
            return [self.figure(name).measure(self.setting) for name in names], calls

    def test_update_is_of_one_step_in_ten_and_captures_count_once(self):
        (measured,), _ = self.measured("conv-factors")
        for value, wanted in zip(measured.values, (0.3, 0.6, 0.9)):
            self.assertAlmostEqual(value, wanted)
        self.assertAlmostEqual(measured.reduce(measured.values), 0.6)

    def test_a_stage_that_is_not_there_is_an_error(self):
        with mock.patch.object(cnn_figures, "UPDATE", ("no such stage",)), self.assertRaises(KeyError):
            self.measured("conv-factors")

    def test_steps_by_least_blocks_and_shared_runs(self):
        (alone, served, _), calls = self.measured("cnn-step-a", "cnn-step-b", "conv-factors")
        for measured in (alone, served):
            self.assertAlmostEqual(measured.reduce(measured.values), 1.11)
            self.assertEqual(measured.more["sgd_ms"], 100)
        self.assertEqual([(words[-1], "--staleness" in words) for words in calls], [(0, False), (1, True)])

    def test_every_seed_reaches_the_accuracy(self):
        def runs(setting, methods, words):
            return [[{"evaluations": [{"accuracy": 0}, {"accuracy": 90 + i}], "cpu_s_per_epoch": 60, "epochs": 2}
                     for i in range(setting.runs)]], words
        with mock.patch.object(cnn_figures, "epoch_runs", runs):
            measured = self.figure("cnn-accuracy-2").measure(self.setting)
        self.assertEqual((measured.reduce(measured.values), measured.more["cpu_s"]), (90, 120))


class Plots(unittest.TestCase):
    def test_refuse_other_lines(self):
        # one line alone is neither a case of bench_eig nor a pair of bench_stream
        stream = {"bench": "stream", "what": "errors", "is_repaired": False, "after_jump": [2.0]}
        eig = {"bench": "eig", "solver": "rand", "matrix": "drift"}
        for program, line, sentence in (("plot_eig", eig, "--ssyevd"), ("plot_eig", {}, "no file of lines"),
                                        ("plot_stream", stream, "--repair no and yes"), ("plot_stream", {}, "no file of lines")):
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as saved, self.subTest(program=program, line=line):
                print(json.dumps(line), file=saved, flush=True)
                done = run(os.path.join(BENCH, program), saved.name, "--out", os.devnull)
                self.assertEqual(done.returncode, 2)
                self.assertIn(sentence, done.stderr)


class Epoch(unittest.TestCase):
    def epoch(self, *words):
        return run(os.path.join(BENCH, "epoch"), "--build", BUILD, *TINY, *words)

    def test_lines(self):
        done = self.epoch("--methods", "sgd,nystrom-kfac", "--seeds", "2", "--epochs", "2", "--", *TEACHER)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([(x["method"], x.get("seed")) for x in lines],
                         [("sgd", 1), ("nystrom-kfac", 1), ("sgd", 2), ("nystrom-kfac", 2), ("sgd", None),
                          ("nystrom-kfac", None)])
        self.assertEqual([e["epoch"] for e in lines[0]["evaluations"]], [1, 2])
        self.assertEqual(lines[0]["steps"], 100)  # 2 epochs of 2000 // 40
        self.assertEqual(lines[4]["cpu_over"]["median"], 1)

    def test_target(self):
        done = self.epoch("--methods", "sgd", "--quick", "--target", "60", "--eval-every", "0.2", "--", *TEACHER)
        self.assertEqual(done.returncode, 0, done.stderr)
        line = json.loads(done.stdout.splitlines()[0])
        self.assertGreaterEqual(line["evaluations"][-1]["accuracy"], 60)
        self.assertTrue(all(e["accuracy"] < 60 for e in line["evaluations"][:-1]))
        self.assertAlmostEqual(line["target_cpu_s"], line["cpu_s_per_epoch"] * line["epochs"])

    def test_refuses_a_run_that_fails(self):
        done = self.epoch("--methods", "sgd", "--quick", "--", *TEACHER, "--lr", "1e6")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("sgd, seed 1", done.stderr)

    def test_refuses_words_that_it_sets_itself(self):
        self.assertEqual(self.epoch("--", "--seed", "3").returncode, 2)


class Paper(unittest.TestCase):
    def paper(self, *words):
        return run(os.path.join(BENCH, "paper"), "--build", BUILD, *TINY, *words)

    def lines(self, *words):
        with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as saved:
            done = self.paper("--json", saved.name, *words)
            self.assertEqual(done.returncode, 0, done.stderr)
            return [json.loads(line) for line in saved], done

    def test_timed(self):
        lines, done = self.lines("--steps", "11", "--", *TEACHER)
        self.assertEqual([line["method"] for line in lines], ["sgd", "kfac", "rs-kfac", "sre-kfac", "nystrom-kfac"])
        for line, refreshes in zip(lines, (0, 6.5333, 5.488, 5.488, 5.488)):
            parts, costs = line["part_cpu_s_per_epoch"], line["event_cpu_s"]
            with self.subTest(method=line["method"]):
                self.assertEqual(line["steps"], 11)
                self.assertAlmostEqual(parts["refresh"], refreshes * costs["refresh"]["refresh"], delta=1e-4 * parts["refresh"])
                self.assertAlmostEqual(parts["statistics"], 19.6 * (refreshes > 0) * costs["update"]["statistics"])
                self.assertAlmostEqual(parts["forward/backward"], 196 * costs["step"]["forward/backward"])
                self.assertAlmostEqual(line["cpu_s_per_epoch"], sum(parts.values()))
                self.assertEqual(min(parts[p] > 0 for p in ("statistics", "refresh", "apply")), refreshes > 0)
        for sentence in ("paper: s/epoch", "75.6", "kfac over rs-kfac", "(paper 2.31)", "without forward/backward", "not as in the paper"):
            self.assertIn(sentence, done.stdout)
        self.assertIn("nystrom-kfac, 5 of 5, about", done.stderr)

    def test_trained(self):
        lines, _ = self.lines("--epochs", "2", "--methods", "sgd,rs-kfac", "--", *TEACHER)
        self.assertEqual([(line["kind"], line["epochs"]) for line in lines], [("trained", 2)] * 2)
        self.assertEqual(lines[0]["target_cpu_s"], {"91": None, "91.5": None, "92": None})
        self.assertGreater(lines[1]["part_cpu_s_per_epoch"]["refresh"], 0)

    def test_seconds_to_a_target(self):
        evaluations = [{"test_accuracy": a, "cpu_s": s} for a, s in ((90.9, 1), (91.2, 2), (91.0, 3), (91.5, 4))]
        self.assertEqual([paper_run.seconds_to(evaluations, t) for t in (91, 91.5, 92)], [2, 4, None])

    def test_intervals_by_epoch(self):
        for method, epoch, interval in (("kfac", 0, 30), ("kfac", 49, 30), ("rs-kfac", 19, 50), ("rs-kfac", 20, 30)):
            self.assertAlmostEqual(paper_run.events_in_epoch(method, epoch)["refresh"], 196 / interval)

    def test_refuses_wrong_records(self):
        def records(refreshed=4, event=None, loss=1.0, stage="forward", cpu_s=2.0, step=6):
            events = {"factors refreshed": refreshed} | ({event: 1} if event else {})
            layer = {"kind": "layer", "step": 6, "A": {"refresh_s": 0.25}, "G": {"refresh_s": 0.5}}
            steps = [{"kind": "step", "loss": loss}] * 6
            stages = {stage: {"cpu_sum_s": 0.25}, "refresh": {"cpu_sum_s": 1.75}, "evaluate": {"cpu_sum_s": 9}}
            return [*steps, layer, {"kind": "end", "step": step, "stages": stages, "cpu_s": cpu_s, "events": events}]

        end, factors = paper_run.check_timed("run", records(), 6, False)
        costs = paper_run.costs_of(end, factors, 6)
        self.assertEqual(costs["refresh"]["refresh"], 0.75)  # not the first one, which was cold
        self.assertAlmostEqual(costs["step"]["forward/backward"], 0.25 / 6)
        for wrong, sentence in (({"refreshed": 2}, "not 2 times 2"), ({"loss": None}, "finite"), ({"stage": "sleep"}, "stage sleep"),
                                ({"cpu_s": 3.0}, "of 3 CPU"), ({"step": 5}, "no end"),
                                ({"event": "decompositions done by the exact solver instead"}, "exact solver")):
            with self.subTest(wrong=wrong), self.assertRaisesRegex(Refused, sentence):
                paper_run.check_timed("run", records(**wrong), 6, False)

    def test_wrong_words(self):
        for words, sentence in ((["--methods", "kfacs"], "kfacs"), (["--steps", "5"], "at least 6"),
                                (["--steps", "9", "--epochs", "1"], "one of them"), (["--methods", "sgd,sgd"], "twice")):
            done = self.paper(*words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)

    def test_refuses_a_run_that_fails(self):
        done = self.paper("--methods", "rs-kfac", "--", *TEACHER, "--damping", "nonsense")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("rs-kfac, seed 1", done.stderr)


class PaperFigures(unittest.TestCase):
    def measure(self, name, runs=1):
        (figure,) = (f for f in paper_figures.PAPER_FIGURES if f.id == name)
        return figure.measure(Setting("no-such-folder", runs))

    def test_sizes_are_those_of_the_network(self):
        done = run(os.path.join(ROOT, BUILD, "curvd"), "plan", "--ranks", "1", "--network", "vgg16_bn", "--curvature-ranks", "0",
                   "--skip", "norm*", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        counts = {}
        for layer in json.loads(done.stdout)["layers"]:
            for side in ("A", "G"):
                n = layer.get(side, {}).get("n", 0)
                counts[n] = counts.get(n, 0) + 1
        counts.pop(0, None)
        self.assertEqual((counts, sum(counts.values())), (paper_figures.SIZES, 30))

    def test_refreshes(self):
        # every exact one 7 ms, cold 2, warm 1
        def lines(command):
            sizes = map(int, command[command.index("--n") + 1].split(","))
            lanes = {"exact": 7} if command[command.index("--solvers") + 1] == "exact" else {"exact": 7, "cold": 2, "warm": 1}
            return [{"n": n, "solver": "rand", "residual": {"max": self.residual}, "cpu_ms": {"median": ms}}
                    | ({"start": lane} if lane != "exact" else {}) for n in sizes for lane, ms in lanes.items()]

        with (mock.patch.object(paper_figures, "lines_of", lines), mock.patch.object(paper_figures, "program", lambda *_: "p"),
              mock.patch.object(paper_figures, "say")):
            self.residual = 0.6
            with self.assertRaisesRegex(Refused, "residual 0.6"):
                self.measure("vgg-refresh-a")
            self.residual = 0.1
            small, large = 9, 21  # factors up to 256, and from 512 up
            self.assertEqual(self.measure("vgg-refresh-a").values, [7 * 30 / (7 * small + 2 * large)])
            self.assertEqual(self.measure("vgg-refresh-b").values, [7 * 30 / (7 * small + large)])
        paper_figures.refreshes.cache_clear()

    def test_epochs(self):
        def costs(_build, _built, method, _seed):
            costs = {event: dict.fromkeys(paper_run.PARTS, 0.0) for event in ("step", "update", "refresh")}
            costs["step"]["forward/backward"] = 1
            costs["refresh"]["refresh"] = 60 if method == "kfac" else 3
            return costs

        with mock.patch.object(paper_figures, "costs", costs):
            measured = self.measure("vgg-epoch-a", 3)
        self.assertEqual(len(measured.values), 3)
        self.assertAlmostEqual(measured.values[0], (1 + 60 / 30) / (1 + 3 / 50))
        self.assertAlmostEqual(measured.more["without_forward_backward"], (60 / 30) / (3 / 50))


REQUEST = Request("sgd", 1, batch=40, epochs=1, eval_every=0.5, target=90, more=TEACHER)
GOOD = [
    {"kind": "run", "steps_per_epoch": 50, "total_steps": 50, "workers": 1, "curvature_ranks": 0, "train_examples": 2000,
     "test_examples": 400},
    {"kind": "step", "step": 10, "loss": 2.0},
    {"kind": "epoch", "step": 25, "epoch": 0.5, "test_loss": 1.5, "test_accuracy": 50.25},
    {"kind": "step", "step": 50, "loss": 1.0},
    {"kind": "epoch", "step": 50, "epoch": 1.0, "test_loss": 1.0, "test_accuracy": 75.0},
    {"kind": "end", "step": 50, "target_reached": False},
]


class Checks(unittest.TestCase):
    def test_good_records_pass(self):
        run_record, end, steps, epochs = check(REQUEST, GOOD)
        self.assertEqual((run_record["kind"], end["kind"], len(steps), len(epochs)), ("run", "end", 2, 2))

    def test_wrong_records_are_refused(self):
        changes = [(0, "steps_per_epoch", 49, "images"), (0, "total_steps", 100, "planned"), (0, "workers", 2, "ranks"),
                   (1, "loss", None, "not finite"), (2, "test_loss", None, "not finite"), (3, "loss", 2.5, "loss went"),
                   (2, "step", 20, "evaluated"), (0, "test_examples", 401, "not on 400"), (0, "train_examples", 1999, "not on 2000"), (5, "step", 40, "steps done"),
                   (5, "target_reached", True, "target")]
        for at, key, value, sentence in changes:
            records = copy.deepcopy(GOOD)
            records[at][key] = value
            with self.subTest(key=key), self.assertRaisesRegex(Refused, sentence):
                check(REQUEST, records)

    def test_a_target_may_be_reached_in_a_few_steps(self):
        records = [r | {"step": 8} for r in copy.deepcopy(GOOD[:2])]
        records += [GOOD[2] | {"step": 25, "test_accuracy": 90.5}, GOOD[5] | {"step": 25, "target_reached": True}]
        self.assertEqual(len(check(REQUEST, records)[2]), 1)

    def test_missing_records_are_refused(self):
        for kind, sentence in (("run", "lacks"), ("end", "lacks"), ("epoch", "evaluated"), ("step", "too short")):
            with self.subTest(kind=kind), self.assertRaisesRegex(Refused, sentence):
                check(REQUEST, [r for r in GOOD if r["kind"] != kind])

    def test_evaluation_steps(self):
        # 117 steps: every tenth of an epoch, rounded up; the last step always
        self.assertEqual(evaluation_steps(Request("sgd", 1, eval_every=0.1), 117, 117),
                         [12, 24, 36, 47, 59, 71, 82, 94, 106, 117])
        self.assertEqual(evaluation_steps(Request("sgd", 1, eval_every=1), 50, 75), [50, 75])


class Figures(unittest.TestCase):
    figures = os.path.join(BENCH, "figures")

    def test_list(self):
        done = run(self.figures, "--list")
        self.assertEqual(done.returncode, 0)
        for name in ("rs-step-b", "eig-grids", "seed-error", "seed-cold", "seed-cost"):
            self.assertIn(f"\n{name} ", done.stdout)

    def test_unknown_figure(self):
        done = run(self.figures, "sgd-stap")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("sgd-step", done.stderr)

    def test_missing_program(self):
        done = run(self.figures, "--build", "no-such-folder", "sgd-step")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("cmake", done.stderr)

    def test_markdown(self):
        line = {"figure": "mlp-time-to-89", "value": None, "unit": "SGD epochs", "at_most": 1.6, "ok": False, "runs": 3,
                "spread": [1.5, None], "command": "bench/epoch", "commit": "abc", "machine": "m"}
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as saved:
            print(json.dumps(line), file=saved, flush=True)
            done = run(self.figures, "--markdown", saved.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| infinite SGD epochs (missed) | at most 1.6 | 3 (1.5, infinite) | `bench/epoch` | m | abc |",
                      done.stdout.splitlines()[2])


if __name__ == "__main__":
    unittest.main()
