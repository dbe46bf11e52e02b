"""A real SLURM of one node on this machine: munged, slurmctld and slurmd in a folder of their own, on loopback.

By hand, until Ctrl-C: `python tests/cluster/slurm.py`. It prints what to export before calling sbatch or snakemake.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
# Debian keeps them where only root's PATH leads.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# Seconds within which a daemon has to answer, and what runs has to end.
PATIENCE = 20
# No accounting, and processes are found in /proc: it works in a container without systemd and control groups. Memory
# and processors are counted, not measured, so a small machine can take what a large one is asked for.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
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
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
OverTimeLimit=0
KillWait=2
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why SLURM cannot be started here, or None."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "SLURM's daemons need root"
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Starts a daemon, and ends it when its own input does: with the process that holds the other end, however that ends.
KEEPER = 'exec 3<&0; "$@" < /dev/null 3<&- & read -r nothing <&3; kill $!; wait'


@contextmanager
def daemon(name: str, *arguments: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A daemon in the foreground of a process group of its own, ended on leaving."""
    command = ["sh", "-c", KEEPER, "sh", shutil.which(name, path=PATH), *arguments]
    streams = {"stdin": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, start_new_session=True, **streams)
    try:
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def says(command: str, environment: dict[str, str]) -> str:
    """What a command prints; its error, where it fails."""
    done = subprocess.run(command.split(), env=environment, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"error: {done.stderr}"


def wait_until(condition, what: str, logs: Path) -> None:
    """Waits; raises RuntimeError with the ends of all logs where it waits in vain."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            ends = "".join(f"\n--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(logs.glob("*.log")))
            raise RuntimeError(f"{what} after {PATIENCE} s{ends}")
        time.sleep(0.1)


def write_configuration(folder: Path, gpus: int) -> None:
    host = socket.gethostname().split(".")[0]
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    ports = {"controller_port": free_port(), "node_port": free_port()}
    text = CONFIGURATION.format(host=host, folder=folder, gpus=gpus, **ports)
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    # SLURM hands out files as GPUs and looks no further: any device's file will do.
    lines = [f"Name=gpu File={file}\n" for file in ("/dev/null", "/dev/zero", "/dev/full")[:gpus]]
    (folder / "gres.conf").write_text("".join(lines))
    # Snakemake's jobstep removes SLURM_CONF from the environment of the srun that it calls.
    srun = folder / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)


def end_jobs(environment: dict[str, str]) -> None:
    """Cancels what still waits or runs and waits until it is gone: its processes outlive the daemons else."""
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
    deadline = time.monotonic() + PATIENCE
    while says("squeue --noheader", environment).strip() and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def cluster(gpus: int = 0) -> Iterator[dict[str, str]]:
    """Starts a cluster of one node with up to 3 supposed GPUs; gives the environment in which sbatch finds it.

    Raises RuntimeError with the daemons' logs where one does not start. On leaving, jobs and daemons are ended and the
    folder is removed. Nothing outside that folder is written: not /etc/slurm, not /run.
    """
    with ExitStack() as stack:
        # A socket's path may hold 107 characters, so not in a test's long folder.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        write_configuration(folder, gpus)
        environment = {**os.environ, "PATH": f"{folder}/bin:{PATH}", "SLURM_CONF": f"{folder}/slurm.conf"}
        of_munge = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munge.pid",
            "seed-file": "munge.seed",
        }
        places = [f"--{option}={folder}/{file}" for option, file in {**of_munge, "log-file": "munged.log"}.items()]

        def start(name: str, *arguments: str) -> None:
            stack.enter_context(daemon(name, *arguments, log=folder / f"{name}-out.log", environment=environment))

        start("munged", "--foreground", "--force", *places)
        wait_until((folder / "munge.socket").exists, "munged does not answer", folder)
        start("slurmctld", "-D")
        wait_until(lambda: "UP" in says("scontrol ping", environment), "slurmctld does not answer", folder)
        start("slurmd", "-D")
        wait_until(lambda: "idle" in says("sinfo --noheader", environment), "slurmd does not answer", folder)
        stack.callback(end_jobs, environment)
        yield environment


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), cluster(gpus=2) as environment:
        print(f"export SLURM_CONF={environment['SLURM_CONF']} PATH={environment['PATH']}", flush=True)
        signal.pause()
