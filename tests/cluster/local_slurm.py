"""A Slurm cluster on this machine, for tests: daemons on loopback, everything in one folder, no accounting.

Each node is a `slurmd` of its own, with GPUs that are no GPUs (/dev/null), so that what a job asked for can be seen.
`start` and `stop` the whole, or take single parts away: `kill_node`, `kill_controller`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
_SBIN = "/usr/sbin"
_COMMANDS = ("srun", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare")


def missing() -> str:
    """What has to be installed before a cluster can start here; empty if nothing."""
    absent = [name for name in DAEMONS if _which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found (tests/cluster/install-slurm)"
    if os.geteuid() != 0:
        return "daemons of Slurm run as root here"
    return ""


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}{_SBIN}")


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds; `TimeoutError` says what did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds} s")
        time.sleep(0.2)


class LocalSlurm:
    """A cluster of `nodes`, each with `cpus`, `memory_mb` and `gpus`.

    Attributes
    ----------
    environment : dict
        For programs that use the cluster.
    """

    def __init__(self, folder: Path, *, nodes: int = 2, cpus: int = 2, memory_mb: int = 6000, gpus: int = 1) -> None:
        if len(str(folder)) > 80:
            raise ValueError(f"{folder} is too long for the names of sockets")
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._sizes = {"cpus": cpus, "memory_mb": memory_mb, "gpus": gpus}
        for name in ("run", "log", "state", "dev", "etc", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "etc" / "slurm.conf"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}{_SBIN}",
        }
        self.environment.pop("TMPDIR", None)

    def start(self) -> None:
        """Write the configuration, start all daemons, and wait until the nodes take jobs."""
        self._configure()
        self._munge()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_for(lambda: len(self.idle()) == len(self.nodes), 120, "all nodes to come up")

    # ---- parts ----------------------------------------------------------------------------------------------------
    def start_controller(self) -> None:
        """Start slurmctld; it goes on with the state that the last one left."""
        self._start("slurmctld", "-f", self.environment["SLURM_CONF"])

    def kill_controller(self) -> None:
        """Kill slurmctld as a crash would."""
        self._end("slurmctld", signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        (self.folder / "state" / node).mkdir(exist_ok=True)
        self._start("slurmd", "-N", node, "-f", self.environment["SLURM_CONF"])

    def kill_node(self, node: str) -> None:
        """Lose a node: its slurmd and all that ran there are gone at once."""
        self._end(f"slurmd-{node}", signal.SIGKILL)
        for pid in self._of_jobs(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Cancel the jobs and stop the daemons."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.call("scancel", "--full", *self.jobs(), check=False)
            wait_for(lambda: not self.jobs(), 20, "all jobs to end")
        for name in (*(f"slurmd-{node}" for node in self.nodes), "slurmctld", "munged"):
            self._end(name, signal.SIGTERM)
        for node in self.nodes:
            for pid in self._of_jobs(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ---- questions ------------------------------------------------------------------------------------------------
    def call(self, *command: str, check: bool = True) -> str:
        """Output of a command of Slurm."""
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
        return done.stdout

    def idle(self) -> list[str]:
        """Nodes that take jobs."""
        return sorted(set(self.call("sinfo", "-h", "-N", "-t", "idle,mix,alloc", "-o", "%N", check=False).split()))

    def jobs(self, state: str = "pending,running,completing") -> list[str]:
        """Numbers of jobs."""
        return self.call("squeue", "-h", "-t", state, "-o", "%A", check=False).split()

    def node_of(self, job: str) -> str:
        """Where a job runs; empty before."""
        return self.call("squeue", "-h", "-j", job, "-o", "%N", check=False).strip()

    def log(self) -> list[dict[str, str]]:
        """Jobs that ended, with what they asked for, from the log that Slurm writes without accounting."""
        path = self.folder / "log" / "jobcomp.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]

    # ---- how -------------------------------------------------------------------------------------------------------
    def _configure(self) -> None:
        folder, host, port = self.folder, socket.gethostname().partition(".")[0], _free_ports(len(self.nodes) + 2)
        key = folder / "etc" / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        gpus = self._sizes["gpus"]
        for number in range(gpus):
            (folder / "dev" / f"gpu{number}").symlink_to("/dev/null")  # Slurm wants a device
        gres = f"Name=gpu File={folder}/dev/gpu[0-{gpus - 1}]\n" if gpus else ""
        (folder / "etc" / "gres.conf").write_text(gres)
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 2 + number}"
            for number, node in enumerate(self.nodes)
        )
        (folder / "etc" / "slurm.conf").write_text(
            _CONFIGURATION.format(
                folder=folder, host=host, port=port, nodes=nodes, **self._sizes, gres=f"Gres=gpu:{gpus}" if gpus else ""
            )
        )
        for name in _COMMANDS:
            # The plug-in's job step drops SLURM_CONF from the environment of its `srun`, so each command brings it.
            if (real := _which(name)) is not None:
                wrapper = folder / "bin" / name
                wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/etc/slurm.conf exec {real} "$@"\n')
                wrapper.chmod(0o755)

    def _munge(self) -> None:
        run, log = self.folder / "run", self.folder / "log"
        self._start(
            "munged", "--force", f"--key-file={self.folder}/etc/munge.key", f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log",
            f"--seed-file={self.folder}/state/munge.seed", "--origin=127.0.0.1",
        )  # fmt: skip
        wait_for((run / "munge.sock").exists, 20, "munged to start")

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / "log" / "start.log").open("a") as log:
            subprocess.run(
                [_which(name), *arguments], env=self.environment, stdout=log, stderr=log, check=True, timeout=60
            )

    def _end(self, name: str, how: signal.Signals) -> None:
        """End the daemon of a pid file, if it is ours; wait for it, and kill it in the end."""
        file = self.folder / "run" / f"{name}.pid"
        try:
            pid = int(file.read_text())
            ours = str(self.folder) in _words_of(pid)
        except (OSError, ValueError):
            return
        if ours:
            os.kill(pid, how)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: not _words_of(pid), 20, "a daemon to end")
            if _words_of(pid):
                os.kill(pid, signal.SIGKILL)
        file.unlink(missing_ok=True)

    def _of_jobs(self, node: str) -> list[int]:
        """Processes of this cluster's jobs on a node, and the step daemons that watch over them."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            words = _words_of(int(entry.name)) + _words_of(int(entry.name), "environ")
            if str(self.folder) in words and (
                ("SLURM_JOB_ID=" in words and f"SLURMD_NODENAME={node}" in words) or "slurmstepd" in words
            ):
                found.append(int(entry.name))
        return found


def _words_of(pid: int, what: str = "cmdline") -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _free_ports(number: int, first: int = 17100) -> int:
    """The first of so many adjacent ports that nobody listens on."""
    for base in range(first, 32000, 50):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(base, base + number):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base
    raise OSError("no free ports")


_CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/state/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=3
MinJobAge=300
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory={memory_mb} {gres} State=UNKNOWN
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes=ALL MaxTime=1-00:00:00 State=UP
"""
