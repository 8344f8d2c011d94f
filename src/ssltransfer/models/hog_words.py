"""Bag of words of HOG descriptors, as a backbone with one layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.backbones import HogWords as HogWordsOptions
from ssltransfer.models.backbone import Backbone

ORIENTATIONS = 9
BLOCK = 2
DESCRIPTOR = ORIENTATIONS * BLOCK * BLOCK
DISTANCES = 1 << 24  # held at once, 64 MB


class HogWords(Backbone):
    """HOG descriptors of a gray image, each counted for its nearest word; the root of the shares.

    Noroozi et al. 2018 state only "bag of words of HOG"; the choices are those of protocols 1.11.
    """

    def __init__(self, options: HogWordsOptions, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        self.register_buffer("vocabulary", torch.zeros(options.vocabulary_size, DESCRIPTOR))

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """float (B, 3, S, S) in [0, 1] -> float (B, words): roots of the words' shares."""
        vocabulary: Tensor = self.vocabulary  # type: ignore[assignment]
        # Half precision takes the wrong word. The meta device, on which shapes are found, knows no autocast.
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            descriptors = hog(x.float().mean(1), self.options.hog_cell)  # type: ignore[attr-defined]
            lengths = (vocabulary**2).sum(1)
            images, each = descriptors.shape[:2]
            counts = torch.zeros(images, len(vocabulary), device=x.device)
            some = max(1, DISTANCES // (each * len(vocabulary)))
            for start in range(0, images, some):
                block = descriptors[start : start + some]
                words = torch.addmm(lengths, block.flatten(0, 1), vocabulary.T, alpha=-2).argmin(1)
                words = words.view(len(block), each)
                counts[start : start + some].scatter_add_(1, words, torch.ones_like(words, dtype=torch.float32))
            return (counts / each).sqrt()


def hog(gray: Tensor, cell: int) -> Tensor:
    """HOG descriptors (Dalal & Triggs 2005): 9 unsigned orientations, 2x2-cell blocks, L2-Hys, stride one cell.

    Args:
        gray: float (B, S, S).
        cell: side of a cell in pixels.

    Returns:
        float32 (B, (S // cell - 1)^2, 36), as scikit-image's `hog` computes it.
    """
    rows, columns = torch.zeros_like(gray), torch.zeros_like(gray)
    rows[:, 1:-1] = gray[:, 2:] - gray[:, :-2]
    columns[:, :, 1:-1] = gray[:, :, 2:] - gray[:, :, :-2]
    size = torch.hypot(columns, rows)
    angle = torch.rad2deg(torch.atan2(rows, columns)) % 180
    bins = (angle / (180 / ORIENTATIONS)).long().clamp(max=ORIENTATIONS - 1)
    weighted = torch.zeros(gray.shape[0], ORIENTATIONS, *gray.shape[1:], device=gray.device)
    weighted.scatter_(1, bins[:, None], size[:, None])
    cells = F.avg_pool2d(weighted, cell)  # (B, 9, S/cell, S/cell)
    blocks = cells.unfold(2, BLOCK, 1).unfold(3, BLOCK, 1)  # (B, 9, n, n, 2, 2)
    blocks = blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    eps = 1e-5
    blocks = blocks / torch.sqrt((blocks**2).sum(2, keepdim=True) + eps**2)
    blocks = blocks.clamp(max=0.2)
    return blocks / torch.sqrt((blocks**2).sum(2, keepdim=True) + eps**2)
