"""One of several processes that cluster together; started by test_ranks.py."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ssltransfer.kmeans import ArraySource, hierarchical_kmeans, kmeans


class Chunks(ArraySource):
    """An array in chunks of 256 rows."""

    def __init__(self, values):
        super().__init__(values)
        self.rows = 256


def main() -> None:
    """Cluster from each start; writes FOLDER/START/RANK.npz."""
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    points = np.load(folder.parent / "points.npy")
    outliers = np.concatenate([points[:22], np.full((3, points.shape[1]), 900)]).astype(np.float32)
    options: dict[str, Any] = {"tolerance": 0, "seed": 1, "rank": rank, "world": world}
    starts: dict[str, Any] = {"random": "random", "pca": "pca", "outliers": outliers, "levels": "random"}
    for name, init in starts.items():
        parents = np.zeros(0)
        if name == "levels":
            found, above = hierarchical_kmeans(Chunks(points), (25, 5), resample=1, init=init, **options)
            parents = above.labels
        else:
            found = kmeans(Chunks(points), 25, init=init, **options)
        (folder / name).mkdir(exist_ok=True)
        np.savez(
            folder / name / f"{rank}.npz",
            centroids=found.centroids,
            labels=found.labels,
            distances=found.distances,
            parents=parents,
            objective=found.objective,
            moved=[row["moved"] for row in found.curve],
            empty=[row["empty"] for row in found.curve],
        )
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
