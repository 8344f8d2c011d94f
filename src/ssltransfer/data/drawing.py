"""Drawing for reports and tools: annotated images, montages and data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def data_uri(pixels: np.ndarray, form: str, quality: int = 82) -> str:
    """uint8 (H, W, 3) as a data URI, JPEG of this quality or PNG."""
    out = io.BytesIO()
    options = {"quality": quality} if form == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(out, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def side_by_side(panels: Sequence[np.ndarray], height: int) -> np.ndarray:
    """Images side by side, uint8 (H, W, 3) each, scaled to this height, with 4 white pixels between them."""
    parts: list[np.ndarray] = []
    for panel in panels:
        width = max(1, round(panel.shape[1] * height / panel.shape[0]))
        parts += [np.full((height, 4, 3), 255, np.uint8), np.asarray(Image.fromarray(panel).resize((width, height)))]
    return np.concatenate(parts[1:], axis=1)


def with_boxes(
    image: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """A copy of uint8 (H, W, 3) with boxes (N, 4: x1, y1, x2, y2 in pixels) and a text at each."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(min(image.shape[:2]) / 120))
    for (x1, y1, x2, y2), text, color in zip(boxes.tolist(), texts, colors, strict=True):
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
        if text:
            place = draw.textbbox((x1 + width, y1 + width), text)
            draw.rectangle(place, fill=color)
            draw.text((x1 + width, y1 + width), text, fill=(255, 255, 255))
    return np.asarray(canvas)


def depth_colors(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """uint8 (H, W, 3) of float (H, W) meters: matplotlib's viridis from yellow (near) to violet (far), gray for 0."""
    from matplotlib import colormaps

    table = (colormaps["viridis"](np.linspace(1, 0, 256))[:, :3] * 255).round().astype(np.uint8)
    place = (depth - near) / max(far - near, 1e-6) * 255
    colors = table[place.clip(0, 255).round().astype(int)]
    colors[depth == 0] = 128
    return colors


def visible(x: Tensor) -> Tensor:
    """Normalized network inputs (..., 3, H, W) as pixels: uint8, each scaled to its own range of values.

    All three channels are scaled equally, which keeps hues. The lowest and highest 0.5 % of the values are clipped.
    """
    flat = x.float().flatten(-3)
    low, high = (flat.quantile(q, dim=-1)[..., None, None, None] for q in (0.005, 0.995))
    return ((x - low) / (high - low).clamp(min=1e-6) * 255).clamp(0, 255).to(torch.uint8)


def mosaic(tiles: Tensor) -> Tensor:
    """uint8 (B, n * n, 3, h, w), row by row -> (B, 3, H, W) with 4 white pixels between the tiles."""
    side, gap = round(tiles.shape[1] ** 0.5), 4
    framed = F.pad(tiles, (0, gap, 0, gap), value=255).unflatten(1, (side, side))
    return framed.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)[..., :-gap, :-gap]


def outlined(image: Tensor, corners: Tensor) -> Tensor:
    """A copy of uint8 (3, H, W) with outlines: (N, k, 2), x and y of k corners each; blue, then orange."""
    canvas = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    draw = ImageDraw.Draw(canvas)
    width = max(2, round(min(image.shape[1:]) / 80))
    for place, polygon in enumerate(corners.tolist()):
        ends = [tuple(corner) for corner in (*polygon, polygon[0])]
        draw.line(ends, fill=(BLUE, ORANGE)[place % 2], width=width, joint="curve")
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)
