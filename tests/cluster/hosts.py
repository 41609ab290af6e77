#!/usr/bin/env python3
"""Hosts on one machine, each a network namespace with its own name, address and cable to a common switch.

They share the file system, as nodes of a cluster do. Cables can be cut, hosts can lose their power. Nothing touches the
machine's own network. Needs root.

  tests/cluster/hosts.py 4 -- mpirun -n 4 build/curvd train     # typed on the first of 4 hosts, which are removed again
  tests/cluster/hosts.py 2                                      # a shell there
"""
import argparse
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SUBNET = "10.77.0"  # within the namespaces alone
TOOLS = ["ip", "nsenter", "unshare", "mount"]

# $1: the host; the rest: a command. Its name, /etc/hosts and network are those of the host.
ENTER = """#!/bin/sh
host=$1
shift
hidden=$(cat "{folder}/hidden-$host" 2>/dev/null)
exec nsenter --net=/run/netns/{prefix}$host unshare --uts --mount --propagation private -- \\
  sh -c 'echo "$0" >/proc/sys/kernel/hostname && mount --bind "{folder}/hosts" /etc/hosts &&
         if test "$1"; then mount -t tmpfs none "$1"; fi && shift && exec "$@"' "$host" "$hidden" "$@"
"""

# What Open MPI calls in the place of ssh: options, the host, words of a shell command. Nobody listens on the port, so a
# host that can be reached refuses. Like ssh this ends with 255 where it cannot, takes no variables along but what a
# user's profile would set, and stays where it was called: when the host loses its power, no connection is closed, and
# it waits on.
AGENT = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
said=$(LC_ALL=C timeout 5 bash -c ": </dev/tcp/$host/22" 2>&1)
case $said in
  *refused*) ;;
  *) echo "no way to $host: ${{said##*: }}" >&2 && exit 255 ;;
esac
cd /
env -i PATH="$PATH" HOME="$HOME" OPENBLAS_NUM_THREADS=1 "{folder}/enter" "$host" sh -c "$*"
code=$?
test ! -e "{folder}/off-$host" || exec sleep 3600
exit $code
"""


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout


def reason_not():
    """Why there can be no such hosts here; None: there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not found: {', '.join(missing)} (Debian: iproute2, util-linux, mount)"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "sh", "-c",
                            "ip link add one type veth peer name two && ip link add three type bridge && mount -t tmpfs none /mnt"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stdout.strip()}"


def remove_namespace(name):
    for pid in ip("netns", "pids", name, check=False).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    ip("netns", "delete", name, check=False)


def remove_orphans():
    """Namespaces of processes that were killed before they could remove them."""
    for name in re.findall(r"^(curvd(\d+)-\S+)", ip("netns", "list", check=False), re.M):
        if not os.path.exists(f"/proc/{name[1]}"):
            remove_namespace(name[0])


class Hosts:
    """with Hosts(4, folder) as hosts: n0 to n3, with so many slots each. Files about them are in the folder."""

    numbers = itertools.count()  # several at a time do not see each other

    def __init__(self, n, folder, slots=2):
        self.n, self.folder, self.slots = n, os.path.abspath(folder), slots
        self.prefix = f"curvd{os.getpid()}-{next(Hosts.numbers)}-"
        self.names = [f"n{i}" for i in range(n)]

    def __enter__(self):
        remove_orphans()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_):
        self._remove()

    def _make(self):
        os.makedirs(self.folder, exist_ok=True)
        switch = self.prefix + "switch"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for i, host in enumerate(self.names):
            namespace = self.prefix + host
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            ip("-n", switch, "link", "set", host, "master", "bridge", "up")
            ip("-n", namespace, "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
        self._write("hosts", "127.0.0.1 localhost\n" + "".join(f"{self.address(i)} {h}\n" for i, h in enumerate(self.names)))
        self._write("hostfile", "".join(f"{host} slots={self.slots}\n" for host in self.names))
        self._write("enter", ENTER.format(prefix=self.prefix, folder=self.folder), 0o755)
        self._write("agent", AGENT.format(folder=self.folder), 0o755)

    def _write(self, name, text, mode=0o644):
        path = self.file(name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)

    def _remove(self):
        for name in [*self.names, "switch"]:
            remove_namespace(self.prefix + name)

    def address(self, i):
        return f"{SUBNET}.{10 + i}"

    def file(self, name):
        """hostfile; agent: what mpirun calls in the place of ssh; enter HOST COMMAND..."""
        return os.path.join(self.folder, name)

    def words(self, host, command):
        """The command that runs this one there."""
        return [self.file("enter"), host, *command]

    def way_in(self):
        """The variables that let mpirun into these hosts, as a user's ssh would. Open MPI's files are in the folder: those
        of hosts without power go with it."""
        return {"OMPI_MCA_plm": "rsh", "OMPI_MCA_plm_rsh_agent": self.file("agent"), "OMPI_MCA_pml": "ob1",
                "OMPI_MCA_orte_tmpdir_base": self.folder, "OMPI_MCA_btl_vader_backing_directory": self.folder}

    def environment(self):
        """For a mpirun without arguments and what it starts: over these hosts, by these cables. Hosts share the cores of
        this machine, so ranks that wait leave them to the others."""
        return {**os.environ, **self.way_in(), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "OPENBLAS_NUM_THREADS": "1", "OMPI_MCA_orte_default_hostfile": self.file("hostfile"),
                "OMPI_MCA_btl": "self,vader,tcp", "OMPI_MCA_btl_tcp_if_include": "eth0",
                "OMPI_MCA_oob_tcp_if_include": "eth0", "OMPI_MCA_hwloc_base_binding_policy": "none",
                "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}

    def sent_bytes(self, host):
        """By its cable so far."""
        return json.loads(ip("-n", self.prefix + "switch", "-s", "-j", "link", "show", host))[0]["stats64"]["rx"]["bytes"]

    def pids(self, host):
        return [int(pid) for pid in ip("netns", "pids", self.prefix + host, check=False).split()]

    def hide(self, host, folder):
        """What is started there from now on finds this folder empty."""
        self._write(f"hidden-{host}", folder)

    def cut(self, host):
        """Pulls the cable: nothing is told to anybody."""
        ip("-n", self.prefix + "switch", "link", "set", host, "down")

    def heal(self, host):
        ip("-n", self.prefix + "switch", "link", "set", host, "up")

    def power_off(self, host):
        """All that runs there is gone, and nobody hears a word of it."""
        self.cut(host)
        self._write(f"off-{host}", "")
        for pid in self.pids(host):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def end_by_signals():
    """SIGTERM and SIGHUP leave the blocks that hold hosts, as Ctrl-C does; a second signal does not disturb what removes
    them. What nohup ignores stays ignored."""
    signals = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]

    def end(number, _):
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in signals:
        signal.signal(each, end)


def main(cluster=Hosts, why_not=reason_not, doc=__doc__):
    name = os.path.basename(sys.argv[0])
    parser = argparse.ArgumentParser(prog=f"tests/cluster/{name}", description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", type=int, help="how many, 1 to 64")
    parser.add_argument("--slots", type=int, default=2, help="ranks on each host, for mpirun, or cores, for SLURM (2)")
    parser.add_argument("command", nargs="*", help="behind --: run on the first host (a shell)")
    # by hand, for the command may have a -- of its own
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = parser.parse_args(sys.argv[1:at])
    given.command += sys.argv[at + 1:]
    if not 1 <= given.hosts <= 64:
        parser.error("1 to 64 hosts are possible")
    why = why_not()
    if why:
        sys.exit(f"{name}: {why}")
    end_by_signals()
    with tempfile.TemporaryDirectory(prefix="curvd-hosts-") as folder, cluster(given.hosts, folder, given.slots) as hosts:
        begin = time.monotonic()
        command = given.command or [os.environ.get("SHELL", "/bin/sh")]
        code = subprocess.run(hosts.words("n0", command), env=hosts.environment()).returncode
        print(f"{name}: code {code} after {time.monotonic() - begin:.1f} s", file=sys.stderr)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
