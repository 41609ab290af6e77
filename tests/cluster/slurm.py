#!/usr/bin/env python3
"""A SLURM cluster on one machine: slurmctld on the host n0, where commands are typed, slurmd on n1, n2 and so on.

They are the hosts of hosts.py. Everything is SLURM's own but accounting and the confinement of jobs (no systemd, no
cgroup), and keeps its files, and a key for munge, in one folder. Needs root.

  tests/cluster/slurm.py 4 -- srun -N 4 hostname      # typed on n0; the cluster is removed again
  tests/cluster/slurm.py 2                            # a shell there
"""
import os
import shutil
import subprocess
import time

import hosts

SERVERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
TOOLS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel"]
UP_S = 30  # until all nodes are idle; it takes about a second

# cred_expire: a job that is queued again waits for it, 120 s by default. TmpFS: PMIx keeps files there under names of the
# job alone, and hosts here share /tmp.
CONFIGURATION = """ClusterName=curvd
SlurmctldHost=n0
SlurmUser=root
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait=5
NodeName=n[1-{nodes}] CPUs={cpus} RealMemory=1000
PartitionName=work Nodes=ALL Default=YES MaxTime=60 State=UP
"""

# Nothing here is confined, but slurmd looks for cgroups when it starts; the first version's are not touched before use.
CGROUPS = "CgroupPlugin=cgroup/v1\n"


def reason_not():
    """Why there can be no such cluster here; None: there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=SERVERS) is None]
    if missing:
        return f"not found: {', '.join(missing)} (Debian: slurm-client, slurmctld, slurmd, munge)"
    return hosts.reason_not()


class Slurm(hosts.Hosts):
    """with Slurm(4, folder) as slurm: the nodes n1 to n4, with so many cores each, all idle; more: lines for slurm.conf.
    Logs are in the folder."""

    def __init__(self, n, folder, slots=2, more=""):
        super().__init__(n + 1, folder, slots)
        self.nodes, self.servers, self.more = self.names[1:], [], more

    def _make(self):
        super()._make()
        for name in ("munge", "state", *(f"{use}-{node}" for use in ("spool", "tmp") for node in self.nodes)):
            os.makedirs(self.file(name), mode=0o700)
        with open(self.file("munge/key"), "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as f:
            f.write(os.urandom(128))
        self._write("cgroup.conf", CGROUPS)
        self._write("slurm.conf", self.more + CONFIGURATION.format(folder=self.folder, nodes=len(self.nodes), cpus=self.slots))
        self._serve("n0", ["munged", "--foreground", "--force", "--key-file", self.file("munge/key"), "--socket",
                           self.file("munge/socket"), "--pid-file", self.file("munge/pid"), "--log-file",
                           self.file("munge/log"), "--seed-file", self.file("munge/seed")])
        self._wait("munged", lambda: os.path.exists(self.file("munge/socket")))
        self._serve("n0", ["slurmctld", "-D", "-c"])
        for node in self.nodes:
            self._serve(node, ["slurmd", "-D", "-N", node])
        self._wait("slurmd", lambda: self.type("sinfo", "-h", "-N", "-t", "idle", "-o", "%N") == (0, self.nodes))

    def _remove(self):
        for _, server in self.servers:
            server.kill()
            server.wait()
        super()._remove()

    def _serve(self, host, command):
        with open(self.file(f"{command[0]}-{host}.log"), "wb") as log:
            self.servers.append((f"{command[0]}-{host}.log", subprocess.Popen(
                self.words(host, command), env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)))

    def _wait(self, what, is_up):
        limit = time.monotonic() + UP_S
        while not is_up():
            ended = [log for log, server in self.servers if server.poll() is not None]
            if ended or time.monotonic() > limit:
                name = next(iter(ended), self.servers[-1][0])
                with open(self.file(name), errors="replace") as log:
                    raise RuntimeError(f"{what} is not ready; {name} ends with: {log.read()[-600:]}")
            time.sleep(0.05)

    def environment(self):
        """For what is typed on n0. Jobs inherit it: mpirun finds its hosts by itself there."""
        others = {"OMPI_MCA_orte_default_hostfile", "OMPI_MCA_plm", "OMPI_MCA_plm_rsh_agent",
                  "OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_rmaps_base_oversubscribe"}
        return {**{name: value for name, value in super().environment().items() if name not in others},
                "SLURM_CONF": self.file("slurm.conf"), "PATH": SERVERS}

    def type(self, *command):
        """Types a command on n0: its exit code, and the lines that it says."""
        done = subprocess.run(self.words("n0", command), env=self.environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout.splitlines()


if __name__ == "__main__":
    hosts.main(Slurm, reason_not, __doc__)
