"""Rates of a machine: assumed, given, or measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.formats import Dataset, Video
from ssltransfer.processes import available_cores

FILES = 350.0  # images per second and core: 500x375 JPEG, decoded, resized and cropped to uint8
CACHES = {"jpeg": 1100.0, "raw": 5500.0}  # the same from a cache of short side 256
CORE_TFLOPS = 0.05  # sustained by a CPU core in the training of small networks (0.09 for a ResNet-18 at 64 pixels)


@dataclass(frozen=True)
class Machine:
    """One device and its CPU cores.

    Attributes:
        tflops: of the device, in 10^12 floating-point operations per second, for rates that are not in `paces`.
        cores: CPU cores that decode for one device.
        paces: by name: forward/caffenet, training/caffenet and products in floating-point operations per second;
            decoding/files, decoding/jpeg and decoding/raw in images per second and core.
        where: device and date of the measurement.
        on_gpu: whether the device is a GPU.
    """

    tflops: float = 30.0
    cores: int = 16
    paces: Mapping[str, float] = field(default_factory=dict)
    where: str = ""
    on_gpu: bool = True

    def rate(self, kind: str, backbone: str = "") -> float:
        """Floating-point operations per second; for a backbone that was not measured, those of the slowest one."""
        known = [pace for name, pace in self.paces.items() if name.split("/")[0] == kind]
        return self.paces.get(f"{kind}/{backbone}", min(known, default=self.tflops * 1e12))

    def images(self, dataset: Dataset | None) -> float:
        """Images per second that the cores read from this dataset's files, or from its cache."""
        files = self.paces.get("decoding/files", FILES)
        packed = dataset.cache if dataset else None
        if isinstance(dataset, Video):
            packed = dataset.motion.cache
        if packed is None:
            return self.cores * files
        fastest = self.paces.get("decoding/raw", CACHES["raw"])
        pace = self.paces.get(f"decoding/{packed.format}", CACHES[packed.format])
        return self.cores * max(files, min(pace * (256 / packed.short_side) ** 2, fastest))

    def __str__(self) -> str:
        if self.where:
            rates = ", ".join(
                f"{name} {pace / 1e12:.3g} TFLOP/s"
                if not name.startswith("decoding")
                else f"{name} {pace:.0f}/s a core"
                for name, pace in sorted(self.paces.items())
            )
            return f"Measured on {self.where}: {rates}; {self.cores} cores decode for a device."
        if self.on_gpu:
            device = f"one device at {self.tflops:g} TFLOP/s, {self.cores} cores beside it that"
        else:
            device = f"the {self.cores} cores of this machine without a GPU compute at {self.tflops:g} TFLOP/s and"
        return (
            f"Assumed, not measured: {device} decode {FILES:g} images/s each (caches: more). Change with --tflops and "
            "--cores, or give --benchmark-results."
        )


def this_machine(cores: int | None = None) -> Machine:
    """Assumed rates: of a GPU if this machine has one, else of its cores."""
    if torch.cuda.is_available():
        return Machine(cores=cores or Machine.cores)
    cores = cores or available_cores()
    return Machine(tflops=CORE_TFLOPS * cores, cores=cores, on_gpu=False)


def measured(results: Path, cores: int | None = None) -> Machine:
    """The machine whose benchmarks wrote `results` (results.json of `python -m benchmarks`).

    Args:
        results: of full size; rates on a GPU take precedence over those on a CPU.
        cores: that decode for one device; default: all of that machine.

    Raises:
        ArtifactError: the file is missing or has no rates at full size.
    """
    try:
        content = json.loads(results.read_text("utf-8"))
        about = content["machine"]
        paces = {
            name: amount / median(result["samples"][contender])
            for row in content["results"].values()
            for result in row
            for name, (contender, amount) in result.get("paces", {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{results}: no results of `python -m benchmarks` ({error}).") from error
    if about["sizes"] != "full" or not paces:
        raise ArtifactError(
            f"{results}: holds no pace at full size; run `python -m benchmarks jigsaw extraction training kmeans`."
        )
    device = about["processor"] if about["GPU"] == "none" else about["GPU"]
    return Machine(cores=cores or about["cores"], paces=paces, where=f"{device}, {about['date']}")
