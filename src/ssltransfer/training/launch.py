"""One job as several processes of this machine, or as one of several that something else has started."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssltransfer.training.gpu_lock import DeviceError, set_visible_gpus

SHUTDOWN_SECONDS = "120"  # for the last checkpoint of a large network; torch's own 30 may cut it off


def launch(words: Sequence[str], devices: int, *, distributed: bool, gpu: bool) -> int:
    """Make this process one of those that do the job; returns its rank.

    Where torchrun or srun has started several, this is the one that its environment says. Otherwise GPUs are claimed
    and, for more than one device, the command is started once a device; then this call ends the program with their
    exit code and their error.

    Args:
        words: the command line, without the program.
        devices: how many; 0 counts as 1.
        distributed: whether the job can be distributed. If not, one process does it, on one device.
        gpu: whether it uses a GPU where there is one.

    Raises:
        DeviceError: more devices are asked for than there are.
    """
    _join_slurm()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank = int(os.environ["RANK"])
        if not distributed:
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                os.environ.pop(name, None)
        return rank
    count = max(1, devices) if distributed else 1
    if gpu:
        set_visible_gpus(count)
    if count > 1:
        sys.exit(_torchrun(words, count))
    return 0


def _join_slurm() -> None:
    """Under `srun` with several tasks and MASTER_ADDR: the names that torch reads."""
    given = os.environ
    if "RANK" in given or "MASTER_ADDR" not in given or int(given.get("SLURM_NTASKS", "1")) < 2:
        return
    given.setdefault("MASTER_PORT", "29500")
    given["RANK"], given["WORLD_SIZE"] = given["SLURM_PROCID"], given["SLURM_NTASKS"]
    given["LOCAL_RANK"] = given["SLURM_LOCALID"]


def _torchrun(words: Sequence[str], count: int) -> int:
    """Run the command `count` times on this machine by torch's launcher; returns the exit code.

    A signal is passed on to all of them, and they are waited for while they save. What a process has to say of its
    failure arrives in a file (`report_error`), so that it is said once.

    Raises:
        DeviceError: fewer GPUs are visible.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    visible = torch.cuda.device_count()
    if 0 < visible < count:
        raise DeviceError(f"{count} devices are asked for, but {visible} GPUs are visible; ask for fewer (--devices).")
    logging.disable()  # torch's launcher repeats what is said here
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    os.environ["SSLTRANSFER_LAUNCHER"] = str(os.getpid())
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
            signals_to_handle="SIGTERM,SIGINT,SIGUSR1",
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "ssltransfer.cli", *words)
        except SignalException as told:
            return 128 + told.sigval
        except ChildFailedError as failed:
            code = failed.get_first_failure()[1].exitcode
            said = _first_error(Path(folder)) or (f"a process was ended by signal {-code}." if code < 0 else "")
            if said:
                print(said, file=sys.stderr, flush=True)
            return code if code > 0 else 128 - code
    return 0


def report_error(text: str, *, expected: bool) -> bool:
    """Leave what is to be said of a failure to the launcher; False where none of ours has started this process."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or "SSLTRANSFER_LAUNCHER" not in os.environ:
        return False
    # The first two are torch's, whose launcher reads the file too.
    word = {"message": text, "timestamp": int(time.time()), "nanoseconds": time.time_ns(), "expected": expected}
    Path(file).write_text(json.dumps(word), encoding="utf-8")
    return True


def _first_error(folder: Path) -> str:
    """The sentence, if some process had one: the others then only lost their peer; else the first traceback."""
    words: list[dict[str, Any]] = [json.loads(file.read_text("utf-8")) for file in folder.rglob("error.json")]
    words.sort(key=lambda word: (not word["expected"], word["nanoseconds"]))
    return str(words[0]["message"]) if words else ""


@contextlib.contextmanager
def rank_context(rank: int) -> Iterator[None]:
    """Be one of several processes: only the first one talks, and none outlives the launcher."""
    launcher = os.environ.get("SSLTRANSFER_LAUNCHER")
    if launcher and "RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: save and end when the launcher is killed
        if os.getppid() != int(launcher):
            raise SystemExit(128 + signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        if rank:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def shutdown() -> None:
    """End what `plan_devices` began: the processes let go of each other."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def traceback_of(error: BaseException) -> str:
    """As the interpreter prints it."""
    return "".join(traceback.format_exception(error)).rstrip()
