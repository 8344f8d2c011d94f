"""The training loop."""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

import torch

from ssltransfer.artifacts.index import Index
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.rng import seed_of
from ssltransfer.logs import heartbeat, logger
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.curve import Curve, TrainResult, describe_losses
from ssltransfer.training.devices import Devices
from ssltransfer.training.pending import Pending
from ssltransfer.training.progress import Progress
from ssltransfer.training.task import Task, TrainingError
from ssltransfer.training.train_step import Trainer

VAL_IMAGES = 2048  # of the validation set, evenly spaced


def fit(
    task: Task,
    index: Index,
    schedule: Schedule,
    *,
    seed: int,
    folder: Path,
    devices: Devices,
    val: Index | None = None,
    save_snapshot: Callable[[int], None] = lambda step: None,
    snapshot_steps: Collection[int] = (),
    val_knn: Callable[[], float] | None = None,
) -> TrainResult:
    """Train a task on the images of an index. Resumes from the checkpoint in `folder`, if there is one.

    Order of images, random numbers and learning rate are functions of the global step. So an interrupted training ends
    with the same bytes as an undisturbed one, on a CPU with the same number of threads and processes. Several processes
    take equal parts of each batch and compute the weights that one process would compute, up to rounding. Batch norms
    use only the part of their process unless `sync_bn` is set, and dropout differs.

    Args:
        task: network, head and loss; moved to the device and trained in place.
        index: training images.
        schedule: length of the training, optimizer and learning rate.
        seed: of order, augmentation and dropout.
        folder: work directory, for checkpoint.pt and curve.jsonl.
        devices: with several processes each one calls this, and the first one writes.
        val: images for the validation loss.
        save_snapshot: called after each of `snapshot_steps`, in every process.
        snapshot_steps: steps.
        val_knn: called with each validation, in every process; its value is `val_knn` of the row.

    Raises:
        TrainingError: the loss is not finite, there are no images, or the batch does not divide among the processes.
        Interrupted: the process received a signal to end. The work is saved.
    """
    schedule = schedule.for_images(len(index))
    check_data(index, schedule, devices.world)
    total = schedule.total_steps(len(index))
    checkpoint = Checkpoint(folder / "checkpoint.pt", rank=devices.rank, world=devices.world)
    trainer = Trainer(task, schedule, seed, devices, checkpoint)
    curve = Curve(total, folder / "curve.jsonl" if devices.rank == 0 else None)
    state = checkpoint.load()
    start: int = state["step"] if state else 0
    check_ranks_agree(folder, start, devices)
    if state:
        trainer.load_state_dict(state["trainer"])
        curve.load_state_dict(state["curve"])
    else:
        with heartbeat(lambda: "statistics before the first step"):
            task.on_train_start(index, devices)
    logger.info(f"{len(index)} images, {total} steps of {schedule.batch_size}, {resume_text(start)}; {devices}")

    loader = train_loader(task, index, schedule, seed, range(start, total), (devices.rank, devices.world), devices)
    steps: deque[tuple[int, Batch, Pending]] = deque()

    def record(step: int, batch: Batch, pending: Pending) -> None:
        values = pending.read()
        if math.isfinite(values["loss"]):
            curve.update(values)
        elif not trainer.skips_overflow():
            raise not_finite(trainer, batch, step, len(index), folder)

    with checkpoint, Progress("train", start, total, schedule.batch_size) as progress:
        for step in range(start, total):
            batch = progress.next(loader).to(devices.device, devices.copies)
            seed_step(seed, step, devices.rank)
            values = trainer.forward_backward(batch)
            trainer.optimizer_step(schedule.lr_at(step, len(index)))
            task.after_step(step)
            progress.step()

            done = step + 1
            steps.append((step, batch, values))
            saves = done == total or checkpoint.due(done)  # asked once: a signal may come at any time
            needed = saves or done in snapshot_steps or curve.row_due(step, done)
            # The values are read a step later, so that a GPU has always work to do.
            while len(steps) > (0 if needed else 1):
                record(*steps.popleft())
            if curve.row_due(step, done):
                epoch = round(done * schedule.batch_size / len(index), 4)
                row = {"step": done, "epoch": epoch, "lr": schedule.lr_at(step, len(index))} | curve.means()
                if val is not None and curve.validation_due(step, done):
                    row |= validate(task, val, schedule, seed=seed, devices=devices)
                    row |= {"val_knn": val_knn()} if val_knn else {}
                curve.add_row(row)
                progress.log(describe_losses(row, {"loss": task.chance_loss}))
            if done in snapshot_steps:
                save_snapshot(done)
            # After the last step too: a job that is killed while it exports does not train again.
            if saves:
                state = {"step": done, "trainer": trainer.state_dict(), "curve": curve.state_dict()}
                checkpoint.save(state, done)
    curve.write()
    return TrainResult(curve.rows, progress.close())


def train_loader(
    task: Task,
    index: Index,
    schedule: Schedule,
    seed: int,
    steps: range,
    part: tuple[int, int],
    devices: Devices,
    *,
    workers: int | None = None,
) -> Iterator[Batch]:
    """This process's part of the batch of each of the task's own steps.

    `part`: rank, and number of processes that share each batch. `workers`: loader processes, by default of `devices`.
    """
    rank, world = part
    share = schedule.batch_size // world
    mine = slice(rank * share, (rank + 1) * share)
    keys = (batch[mine] for batch in training_keys(len(index), schedule.batch_size, steps.start, steps.stop, seed))
    return load_batches(
        index,
        task.transform,
        keys,
        seed=seed,
        workers=devices.workers if workers is None else workers,
        pin=devices.cuda,
    )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generator for a global step, such as for dropout. Each process draws other numbers."""
    torch.manual_seed(seed_of(seed, "step", step, *([rank] if rank else [])))


@torch.no_grad()
def validate(task: Task, val: Index, schedule: Schedule, *, seed: int, devices: Devices) -> dict[str, float]:
    """Mean values of the task on validation images, as val_*, with the same random numbers each time."""
    step = max(1, -(-len(val) // VAL_IMAGES))
    ids = list(range(0, len(val), step))
    if len(ids) % 2:  # for tasks that take images in pairs
        ids = ids[:-1] or ids
    size = schedule.micro_batch_size or schedule.batch_size
    keys = islice(sequential_keys(ids, size), devices.rank, None, devices.world)
    was_training = task.training
    task.eval()
    sums: dict[str, float] = {}
    batches = load_batches(val, task.val_transform, keys, seed=seed, workers=devices.workers, pin=devices.cuda)
    steps = len(range(devices.rank, -(-len(ids) // size), devices.world))
    progress = Progress("validate", 0, steps, size)
    for _ in range(steps):
        batch = progress.next(batches).to(devices.device, devices.copies)
        with devices.autocast(schedule.precision):
            outputs = task(batch, batch.rng(seed_of(seed, "val")))
        for name, value in outputs.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        progress.step(len(batch))
    progress.close()
    task.train(was_training)
    total: dict[str, float] = {}
    for part in devices.all_gather(sums):
        total |= {name: total.get(name, 0.0) + value for name, value in part.items()}
    return {f"val_{name}": value / len(ids) for name, value in total.items()}


def check_data(index: Index, schedule: Schedule, world: int) -> None:
    """Check that there are images, and that every process gets as many: pairs, and whole micro-batches.

    Raises:
        TrainingError: no images, or the batch does not divide.
    """
    if not len(index):
        raise TrainingError("There are no images to train on; check the dataset's list of skipped files.")
    share, micro = schedule.batch_size // world, schedule.micro_batch_size
    divides = schedule.batch_size % world == 0 and not (micro and share > micro and share % micro)
    if world > 1 and (not divides or share % 2):
        passes = f" in micro-batches of {micro}" if micro else ""
        raise TrainingError(
            f"A batch of {schedule.batch_size} images{passes} cannot be divided among {world} devices, each "
            "with the same even number; change the number of devices (--devices), batch_size or micro_batch_size."
        )


def check_ranks_agree(folder: Path, start: int, devices: Devices) -> None:
    """Check that all processes resume from the same step: a shared file system may show an old file for a while.

    Raises:
        TrainingError: they do not.
    """
    starts = devices.all_gather(start)
    if len(set(starts)) > 1:
        raise TrainingError(
            f"{folder}: the processes read checkpoints of different steps ({', '.join(map(str, starts))}); this folder "
            "must be on a shared file system; run the same command again."
        )


def resume_text(start: int) -> str:
    """Where the training starts, for the first log line."""
    return f"resuming from step {start}" if start else "starting from scratch"


def not_finite(trainer: Trainer, batch: Batch | None, step: int, n: int, folder: Path, name: str = "") -> TrainingError:
    """The error for a loss of a task (`name`) on `n` images that is not finite.

    Saves the batch of this process, if it took part in the step, next to the checkpoint.
    """
    devices = trainer.devices
    parameters = [name for name, p in trainer.task.named_parameters() if not torch.isfinite(p).all()]
    file = folder / (f"not_finite-{devices.rank}.pt" if devices.world > 1 else "not_finite.pt")
    if batch is not None:
        torch.save({"ids": batch.ids.cpu(), "images": batch.images.cpu()}, file)
    where = f"; not finite: {', '.join(parameters[:3])}" if parameters else ""
    of_task = f" of {name}" if name else ""
    return TrainingError(
        f"The loss{of_task} is not finite at step {step} (learning rate {trainer.schedule.lr_at(step, n):g}{where}); "
        "lower the learning rate or warm up. The batch is in "
        f"{folder / 'not_finite-*.pt' if devices.world > 1 else file}."
    )
