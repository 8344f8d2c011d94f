"""The base of jigsaw and jigsaw++: the context-free network, its loss, and the drawing of a puzzle."""

import math
from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks.jigsaw import PuzzleOptions
from ssltransfer.data.drawing import mosaic, visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import permute
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.backbone import initialize, initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.tasks.pretext.base import PretextTask
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone
from ssltransfer.training.task import accuracy


class ContextFreeNetwork(nn.Module):
    """Logits of the permutations of nine tiles.

    Noroozi & Favaro 2016, section 3; released train_val_cfn_jps++.prototxt: fc6 shared by the tiles (2304 -> 1024 for
    CaffeNet, 2048 -> 1024 for VGG16), their concatenation into fc7 (9216 -> 4096), fc8. With `bn` fc6 and fc7 are
    batch-normalized, which no paper does: without it training stays at the chance-level loss for thousands of steps.

    Raises:
        LayerError: tiles are too small for the backbone.
    """

    def __init__(self, backbone: BackboneOptions, task: PuzzleOptions, *, seed: int):
        super().__init__()
        self.backbone = build_backbone(backbone.for_tiles(task.tiles.stem_stride), include_top=False, seed=seed)
        self.pool5 = PooledBackbone(self.backbone, task.tiles.tile, "Tiles")
        shared = max(1, task.hidden_dim // 4)

        def layer(inputs: int, outputs: int) -> nn.Sequential:
            norm = [nn.BatchNorm1d(outputs)] if task.bn else []
            return nn.Sequential(nn.Linear(inputs, outputs), *norm, nn.ReLU(inplace=True), nn.Dropout(task.dropout))

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.fc6 = layer(self.pool5.features, shared)
            self.fc7 = layer(9 * shared, task.hidden_dim)
            self.fc8 = nn.Linear(task.hidden_dim, task.permutations)
            for part in (self.fc6, self.fc7):
                initialize(part)
            initialize_last(self.fc8)

    def forward(self, tiles: Tensor) -> Tensor:
        """float (B, 9, 3, t, t) -> logits (B, permutations)."""
        each = self.fc6(self.pool5(tiles.flatten(0, 1)))
        return self.fc8(self.fc7(each.reshape(len(tiles), -1)))


class PuzzleTask(PretextTask):
    """Classification of the permutation of nine tiles.

    The `permutations`, (N, 9), do not depend on the seed, so that runs with different seeds are comparable.
    """

    def __init__(self, options: PuzzleOptions, backbone: BackboneOptions, seed: int, permutations: np.ndarray):
        super().__init__()
        self.cut, self.resize = options.tiles, options.resize
        self.permutations: Tensor
        self.register_buffer("permutations", torch.from_numpy(permutations))
        self.network = ContextFreeNetwork(backbone, options, seed=seed)
        self.backbone = self.network.backbone
        self.chance_loss = math.log(options.permutations)

    @property
    def transform(self) -> ResizeCenterCrop:
        """Short side to 256, central 255 x 255."""
        return ResizeCenterCrop(self.resize, self.cut.crop)

    @abstractmethod
    def puzzles(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> normalized tiles float (B, 9, 3, t, t) and permutations int64 (B,)."""

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy over the permutations."""
        puzzles, label = self.puzzles(batch.images, rng)
        logits = self.network(puzzles)
        return {"loss": F.cross_entropy(logits, label), "accuracy": accuracy(logits, label)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """The puzzle, and its permutation undone by the label."""
        puzzles, label = self.puzzles(batch.images, rng)
        solved = permute(puzzles, self.permutations.argsort(dim=1), label)
        return [
            ("image", batch.images),
            ("input: nine tiles", mosaic(visible(puzzles))),
            ("restored by the answer", mosaic(visible(solved))),
        ]
