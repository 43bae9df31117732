"""A real SLURM of one node, in a folder of its own and on loopback: munge, a controller, and a daemon that runs jobs.

Its daemons are children of the process that starts it, and end with it. They need root, and Debian's packages
slurmctld, slurmd, slurm-client and munge.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ensemble.support import end_with_parent
from tests.support.processes import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "scontrol", "sinfo")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
READY_S = 60
GPUS = 2

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
KillWait=5
GresTypes=gpu
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:{gpus}
PartitionName=all Nodes=one Default=YES MaxTime=INFINITE State=UP
"""


def what_is_lacking() -> str | None:
    """Why no SLURM can be started here, in a sentence; None where it can."""
    if sys.platform != "linux":
        return "SLURM runs on Linux only"
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "SLURM's daemons run jobs as root only"
    return None


class Slurm:
    """A SLURM that is up. ``environment`` is that of its commands and jobs, which find it and this very project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = {"PATH": PATH, "PYTHONPATH": str(ROOT), "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment = {**os.environ, **own}

    def run(self, *command: object, **variables: str) -> str:
        """What one of SLURM's commands says on stdout. Raises AssertionError, with stderr, where it fails."""
        words, environment = [str(word) for word in command], {**self.environment, **variables}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=READY_S)
        if done.returncode:
            raise AssertionError(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, log: Path, script: Path, *arguments: object, **variables: str) -> str:
        """The id of a job that runs a script in the project's folder; what it says is in the log."""
        options = "--parsable", f"--chdir={ROOT}", f"--output={log}"
        return self.run("sbatch", *options, script, *arguments, **variables).strip().partition(";")[0]

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, …: of an array, of each of its jobs; none where it is forgotten."""
        return " ".join(self.run("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job).split())

    def field(self, job: str, name: str) -> str:
        """A field that ``scontrol show job`` tells of a job."""
        told = dict(word.partition("=")[::2] for word in self.run("scontrol", "show", "job", job).split())
        return told[name]

    def kill(self, job: str) -> None:
        """Send SIGKILL to the processes of a job: ``scancel`` would ask them to end first."""
        listed = [line.split() for line in self.run("scontrol", "listpids", job).splitlines()[1:]]
        for pid in [int(words[0]) for words in listed if words[0] != "-1"]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def running(self, *names: str) -> list[str]:
        """The ids of running jobs of these names; those of an array have ids of their own."""
        return self.run("squeue", "--noheader", "--states=RUNNING", f"--name={','.join(names)}", "--format=%A").split()

    def wait(self, job: str, *states: str, timeout_s: float = 120) -> None:
        """Until the job is in one of the states."""
        until(lambda: self.state(job) in states, f"job {job} is never {' or '.join(states)}", timeout_s)


def until(holds: Callable[[], bool], complaint: str, timeout_s: float = READY_S) -> None:
    """Wait until it holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(complaint)
        time.sleep(0.1)


@contextmanager
def one_node_slurm() -> Iterator[Slurm]:
    """A SLURM that is up for as long as the context; its jobs are ended with it."""
    # sockets have short paths
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name, ExitStack() as daemons:
        folder = Path(name)
        _configure(folder)
        slurm = Slurm(folder)
        for command in (_munged(folder), ["slurmctld", "-D"], ["slurmd", "-D", "-N", "one"]):
            daemons.enter_context(_daemon(command, slurm))
        until(lambda: slurm.run("sinfo", "--noheader", "--format=%t").strip() == "idle", f"not idle: {_log(folder)}")
        yield slurm
        slurm.run("scancel", "--user", "root")
        until(lambda: not slurm.run("squeue", "--noheader"), "jobs do not end")


def _configure(folder: Path) -> None:
    for part in ("state", "spool"):
        (folder / part).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    controller_port, node_port = _free_ports(2)
    (folder / "slurm.conf").write_text(
        CONF.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            gpus=GPUS,
        )
    )
    devices = ("/dev/null", "/dev/zero")
    (folder / "gres.conf").write_text("".join(f"NodeName=one Name=gpu File={device}\n" for device in devices))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def _munged(folder: Path) -> list[str]:
    places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return ["munged", "--foreground", "--force", *(f"--{key}={folder}/munge.{end}" for key, end in places.items())]


@contextmanager
def _daemon(command: list[str], slurm: Slurm) -> Iterator[None]:
    """The daemon, running; it has ended afterwards."""
    program = shutil.which(command[0], path=PATH)
    assert program is not None
    with (slurm.folder / f"{command[0]}.out").open("wb") as said:
        process = subprocess.Popen(
            [program, *command[1:]],
            env=slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            preexec_fn=end_with_parent,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _log(folder: Path) -> str:
    files = sorted([*folder.glob("*.out"), *folder.glob("*.log")])
    return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-2000:]}" for file in files)
