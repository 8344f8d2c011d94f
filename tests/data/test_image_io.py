from __future__ import annotations

import errno
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageFile, ImageOps

from ssltransfer.data import image_io as images
from ssltransfer.data.image_io import CorruptImageError, check, is_candidate, read

DOCS = Path(__file__).parents[2] / "docs" / "images.md"


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth colors with an edge: no symmetry that could hide a turn, little that JPEG would lose."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9 + y / 5)], axis=-1)
    rgb[height // 4 : height // 2, : width // 3] *= 0.4
    return Image.fromarray(rgb.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return out.getvalue()


def put(folder: Path, data: bytes | bytearray, name: str = "image.jpg") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def pixels(path: Path, **options: int) -> np.ndarray:
    """int (H, W, 3)."""
    tensor = read(path, **options)
    assert tensor.dtype == torch.uint8 and tensor.shape[0] == 3
    return tensor.permute(1, 2, 0).numpy().astype(int)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def reason(path: Path) -> str:
    """The reason of both; they must refuse alike."""
    with pytest.raises(CorruptImageError):
        read(path)
    with pytest.raises(CorruptImageError) as caught:
        check(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("JPEG", {"keep_rgb": True}),
        ("JPEG", {"icc_profile": b"nonsense"}),
        ("JPEG", {"exif": b"Exif\0\0nonsense"}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("PPM", {}),
        ("AVIF", {}),
        ("AVIF", {"subsampling": "4:4:4", "quality": 100}),
    ],
)
def test_read_matches_pillow_regardless_of_name(tmp_path, kind, options):
    data = encoded(scene(), kind, **options)
    path = put(tmp_path, data, "named.bmp")
    assert np.array_equal(pixels(path), by_pillow(data))
    found = check(path)
    assert (found.width, found.height, found.format, found.mode) == (96, 64, kind, "RGB")
    assert found.note == (None if kind == "BMP" else f"content is {kind} though the name ends in .bmp")
    assert found.digest == check(put(tmp_path, data, "copy.jpg")).digest
    assert found.digest != check(put(tmp_path, encoded(scene(97), kind), "other.jpg")).digest


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF"])
def test_read_gray_has_three_equal_channels(tmp_path, kind):
    data = encoded(scene().convert("L"), kind)
    found = pixels(put(tmp_path, data))
    assert np.array_equal(found, by_pillow(data))
    assert (found == found[..., :1]).all()


def test_read_bilevel_is_black_and_white(tmp_path):
    image = scene().convert("1")
    expected = np.repeat(np.asarray(image)[..., None] * 255, 3, axis=2)
    assert np.array_equal(pixels(put(tmp_path, encoded(image, "PNG"))), expected)


# Exif 2.32, 4.6.4: the sides of the upright image at which the first row and the first column in the file lie.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The file's pixels, found one by one from the standard's words."""
    height, width = upright.shape[:2]
    row_side, column_side = SIDES[orientation]
    turned = row_side in ("left", "right")
    out = np.zeros((width, height, 3) if turned else (height, width, 3), np.uint8)
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            place = {row_side: r, column_side: c}
            x = place["left"] if "left" in place else width - 1 - place["right"]
            y = place["top"] if "top" in place else height - 1 - place["bottom"]
            out[r, c] = upright[y, x]
    return out


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
@pytest.mark.parametrize("orientation", SIDES)
def test_read_applies_every_orientation(tmp_path, kind, options, orientation):
    upright = np.asarray(scene(24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = put(tmp_path, encoded(Image.fromarray(stored(upright, orientation)), kind, exif=exif, **options))
    assert np.array_equal(pixels(path), upright)
    assert (check(path).width, check(path).height) == (24, 16)


@pytest.mark.parametrize("orientation", [*SIDES, 0, 9])
def test_read_jpeg_orientation_matches_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), exif=exif)
    path = put(tmp_path, data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(pixels(path), expected)
    found = check(path)
    assert (found.height, found.width) == expected.shape[:2]
    turned = f"turned upright from EXIF orientation {orientation}"
    assert found.note == (turned if 2 <= orientation <= 8 else None)
    assert pixels(path, min_short_side=20).shape[:2] == tuple(side // 2 for side in expected.shape[:2])


def without_adobe_marker(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + struct.unpack(">H", data[start + 2 : start + 4])[0] :]


@pytest.mark.parametrize("adobe", [True, False])
def test_read_cmyk_preserves_colors(tmp_path, adobe):
    data = encoded(scene().convert("CMYK"))
    assert b"Adobe" in data
    data = data if adobe else without_adobe_marker(data)
    path = put(tmp_path, data)
    assert np.abs(pixels(path) - np.asarray(scene())).mean() < 1.5
    assert np.array_equal(pixels(path), by_pillow(data))
    assert check(path).mode == "CMYK"


def test_read_ycck_matches_pillow(tmp_path):
    data = bytearray(encoded(scene().convert("CMYK")))
    data[data.index(b"\xff\xee") + 15] = 2
    assert np.array_equal(pixels(put(tmp_path, data)), by_pillow(bytes(data)))


@pytest.mark.parametrize("mode, channels", [("RGBA", 3), ("LA", 1)])
def test_read_composites_alpha_over_white(tmp_path, mode, channels):
    alpha = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    image = scene().convert(mode)
    image.putalpha(Image.fromarray(alpha))
    ink = np.asarray(image)[..., :channels].astype(float)
    share = alpha[..., None] / 255
    path = put(tmp_path, encoded(image, "PNG"))
    assert np.abs(pixels(path) - (ink * share + 255 * (1 - share))).max() <= 1
    assert check(path).note == "content is PNG though the name ends in .jpg; transparency laid over white"


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_read_transparent_palette_entry_is_white(tmp_path, kind):
    image = scene().quantize(8)
    index = np.asarray(image)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[index == index[0, 0]] = 255
    path = put(tmp_path, encoded(image, kind, transparency=int(index[0, 0])), f"image.{kind.lower()}")
    assert np.array_equal(pixels(path), expected)
    assert check(path).note == "transparency laid over white"


def test_read_transparent_png_color_is_white(tmp_path):
    image = Image.new("RGB", (16, 16), (1, 2, 3))
    image.paste((200, 100, 50), (0, 0, 8, 16))
    found = pixels(put(tmp_path, encoded(image, "PNG", transparency=(1, 2, 3))))
    assert (found[:, 8:] == 255).all()
    assert (found[:, :8] == (200, 100, 50)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_read_16_bit_gray_is_scaled(tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    path = put(tmp_path, encoded(Image.fromarray(values), kind), f"image.{kind.lower()}")
    assert np.array_equal(pixels(path), np.round(values / 257)[..., None].repeat(3, axis=2))
    assert check(path).note == "16-bit gray scaled to 8 bits"


@pytest.mark.parametrize("photometric, byteorder", [("minisblack", ">"), ("minisblack", "<"), ("miniswhite", "<")])
def test_read_16_bit_tiff_of_another_writer(tmp_path, photometric, byteorder):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, values, photometric=photometric, byteorder=byteorder)
    expected = np.round(values / 257)
    assert np.array_equal(pixels(path)[..., 0], expected if photometric == "minisblack" else 255 - expected)


@pytest.mark.parametrize("dtype, word", [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_read_refuses_pixels_of_unknown_range(tmp_path, dtype, word):
    image = Image.fromarray(np.arange(400, dtype=dtype).reshape(20, 20))
    text = reason(put(tmp_path, encoded(image, "TIFF")))
    assert text.startswith("unsupported pixels: ") and word in text


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_read_takes_first_of_several_frames(tmp_path, kind):
    first, second = Image.new("L", (16, 16), 30), Image.new("L", (16, 16), 200)
    options = {"lossless": True} if kind == "WEBP" else {}
    path = put(tmp_path, encoded(first, kind, save_all=True, append_images=[second], **options), "image")
    assert (pixels(path) == 30).all()
    assert check(path).note == "only the first of several images in the file is read"


@pytest.mark.parametrize(
    "hint, short", [(1, 60), (60, 60), (61, 120), (120, 120), (121, 240), (240, 240), (241, 480), (9999, 480)]
)
def test_read_hint_selects_smallest_sufficient_scale(tmp_path, hint, short):
    image = scene(640, 480)
    found = pixels(put(tmp_path, encoded(image)), min_short_side=hint)
    assert found.shape == (short, short * 4 // 3, 3)
    assert np.abs(found - np.asarray(image.reduce(480 // short)).astype(int)).mean() < 1.5


def test_read_hint_rounds_up_and_only_affects_jpeg(tmp_path):
    assert pixels(put(tmp_path, encoded(scene(501, 333))), min_short_side=167).shape == (167, 251, 3)
    assert pixels(put(tmp_path, encoded(scene(501, 333))), min_short_side=168).shape == (333, 501, 3)
    assert pixels(put(tmp_path, encoded(scene(), "PNG")), min_short_side=10).shape == (64, 96, 3)


@pytest.mark.parametrize(
    "data, start",
    [
        (b"", "empty file"),
        (b"hello", "not an image: text"),
        (b"BMX is a sport, this is a text about it.\n", "not an image: text"),
        (b"\n <!DOCTYPE html><html>404</html>", "not an image: HTML text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image: XML text or an SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not an image: Git LFS pointer; run `git"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported: HEIF"),
        (b"\x7fELF\2\1\1\0", "not an image: unknown content that begins with 7f 45 4c 46"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not an image: unknown content"),
        (encoded(Image.new("RGB", (1, 1))), "too small: 1x1"),
        (encoded(Image.new("RGB", (600, 7)), "PNG"), "too small: 600x7"),
        (encoded(scene())[:24], "truncated: JPEG header"),
    ],
)
def test_check_describes_non_images(tmp_path, data, start):
    assert reason(put(tmp_path, data)).startswith(start)


def test_read_accepts_smallest_image(tmp_path):
    assert pixels(put(tmp_path, encoded(scene(600, 8)))).shape == (8, 600, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_read_refuses_truncated_images(tmp_path, kind, share):
    data = encoded(scene(), kind)
    reason(put(tmp_path, data[: int(len(data) * share)]))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_read_reports_missing_jpeg_end_as_truncated(tmp_path, options):
    assert reason(put(tmp_path, encoded(scene(), **options)[:-2])).startswith("truncated: JPEG ends early")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_read_refuses_damaged_jpeg(tmp_path, options):
    """Where damage is visible to libjpeg at all, both `read` and the cheaper `check` must see it."""
    good = encoded(scene(256, 192), **options)
    clean = by_pillow(good)
    rng = np.random.default_rng(0)
    garbage = 0
    for _ in range(60):
        data = bytearray(good)
        at = int(rng.integers(len(good) // 5, len(good) - 50))
        data[at : at + 40] = rng.integers(0, 255, 40).astype(np.uint8).tobytes()
        path = put(tmp_path, data)
        try:
            read(path)
        except CorruptImageError as error:
            assert reason(path) == str(error)
            try:
                garbage += np.abs(by_pillow(bytes(data)) - clean).mean() > 1
            except OSError:
                continue
        else:
            check(path)
    assert garbage > 10


def test_check_refuses_flipped_bit_in_png(tmp_path):
    good = encoded(scene(), "PNG")
    start, end = good.index(b"IDAT") + 4, good.index(b"IEND") - 8
    for at in np.random.default_rng(0).integers(start, end, 60):
        data = bytearray(good)
        data[at] ^= 1
        with pytest.raises(CorruptImageError, match="PNG"):
            check(put(tmp_path, data))


def test_read_jpeg_of_unusual_subsampling(tmp_path):
    # Red 3x1, green and blue 1x1. Every block of mid gray has the same code, whatever component it belongs to:
    # 10 groups of 3 blocks (80x8 pixels) are also 6 groups of 5 (144x8), and that is what the header now says.
    data = bytearray(encoded(Image.new("RGB", (80, 8), (128, 128, 128)), keep_rgb=True))
    frame = data.index(b"\xff\xc0")
    data[frame + 7 : frame + 9] = struct.pack(">H", 144)
    data[frame + 11] = 0x31
    path = put(tmp_path, data)
    assert pixels(path).shape == (8, 144, 3) and (pixels(path) == 128).all()
    assert check(path).note == "unusual color subsampling, checked for completeness only"
    assert reason(put(tmp_path, data[:-4])).startswith("truncated")


def bombs() -> dict[str, bytes | bytearray]:
    """Small files that claim to be huge."""
    jpeg = bytearray(encoded(scene()))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    png = bytearray(encoded(scene(), "PNG"))
    png[16:24] = struct.pack(">II", 60000, 60000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    gif = bytearray(encoded(scene(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65000, 65000)
    webp = b"RIFF\x26\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (2**16 - 2).to_bytes(3, "little") * 2 + b"VP8 \0\0\0\0"
    bmp = bytearray(encoded(scene(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    return {"jpg": jpeg, "png": png, "gif": gif, "webp": webp, "bmp": bmp, "ppm": b"P6\n60000 60000\n255\n" + bytes(99)}


LIMITED = """
import pathlib, resource, sys
from ssltransfer.data import image_io as images
held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 200 * 2**20,) * 2)
try:
    bytearray(300 * 2**20)
except MemoryError:
    print("limited")
for path in sys.argv[1:]:
    for function in (images.read, images.check):
        try:
            function(path)
        except images.CorruptImageError as error:
            print(error)
"""


def test_read_refuses_bombs_within_200_mib(tmp_path):
    files = [put(tmp_path, data, f"bomb.{ending}") for ending, data in bombs().items()]
    done = subprocess.run([sys.executable, "-c", LIMITED, *files], capture_output=True, text=True, check=True)
    limited, *reasons = done.stdout.splitlines()
    assert limited == "limited" and len(reasons) == 2 * len(files)
    assert all(re.match(r"decompression bomb: 6\d{4}x6\d{4}, the limit is", text) for text in reasons), reasons


def test_read_accepts_large_photographs(tmp_path):
    assert 60_000_000 < images.MAX_PIXELS < 144_000_000
    path = put(tmp_path, encoded(Image.new("L", (9504, 6336), 90)))
    assert read(path, min_short_side=500).shape == (3, 792, 1188)
    assert check(path).width == 9504


def test_read_neither_uses_nor_changes_pillow_globals(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "PPM"):
        check(put(tmp_path, encoded(scene(), kind)))
    assert Image.MAX_IMAGE_PIXELS == 10
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_read_is_thread_safe(tmp_path):
    files = [put(tmp_path, encoded(scene(100 + n, 80), k), f"{n}") for n in range(6) for k in ("JPEG", "PNG")]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, files * 5))
    assert all(torch.equal(tensor, read(path)) for tensor, path in zip(found, files * 5, strict=True))


def test_read_refuses_non_files(tmp_path):
    assert reason(tmp_path) == "not a file"
    assert reason(tmp_path / "missing.jpg").startswith("cannot be opened: No such file")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a file"
    (tmp_path / "video.jpg").touch()
    os.truncate(tmp_path / "video.jpg", images.MAX_BYTES + 1)
    assert "the limit is" in reason(tmp_path / "video.jpg")


def test_read_raises_oserror_on_failing_storage(tmp_path, monkeypatch):
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    path = put(tmp_path, encoded(scene()))
    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OSError, match="Input/output"):
        check(path)


def test_is_candidate_by_extension():
    taken = ["a.jpg", "A.JPEG", "b/name with space é.PnG", "c.tif", "d.webp"]
    left = [".hidden.jpg", "b/._a.jpg", "Thumbs.db", "jpg", "a.jpg.part", "a.txt", "a.svg"]
    assert [name for name in taken + left if is_candidate(name)] == taken
    assert ".jpg" in images.EXTENSIONS


def outcome(path: Path) -> str:
    """The outcome of reading a file, in the words of docs/images.md."""
    if not is_candidate(path):
        return "not looked at"
    try:
        found = check(path)
    except CorruptImageError as error:
        with pytest.raises(CorruptImageError):
            read(path)
        return f"skipped: {error}"
    assert read(path).shape == (3, found.height, found.width)
    note = f"; {found.note}" if found.note else ""
    return f"read: {found.width}x{found.height} from {found.format} {found.mode}{note}"


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+?) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: text.replace("\\`", "`") for name, text in rows}


@pytest.fixture(scope="module")
def broken(real_data: Path) -> Path:
    return real_data / "broken"


@pytest.mark.real
@pytest.mark.parametrize("name", documented())
def test_read_behaves_as_documented(broken, name):
    # A row that ends in an ellipsis leaves out the decoder's own words, which change with its version.
    expected = documented()[name]
    found = outcome(broken / name)
    assert found.startswith(expected[:-1]) if expected.endswith("…") else found == expected


@pytest.mark.real
def test_docs_have_a_row_for_every_file(broken):
    listed = (broken / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(documented()) == sorted(line.split("\t")[0] for line in listed)


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["cmyk.jpg", "gray16.png", "tiff16.tif", "bilevel.png", "exif_rotate6.jpg", "gray.jpg"]
)
def test_read_unusual_files_show_their_source_image(broken, name):
    true = pixels(broken / "ok_reference.jpg").mean(axis=2)
    found = pixels(broken / name).mean(axis=2)
    assert abs(found.mean() - true.mean()) < 2
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > (0.6 if name == "bilevel.png" else 0.98)
