"""From a float layer to the stored 8-bit image, through the lens and sensor of a simulated camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from toyworld.layer import OVERSAMPLE
from toyworld.texture import Array


@dataclass(frozen=True)
class Sensor:
    """Gamma, contrast, gain per channel, vignetting (0..1), blur (pixels) and noise (standard deviation)."""

    gamma: float
    contrast: float
    gain: Array
    vignette: float
    blur: float
    noise: float

    @staticmethod
    def random(rng: np.random.Generator) -> Sensor:
        """Draw a sensor."""
        return Sensor(
            rng.uniform(0.65, 1.2),
            rng.uniform(0.75, 1.15),
            rng.uniform(0.88, 1.12, 3).astype(np.float32),
            rng.uniform(0.0, 0.25),
            rng.uniform(0.4, 0.9) if rng.random() < 0.12 else 0.0,
            rng.uniform(0.004, 0.03),
        )

    def capture(self, fine: Array, rng: np.random.Generator) -> Image.Image:
        """Average a layer (OVERSAMPLE * H, OVERSAMPLE * W, 3) to an H x W image; `rng` draws the noise."""
        height, width = fine.shape[0] // OVERSAMPLE, fine.shape[1] // OVERSAMPLE
        small = np.zeros((height, width, 3), np.float32)
        for i in range(OVERSAMPLE):
            for j in range(OVERSAMPLE):
                small += fine[i::OVERSAMPLE, j::OVERSAMPLE][:height, :width]
        small /= OVERSAMPLE**2
        small = np.clip(small, 0, 1) ** np.float32(self.gamma)
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        falloff = (1 - np.float32(self.vignette) * (x * x + y * y) / 2)[..., None]
        small = ((small - np.float32(0.5)) * np.float32(self.contrast) + np.float32(0.5)) * self.gain * falloff
        small += rng.standard_normal(small.shape, np.float32) * np.float32(self.noise)
        image = to_image(small)
        return image.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur > 0 else image


def to_image(rgb: Array) -> Image.Image:
    """Round colors (H, W, 3) in 0..1 to an 8-bit image."""
    return Image.fromarray((np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8))


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Write a JPEG of quality 92, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=92)
