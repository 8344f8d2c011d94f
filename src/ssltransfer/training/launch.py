"""Start of a job on several devices: as one process per device, through torchrun's launcher."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ssltransfer.processes import on_exit_of
from ssltransfer.training.gpu_lock import DeviceError, set_visible_gpus

SHUTDOWN_SECONDS = "120"  # for the last checkpoint of a large network; torch's default of 30 may cut it off


def launch(
    words: Sequence[str], devices: int, *, nodes: int = 1, threads: int | None = None, distributed: bool, gpu: bool
) -> int:
    """Make this process one of the processes of the job.

    If torchrun or srun has started several processes, this one joins them. Otherwise GPUs are locked, and for more than
    one device the command is started once per device. In that case this call does not return: the program exits with
    the exit code and the error message of those processes, or becomes srun if there are several nodes.

    Args:
        words: command line, without the program.
        devices: number of devices on all nodes together; 0 counts as 1.
        nodes: of the Slurm job.
        threads: CPU cores of each device on several nodes; the default leaves the number to Slurm.
        distributed: whether the job supports several devices. If not, it runs in one process on one device.
        gpu: whether the job uses a GPU if there is one.

    Returns:
        The rank of this process.

    Raises:
        DeviceError: more devices are requested than available, or several nodes cannot be used.
    """
    _join_slurm()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank = int(os.environ["RANK"])
        if not distributed:
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
                os.environ.pop(name, None)
        return rank
    count = max(1, devices) if distributed else 1
    if nodes > 1 and distributed:
        _become_srun(words, count, nodes, threads)
    if gpu:
        set_visible_gpus(count)
    if count > 1:
        sys.exit(_torchrun(words, count))
    return 0


def _join_slurm() -> None:
    """Under `srun` with several tasks, set the variables that torch reads. The first node is the master."""
    variables = os.environ
    tasks = int(variables.get("SLURM_STEP_NUM_TASKS", "1"))
    if "RANK" in variables or tasks < 2:
        return
    if "MASTER_ADDR" not in variables:
        words = ["scontrol", "show", "hostnames", variables["SLURM_STEP_NODELIST"]]
        hosts = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        variables["MASTER_ADDR"] = hosts[0]
    # Jobs on the same node need different ports, below those that the kernel gives to clients.
    variables.setdefault("MASTER_PORT", str(10000 + int(variables["SLURM_JOB_ID"]) % 20000))
    variables |= {"RANK": variables["SLURM_PROCID"], "WORLD_SIZE": str(tasks), "LOCAL_RANK": variables["SLURM_LOCALID"]}


def _become_srun(words: Sequence[str], count: int, nodes: int, threads: int | None) -> NoReturn:
    """Replace this process by srun, which starts the command once per device and forwards signals to all of them."""
    if count % nodes:
        raise DeviceError(
            f"{count} devices cannot be divided equally among {nodes} nodes; change --devices (the resource gpu) or "
            "--nodes (the resource nodes)."
        )
    if "SLURM_JOB_ID" not in os.environ:
        raise DeviceError(f"{nodes} nodes were requested outside a Slurm job; without Slurm use torchrun on each node.")
    options = [f"--nodes={nodes}", f"--ntasks={count}", f"--ntasks-per-node={count // nodes}", "--kill-on-bad-exit=1"]
    if threads:
        options.append(f"--cpus-per-task={threads}")
    # Bound to one GPU each, the processes of a node could not reach each other's memory.
    options.append("--gpu-bind=none")
    os.execvp("srun", ["srun", *options, sys.executable, "-P", "-m", "ssltransfer.cli", *words])


def _torchrun(words: Sequence[str], count: int) -> int:
    """Run the command `count` times on this machine, as `torchrun --standalone` does.

    Signals are forwarded to all processes, which get SHUTDOWN_SECONDS to save their work. A process writes its error
    to a file (`report_error`), so that it is printed once. Returns the exit code.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    visible = torch.cuda.device_count()
    if 0 < visible < count:
        raise DeviceError(f"{count} devices were requested, but {visible} GPUs are visible; request fewer (--devices).")
    logging.disable()  # torch's launcher would repeat the error
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    os.environ["SSLTRANSFER_LAUNCHER"] = str(os.getpid())
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # by nohup
    with tempfile.TemporaryDirectory(prefix="ssltransfer-launch-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle="SIGTERM,SIGINT,SIGUSR1" + ("" if ignored else ",SIGHUP"),
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "ssltransfer.cli", *words)
        except SignalException as received:
            return 128 + received.sigval
        except ChildFailedError as failed:
            code = failed.get_first_failure()[1].exitcode
            message = _first_error(Path(folder)) or (f"a process was ended by signal {-code}." if code < 0 else "")
            if message:
                print(message, file=sys.stderr, flush=True)
            return code if code > 0 else 128 - code
    return 0


def report_error(text: str, *, expected: bool) -> bool:
    """Pass an error message, one sentence or a traceback, to the launcher; `expected` marks a user-facing error.

    Returns False if this process was not started by `launch`. The caller then prints the message.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or "SSLTRANSFER_LAUNCHER" not in os.environ:
        return False
    # torch's launcher reads the file too: "message" and "timestamp".
    error = {"message": text, "timestamp": int(time.time()), "nanoseconds": time.time_ns(), "expected": expected}
    Path(file).write_text(json.dumps(error), encoding="utf-8")
    return True


def _first_error(folder: Path) -> str:
    """The first user-facing error, since the other processes only lost their peer, or else the first traceback."""
    errors: list[dict[str, Any]] = [json.loads(file.read_text("utf-8")) for file in folder.rglob("error.json")]
    errors.sort(key=lambda error: (not error["expected"], error["nanoseconds"]))
    return str(errors[0]["message"]) if errors else ""


@contextlib.contextmanager
def rank_context(rank: int) -> Iterator[None]:
    """Silence all processes but the first, and let a process save and end when its launcher is killed."""
    launcher = os.environ.get("SSLTRANSFER_LAUNCHER")
    if launcher and "RANK" in os.environ:
        on_exit_of(int(launcher), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with contextlib.ExitStack() as stack:
        if rank:
            null = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(null))
            stack.enter_context(contextlib.redirect_stderr(null))
        yield


def shutdown() -> None:
    """Leave the process group that `plan_devices` joined."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def traceback_of(error: BaseException) -> str:
    """The traceback as the interpreter prints it."""
    return "".join(traceback.format_exception(error)).rstrip()
