"""The base of jigsaw and jigsaw++: the context-free network, its loss, and the drawing of a puzzle."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Jigsaw, JigsawPP
from ssltransfer.data.drawing import mosaic, visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import permute
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.tasks.pretext.base import PretextTask
from ssltransfer.tasks.pretext.context_free_network import ContextFreeNetwork
from ssltransfer.training.task import accuracy


class PuzzleTask(PretextTask):
    """Classification of the permutation of nine tiles.

    Args:
        options: of the network and the tiles.
        backbone: of the network.
        seed: of fresh weights.
        permutations: (N, 9). They do not depend on the seed, so that runs with different seeds are comparable.
    """

    def __init__(self, options: Jigsaw | JigsawPP, backbone: BackboneOptions, seed: int, permutations: np.ndarray):
        super().__init__()
        self.cut, self.resize = options.tiles, options.resize
        self.permutations: Tensor
        self.register_buffer("permutations", torch.from_numpy(permutations))
        self.network = ContextFreeNetwork(
            backbone,
            options.tiles,
            permutations=options.permutations,
            hidden_dim=options.hidden_dim,
            dropout=options.dropout,
            bn=options.bn,
            seed=seed,
        )
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
