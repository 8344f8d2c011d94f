"""Options of CUB-200-2011 and Stanford Cars."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.formats.base import Dataset

_ZERO_SHOT = "zero-shot: all images of the first or second half of the classes (Oh Song et al. 2016)."


class Cub200(Dataset):
    """CUB-200-2011: images/, images.txt, image_class_labels.txt, train_test_split.txt, classes.txt."""

    format: Literal["cub200"] = "cub200"
    reference = "Wah et al. 2011"
    published_sizes = {**{"train": 5_994, "test": 5_794, "zero-shot-train": 5_864, "zero-shot-test": 5_924}}
    split: Literal["train", "test", "zero-shot-train", "zero-shot-test"] = Field(description=_ZERO_SHOT)


class Cars196(Dataset):
    """Stanford Cars: cars_train/, cars_test/ and devkit/*.mat, or car_ims/ and cars_annos.mat."""

    format: Literal["cars196"] = "cars196"
    reference = "Krause et al. 2013"
    published_sizes = {**{"train": 8_144, "test": 8_041, "zero-shot-train": 8_054, "zero-shot-test": 8_131}}
    split: Literal["train", "test", "zero-shot-train", "zero-shot-test"] = Field(description=_ZERO_SHOT)
