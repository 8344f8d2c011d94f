"""The vocabulary of a bag of HOG words (CC+HOG of Noroozi et al. 2018; choices of protocols 1.11)."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import torch

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Hog
from ssltransfer.config.trunks import HogWords as HogWordsOptions
from ssltransfer.data.batches import load_batches, sequential_keys
from ssltransfer.data.draws import Draws
from ssltransfer.data.transforms import CentreSquare
from ssltransfer.models.build import build_trunk
from ssltransfer.models.hog_words import DESCRIPTOR, hog
from ssltransfer.models.normalise import normalise
from ssltransfer.stages.pretext.base import Made
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress

BATCH = 32
LEAST_OF_A_PICTURE = 50  # a million descriptors are 20,000 pictures of ImageNet, not a pass over all of it


def make(spec: Pretext, index: Index | None, devices: Devices, folder: Path) -> Made:
    """k-means of HOG descriptors that were drawn alike from pictures spread evenly over the set.

    Raises:
        ArtefactError: the pictures have fewer descriptors than there are to be words.
    """
    assert isinstance(spec.task, Hog) and isinstance(spec.trunk, HogWordsOptions) and index is not None
    descriptors, pictures = sample_descriptors(index, spec.task.sampled, spec.trunk, spec.seed, devices)
    if len(descriptors) < spec.trunk.words:
        raise ArtefactError(
            f"{len(descriptors)} HOG descriptors of {pictures} pictures cannot make {spec.trunk.words} words; "
            "take fewer words, or raise `sampled` or the number of pictures."
        )
    faiss.omp_set_num_threads(torch.get_num_threads())
    kmeans = faiss.Kmeans(
        DESCRIPTOR,
        spec.trunk.words,
        niter=spec.task.iterations,
        seed=spec.seed + 1234,  # faiss's own default at seed 0
        min_points_per_centroid=1,
        max_points_per_centroid=len(descriptors),  # all of them: no sampling of the sample
    )
    kmeans.train(descriptors)
    trunk = build_trunk(spec.trunk, top=True)
    trunk.load_state_dict({"vocabulary": torch.from_numpy(kmeans.centroids)})
    return Made(trunk, "none", {"descriptors": len(descriptors), "pictures": pictures})


def sample_descriptors(
    index: Index, sampled: int, options: HogWordsOptions, seed: int, devices: Devices
) -> tuple[np.ndarray, int]:
    """At most `sampled` descriptors, float32 (n, 36), and how many pictures they are from.

    Every picture gives the same number; which pictures and which descriptors depends on the seed alone.
    """
    per_picture = (options.size // options.cell - 1) ** 2
    each = min(per_picture, sampled, max(LEAST_OF_A_PICTURE, -(-sampled // len(index))))
    count = min(len(index), max(1, sampled // each))
    ids = [place * len(index) // count for place in range(count)]
    view = CentreSquare(options.short_side, options.size)
    found = np.empty((count * each, DESCRIPTOR), np.float32)
    progress = Progress("descriptors", 0, -(-count // BATCH), BATCH)
    done = 0
    for batch in load_batches(index, view, sequential_keys(ids, BATCH), seed=seed, workers=devices.workers):
        pictures = normalise(batch.pictures.to(devices.device), "none")
        descriptors = hog(pictures.mean(1), options.cell)
        draws = Draws(seed, 0, batch.ids.to(devices.device))
        chosen = draws.permutation("descriptors", per_picture)[:, :each]
        some = descriptors.gather(1, chosen[:, :, None].expand(-1, -1, DESCRIPTOR)).flatten(0, 1)
        found[done : done + len(some)] = some.cpu().numpy()
        done += len(some)
        progress.step(0.0)
        progress.say(f"{done} of {len(found)} descriptors")
    progress.close()
    return found, count
