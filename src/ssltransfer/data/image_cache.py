"""Read a sample from its file or the image cache, and pack images for the cache."""

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.formats import CacheOptions
from ssltransfer.data.image_io import CorruptImageError, read
from ssltransfer.data.transforms import resize_short

JPEG_SIDE = 65_500  # libjpeg's limit; a longer image is stored raw


def read_sample(index: Index, sample: int, *, min_short_side: int | None = None) -> Tensor:
    """Pixels of a sample, from the cache if the index has one (`min_short_side` is ignored then), else from its file.

    Returns uint8 (3, H, W), RGB, upright, laid out in memory as (H, W, 3).

    Raises:
        ArtifactError: the file or the packed image can no longer be read.
    """
    if index.cache is not None:
        return _unpack(index, sample)
    source = index.source(sample)
    try:
        return read(source, min_short_side=min_short_side)
    except (CorruptImageError, OSError) as error:
        raise ArtifactError(
            f"{source}: was readable when the index was made and no longer is ({error}); "
            "restore it or run the index stage again."
        ) from error


def pack(image: Tensor, options: CacheOptions) -> tuple[bytes, int, int]:
    """Resize and encode an image: uint8 (3, H, W) -> bytes, width and height. Small images are never enlarged."""
    small = resize_short(image, min(options.short_side, *image.shape[-2:]))
    pixels = np.ascontiguousarray(small.permute(1, 2, 0).numpy())
    height, width = pixels.shape[:2]
    if _is_raw(options, width, height):
        return pixels.tobytes(), width, height
    data = simplejpeg.encode_jpeg(pixels, options.quality, "RGB", "444", fastdct=False)
    return data, width, height


def _unpack(index: Index, sample: int) -> Tensor:
    assert index.cache is not None
    row, data = index.cache.rows[sample], index.cache.read(sample)
    width, height = int(row["cached_width"]), int(row["cached_height"])
    if _is_raw(index.cache.options, width, height):
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    else:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _is_raw(options: CacheOptions, width: int, height: int) -> bool:
    return options.format == "raw" or max(width, height) > JPEG_SIDE
