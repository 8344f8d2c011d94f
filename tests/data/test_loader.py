import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from threading import Event, current_thread
from threading import enumerate as enumerate_threads

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.targets import CorruptTargetError
from ssltransfer.data.transforms import ImageTransform, RandomResizedCrop, ResizeCenterCrop, Transform


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (10, 10), (3, 8), (7, 1)])
def test_keys_permute_all_images_every_epoch(n: int, batch: int):
    keys = [key for keys in training_keys(n, batch, 0, 60, seed=1) for key in keys]
    assert len(keys) == 60 * batch
    epochs = [[sample for sample, epoch in keys if epoch == number] for number in range(60 * batch // n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert [epoch for _, epoch in keys] == sorted(epoch for _, epoch in keys)
    if n > 3:
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2


def test_keys_are_uniform_within_an_epoch():
    first = Counter(keys[0][0] for keys in training_keys(5, 5, 0, 2000, seed=0))
    assert set(first) == set(range(5)) and max(abs(count - 400) for count in first.values()) < 90


@pytest.mark.parametrize("start", [1, 7, 8, 30])
def test_keys_can_start_at_any_step(start: int):
    through = list(training_keys(11, 4, 0, 40, seed=2))
    assert list(training_keys(11, 4, start, 40, seed=2)) == through[start:]


def test_keys_depend_on_seed():
    one, two = (list(training_keys(100, 50, 0, 2, seed=seed)) for seed in (0, 1))
    assert one != two


def test_sequential_keys_are_in_order():
    assert list(sequential_keys(range(5), 2)) == [[(0, 0), (1, 0)], [(2, 0), (3, 0)], [(4, 0)]]


def test_batch_splits_into_micro_batches():
    batch = Batch(torch.arange(7 * 3).view(7, 3, 1, 1), torch.arange(7), torch.arange(7) + 10)
    parts = batch.split(3)
    assert [len(part) for part in parts] == [3, 3, 1]
    for name in ("images", "ids", "epochs"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert batch.split(None) == [batch] and batch.split(7) == [batch]


def test_transform_rng_depends_on_sample_and_epoch_only():
    batch = Batch(torch.zeros(4, 3, 1, 1), torch.tensor([5, 5, 6, 5]), torch.tensor([0, 1, 0, 0]))
    numbers = batch.rng(3).uniform("x", 2)
    assert torch.equal(numbers[0], numbers[3])
    assert not torch.equal(numbers[0], numbers[1]) and not torch.equal(numbers[0], numbers[2])
    assert not torch.equal(numbers, batch.rng(4).uniform("x", 2))


@pytest.mark.parametrize("transform", [RandomResizedCrop(16), ResizeCenterCrop(20, 16)])
def test_load_batches_is_independent_of_workers_and_restart(
    objects: Index, transform: RandomResizedCrop | ResizeCenterCrop
):
    keys = list(training_keys(len(objects), 10, 3, 8, seed=4))
    runs = [list(load_batches(objects, transform, iter(keys), seed=4, workers=workers)) for workers in (0, 2)]
    runs.append(list(load_batches(objects, transform, iter(keys[2:]), seed=4)))
    for run, expected in ((runs[1], runs[0]), (runs[2], runs[0][2:])):
        assert len(run) == len(expected)
        for one, other in zip(run, expected, strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.ids, other.ids)
            assert torch.equal(one.epochs, other.epochs)
    assert runs[0][0].images.dtype == torch.uint8 and runs[0][0].images.shape == (10, 3, 16, 16)


class NameOfThread(ImageTransform):
    """A random view, flat, and then the number of the loader's thread, 255 for the main thread."""

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        image = RandomResizedCrop(16).apply(image, rng)
        Event().wait(0.01)  # so that one thread cannot take all images
        number = current_thread().name.removeprefix("ThreadPoolExecutor-").split("_")[-1]
        return torch.cat([image.flatten(), torch.tensor([int(number) if number.isdigit() else 255])])


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)  # as conftest sets it


def loaded_in_threads(index: Index, threads: int) -> tuple[Tensor, set[int]]:
    with torch_threads(threads):
        batches = list(load_batches(index, NameOfThread(), training_keys(len(index), 10, 3, 6, seed=4), seed=4))
    images = torch.cat([batch.images for batch in batches])
    return images[:, :-1], set(images[:, -1].tolist())


def test_load_batches_decodes_large_images_in_threads(objects: Index):
    large = replace(objects, sizes=np.full_like(objects.sizes, 128))
    alone, main = loaded_in_threads(large, 1)
    together, numbers = loaded_in_threads(large, 3)
    small, also_main = loaded_in_threads(replace(objects, sizes=np.full_like(objects.sizes, 127)), 3)
    assert torch.equal(alone, together) and torch.equal(alone, small)
    assert main == also_main == {255} and numbers == {0, 1, 2}


def test_load_batches_raises_errors_of_threads_unchanged(objects: Index):
    large = replace(objects, sizes=np.full_like(objects.sizes, 500))
    with torch_threads(2), pytest.raises(CorruptTargetError, match=r"^no mask: it has\nno bytes$"):
        list(load_batches(large, Failing(), sequential_keys([0, 0, 0, 0], 4), seed=0))
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in enumerate_threads())


class RandomNumber(ImageTransform):
    def apply(self, image: Tensor, rng: Random) -> Tensor:
        return torch.tensor(rng.random())


def test_load_batches_random_views_differ_by_image_epoch_and_seed(objects: Index):
    def numbers(epoch: int, seed: int) -> list[float]:
        keys = iter([[(sample, epoch) for sample in range(4)]])
        (batch,) = load_batches(objects, RandomNumber(), keys, seed=seed)
        return [float(number) for number in batch.images]

    found = [number for epoch in (0, 1) for seed in (0, 1) for number in numbers(epoch, seed)]
    assert len(set(found)) == 16 and numbers(1, 1) == found[-4:]


def test_load_batches_includes_labels(objects: Index):
    view = ResizeCenterCrop(16, 16)

    def targets(index: Index) -> dict[str, Tensor]:
        (batch,) = load_batches(index, view, sequential_keys([3, 0], 2), seed=0)
        return batch.targets

    label = targets(objects)["label"]
    assert label.dtype == torch.int64 and label.tolist() == objects.labels[[3, 0]].tolist()
    clusters = np.arange(len(objects)) % 5
    assert targets(objects.with_labels(clusters, list("abcde")))["label"].tolist() == [3, 0]
    assert targets(objects.with_labels(np.full(len(objects), -1), [])) == {}
    multi_label = np.where(np.arange(2 * len(objects)).reshape(-1, 2) % 2, 1, -1).astype(np.int8)
    found = targets(replace(objects, multi_label=multi_label))["multi_label"]
    assert found.dtype == torch.int8 and found.tolist() == [[-1, 1], [-1, 1]]


class Failing(Transform):
    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise IndexError(sample) if sample else CorruptTargetError("no mask: it has\nno bytes") from error


@pytest.mark.parametrize("workers", [0, 2])
def test_load_batches_raises_user_errors_of_workers_unchanged(objects: Index, workers: int):
    with pytest.raises(CorruptTargetError) as caught:
        list(load_batches(objects, Failing(), sequential_keys([0], 1), seed=0, workers=workers))
    assert str(caught.value) == "no mask: it has\nno bytes"
    with pytest.raises(IndexError):  # a bug keeps its traceback
        list(load_batches(objects, Failing(), sequential_keys([1], 1), seed=0, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fault", ["gone", "broken"])
def test_load_batches_names_unreadable_image(objects: Index, tmp_path: Path, workers: int, fault: str):
    if fault == "broken":
        (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff nothing")
    index = Index(tmp_path, ["x.jpg"], objects.labels[:1], objects.classes, objects.sizes[:1], ["0"])
    with pytest.raises(ArtifactError) as caught:
        list(load_batches(index, ResizeCenterCrop(16, 16), sequential_keys([0], 1), seed=0, workers=workers))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.jpg'}: was readable when the index was made and no longer is")
    assert "\n" not in message


UNREADABLE = """
import numpy as np
import psutil
from pathlib import Path
from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.transforms import Warp
index = Index(Path("/nowhere"), ["x.jpg"] * 9, np.zeros(9, np.int32), ["a"], np.ones((9, 2), np.int32), ["0"] * 9)
list(load_batches(index, Warp(16), sequential_keys(range(9), 1), seed=0, workers=2))
"""


def test_load_batches_error_ends_the_process_with_its_workers():
    run = subprocess.run([sys.executable, "-c", UNREADABLE], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "x.jpg: was readable when the index was made" in run.stderr


BATCHES = """
import sys
from pathlib import Path
from ssltransfer.artifacts.index import read_index
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.transforms import ResizeCenterCrop
index = read_index(Path(sys.argv[1]))
for batch in load_batches(index, ResizeCenterCrop(64, 64), sequential_keys(range(48), 24), seed=0, workers=2):
    raise KeyError("a bug outside the loader")
"""


def test_load_batches_error_of_its_reader_ends_the_process(objects_path: Path):
    run = subprocess.run([sys.executable, "-c", BATCHES, objects_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and run.stderr.rstrip().endswith("KeyError: 'a bug outside the loader'")


def test_load_batches_names_a_temporary_folder_too_long_for_sockets(objects_path: Path, tmp_path: Path):
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", BATCHES, objects_path],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1 and f"TMPDIR ({folder}, " in run.stderr.splitlines()[-1]


def test_load_batches_names_shared_memory_too_small(objects_path: Path):
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "bash", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a small /dev/shm needs root")
    command = ["unshare", "-m", "bash", "-c", f'{mount}; exec "$@"', "bash", sys.executable, "-c", BATCHES]
    run = subprocess.run([*command, objects_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "/dev/shm (0 MB) is too small" in run.stderr.splitlines()[-1]


def test_load_batches_workers_survive_signals_of_other_processes(objects: Index):
    before = {child.pid for child in psutil.Process().children()}
    batches = load_batches(objects, ResizeCenterCrop(16, 16), sequential_keys(range(48), 1), seed=0, workers=1)
    next(batches)
    (worker,) = (child.pid for child in psutil.Process().children() if child.pid not in before)
    for name in ("TERM", "INT", "USR1", "HUP"):
        subprocess.run(["kill", f"-{name}", str(worker)], check=True)
    assert len(list(batches)) == 47


def test_load_batches_does_not_read_ahead_of_keys(objects: Index):
    """Keys may be endless."""
    keys = training_keys(len(objects), 2, 0, 10**9, seed=0)
    assert len(list(islice(load_batches(objects, ResizeCenterCrop(16, 16), keys, seed=0), 3))) == 3
