"""Jigsaw of embedded patches (Kolesnikov et al. 2019): classify several permutations of each image."""

import torch
from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import JigsawKolesnikov
from ssltransfer.data.drawing import mosaic, visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.permutations import permutation_set
from ssltransfer.data.rng import SampleRNG
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS
from ssltransfer.tasks.pretext.patches import PatchNetwork, PatchTask


@PRETEXT_TASKS.register(JigsawKolesnikov)
class JigsawKolesnikovTask(PatchTask):
    """Classification of permutations of nine embedded patches, out of 100 (protocols 1.4).

    Each patch passes the backbone once. The embeddings are joined in `permutations_per_image` different orders, which
    are drawn per image, as in the paper; the released code draws them per batch, "for simplicity". The released set of
    permutations is a file of the authors. Here the same algorithm makes a set, unless `permutation_file` has one.
    """

    options: JigsawKolesnikov

    def __init__(self, options: JigsawKolesnikov, backbone: BackboneOptions, seed: int):
        super().__init__(options, options.permutations)
        self.register_buffer("permutations", torch.from_numpy(permutation_set(options)))
        self.network = PatchNetwork(backbone, options, joined=9, answers=options.permutations, seed=seed)
        self.backbone = self.network.backbone

    def labels(self, rng: SampleRNG) -> Tensor:
        """Different permutations for each image, int64 (B, shown)."""
        return rng.permutation("permutations", self.options.permutations)[:, : self.options.permutations_per_image]

    def orders(self, labels: Tensor) -> Tensor:
        """Slot i shows patch permutations[label][i]."""
        permutations: Tensor = self.permutations  # type: ignore[assignment]
        return permutations[labels].long()

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """The patches in two of the orders, and the first order undone by its label."""
        patches, labels = self.inputs(batch.images, rng)
        orders = self.orders(labels[:, :2])
        image = torch.arange(len(patches), device=patches.device)[:, None, None]
        shown = visible(patches)[image, orders]  # (B, orders, 9, 3, t, t)
        back = shown[:, 0][image[:, 0], orders[:, 0].argsort(dim=1)]
        joined = [(f"input: order {number}", mosaic(one)) for number, one in enumerate(shown.unbind(1), 1)]
        return [("image", batch.images), *joined, ("order 1 restored by the answer", mosaic(back))]
