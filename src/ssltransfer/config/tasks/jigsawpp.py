"""Jigsaw++."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.jigsaw import PuzzleOptions, Tiles

# Largest sets of permutations that `ssltransfer.data.permutations` finds, by their smallest distance.
LARGEST_SETS = {5: 1514, 6: 338, 7: 82, 8: 23, 9: 9}


class JigsawPP(PuzzleOptions):
    """Jigsaw++: 701 permutations at Hamming distance >= 3, up to two tiles replaced by another image's."""

    name: Literal["jigsaw++"] = "jigsaw++"
    reference = "Noroozi et al. 2018, section 4; protocols 1.2"
    images_per_group = 2
    permutations: int = Field(701, ge=2, le=2000)
    min_distance: int = Field(3, ge=2, le=9, description="Smallest Hamming distance of two permutations.")
    target_mean_hamming: float | None = Field(
        None, ge=0.85, le=0.89, description="Mean Hamming distance / 9 (paper: 0.86)."
    )
    occluders: tuple[Annotated[int, Field(ge=0, le=9)], ...] = Field(
        (0, 1, 2), min_length=1, description="Numbers of occluding tiles, equally likely."
    )
    tiles: Tiles = Tiles(jitter=18)
    grayscale_prob: float = Field(0.7, ge=0, le=1, description="Probability that a puzzle with its occluders is gray.")
    color_projection_prob: float = Field(
        0.0, ge=0, le=1, description="Probability of color projection in the other puzzles."
    )

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "per-image"

    @model_validator(mode="after")
    def _enough(self) -> Self:
        largest = LARGEST_SETS.get(self.min_distance, self.permutations)
        if self.permutations > largest and not self.permutation_file:
            raise ValueError(
                f"only {largest} permutations have a min_distance of {self.min_distance}; lower it or `permutations`"
            )
        return self
