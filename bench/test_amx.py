"""Products on the matrix units of this machine, and what the figures of AMX take of the lines.

Run by ctest with the build folder in CURVD_BENCH_BUILD."""
import sys

sys.dont_write_bytecode = True

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
import unittest  # noqa: E402
from unittest import mock  # noqa: E402

import amx_figures  # noqa: E402
from common import ROOT, Refused, Setting, Skipped  # noqa: E402
from test_bench import BENCH, BUILD, run  # noqa: E402


class Product(unittest.TestCase):
    product = os.path.join(ROOT, BUILD, "bench_product")
    tiny = ["--m", "40", "--n", "70", "--k", "50", "--rounds", "3"]

    def lines(self, *words):
        done = run(self.product, *self.tiny, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def check_errors(self, lines):
        """Two operands whose numbers are off by 1.66e-3, or its square, in the root mean square; fp32 sums of 50 terms."""
        for line in lines:
            self.assertLess(line["fp32_error"], 1e-6)
            expected = 2 ** 0.5 * (1.66e-3 if line["precision"] == "bf16" else 1.66e-3 ** 2)
            self.assertGreater(line["error"], 0.5 * expected)
            self.assertLess(line["error"], 2 * expected)

    def test_every_unit_and_precision(self):
        units = run(self.product, "--list").stdout.split()
        self.assertEqual(units[-1], "portable")
        lines = self.lines("--unit", "all")
        self.assertEqual([(line["unit"], line["precision"]) for line in lines], [(u, p) for u in units for p in ("bf16", "bf16x3")])
        self.check_errors(lines)
        for line in lines:
            self.assertLessEqual(line["ms"]["min"], line["ms"]["median"])
            self.assertAlmostEqual(line["fp32_over"]["of_minima"] / (line["fp32_ms"]["min"] / line["ms"]["min"]), 1, places=3)
            self.assertAlmostEqual(line["gflops"] * line["ms"]["median"] * 1e6 / (2 * 40 * 70 * 50), 1, places=3)

    def test_shapes(self):
        for words in (["--trans-a", "yes"], ["--trans-b", "yes"], ["--trans-a", "yes", "--trans-b", "yes"], ["--product", "packed"],
                      ["--product", "packed", "--trans-b", "yes"], ["--product", "gram"]):
            with self.subTest(words=words):
                lines = self.lines(*words, "--unit", "portable", "--block", "2")
                self.assertEqual([line["precision"] for line in lines], ["bf16", "bf16x3"])
                self.assertEqual(lines[0]["m"], 70 if "gram" in words else 40)
                if "gram" not in words:  # the squares on its diagonal are rounded alike
                    self.check_errors(lines)
        self.assertEqual([line["precision"] for line in self.lines("--precision", "bf16x3")], ["bf16x3"])

    def test_wrong_words(self):
        for words, sentence in ((["--unit", "abacus"], "it has "), (["--precisions", "bf16"], "--precision"), (["--n", "0"], "n = '0'"),
                                (["--k"], "value"), (["plain"], "no option plain"), (["--product", "gram", "--trans-b", "yes"], "X^T X")):
            done = run(self.product, *words)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(sentence, done.stderr)


class AmxFigures(unittest.TestCase):
    """What the figures take of the lines. Run i has seed i + 1."""
    setting = Setting(BUILD, 3)

    def measure(self, name, units="amx\nportable\n", code=0, **patched):
        figure = next(f for f in amx_figures.AMX_FIGURES if f.id == name)
        listed, patched = mock.Mock(stdout=units, returncode=code), patched | {"say": lambda _: None}
        with mock.patch.object(amx_figures.subprocess, "run", lambda *_, **__: listed), mock.patch.multiple(amx_figures, **patched):
            return figure.measure(self.setting)

    def test_are_skipped_without_the_unit(self):
        for figure in amx_figures.AMX_FIGURES:
            with self.subTest(figure=figure.id), self.assertRaisesRegex(Skipped, "no matrix unit amx"):
                self.measure(figure.id, "avx512-bf16\nportable\n")
        with self.assertRaisesRegex(Refused, "exit code 1"):
            self.measure("amx-sketch", "", code=1)

    def test_products(self):
        def products(command):
            seed = int(command[-1])
            return [{"precision": precision, "fp32_over": {"median": 9, "of_minima": over * seed}, "error": error * seed,
                     "gflops": 2, "fp32_gflops": 1} for precision, over, error in (("bf16", 3, 2e-3), ("bf16x3", 2, self.error))]

        self.error = 3e-6
        one = self.measure("amx-product-a", lines_of=products)
        self.assertEqual((one.values, one.is_fine, one.more["error"]), ([3, 6, 9], True, 6e-3))
        self.assertEqual(one.command[one.command.index("--unit") + 1], "amx")
        amx_figures.cached_products.cache_clear()
        for self.error, is_fine in ((3e-6, True), (4e-6, False)):
            three = self.measure("amx-product-b", lines_of=products)
            self.assertEqual((three.values, three.is_fine), ([2, 4, 6], is_fine))
            amx_figures.cached_products.cache_clear()

    def test_warm_refresh(self):
        def runs(off):
            def cases(setting, ranks, words):
                def line(precision, seed, extra):
                    times = {"median": 9, "min": 5}
                    return {"precision": precision, "ssyevd_over": {"median": 9, "of_minima": 70 + seed}, "cpu_ms": times,
                            "ssyevd_ms": times, "is_noisy": False} | extra
                rounded = {"error_over_fp32": {"min": 1 + min(off, 0), "max": 1 + max(off, 0)}, "fp32_over": {"of_minima": 2}}
                return [[line("fp32", -30, {}), line("bf16", i, rounded)] for i in range(setting.runs)], words
            return cases

        for off, is_fine in ((4e-4, True), (-4e-4, True), (6e-4, False), (-6e-4, False)):
            measured = self.measure("amx-warm-4096", runs_of=runs(off))
            self.assertEqual((measured.values, measured.is_fine), ([70, 71, 72], is_fine))
            self.assertAlmostEqual(measured.more["error_off"], abs(off))
        self.assertIn("fp32,bf16", measured.command)

    def test_sketch(self):
        def costs(command):
            return [{"updates_ms": {"min": int(command[-1]), "median": 9}, "full_updates_ms": {"min": 4, "median": 7}}]
        measured = self.measure("amx-sketch", lines_of=costs)
        self.assertEqual(measured.values, [0.25, 0.5, 0.75])
        self.assertEqual(measured.command[1:8], ["costs", "--n", "4096", "--eig-rank", "256", "--batch", "512"])
        self.assertIn("bf16x3", measured.command)

    def steps(self, timed):
        def runs(setting, words, curvature_ranks=0):
            return [{"sgd_ms": {"min": 100}, "method_ms": {"min": 50 + i}, "method_stages_ms": {}, "block": 10, "method_timed": timed,
                     "method_over_sgd": {"median": 3, "of_minima": (50 + i) / 100}} for i in range(setting.runs)], [words, curvature_ranks]
        return runs

    def test_apply(self):
        measured = self.measure("amx-apply", step_runs=self.steps(9))
        self.assertEqual((measured.values, measured.command[1]), ([0.5, 0.51, 0.52], 0))
        self.assertNotIn("--train-precision", measured.command[0])
        with self.assertRaisesRegex(Refused, "one step"):
            self.measure("amx-apply", step_runs=self.steps(10))

    def test_whole_steps(self):
        for name, rank, network in (("amx-step-a", "64", "784-1000-1000-10"), ("amx-step-b", "220", "784-2048-2048-10")):
            measured = self.measure(name, step_runs=self.steps(10))
            words, curvature_ranks = measured.command
            self.assertEqual((measured.values, curvature_ranks), ([0.5, 0.51, 0.52], 1))
            given = dict(zip(words[::2], words[1::2]))
            self.assertEqual((given["--eig-rank"], given["--network"], given["--matrix-unit"]), (rank, network, "amx"))
            self.assertEqual({given[f"--{use}-precision"] for use in ("train", "apply", "statistics", "refresh")}, {"bf16"})
            self.assertNotIn("--updates", given)

    def test_accuracy(self):
        def epochs(setting, methods, words):
            lost = 0.1 if "--train-precision" in words else 0
            return [[{"evaluations": [{"accuracy": 50}, {"accuracy": 90 + i - lost * i}]} for i in range(setting.runs)]], words
        measured = self.measure("amx-accuracy", epoch_runs=epochs)
        self.assertAlmostEqual(measured.reduce(measured.values), 0.1)
        self.assertAlmostEqual(measured.more["fp32_accuracy"] - measured.more["bf16_accuracy"], 0.1)
        self.assertLess(measured.command.index("--"), measured.command.index("--train-precision"))

    def test_lines_of_figures_that_are_skipped(self):
        figures = os.path.join(BENCH, "figures")
        with tempfile.TemporaryDirectory() as build:
            fake = os.path.join(build, "bench_product")
            with open(fake, "w", encoding="utf-8") as script:
                script.write("#!/bin/sh\necho avx2\necho portable\n")
            os.chmod(fake, 0o755)
            done = run(figures, "--build", build, "amx-product")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("amx-product-a: SKIPPED: this machine has no matrix unit amx", done.stderr)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            self.assertEqual([(line["figure"], line["skipped"]) for line in lines],
                             [(f"amx-product-{case}", "this machine has no matrix unit amx") for case in "ab"])
            saved = os.path.join(build, "figures.jsonl")
            with open(saved, "w", encoding="utf-8") as file:
                file.write(done.stdout)
            done = run(figures, "--markdown", saved)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("| skipped: this machine has no matrix unit amx | at least 2 |", done.stdout.splitlines()[3])


if __name__ == "__main__":
    unittest.main()
