"""Bag of visual words of HOG descriptors, as a backbone with one layer."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.backbones import hog_words as config
from ssltransfer.models.backbone import BACKBONES, Backbone

ORIENTATIONS = 9
BLOCK = 2
DESCRIPTOR = ORIENTATIONS * BLOCK * BLOCK
DISTANCES = 1 << 24  # in memory at once, 64 MB


@BACKBONES.register(config.HogWords)
class HogWords(Backbone):
    """Square root of the histogram of nearest words over the HOG descriptors of a gray image.

    Noroozi et al. 2018 state only "bag of words of HOG". Protocols 1.11 lists the choices made here.
    """

    vocabulary: Tensor

    def __init__(self, options: config.HogWords, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        self.hog_cell = options.hog_cell
        self.register_buffer("vocabulary", torch.zeros(options.vocabulary_size, DESCRIPTOR))

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """float (B, 3, S, S) in [0, 1] -> float (B, vocabulary_size), of length 1."""
        vocabulary = self.vocabulary
        # Half precision would find the wrong word. The meta device does not support autocast.
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            descriptors = hog(x.float().mean(1), self.hog_cell)
            lengths = (vocabulary**2).sum(1)
            counts = torch.zeros(len(x), len(vocabulary), device=x.device)
            per_image = descriptors.shape[1]
            step = max(1, DISTANCES // (per_image * len(vocabulary)))
            for start in range(0, len(x), step):
                block = descriptors[start : start + step]
                words = torch.addmm(lengths, block.flatten(0, 1), vocabulary.T, alpha=-2).argmin(1)
                words = words.view(len(block), per_image)
                counts[start : start + step].scatter_add_(1, words, torch.ones_like(words, dtype=torch.float32))
            return (counts / per_image).sqrt()


def hog(gray: Tensor, cell: int) -> Tensor:
    """HOG descriptors (Dalal & Triggs 2005): 9 unsigned orientations, 2x2-cell blocks, L2-Hys, stride one cell.

    float (B, S, S) -> float32 (B, (S // cell - 1)^2, 36) for cells of `cell` pixels a side, as scikit-image's `hog`.
    """
    rows, columns = torch.zeros_like(gray), torch.zeros_like(gray)
    rows[:, 1:-1] = gray[:, 2:] - gray[:, :-2]
    columns[:, :, 1:-1] = gray[:, :, 2:] - gray[:, :, :-2]
    magnitude = torch.hypot(columns, rows)
    angle = torch.rad2deg(torch.atan2(rows, columns)) % 180
    bins = (angle / (180 / ORIENTATIONS)).long().clamp(max=ORIENTATIONS - 1)
    weighted = torch.zeros(gray.shape[0], ORIENTATIONS, *gray.shape[1:], device=gray.device)
    weighted.scatter_(1, bins[:, None], magnitude[:, None])
    cells = F.avg_pool2d(weighted, cell)  # (B, 9, S/cell, S/cell)
    blocks = cells.unfold(2, BLOCK, 1).unfold(3, BLOCK, 1)  # (B, 9, n, n, 2, 2)
    blocks = blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    eps = 1e-5
    blocks = blocks / torch.sqrt((blocks**2).sum(2, keepdim=True) + eps**2)
    blocks = blocks.clamp(max=0.2)
    return blocks / torch.sqrt((blocks**2).sum(2, keepdim=True) + eps**2)
