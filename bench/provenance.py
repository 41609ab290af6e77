"""All that a run needs to be done again, and what its numbers belong to."""
import datetime
import glob
import hashlib
import os
import platform
import re

from common import ROOT, commit, environment, machine, shown
from train_run import command

VARIABLES = re.compile(r"(SLURM|OMPI_MCA|PMIX_MCA|PRTE_MCA|OMP|GOMP|OPENBLAS|MKL|DNNL|ONEDNN)_|CURVD_DATA_DIR$")
SECRETS = re.compile(r"JWT|TOKEN|PASSWORD|KEY")
CACHE = re.compile(r"^(CMAKE_BUILD_TYPE|CMAKE_C_COMPILER|CURVD_\w+):\w+=(.*)$", re.MULTILINE)
# of the program's main file: the cache does not have what CMakeLists.txt adds
FLAGS = (("build.ninja", r"^build CMakeFiles/curvd\.dir/src/train/main\.c\.o:(?:.*\n)(?:  .*\n)*?  FLAGS = (.*)$"),
         ("CMakeFiles/curvd.dir/flags.make", r"^C_FLAGS = (.*)$"))


def text_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def chosen(text):
    """"always [madvise] never" -> "madvise" """
    found = re.search(r"\[(\S+)\]", text or "")
    return found.group(1) if found else text


def build_of(folder):
    """Compiler and settings that the build folder remembers."""
    folder = os.path.join(ROOT, folder)
    cache = dict(CACHE.findall(text_of(os.path.join(folder, "CMakeCache.txt")) or ""))
    about = next(iter(glob.glob(os.path.join(folder, "CMakeFiles", "*", "CMakeCCompiler.cmake"))), "")
    for name in ("ID", "VERSION"):
        found = re.search(rf'set\(CMAKE_C_COMPILER_{name} "(.*)"\)', text_of(about) or "")
        cache[f"CMAKE_C_COMPILER_{name}"] = found.group(1) if found else None
    found = [re.search(pattern, text_of(os.path.join(folder, name)) or "", re.MULTILINE) for name, pattern in FLAGS]
    return cache | {"flags": next((f.group(1).strip() for f in found if f), None)}


def config_hash(path):
    """Of the resolved configuration, without the folder that every run has for itself."""
    lines = [line for line in (text_of(path) or "").splitlines() if not line.startswith("run_dir:")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def machine_state():
    """Of the machine that starts the ranks."""
    cpu = "/sys/devices/system/cpu"
    return {"machine": machine(), "cores": os.cpu_count(), "cores_allowed": len(os.sched_getaffinity(0)),
            "governor": text_of(f"{cpu}/cpu0/cpufreq/scaling_governor"),
            "no_turbo": text_of(f"{cpu}/intel_pstate/no_turbo"), "smt": text_of(f"{cpu}/smt/control"),
            "transparent_hugepages": chosen(text_of("/sys/kernel/mm/transparent_hugepage/enabled")),
            "kernel": platform.release(), "load_before": os.getloadavg()[0]}


def environment_of(request, folder, run, before):
    """run: first record of metrics.jsonl; before: machine_state before the run."""
    config = os.path.join(folder, "config.yaml")
    kept = {name: value for name, value in sorted(environment(request.threads).items())
            if VARIABLES.match(name) and not SECRETS.search(name)}
    return {"command": shown(command(request, folder)), "config": config, "config_hash": config_hash(config), "commit": commit(),
            "version": run["version"], "libraries": run["build"], "build": build_of(request.build), "hosts": run["environment"]["hosts"],
            **before, "scheduler": {name: value for name, value in kept.items() if name.startswith("SLURM_")},
            "variables": {name: value for name, value in kept.items() if not name.startswith("SLURM_")},
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
