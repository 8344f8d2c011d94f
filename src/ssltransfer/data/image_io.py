"""Image reading: the one place where files become pixels.

`check` verifies a file once, strictly, for the index. `read` returns its pixels. Both detect the format by content,
never by name, and reject the same files with `CorruptImageError`; only a flipped bit in a PNG that still inflates is
found by `check` alone. docs/images.md lists how every kind of file is handled.

JPEG is decoded by simplejpeg, because libjpeg only warns about damaged data and Pillow drops the warnings: the image
would silently decode to garbage. Pillow decodes everything else. No global state of either is changed, except that
AVIF is decoded by one thread.
"""

import io
import os
import stat
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
import torch
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ssltransfer.artifacts.archives import Member
from ssltransfer.digests import bytes_digest
from ssltransfer.errors import UserError

MAX_PIXELS = 1024**3 // 4 // 3
"""Largest width x height that is read, 89.5 million: above it Pillow, too, warns of a decompression bomb."""

MAX_BYTES = 1024**3
"""Largest file size that is read: above the largest uncompressed 16-bit RGBA image of MAX_PIXELS."""

MIN_SIDE = 8
"""Smallest short side in pixels: one JPEG block. A smaller image is useless for a crop."""

_FORMAT_OF_SUFFIX = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{".png": "PNG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".avif": "AVIF"},
}

EXTENSIONS = frozenset(_FORMAT_OF_SUFFIX)
"""Lower-case file extensions of images in a folder scan; see `is_candidate`."""

_Opener = Callable[[io.BytesIO], ImageFile.ImageFile]
# Image.open checks the size against a global that any library may change, and its error omits the size.
_OPENERS: tuple[tuple[bytes, _Opener], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    *((b"P%d" % n, PpmImagePlugin.PpmImageFile) for n in range(1, 7)),
)
# Loader processes decode on a core each; otherwise each would start a thread per core.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


class CorruptImageError(UserError):
    """A file that cannot be read faithfully; its text is a short reason without the path."""


@dataclass(frozen=True)
class ImageInfo:
    """Properties of a readable image.

    Attributes:
        width: pixels, upright.
        height: pixels, upright.
        format: by content: AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF or WEBP.
        mode: Pillow's name for the pixels in the file: "L", "CMYK", "I;16".
        digest: BLAKE2b-128 of the file's bytes, 32 hex digits.
        note: how reading changes the image in a possibly unexpected way; None if it does not.
    """

    width: int
    height: int
    format: str
    mode: str
    digest: str
    note: str | None


def is_candidate(path: str | os.PathLike[str], extensions: Collection[str] = EXTENSIONS) -> bool:
    """Whether a folder scan treats this name as an image: a known extension in any case, and not hidden."""
    name = Path(path)
    return name.suffix.lower() in extensions and not name.name.startswith(".")


def read(path: str | os.PathLike[str] | Member, *, min_short_side: int | None = None) -> torch.Tensor:
    """Read the pixels of an image; they depend on nothing but the bytes of the file and the hint.

    Args:
        path: the file, or its place in an archive.
        min_short_side: pixels that the caller needs on the short side. A JPEG is then decoded at 1/2, 1/4 or 1/8 of
            its size, the smallest that has as many; other formats ignore the hint.

    Returns:
        uint8 (3, H, W), RGB, upright. Laid out in memory as (H, W, 3), as the decoder returns it and as torch resizes
        fastest; `.contiguous()` costs a copy.

    Raises:
        CorruptImageError: the file cannot be read faithfully.
        OSError: the storage failed; the image itself may be intact.
    """
    data = _bytes_of(path)
    image = _open(data)
    try:
        if image.format == "JPEG" and _has_known_sampling(data):
            pixels = _decode_jpeg(data, image, min_short_side)
        else:
            pixels = _decode_other(image)
        upright = _UPRIGHT.get(_orientation(image))
    except (CorruptImageError, MemoryError):
        raise
    except Exception as error:
        raise _broken(image.format, error) from error
    if upright is not None:
        pixels = upright(pixels)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def check(path: str | os.PathLike[str] | Member) -> ImageInfo:
    """Decode a file strictly and return its properties.

    Raises:
        CorruptImageError: `read` would reject the file, or its own checksums do not match.
        OSError: the storage failed; the image itself may be intact.
    """
    data = _bytes_of(path)
    image = _open(data)
    assert image.format is not None
    mode, strict = image.mode, True
    try:
        if image.format == "JPEG" and _has_known_sampling(data):
            # Entropy decoding, where all damage shows, is complete at any scale; the rest is skipped.
            colors = "CMYK" if mode == "CMYK" else "GRAY"
            simplejpeg.decode_jpeg(data, colors, min_height=1, min_width=1, strict=True)
        else:
            if image.format == "PNG":
                # Decoding skips the checksums of pixel data.
                PngImagePlugin.PngImageFile(io.BytesIO(data)).verify()
            strict = image.format != "JPEG"
            _decode_other(image)
        orientation = _orientation(image)
    except (CorruptImageError, MemoryError):
        raise
    except Exception as error:
        raise _broken(image.format, error) from error
    suffix = Path(str(path)).suffix.lower()
    notes = {
        f"content is {image.format} though the name ends in {suffix}": (
            _FORMAT_OF_SUFFIX.get(suffix, image.format) != image.format
        ),
        "unusual color subsampling, checked for completeness only": not strict,
        "16-bit gray scaled to 8 bits": mode.startswith("I;16"),
        "transparency laid over white": image.has_transparency_data and not mode.startswith("I;16"),
        f"turned upright from EXIF orientation {orientation}": orientation > 1,
        "only the first of several images in the file is read": _has_more(image),
    }
    width, height = image.size[::-1] if orientation >= 5 else image.size
    digest = bytes_digest(data)
    note = "; ".join(text for text, holds in notes.items() if holds) or None
    return ImageInfo(width, height, image.format, mode, digest, note)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading.

    Raises:
        CorruptImageError: it is missing, empty, not a regular file, or may not be read.
        OSError: the storage failed.
    """
    try:
        status = Path(path).stat()
        # Opening a named pipe would block forever.
        if not stat.S_ISREG(status.st_mode):
            raise CorruptImageError("not a file")
        if not status.st_size:
            raise CorruptImageError("empty file")
        return Path(path).open("rb")
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise CorruptImageError(f"cannot be opened: {error.strerror}") from error


def content_digest(path: str | os.PathLike[str] | Member) -> str:
    """BLAKE2b-128 of a file's bytes, 32 hex digits.

    Raises:
        CorruptImageError: the file cannot be read.
        OSError: the storage failed.
    """
    return bytes_digest(_bytes_of(path))


def _bytes_of(path: str | os.PathLike[str] | Member) -> bytes:
    if isinstance(path, Member):
        return _unpacked(path)
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise CorruptImageError(f"not an image: {size} bytes, the limit is {MAX_BYTES}")
        return file.read()


def _unpacked(member: Member) -> bytes:
    try:
        data = member.read(MAX_BYTES)
    except zlib.error as error:
        raise CorruptImageError(f"damaged in its archive: {error}") from None
    if not data:
        raise CorruptImageError("empty file")
    if len(data) > MAX_BYTES:
        raise CorruptImageError(f"not an image: more than {MAX_BYTES} bytes")
    return data


def _open(data: bytes) -> ImageFile.ImageFile:
    """Open a file and verify that its size may be decoded."""
    opener = next((opener for magic, opener in _OPENERS if data.startswith(magic)), None)
    if data[4:8] == b"ftyp" and b"avif" in data[8 : min(256, int.from_bytes(data[:4]))]:  # one of its brands
        opener = AvifImagePlugin.AvifImageFile
    if opener is None or (opener is WebPImagePlugin.WebPImageFile and data[8:12] != b"WEBP"):
        raise CorruptImageError(_what_else(data))
    if opener is WebPImagePlugin.WebPImageFile:
        # libwebp allocates its canvas on opening, before the size can be checked.
        _refuse_size(*_webp_size(data))
    try:
        image = opener(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CorruptImageError(f"decompression bomb: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        what = _what_else(data)
        if what.startswith("not an image: unknown"):
            raise _broken(f"{opener.__name__.removesuffix('ImageFile').upper()} header", error) from error
        raise CorruptImageError(what) from error
    _refuse_size(*image.size)
    if not (image.mode in _EIGHT_BIT or image.mode.startswith("I;16")):
        bits = {"I": "32-bit or signed integers", "F": "floating-point numbers"}.get(image.mode, image.mode)
        raise CorruptImageError(f"unsupported pixels: {bits}; save it as 8-bit RGB or as 8- or 16-bit gray")
    return image


def _refuse_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise CorruptImageError(f"decompression bomb: {width}x{height}, the limit is {MAX_PIXELS} pixels")
    if min(width, height) < MIN_SIDE:
        raise CorruptImageError(f"too small: {width}x{height}, the short side must have {MIN_SIDE} pixels")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in a WebP header (RFC 9649, sections 2.5-2.7)."""
    head = data[:30].ljust(30, b"\0")
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _has_known_sampling(data: bytes) -> bool:
    # TurboJPEG supports the usual chroma subsamplings only; libjpeg, in Pillow, supports all.
    try:
        simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):
        return False
    return True


def _decode_jpeg(data: bytes, image: ImageFile.ImageFile, min_short_side: int | None) -> np.ndarray:
    """uint8 (H, W, 3)."""
    width, height = image.size
    least = min_short_side or min(width, height)
    # Only these four scales are vectorized: 3/8 takes longer than the whole image.
    scale = next(s for s in (8, 4, 2, 1) if s == 1 or -(-min(width, height) // s) >= least)
    pixels = simplejpeg.decode_jpeg(
        data,
        "CMYK" if image.mode == "CMYK" else "RGB",
        min_height=-(-height // scale),
        min_width=-(-width // scale),
        strict=True,
    )
    if image.mode != "CMYK":
        return pixels
    # Adobe's convention, 255 minus the amount of ink, is universal; Pillow and browsers expect it.
    return np.array(Image.fromarray(255 - pixels, "CMYK").convert("RGB"))


def _decode_other(image: ImageFile.ImageFile) -> np.ndarray:
    """uint8 (H, W, 3)."""
    image.load()
    if image.mode.startswith("I;16"):
        return _gray16(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return np.array(flat)
    return np.array(image.convert("RGB"))


def _gray16(image: ImageFile.ImageFile) -> np.ndarray:
    """uint8 (H, W, 3): the full range of the file's bits is scaled to 0..255; Pillow would clip it at 255."""
    tags = getattr(image, "tag_v2", {})
    full = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    values = np.asarray(image).astype(np.uint32)
    gray = ((values * 255 + full // 2) // full).astype(np.uint8)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        gray = 255 - gray
    return np.repeat(gray[:, :, None], 3, axis=2)


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation 1..8; 1 if it is missing or invalid."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises arbitrary exceptions on damaged bytes
        return 1
    return value if value in _UPRIGHT else 1


def _has_more(image: ImageFile.ImageFile) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first image, the only one that is read
        return True


def _broken(what: str | None, error: Exception) -> CorruptImageError:
    text = str(error) or type(error).__name__
    if "truncated" in text.lower() or "premature end of jpeg" in text.lower():
        return CorruptImageError(f"truncated: {what} ends early ({text})")
    return CorruptImageError(f"broken {what}: {text}")


def _what_else(data: bytes) -> str:
    """A helpful reason why a file without the magic bytes of an image is not one."""
    head = data[:1024]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "not an image: Git LFS pointer; run `git lfs pull` in its repository"
    if start.startswith((b"<!doctype html", b"<html")):
        return "not an image: HTML text, perhaps the error page of a download"
    if start.startswith((b"<?xml", b"<svg", b"<!doctype svg")):
        return "not an image: XML text or an SVG drawing"
    if head[4:8] == b"ftyp":
        return "unsupported: HEIF or a video; save it as JPEG or PNG"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "not an image: text"
    return f"not an image: unknown content that begins with {head[:8].hex(' ')}"
