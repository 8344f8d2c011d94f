"""A real Slurm on the loopback device, from Debian's packages slurm-wlm and munge, without accounting."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.helpers.workflow import ROOT

ETC = Path("/etc/slurm")
HOSTS = Path("/etc/hosts")
SBIN = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
GPUS = 2


def why_not() -> str | None:
    """Why no Slurm can be started here, or None."""
    missing = [
        name for name in ("slurmctld", "slurmd", "munged", "sbatch", "srun") if not shutil.which(name, path=SBIN)
    ]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "a Slurm of its own must be started by root"
    if (ETC / "slurm.conf").exists():
        return f"{ETC}/slurm.conf is there already: this machine has a Slurm of its own"
    return None


@contextmanager
def cluster(folder: Path, *, nodes: int = 1) -> Iterator[None]:
    """A running Slurm with the partitions cpu and gpu, whose nodes have two GPUs each that are only device files.

    Each node is a slurmd of its own. Several nodes are called node1, node2, ..., names that /etc/hosts gets meanwhile.

    The step that runs a job inside Slurm loses SLURM_CONF, so the configuration must be in the default place: links in
    /etc/slurm, removed at the end.
    """
    folder.mkdir()
    name = socket.gethostname().split(".")[0]
    names = [name] if nodes == 1 else [f"node{number}" for number in range(1, nodes + 1)]
    hosts = HOSTS.read_text()
    links = _configure(folder, names)
    socket_of_munge = folder / "munge.socket"
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    own = {"--key-file": key, "--socket": socket_of_munge, "--pid-file": folder / "munge.pid"}
    own |= {"--log-file": folder / "munge.log", "--seed-file": folder / "munge.seed"}
    started: list[subprocess.Popen[bytes]] = []
    try:
        options = [f"{option}={path}" for option, path in own.items()]
        started.append(_start(folder, "munged", "--foreground", "--force", *options))
        _wait(folder, socket_of_munge.exists, "munged")
        if nodes > 1:
            HOSTS.write_text(f"{hosts.rstrip()}\n127.0.0.1 {' '.join(names)}\n")
        started.append(_start(folder, "slurmctld", "-D"))
        started += [_start(folder, "slurmd", "-D", "-N", node) for node in names]
        _wait(folder, lambda: _ask("sinfo", "--noheader", "--format=%T %D").strip() == f"idle {nodes}", "Slurm")
        yield
    finally:
        _ask("scancel", "--full", "--user=root")
        _stop(started)
        for link in links:
            link.unlink(missing_ok=True)
        if nodes > 1:
            HOSTS.write_text(hosts)


def slurm_profile(folder: Path, **stages: dict[str, Any]) -> Path:
    """The repository's Slurm profile with what a site must edit: here small nodes, no accounting, one core per job.

    Stages use no GPU, or what is given for them.
    """
    content: dict[str, Any] = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    content |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 5, "latency-wait": 10}
    content["default-resources"] |= {"mem_mb": 1500}
    content["set-threads"] = dict.fromkeys(content["set-threads"], 1)
    for stage, resources in content["set-resources"].items():
        resources |= {"mem_mb": 1500, **stages.get(stage, {"gpu": 0, "slurm_partition": "cpu"})}
    file = folder / "profile/config.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(content))
    return file.parent


def job_of(wanted: str, state: str = "RUNNING") -> str | None:
    """Id of the job whose comment (rule and wildcards, written by the executor) holds `wanted`, in this state."""
    for line in _ask("squeue", "--noheader", "--states=all", "--format=%i|%T|%k").splitlines():
        number, has, comment = line.split("|", 2)
        if has == state and wanted in comment:
            return number
    return None


def said_of(job: str) -> str:
    """All that Slurm knows of a job."""
    return _ask("scontrol", "show", "job", job)


def order(*words: str) -> None:
    """A command to Slurm."""
    subprocess.run(words, check=True, timeout=60)


def _configure(folder: Path, names: list[str]) -> list[Path]:
    name = socket.gethostname().split(".")[0]
    memory = (psutil.virtual_memory().total >> 21) // len(names)
    cores = max(2, psutil.cpu_count())  # of each node, whatever the machine has
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={name} NodeAddr=127.0.0.1 Port={_free_port()} CPUs={cores} RealMemory={memory} "
        f"Gres=gpu:{GPUS} State=UNKNOWN"
        for node in names
    )
    for gpu in range(GPUS):
        os.mknod(folder / f"nvidia{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    # No program can use them, so they are hidden from what runs in a job.
    (folder / "prolog.sh").write_text("#!/bin/sh\necho export CUDA_VISIBLE_DEVICES=\n")
    (folder / "prolog.sh").chmod(0o755)
    (folder / "state").mkdir()
    gres = (f"NodeName={node} Name=gpu File={folder}/nvidia[0-{GPUS - 1}]\n" for node in names)
    (folder / "gres.conf").write_text("".join(gres))
    (folder / "slurm.conf").write_text(
        f"""\
ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={_free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
TaskProlog={folder}/prolog.sh
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MinJobAge=900
KillWait=20
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes=ALL MaxTime=1440 State=UP
"""
    )
    ETC.mkdir(exist_ok=True)
    links = [ETC / "slurm.conf", ETC / "gres.conf"]
    for link in links:
        link.unlink(missing_ok=True)  # left by a run that was killed; a live one was refused by why_not
        link.symlink_to(folder / link.name)
    return links


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _start(folder: Path, program: str, *options: str) -> subprocess.Popen[bytes]:
    path = shutil.which(program, path=SBIN)
    assert path is not None
    with (folder / f"{program}{options[-1] if '-N' in options else ''}.out").open("wb") as out:
        return subprocess.Popen([path, *options], stdout=out, stderr=subprocess.STDOUT)


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(folder: Path, ready: Callable[[], bool], what: str) -> None:
    for _ in range(120):
        if ready():
            return
        time.sleep(0.5)
    said = "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in sorted(folder.glob("*.out")))
    raise RuntimeError(f"{what} did not come up within a minute:\n{said}")


def _ask(*words: str) -> str:
    return subprocess.run(words, text=True, capture_output=True, timeout=60).stdout
