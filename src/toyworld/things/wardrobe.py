"""The wardrobe: what a thing wears. Colours and patterns are drawn without regard to what the thing is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyworld.texture import Paint, plain, random_colour, random_paint, related


@dataclass(frozen=True)
class Coat:
    """Paints by role: `main` and `second` cover most, `accent` small parts, `dark` and `light` the details."""

    main: Paint
    second: Paint
    accent: Paint
    dark: Paint
    light: Paint

    @staticmethod
    def random(rng: np.random.Generator) -> Coat:
        """Draw a coat."""
        main = random_paint(rng)
        second = random_paint(rng, related(rng, main.colour, 0.18))
        if rng.random() < 0.3:
            second = main.darker(rng.uniform(0.55, 0.8))
        accent = plain(related(rng, second.colour, 0.3))
        dark = plain(random_colour(rng, (0.05, 0.22)))
        light = plain(random_colour(rng, (0.8, 1.0)) * np.float32(0.5) + np.float32(0.5))
        return Coat(main, second, accent, dark, light)
