"""Videos: files and folders of frames at any depth; DAVIS."""

import os
from pathlib import Path

from ssltransfer.config.formats import Video
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, folder_of, read_list
from ssltransfer.data.formats.folders import NO_IMAGE, find_images
from ssltransfer.data.image_io import is_candidate
from ssltransfer.data.videos import VIDEO_EXTENSIONS

_LISTS = Path("ImageSets/480p")


@FORMATS.register(Video)
def find(dataset: Video, *, workers: int = 1) -> DatasetListing:
    """List all videos below root, sorted by path: files, and folders that contain images.

    If there is a folder JPEGImages/480p or JPEGImages, only that is searched, because masks are images too.
    """
    root = Path(dataset.root)
    folder_of(root)
    start = next((name for name in ("JPEGImages/480p", "JPEGImages") if (root / name).is_dir()), "")
    found = find_images(root / start)
    prefix = f"{start}/" if start else ""
    skipped = {prefix + path: reason for path, reason in found.skipped.items()}
    others = {path for path, reason in skipped.items() if reason == NO_IMAGE}
    files = {path for path in others if is_candidate(path, VIDEO_EXTENSIONS)}
    folders = {prefix + os.path.dirname(path) for path in found.paths if "/" in path}  # noqa: PTH120 - a Path is slow
    skipped |= dict.fromkeys(others, "not a video's file name")
    skipped = {path: reason for path, reason in skipped.items() if path not in files}
    skipped |= {prefix + path: "an image outside a folder of frames" for path in found.paths if "/" not in path}
    paths = sorted(files | folders)
    if dataset.split:
        paths = _of_split(root, dataset.split, paths)
    if not paths:
        endings = ", ".join(sorted(VIDEO_EXTENSIONS))
        raise LayoutError(f"{root / start}: no videos found: neither files ({endings}) nor folders of frames.")
    return DatasetListing(root, paths, skipped=skipped)


def _of_split(root: Path, split: str, paths: list[str]) -> list[str]:
    """The videos in a list of DAVIS, which names their frames (2016) or the videos."""
    file = root / _LISTS / f"{split}.txt"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in (root / _LISTS).glob("*.txt"))) or "none"
        raise LayoutError(f"{file}: no such list (available: {there}); correct or remove `split`.")
    known = {path.rpartition("/")[2]: path for path in paths}
    named: dict[str, None] = {}
    for line in filter(None, map(str.strip, read_list(file).splitlines())):
        first = Path(line if Path(line).name in known else line.split()[0])
        named[first.parent.name if is_candidate(first) else first.name] = None
    missing = [name for name in named if name not in known]
    if missing:
        raise LayoutError(
            f"{file}: {len(missing)} of its {len(named)} clips are not below {root} (the first: {missing[0]}); "
            "add them or correct the list."
        )
    return sorted(known[name] for name in named)
