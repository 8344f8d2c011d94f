"""A Snakemake profile with the memory and runtime of a configuration's jobs, from the cost estimate."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from ssltransfer.errors import UserError
from ssltransfer.planning.costs import CostEstimate

BASE_MB = 4000  # Python, torch and the loader workers of a job
# Stages keep data in memory only within half of the free memory. Trainings need what is estimated, and a reserve.
DATA_FACTOR, TRAINING_FACTOR = 2.0, 1.25
TRAININGS = {"pretext", "student"}
START_MINUTES, RUNTIME_FACTOR = 20, 2.0


def write_profile(
    costs: Sequence[CostEstimate], shipped: Path, folder: Path, *, local: bool = False, overwrite: bool = False
) -> Path:
    """Write the shipped profile with the memory and runtime of the largest job of each rule; its comments are kept.

    Args:
        shipped: the shipped profile to start from, a file.
        folder: of the new profile.
        local: limit the memory of jobs that run at the same time to that of this machine, instead of Slurm's
            resources.
        overwrite: replace an existing profile.

    Returns:
        The new file.

    Raises:
        UserError: the profile exists.
    """
    file = folder / "config.yaml"
    if file.exists() and not overwrite:
        raise UserError(f"{file}: exists; choose another folder, or replace it with --overwrite.")
    text = shipped.read_text("utf-8")
    jobs = {stage: [cost for cost in costs if cost.stage == stage] for stage in dict.fromkeys(c.stage for c in costs)}
    text = _local_profile(text, jobs) if local else _slurm_profile(text, jobs)
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def memory_mb(jobs: Sequence[CostEstimate]) -> int | None:
    """Memory of the largest job of a stage, with headroom; None if no job has an estimate."""
    gigabytes = max((cost.memory_gb for cost in jobs if cost.memory_gb is not None), default=None)
    if gigabytes is None:
        return None
    factor = TRAINING_FACTOR if jobs[0].stage in TRAININGS else DATA_FACTOR
    return BASE_MB + math.ceil(gigabytes * factor) * 1000


def runtime_minutes(jobs: Sequence[CostEstimate]) -> int | None:
    """Minutes of the longest job of a stage, with headroom; None if a job has no estimate, or none is counted."""
    hours = [cost.hours for cost in jobs]
    known = [each for each in hours if each is not None]
    if len(known) < len(hours) or not any(known):
        return None
    return START_MINUTES + math.ceil(max(known) * 60 * RUNTIME_FACTOR)


def _slurm_profile(text: str, jobs: dict[str, list[CostEstimate]]) -> str:
    """The lines of `set-resources` with new numbers."""

    def line(match: re.Match[str]) -> str:
        stage = "features" if match["rule"] == "features_shard" else match["rule"]
        memory, runtime, attempts = int(match["memory"]), match["runtime"], " * attempt" in match["runtime"]
        minutes = int(re.sub(r"\D", "", runtime))
        of_stage = jobs.get(stage, [])
        needed, longest = memory_mb(of_stage), runtime_minutes(of_stage)
        if needed is not None:
            # Trainings on a GPU keep their estimate in its memory, and other jobs of the stage may be unknown.
            partly = stage in TRAININGS or any(cost.memory_gb is None for cost in of_stage)
            memory = max(needed, memory) if partly else needed
        if longest is not None:
            # A job that resumes needs no more than one time limit of the shipped profile.
            minutes = longest if attempts else min(longest, minutes)
        runtime = f'"{minutes} * attempt"' if attempts else str(minutes)
        return f"{match['start']}mem_mb: {memory}, runtime: {runtime}}}"

    pattern = (
        r'^(?P<start>  (?P<rule>\w+): +\{.*?)mem_mb: (?P<memory>\d+), runtime: (?P<runtime>\d+|"\d+ \* attempt")\}'
    )
    return re.sub(pattern, line, text, flags=re.MULTILINE)


def _local_profile(text: str, jobs: dict[str, list[CostEstimate]]) -> str:
    """All cores, this machine's memory as the limit, and the memory of each rule."""
    on_gpu = torch.cuda.is_available()  # the estimate of a training is then of the GPU's memory
    needed = {stage: memory_mb(of_stage) for stage, of_stage in jobs.items() if not (on_gpu and stage in TRAININGS)}
    limit = psutil.virtual_memory().total // 10**6
    text = text.replace(
        "\nresources:\n", f"\nresources:\n  mem_mb: {limit}  # of this machine; jobs that do not fit wait\n", 1
    )
    rules = "".join(f"  {stage}: {{mem_mb: {memory}}}\n" for stage, memory in needed.items() if memory is not None)
    resources = f"\n# Memory of the largest job, from the estimate.\nset-resources:\n{rules}" if rules else ""
    return f"{text}\ncores: all\n{resources}"
