"""The runs of a scaling benchmark: each one `curvd train` in a folder of its own, checked, and a line of JSON."""
import fcntl
import json
import os
import shlex
import time

from common import Misused, Refused, built_at, commit, say, shown
from progress import clock, time_left
from provenance import environment_of, machine_state
from scale_points import folder_name, key_of, request_of
from train_run import Failed, check, command, start_in

EXITS_OF_ALL = (2, 3)  # of curvd: wrong options, unusable data; no other run would like them better
EXIT_NOT_FINITE = 5  # the loss was not finite: a rate that is too large, which is what tuning wants to know


def lines_saved(path):
    """The lines of a file; one that was cut off at the end by an interruption is left out."""
    try:
        with open(path, encoding="utf-8") as file:
            texts = file.read().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as reason:
        raise Misused(f"{path} cannot be read: {reason}") from None
    lines = []
    for i, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            if i < len(texts):
                raise Misused(f"{path}:{i} is not a line of JSON; mend it, or give another file") from None
            say(f"bench/scale: {path}:{i} is cut off and left out")
    return lines


def mend(file):
    """Ends the last line, or takes it away where it is but the beginning of one."""
    file.seek(0)
    text = file.read()
    begin = text.rfind(b"\n") + 1
    try:
        json.loads(text[begin:])
        file.write(b"\n")
    except ValueError:
        file.truncate(begin)


def append(path, line):
    """Others may write to the file at the same time, and who was here before may have been killed within a line."""
    try:
        with open(path, "ab+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            mend(file)
            file.write(json.dumps(line).encode() + b"\n")
    except OSError as reason:
        raise Misused(f"{path} cannot be written: {reason.strerror}") from None


def keys_saved(path):
    """Of the runs that need not be measured again. Misused when they are of another state of the program."""
    lines = [line for line in lines_saved(path) if line.get("bench") in ("scale", "tune")]
    others = {line["environment"].get("commit", "unknown") for line in lines} - {commit()}
    if others:
        raise Misused(f"{path} holds runs of commit {', '.join(sorted(others))}, and this is {commit()}: give another --output")
    return {line["environment"].get("key") for line in lines}


def free_folder(path):
    """A run that was broken off leaves its folder, which nobody overwrites."""
    n, name = 2, path
    while os.path.exists(name):
        name, n = f"{path}-{n}", n + 1
    return name


def length_of(given):
    """What was asked for: of weak scaling every point does other steps in an epoch."""
    n, unit = (given.steps, "step") if given.steps else (f"{given.epochs or 1:g}", "epoch")
    return f"{n} {unit}{'s'[:str(n) != '1']}"


def line_of(run, given, folder, run_record, end, evaluations):
    p = run.point
    predicted = end.get("predicted") or {}
    return {
        "bench": "scale", "schema": 1, "kind": p.kind, "method": p.method, "network": p.network, "seed": run.seed,
        "repeat": run.repeat, "ranks": p.ranks, "workers": run_record["workers"],
        "curvature_ranks": run_record["curvature_ranks"],
        "hosts": len({host["name"] for host in run_record["environment"]["hosts"]}), "threads": p.threads, "batch": p.batch,
        "lr": p.lr or "", "options": shlex.join(given.more), "length": length_of(given), "steps": end["step"],
        "wall_s": end["wall_s"], "core_s": p.ranks * p.threads * end["wall_s"], "cpu_s": end["cpu_s"],
        "step_s": end["step_median_s"], "step_p99_s": end["step_p99_s"], "accuracy": end["test_accuracy"],
        "test_loss": end["test_loss"], "target": given.target or None,
        "target_s": evaluations[-1]["wall_s"] if end["target_reached"] else None,
        "predicted_step_s": predicted.get("step_s"), "wait_share": end["waited_share"], "run": folder,
    }


def line_of_rate(run, given, folder, run_record, end):
    p = run.point
    return {
        "bench": "tune", "schema": 1, "kind": p.kind, "method": p.method, "network": p.network, "seed": run.seed,
        "repeat": run.repeat, "batch": p.batch, "lr": p.lr, "options": shlex.join(given.more), "steps": run_record["total_steps"],
        "accuracy": end and end["test_accuracy"], "test_loss": end and end["test_loss"], "is_finite": end is not None,
        "run": folder,
    }


def measure(run, given, built):
    """The line of a checked run. Refused when it did not do what was asked; built: the programs as they were at first."""
    request, before, is_tuning = request_of(run, given), machine_state(), run.point.kind == "tune"
    folder = free_folder(os.path.join(given.folder, folder_name(run, given)))
    try:
        run_record, end, _, evaluations = check(request, start_in(folder, request))
    except Failed as failed:
        if not is_tuning or failed.exit_code != EXIT_NOT_FINITE:
            raise
        run_record, end, evaluations = lines_saved(os.path.join(folder, "metrics.jsonl"))[0], None, []
    if run_record["curvature_ranks"] != run.point.curvature_ranks:
        raise Refused(f"{run.name()}: {run_record['curvature_ranks']} curvature ranks ran")
    if built_at(given.build) != built:
        raise Misused(f"programs in {given.build} were built anew while they were measured: begin again, with another --output")
    told = environment_of(request, folder, run_record, before) | {"key": key_of(run, given)}
    line = line_of_rate(run, given, folder, run_record, end) if is_tuning else line_of(run, given, folder, run_record, end, evaluations)
    return line | {"environment": told}


def check_writable(path):
    """Before hours are spent."""
    try:
        with open(path, "ab"):
            pass
    except OSError as reason:
        raise Misused(f"--output {path} cannot be written: {reason.strerror}") from None


def tell(line):
    said = [f"{1e3 * line['wall_s'] / line['steps']:.3g} ms a step"] if "wall_s" in line else []
    said += [] if line["accuracy"] is None else [f"{line['accuracy']:.2f} %"]
    said += [] if line.get("is_finite", True) else ["the loss was not finite"]
    say(f"bench/scale:   {', '.join(said)}")


def run_all(given, wanted):
    """Measures what the file does not have yet; how many of them were refused."""
    saved, built = keys_saved(given.output), built_at(given.build)
    left = [run for run in wanted if key_of(run, given) not in saved]
    if len(left) < len(wanted):
        say(f"bench/scale: {len(wanted) - len(left)} of {len(wanted)} runs are in {given.output} already")
    check_writable(given.output)
    done, refused = [], 0
    for i, run in enumerate(left):
        rest = time_left(done, left[i:], lambda item: item.point)
        say(f"bench/scale: run {i + 1} of {len(left)}, {run.name()}{clock(rest)}")
        begin = time.monotonic()
        try:
            line = measure(run, given, built)
            append(given.output, line)
            tell(line)
        except Refused as reason:
            if isinstance(reason, Failed) and reason.exit_code in EXITS_OF_ALL:
                raise Misused(str(reason)) from None
            refused += 1
            say(f"bench/scale: not counted: {reason}")
        done.append((run, time.monotonic() - begin))
    return refused


def show_commands(given, wanted):
    for run in wanted:
        print(shown(command(request_of(run, given), os.path.join(given.folder, folder_name(run, given)))))
