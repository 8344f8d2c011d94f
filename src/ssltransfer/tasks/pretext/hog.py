"""The vocabulary of a bag of HOG words (CC+HOG of Noroozi et al. 2018; choices of protocols 1.11)."""

import numpy as np
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import HogWords as HogWordsOptions
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Hog
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.build import build_backbone
from ssltransfer.models.hog_words import DESCRIPTOR, hog
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress

BATCH = 32
MIN_PER_IMAGE = 50  # a million descriptors come from 20,000 images of ImageNet instead of all


@FIXED_MODELS.register(Hog)
def build_vocabulary(spec: Pretext, inputs: ModelInputs) -> BuiltModel:
    """Cluster HOG descriptors of evenly spaced images, the same number from each.

    Raises:
        ArtifactError: the images have fewer descriptors than the vocabulary has words.
    """
    assert isinstance(spec.task, Hog) and isinstance(spec.backbone, HogWordsOptions)
    assert inputs.index is not None
    descriptors, images = sample_descriptors(
        inputs.index, spec.task.num_descriptors, spec.backbone, spec.seed, inputs.devices
    )
    if len(descriptors) < spec.backbone.vocabulary_size:
        raise ArtifactError(
            f"{len(descriptors)} HOG descriptors of {images} images are too few for {spec.backbone.vocabulary_size} "
            "words; use fewer, or raise `num_descriptors` or the number of images."
        )
    import faiss  # its libraries take a second to load

    faiss.omp_set_num_threads(torch.get_num_threads())
    kmeans = faiss.Kmeans(
        DESCRIPTOR,
        spec.backbone.vocabulary_size,
        niter=spec.task.max_iter,
        seed=spec.seed + 1234,  # faiss's own default at seed 0
        min_points_per_centroid=1,
        max_points_per_centroid=len(descriptors),  # all of them: no sampling of the sample
    )
    kmeans.train(descriptors)
    backbone = build_backbone(spec.backbone, include_top=True)
    backbone.load_state_dict({"vocabulary": torch.from_numpy(kmeans.centroids)})
    return BuiltModel(backbone, "none", {"descriptors": len(descriptors), "images": images})


def sample_descriptors(
    index: Index, sampled: int, options: HogWordsOptions, seed: int, devices: Devices
) -> tuple[np.ndarray, int]:
    """At most `sampled` descriptors, float32 (n, 36), and the number of images they are from.

    Every image gives the same number of descriptors; the choice depends on the seed alone.
    """
    per_image = (options.img_size // options.hog_cell - 1) ** 2
    each = min(per_image, sampled, max(MIN_PER_IMAGE, -(-sampled // len(index))))
    count = min(len(index), max(1, sampled // each))
    ids = [number * len(index) // count for number in range(count)]
    view = ResizeCenterCrop(options.short_side, options.img_size)
    found = np.empty((count * each, DESCRIPTOR), np.float32)
    progress = Progress("descriptors", 0, -(-count // BATCH), BATCH)
    done = 0
    for batch in load_batches(
        index, view, sequential_keys(ids, BATCH), seed=seed, workers=devices.workers, pin=devices.cuda
    ):
        images = normalize(batch.images.to(devices.device), "none")
        descriptors = hog(images.mean(1), options.hog_cell)
        rng = SampleRNG(seed, 0, batch.ids, devices.device)
        chosen = rng.permutation("descriptors", per_image)[:, :each]
        some = descriptors.gather(1, chosen[:, :, None].expand(-1, -1, DESCRIPTOR)).flatten(0, 1)
        found[done : done + len(some)] = some.cpu().numpy()
        done += len(some)
        progress.step()
        progress.log(f"{done} of {len(found)} descriptors")
    progress.close()
    return found, count
