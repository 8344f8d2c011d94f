"""k nearest neighbors on the validation set during a training, for the curve."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import normalize
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TrainingError

IMAGES = 2048  # of the validation set, evenly spaced
BATCH = 64
TEMPERATURE = 0.07  # Caron et al. 2021 (DINO)


def online_knn(
    backbone: Backbone, options: BackboneOptions, normalization: Normalize, val: Index, k: int, devices: Devices
) -> Callable[[], float]:
    """A function that returns the accuracy of k-NN among validation images, each without itself, as a fraction.

    Features are the last layer of the backbone with its weights at that moment, maps by their mean, in the evaluation
    view. Votes are weighted by exp(cosine / 0.07). Nothing is random, and no buffer of the backbone changes. In a
    distributed job every process calls it. `options` are those of the backbone without the strides of its task.

    Raises:
        TrainingError: the validation images have no labels, or there are too few of them.
    """
    labeled = np.flatnonzero(val.labels >= 0)
    ids = labeled[:: max(1, -(-len(labeled) // IMAGES))].tolist()
    if len(ids) <= max(k, devices.world):
        raise TrainingError(
            f"val_knn: {k} needs more labeled validation images than {len(ids)}; lower it or remove it."
        )
    with torch.random.fork_rng(devices=[]):
        # With its own strides, as later stages use it.
        network = build_backbone(options, include_top=False).eval()
    network.to(devices.device).to(memory_format=torch.channels_last)
    names = network.state_dict().keys()
    layer, mine = network.layers[-1], ids[devices.rank :: devices.world]
    view = ResizeCenterCrop(options.short_side, options.img_size)
    targets = torch.as_tensor(val.labels[ids].astype(np.int64))

    @torch.no_grad()
    def accuracy() -> float:
        # A task may have more layers, such as fc6.
        network.load_state_dict({name: value for name, value in backbone.state_dict().items() if name in names})
        rows = []
        for batch in load_batches(val, view, sequential_keys(mine, BATCH), seed=0, workers=devices.workers):
            with devices.autocast():
                x = network(normalize(batch.to(devices.device).images, normalization), [layer])[layer]
            rows.append(F.normalize(x.float().flatten(2).mean(2) if x.ndim == 4 else x.float()).cpu().numpy())
        parts = devices.all_gather(np.concatenate(rows))
        features = np.empty((len(ids), parts[0].shape[1]), np.float32)
        for rank, part in enumerate(parts):
            features[rank :: devices.world] = part
        cosines = torch.from_numpy(features @ features.T).fill_diagonal_(-torch.inf)
        nearest, places = cosines.topk(k)
        weights = ((nearest - nearest[:, :1]) / TEMPERATURE).exp()
        votes = torch.zeros(len(ids), len(val.classes)).scatter_add_(1, targets[places], weights)
        return float((votes.argmax(1) == targets).float().mean())

    return accuracy
