"""The camera: from a fine float layer to the 8-bit picture that is stored, with a lens and a sensor of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from toyworld.brush import OVERSAMPLE
from toyworld.texture import Array

QUALITY = 92


@dataclass(frozen=True)
class Camera:
    """How one camera sees: gamma, contrast, gain per channel, fall-off to the corners, blur (px), noise (sd)."""

    gamma: float
    contrast: float
    gain: Array
    vignette: float
    blur: float
    grain: float

    @staticmethod
    def random(rng: np.random.Generator) -> Camera:
        """Draw a camera."""
        return Camera(
            rng.uniform(0.65, 1.2),
            rng.uniform(0.75, 1.15),
            rng.uniform(0.88, 1.12, 3).astype(np.float32),
            rng.uniform(0.0, 0.25),
            rng.uniform(0.4, 0.9) if rng.random() < 0.12 else 0.0,
            rng.uniform(0.004, 0.03),
        )

    def take(self, fine: Array, rng: np.random.Generator) -> Image.Image:
        """Average a fine (OVERSAMPLE * H, OVERSAMPLE * W, 3) layer down to an H x W picture; `rng` gives the noise."""
        height, width = fine.shape[0] // OVERSAMPLE, fine.shape[1] // OVERSAMPLE
        starts = [(i, j) for i in range(OVERSAMPLE) for j in range(OVERSAMPLE)]
        small = np.zeros((height, width, 3), np.float32)
        for i, j in starts:
            small += fine[i::OVERSAMPLE, j::OVERSAMPLE][:height, :width]
        small /= OVERSAMPLE**2
        small = np.clip(small, 0, 1) ** np.float32(self.gamma)
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        fall = (1 - np.float32(self.vignette) * (x * x + y * y) / 2)[..., None]
        small = ((small - np.float32(0.5)) * np.float32(self.contrast) + np.float32(0.5)) * self.gain * fall
        small += rng.standard_normal(small.shape, np.float32) * np.float32(self.grain)
        picture = Image.fromarray((np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8))
        return picture.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur > 0 else picture


def save(picture: Image.Image, path: Path) -> None:
    """Write a JPEG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "JPEG", quality=QUALITY)
