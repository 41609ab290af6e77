"""One `curvd train`, and the checks that its records must pass before a number is taken from them."""
import collections
import dataclasses
import math
import os
import subprocess
import tempfile

from common import Misused, Refused, environment, lines_of_file, program

FIRST_ORDER = ("sgd", "adamw")
SECOND_ORDER = ("kfac", "rs-kfac", "sre-kfac", "nystrom-kfac", "b-kfac", "b-r-kfac", "b-r-c-kfac")
LOG_EVERY = 10  # steps between two losses
MPI_FLAGS = ["--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1", "--mca", "btl", "self,vader"]


@dataclasses.dataclass
class Request:
    method: str
    seed: int
    network: str = "784-1000-1000-10"
    batch: int = 512
    epochs: float = 1.0
    steps: int = 0  # instead of epochs; 0: epochs
    eval_every: float = 1.0  # epochs
    target: float = 0.0  # percent of accuracy to stop at; 0: none
    ranks: int = 1
    curvature_ranks: int | None = None  # None: the program decides
    threads: int = 1  # BLAS threads of a rank
    launch: list | None = None  # words in front of the program; None: mpirun on this machine where ranks is above 1
    build: str = "build"
    must_learn: bool = True  # a loss that does not fall is refused
    more: list = dataclasses.field(default_factory=list)  # further words for curvd train

    def name(self):
        return f"{self.method}, seed {self.seed}"


def option(words, name, default):
    """Value of an option among words for curvd train; the last one counts."""
    value = default
    for i, word in enumerate(words):
        key, _, text = word.partition("=")
        if key.startswith("--") and key[2:].replace("-", "_") == name:
            value = text if "=" in word else (words[i + 1] if i + 1 < len(words) else "")
    return value


def data_sizes(words):
    """Training and test images that a run must see; (None, None) where only the data set itself knows."""
    data = option(words, "data", "fashion-mnist")
    held = int(option(words, "validation_images", 0))
    if data == "fashion-mnist":
        train, test = 60000, 10000
    elif data == "teacher":
        samples = int(option(words, "teacher_samples", 60000))
        test = samples // 6
        train = samples - test
    else:
        return None, None
    return (train - held, held) if held else (train, test)


def command(request, folder):
    words = [program(request.build, "curvd"), "train", "--method", request.method, "--seed", str(request.seed)]
    words += ["--network", request.network, "--batch", str(request.batch)]
    words += ["--steps", str(request.steps)] if request.steps else ["--epochs", f"{request.epochs:g}"]
    words += ["--eval-every", f"{request.eval_every:g}", "--log-every", str(LOG_EVERY), "--run-dir", folder]
    if request.target:
        words += ["--target-accuracy", f"{request.target:g}"]
    if request.curvature_ranks is not None and request.method not in FIRST_ORDER:
        words += ["--curvature-ranks", str(request.curvature_ranks)]
    if request.threads > 1:
        words += ["--blas-threads", str(request.threads)]
    words += request.more
    if request.launch is not None:
        return request.launch + words
    return words if request.ranks == 1 else ["mpirun", "-n", str(request.ranks), *MPI_FLAGS, *words]


class Failed(Refused):
    """A run that ended otherwise than well."""

    def __init__(self, sentence, exit_code):
        super().__init__(sentence)
        self.exit_code = exit_code


def follow(process, watch):
    """Its last lines; what ends the reader ends the process."""
    last = collections.deque(maxlen=3)
    try:
        for line in process.stdout:
            last.append(line.strip())
            if watch:
                watch(line.strip())
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return last


def start_in(folder, request, watch=None):
    """Runs it in this run folder; the records of metrics.jsonl. watch sees each line of its log. Failed when it fails."""
    words = command(request, folder)
    with tempfile.TemporaryFile("w+") as errors:
        try:
            with subprocess.Popen(words, env=environment(request.threads), stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=errors) as process:
                last = follow(process, watch)
        except FileNotFoundError:
            raise Misused(f"{words[0]} is not on the PATH") from None
        if process.returncode != 0:
            errors.seek(0)
            lines = [line.strip() for line in errors if line.strip(" -\n")]  # without rules
            reason = [line for line in lines if line.startswith("curvd: ")][:1] or lines[-3:] or last  # mpirun says a lot
            raise Failed(f"{request.name()}: curvd train ended with exit code {process.returncode}: {' '.join(reason)}",
                         process.returncode)
        return lines_of_file(os.path.join(folder, "metrics.jsonl"))


def start(request, watch=None):
    """The same in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="curvd-bench-") as folder:
        return start_in(os.path.join(folder, "run"), request, watch)


def evaluation_steps(request, per_epoch, total):
    """Steps after which the program evaluates."""
    steps, count = [], 1
    while not steps or steps[-1] < total:
        steps.append(min(math.ceil(count * request.eval_every * per_epoch), total))
        count += 1
    return steps


def check(request, records):
    """The run, end, step and epoch records of a run that did what was asked; Refused otherwise."""
    def need(holds, sentence):
        if not holds:
            raise Refused(f"{request.name()}: {sentence}")

    of = {kind: [r for r in records if r["kind"] == kind] for kind in ("run", "step", "epoch", "end")}
    need(len(of["run"]) == 1 and len(of["end"]) == 1, "metrics.jsonl lacks its run or end record")
    run, end = of["run"][0], of["end"][0]
    train, test = data_sizes(request.more)
    per_epoch, total = run["steps_per_epoch"], run["total_steps"]
    need(train is None or per_epoch == train // request.batch,
         f"{per_epoch} steps in an epoch, not those of {train} images in batches of {request.batch}")
    need(total == (request.steps or math.ceil(request.epochs * per_epoch)),
         f"{total} steps planned for {request.steps or f'{request.epochs:g} epochs of {per_epoch}'}")
    need(run["workers"] + run["curvature_ranks"] == request.ranks, f"{request.ranks} ranks asked for, others ran")

    wanted, seen = evaluation_steps(request, per_epoch, total), [r["step"] for r in of["epoch"]]
    reached = end["target_reached"]
    need(seen == (wanted[:len(seen)] if reached else wanted) and seen, f"evaluated after steps {seen}, not {wanted}")
    need(end["step"] == seen[-1], f"{end['step']} steps done, last evaluation after {seen[-1]}")
    need(not reached or of["epoch"][-1]["test_accuracy"] >= request.target > 0, "a target was reached that was not")

    need(all(r["loss"] is not None for r in of["step"]), "a training loss is not finite")
    need(all(r["test_loss"] is not None for r in of["epoch"]), "a test loss is not finite")
    if request.must_learn and not reached:
        need(len(of["step"]) >= 2, f"fewer than {2 * LOG_EVERY} steps: too short to see the loss fall")
        first, last = of["step"][0]["loss"], of["step"][-1]["loss"]
        need(last < first, f"the training loss went from {first:.6g} to {last:.6g}")
    need(test is None or run["test_examples"] == test, f"evaluated on {run['test_examples']} examples, not on {test}")
    need(train is None or run["train_examples"] == train, f"trained on {run['train_examples']} examples, not on {train}")
    return run, end, of["step"], of["epoch"]


def measure(request):
    """A checked run as one flat record: costs of all ranks per epoch done, evaluation left out."""
    run, end, _, evaluations = check(request, start(request))
    epochs = end["step"] / run["steps_per_epoch"]
    stages = {name: s for name, s in end["stages"].items() if name != "evaluate"}
    return {
        "bench": "epoch", "kind": "run", "method": request.method, "seed": request.seed, "network": request.network,
        "batch": request.batch, "workers": run["workers"], "curvature_ranks": run["curvature_ranks"],
        "epochs": epochs, "steps": end["step"], "test_examples": run["test_examples"],
        "cpu_s_per_epoch": end["cpu_s"] / epochs, "wall_s_per_epoch": end["wall_s"] / epochs,
        "stage_cpu_s_per_epoch": {name: s["cpu_sum_s"] / epochs for name, s in stages.items()},
        "stage_wall_s_per_epoch": {name: s["wall_mean_s"] / epochs for name, s in stages.items()},
        "evaluations": [{"epoch": r["epoch"], "accuracy": r["test_accuracy"], "loss": r["test_loss"]} for r in evaluations],
        "target": request.target or None,
        "target_cpu_s": end["cpu_s"] if end["target_reached"] else None,
        "target_wall_s": end["wall_s"] if end["target_reached"] else None,
        "sent_bytes": end["sent_bytes"], "events": {name: n for name, n in end["events"].items() if n},
    }
