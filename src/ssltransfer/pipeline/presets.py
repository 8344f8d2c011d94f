"""Presets: configurations of common uses, which `ssltransfer init` writes for folders and networks of one's own.

A preset in `config/presets` is a configuration with the values of `VALUES`, which are replaced by those of the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from ssltransfer.config import complete
from ssltransfer.config.backbones import BACKBONES, AnyBackbone, BackboneOptions
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.errors import UserError
from ssltransfer.pipeline import FOLDER

PRESETS = FOLDER / "config" / "presets"
# Option of `ssltransfer init` -> what it replaces in a preset.
VALUES = {
    "images": "data/images",
    "labeled": "data/labeled",
    "teacher": "{task: pretrained, backbone: {name: timm, model: vit_small_patch14_dinov2.lvd142m, img_size: 224}}",
    "checkpoint": "{task: {name: imported, file: weights/checkpoint.pth}, backbone: resnet50}",
    "student": "backbone: resnet18",
    "k": "k: 100",
}
LEARNING_RATE = "lr: 0.05"
TEACHERS = {
    "dinov2": "timm/vit_small_patch14_dinov2.lvd142m",
    "dinov3": "timm/vit_small_patch16_dinov3.lvd1689m",
}
STUDENTS = {"mobilenet_v3": "torchvision/mobilenet_v3_large", "vit_tiny": "timm/vit_tiny_patch16_224"}
# Transformers and other networks with layer norms do not learn with SGD at the rate of a ResNet; chosen.
LAYER_NORM_RATE = "optimizer: adamw, lr: 0.0005, weight_decay: 0.05"


def presets() -> dict[str, str]:
    """Name -> the first sentence of each preset."""
    files = sorted(PRESETS.glob("*.yaml"))
    return {file.stem: file.read_text("utf-8").splitlines()[1].removeprefix("# ") for file in files}


def write_preset(name: str, output: Path, options: Mapping[str, str], backbone: str = "") -> None:
    """Write a preset with the user's values as a new configuration file.

    Args:
        name: of the preset.
        output: a new file; its stem names the folder of results.
        options: values by the keys of `VALUES`. Networks are names of backbones, LIBRARY/MODEL of timm or torchvision,
            names of `STUDENTS` and `TEACHERS`, or files of weights.
        backbone: of a file of weights.

    Raises:
        UserError: the file exists, or an option is missing or not used by the preset.
        ConfigError: there is no such preset, or a value is not valid.
    """
    file = PRESETS / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"no preset is called {name!r}{suggest(name, presets())}")
    if output.exists():
        raise UserError(f"{output}: exists; choose another name with --output.")
    text = file.read_text("utf-8")
    used = [key for key, value in VALUES.items() if value in text]
    for key in options:
        if key not in used:
            raise UserError(f"the preset {name} has no --{key}; it has {', '.join(f'--{one}' for one in used)}.")
    for key in used:
        if key in ("images", "labeled", "checkpoint") and key not in options:
            raise UserError(f"the preset {name} needs --{key}.")
    if backbone and not options.keys() & {"teacher", "checkpoint"}:
        raise UserError("--backbone is that of a file of weights; give --teacher or --checkpoint too.")
    replaced = {VALUES[key]: _text(key, value, backbone) for key, value in options.items()}
    if _has_layer_norm(options.get("student", "")):
        replaced[LEARNING_RATE] = LAYER_NORM_RATE
    replaced |= {
        "../schema.json": str((FOLDER / "config" / "schema.json").resolve()),
        f"config/presets/{name}.yaml": str(output),
        f"results/{name}": f"results/{output.stem}",
    }
    # At once, because a value of the user may contain one of the preset.
    text = re.sub("|".join(map(re.escape, replaced)), lambda match: replaced[match[0]], text)
    complete(yaml.safe_load(text), name)
    output.write_text(text, encoding="utf-8")


def _text(key: str, value: str, backbone: str) -> str:
    """The YAML of a user's value."""
    if key == "k":
        return f"k: {value}"
    if key == "student":
        return f"backbone: {_backbone(value)}"
    if key in ("images", "labeled"):
        return _quoted(value)
    library, slash, model = TEACHERS.get(value, value).partition("/")
    if slash and library in ("timm", "torchvision") and not Path(value).is_file():
        return f"{{task: pretrained, backbone: {{name: {library}, model: {model}, img_size: 224}}}}"
    known = f", backbone: {_backbone(backbone)}" if backbone else ""
    return f"{{task: {{name: imported, file: {_quoted(value)}}}{known}}}"


def _backbone(name: str) -> str:
    library, slash, model = STUDENTS.get(name, name).partition("/")
    if slash and library in ("timm", "torchvision"):
        return f"{{name: {library}, model: {model}}}"
    names = [str(options.model_fields["name"].default) for options in BACKBONES]
    if name not in names:
        raise ConfigError(f"no backbone is called {name!r}{suggest(name, [*STUDENTS, *names, 'timm/MODEL'])}")
    return name


def _has_layer_norm(student: str) -> bool:
    """Whether a network of a library has one; False if it cannot be built, which `ssltransfer check` reports."""
    backbone = yaml.safe_load(_backbone(student)) if student else None
    if not isinstance(backbone, dict):
        return False
    import torch

    from ssltransfer.models.build import build_backbone

    try:
        with torch.device("meta"):
            network = build_backbone(
                TypeAdapter[BackboneOptions](AnyBackbone).validate_python(backbone), include_top=False
            )
    except Exception:  # libraries raise errors of all kinds
        return False
    return any(isinstance(module, torch.nn.LayerNorm) for module in network.modules())


def _quoted(path: str) -> str:
    # A string of JSON is one of YAML; a word such as `no` or `1` would not be text.
    return path if re.fullmatch(r"[\w.~-]+/[\w./~-]+", path) else json.dumps(path, ensure_ascii=False)
