"""Pictures with marks on them, and pictures as text that a page can carry: for what people look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw


def data_uri(pixels: np.ndarray, form: str) -> str:
    """uint8 (H, W, 3) as a data URI, JPEG or PNG."""
    out = io.BytesIO()
    options = {"quality": 82} if form == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(out, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def side_by_side(panels: Sequence[np.ndarray], height: int, *, gap: int = 4) -> np.ndarray:
    """uint8 (H, W, 3) each -> one picture of this height on white."""
    scaled = [
        np.asarray(Image.fromarray(panel).resize((max(1, round(panel.shape[1] * height / panel.shape[0])), height)))
        for panel in panels
    ]
    out = np.full((height, sum(one.shape[1] + gap for one in scaled) - gap, 3), 255, np.uint8)
    left = 0
    for one in scaled:
        out[:, left : left + one.shape[1]] = one
        left += one.shape[1] + gap
    return out


def with_boxes(
    picture: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """A copy of uint8 (H, W, 3) with frames (N, 4: x1, y1, x2, y2 in pixels) and a text at each."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    width = max(1, round(min(picture.shape[:2]) / 120))
    for (x1, y1, x2, y2), text, colour in zip(boxes.tolist(), texts, colours, strict=True):
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)
        if text:
            place = draw.textbbox((x1 + width, y1 + width), text)
            draw.rectangle(place, fill=colour)
            draw.text((x1 + width, y1 + width), text, fill=(255, 255, 255))
    return np.asarray(image)


def depth_colours(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """uint8 (H, W, 3) of float (H, W) metres: matplotlib's viridis from yellow (near) to violet (far), grey for 0."""
    from matplotlib import colormaps

    table = (colormaps["viridis"](np.linspace(1, 0, 256))[:, :3] * 255).round().astype(np.uint8)
    place = (depth - near) / max(far - near, 1e-6) * 255
    colours = table[place.clip(0, 255).round().astype(int)]
    colours[depth == 0] = 128
    return colours
