"""Models for others: plain state dicts, exported programs and ONNX files, each with a card that says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError, atomic_write, read_json, write_text
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import HEADER, PretrainedModel, read_model

SUFFIXES = (".pth", ".safetensors", ".pt2", ".onnx")
TOLERANCE = 1e-4  # of an exported network's outputs, relative to the largest


class Network(nn.Module):
    """Images in, one layer's values out: what others call a feature extractor.

    Args:
        model: a backbone and the normalization that it was trained with, which becomes a part of the network.
        layer: whose values come out; maps are averaged.
    """

    def __init__(self, model: PretrainedModel, layer: str):
        super().__init__()
        self.backbone, self.normalization, self.layer = model.backbone, model.normalization, layer

    def forward(self, images: Tensor) -> Tensor:
        """float32 (B, 3, S, S), RGB from 0 to 255 -> float32 (B, dims)."""
        found: Tensor = self.backbone(normalize(images, self.normalization), [self.layer])[self.layer]
        return found.mean((2, 3)) if found.ndim == 4 else found


def export(manifest: Path, output: Path, *, layer: str | None = None, metrics: list[Path] | None = None) -> str:
    """Write a model for use without this package, and {output}.md, its card, beside it.

    .pth and .safetensors hold the backbone's state dict, in torchvision's names where the architecture is theirs. .pt2
    (torch.export) and .onnx hold a network of any batch size: RGB images of the backbone's size, float32 from 0 to 255,
    to one layer; normalization is inside. The written network must give what the backbone gives.

    Args:
        manifest: of the model.
        output: its suffix says which form.
        layer: of .pt2 and .onnx; default the last.
        metrics: files of the evaluate stage, for the card.

    Returns:
        One line: what was written and how it was checked.

    Raises:
        ArtifactError: an unknown suffix, a package that is missing, or outputs that differ.
        LayerError: there is no such layer.
    """
    if output.suffix not in SUFFIXES:
        raise ArtifactError(f"{output}: the suffix says the form; name one of {', '.join(SUFFIXES)}.")
    model = read_model(manifest)
    layer = layer or model.backbone.layers[-1]
    if layer not in model.backbone.layers:
        raise LayerError(f"{manifest}: no layer {layer!r}; it has {', '.join(model.backbone.layers)}.")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix in (".pth", ".safetensors"):
        said = _write_tensors(model, read_json(manifest.parent / "backbone.json"), output)
    else:
        said = _write_network(Network(model, layer).eval(), output, model.backbone.options.img_size)
    write_text(output.with_suffix(output.suffix + ".md"), card(manifest, model, layer, output, said, metrics or []))
    return f"{output}: {said}"


def _write_tensors(model: PretrainedModel, about: dict[str, Any], output: Path) -> str:
    tensors = {name: value.contiguous() for name, value in model.backbone.state_dict().items()}
    with atomic_write(output) as beside:
        if output.suffix == ".pth":
            torch.save(tensors, beside)
        else:
            kept = {key: about[key] for key in ("backbone", "include_top", "normalize", "activations")}
            safetensors.torch.save_file(tensors, beside, {HEADER: json.dumps(kept, sort_keys=True)})
    return f"{len(tensors)} tensors of {model.backbone.options.name}"


def _write_network(network: Network, output: Path, size: int) -> str:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, size, size, generator=generator) * 255
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), atomic_write(output) as beside:
        expected = network(images)
        try:
            if output.suffix == ".pt2":
                torch.export.save(torch.export.export(network, (images,), dynamic_shapes=({0: batch},)), beside)
                found = torch.export.load(beside).module()(images)
            else:
                found = _through_onnx(network, images, batch, beside)
        except (ArtifactError, OSError):
            raise
        except Exception as why:  # of many kinds, and of many lines
            reason = (str(why) or type(why).__name__).splitlines()[0]
            raise ArtifactError(
                f"{output}: torch cannot write {network.backbone.options.slug} in this form ({reason}); .pth and "
                ".safetensors hold its tensors."
            ) from why
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if not error <= TOLERANCE:
            raise ArtifactError(
                f"{output}: the exported network's outputs differ by {error:.1e} of the largest; nothing was written."
            )
    return f"layer {network.layer}, {expected.shape[1]} numbers a image, outputs equal to {error:.0e}"


def _through_onnx(network: Network, images: Tensor, batch: Any, file: Path) -> Tensor:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it, and says so at length
    except ImportError as error:
        raise ArtifactError(f"ONNX needs {error.name}: pip install onnx onnxscript onnxruntime.") from None
    program = torch.onnx.export(
        network,
        (images,),
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(file), include_initializers=True, external_data=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    # Another batch size than it was traced with.
    parts = [session.run(None, {"images": part.numpy()})[0] for part in (images[:1], images[1:])]
    return torch.cat([torch.from_numpy(part) for part in parts])


def card(manifest: Path, model: PretrainedModel, layer: str, output: Path, said: str, metrics: list[Path]) -> str:
    """The model card, as Markdown: what it is, of what it was made, how to use it, what it reached."""
    about, options = read_json(manifest.parent / "backbone.json"), model.backbone.options
    view, made = model.view, about["made"]
    learned = (made.get("task") or made.get("method") or {}).get("name", "unknown")
    lines = [
        f"# {model.name}",
        "",
        f"`{output.name}`: {said}.",
        "",
        f"- Network: {options.name}, {about['parameters']:,} parameters, layers {', '.join(model.backbone.layers)}",
        f"- Made by: `{learned}` on {made.get('data') or 'no images'}",
        f"- Images: short side to {view.short_side}, central {view.size} x {view.size}, RGB; normalization "
        f"`{model.normalization}`{', inside the network' if output.suffix in ('.pt2', '.onnx') else ''}",
        f"- Weights: {model.digest} (BLAKE2b of backbone.safetensors)",
        *_origin(read_json(manifest), made),
        "",
        "## How it was made",
        "",
        "```json",
        json.dumps(made, indent=2, sort_keys=True),
        "```",
    ]
    if metrics:
        lines += [
            "",
            "## What it reached",
            "",
            "| evaluation | protocol | value | chance | unit |",
            "|---|---|---|---|---|",
        ]
        for found in map(read_metrics, metrics):
            chance = "" if found.chance is None else f"{found.chance:.2f}"
            protocol = found.protocol_name
            lines.append(f"| {found.evaluation} | {protocol} | {found.mean():.2f} | {chance} | {found.unit} |")
    return "\n".join(lines) + "\n"


def _origin(content: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """Of an imported model: which file, and how much of the network was in it."""
    if "matched" not in content:
        return []
    return [f"- Origin: `{Path(made['task']['file']).name}`, BLAKE2b {content['file']}: {content['matched']}"]
