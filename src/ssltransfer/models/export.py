"""Export models as state dicts, torch.export programs or ONNX files, each with a model card."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError, atomic_write, file_digest, read_json, write_text
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.artifacts.workdir import MANIFEST
from ssltransfer.config.entities import EXPORT_SUFFIXES
from ssltransfer.config.weights_metadata import HEADER
from ssltransfer.errors import UserError
from ssltransfer.extras import import_extra
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import PretrainedModel, read_model

TOLERANCE = 1e-4  # of an exported network's outputs, relative to the largest one


class FeatureExtractor(nn.Module):
    """Images to the features of one layer, normalization included; maps are averaged over positions."""

    def __init__(self, model: PretrainedModel, layer: str):
        super().__init__()
        self.backbone, self.normalization, self.layer = model.backbone, model.normalization, layer

    def forward(self, images: Tensor) -> Tensor:
        """float32 (B, 3, S, S), RGB from 0 to 255 -> float32 (B, dims)."""
        features: Tensor = self.backbone(normalize(images, self.normalization), [self.layer])[self.layer]
        return features.mean((2, 3)) if features.ndim == 4 else features


def export(manifest: Path, output: Path, *, layer: str | None = None, metrics: Sequence[Path] = ()) -> str:
    """Write a model for use without this package, and its card, {output}.md.

    .pth and .safetensors are the backbone's state dict, with torchvision's names for torchvision's architectures. .pt2
    (torch.export) and .onnx are networks for any batch size: from RGB images of `img_size`, float32 from 0 to 255, to
    the features of one layer; normalization is included. Their outputs are compared with the backbone's.

    Args:
        manifest: of the model.
        output: the suffix selects the format.
        layer: for .pt2 and .onnx; default: the last one.
        metrics: files of the evaluate stage, for the card.

    Returns:
        One line that describes the file and the check.

    Raises:
        ArtifactError: unknown suffix, or different outputs.
        MissingExtraError: the packages for ONNX are not installed.
        LayerError: there is no such layer.
    """
    if output.suffix not in EXPORT_SUFFIXES:
        raise ArtifactError(f"{output}: the suffix selects the format; use one of {', '.join(EXPORT_SUFFIXES)}.")
    if manifest.suffix != ".json":
        raise ArtifactError(f"{manifest}: not a manifest; give {MANIFEST} of the model, in its results folder.")
    metrics = [file for file in metrics if not file.name.endswith(".run.json")]  # of a pattern such as *.json
    for file in metrics:
        read_metrics(file)  # fails before anything is written
    model = read_model(manifest)
    layer = layer or model.backbone.layers[-1]
    model.backbone.require([layer], manifest)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix in (".pth", ".safetensors"):
        summary = _write_tensors(model, read_json(manifest.parent / "backbone.json"), output)
    else:
        summary = _write_network(FeatureExtractor(model, layer).eval(), output, model.backbone.options.img_size)
    write_text(output.with_suffix(output.suffix + ".md"), card(manifest, model, output, summary, metrics))
    return f"{output}: {summary}"


def _write_tensors(model: PretrainedModel, about: dict[str, Any], output: Path) -> str:
    tensors = {name: value.contiguous() for name, value in model.backbone.state_dict().items()}
    with atomic_write(output) as beside:
        if output.suffix == ".pth":
            torch.save(tensors, beside)
        else:
            kept = {key: about[key] for key in ("backbone", "include_top", "normalize", "activations")}
            safetensors.torch.save_file(tensors, beside, {HEADER: json.dumps(kept, sort_keys=True)})
    return f"{len(tensors)} tensors of {model.backbone.options.name}"


def _write_network(network: FeatureExtractor, output: Path, size: int) -> str:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, size, size, generator=generator) * 255
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), atomic_write(output) as beside:
        expected = network(images)
        try:
            if output.suffix == ".pt2":
                torch.export.save(torch.export.export(network, (images,), dynamic_shapes=({0: batch},)), beside)
                outputs = torch.export.load(beside).module()(images)
            else:
                outputs = _export_onnx(network, images, batch, beside)
        except (UserError, OSError):
            raise
        except Exception as error:  # torch raises many types, with long messages
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ArtifactError(
                f"{output}: torch cannot export {network.backbone.options.slug} in this format ({reason}); use .pth "
                "or .safetensors for its tensors."
            ) from error
        difference = float((outputs - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"{output}: the exported network's outputs differ by {difference:.1e} of the largest; not written."
            )
    return f"layer {network.layer}, {expected.shape[1]} features per image, outputs equal to {difference:.0e}"


def _export_onnx(network: FeatureExtractor, images: Tensor, batch: Any, file: Path) -> Tensor:
    import_extra("onnxscript", "onnx", "export to ONNX")  # for torch's exporter, whose message is long
    onnxruntime = import_extra("onnxruntime", "onnx", "export to ONNX")
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
    # With other batch sizes than in tracing.
    parts = [session.run(None, {"images": part.numpy()})[0] for part in (images[:1], images[1:])]
    return torch.cat([torch.from_numpy(part) for part in parts])


def card(manifest: Path, model: PretrainedModel, output: Path, summary: str, metrics: Sequence[Path]) -> str:
    """The model card as Markdown: network, training, preprocessing, origin of imported weights, teachers, metrics."""
    about, options, view = read_json(manifest.parent / "backbone.json"), model.backbone.options, model.view
    made = about["made"]
    method = (made.get("task") or made.get("method") or {}).get("name", "unknown")
    lines = [
        f"# {model.name}",
        "",
        f"`{output.name}`: {summary}.",
        "",
        f"- Network: {options.name}, {about['parameters']:,} parameters, layers {', '.join(model.backbone.layers)}",
        f"- Trained by: `{method}` on {made.get('data') or 'no images'}",
        f"- Images: short side to {view.short_side}, central {view.size} x {view.size}, RGB; normalization "
        f"`{model.normalization}`{', inside the network' if output.suffix in ('.pt2', '.onnx') else ''}",
        f"- Weights: {model.digest} (BLAKE2b of backbone.safetensors)",
        *_origin(manifest),
    ]
    chain = [manifest.resolve()]
    for one in chain:
        sources = [("Initial weights", init_of(one)), *(("Teacher", teacher) for teacher in teachers_of(one))]
        for role, source in sources:
            # Two models of equal weights would be each other's teacher for ever.
            if source is not None and source not in chain:
                lines += _source(role, source)
                chain.append(source)
    lines += [
        "",
        "## Training",
        "",
        "```json",
        json.dumps(made, indent=2, sort_keys=True),
        "```",
    ]
    if metrics:
        lines += [
            "",
            "## Metrics",
            "",
            "| evaluation | protocol | value | chance | unit |",
            "|---|---|---|---|---|",
        ]
        for result in map(read_metrics, metrics):
            chance = "" if result.chance is None else f"{result.chance:.2f}"
            protocol = result.protocol_name
            lines.append(f"| {result.evaluation} | {protocol} | {result.mean():.2f} | {chance} | {result.unit} |")
    return "\n".join(lines) + "\n"


def _origin(manifest: Path) -> list[str]:
    """Source and license of a model with weights that others have trained."""
    content, task = read_json(manifest), read_json(manifest.parent / "backbone.json")["made"].get("task") or {}
    if "matched" not in content:
        return []
    source = content["source"] if "source" in content else Path(task["file"]["path"]).name
    digest = f", BLAKE2b {content['file']}" if "file" in content else ""
    license = task.get("license") or content.get("license") or "not stated; it may bind this model too"
    return [
        f"- Origin: `{source}`{digest}: {content['matched']}",
        f"- License of `{source}`: {license}",
    ]


def _source(role: str, manifest: Path) -> list[str]:
    """Network, normalization and origin of a teacher or of initial weights; the file of vectors made elsewhere."""
    if file := _spec(manifest).get("file"):
        return [f"- {role}: vectors of `{Path(file['path']).name}`, BLAKE2b {file['digest']}"]
    about = read_json(manifest.parent / "backbone.json")
    network = dict(about["backbone"])
    options = ", ".join([network.pop("name"), *(f"{key} {value}" for key, value in network.items())])
    return [
        f"- {role}: `{manifest.parent.name}`, {options}, {about['parameters']:,} parameters; normalization "
        f"`{about['normalize']}`; weights {about['weights']}",
        *(f"  {line}" for line in _origin(manifest)),
    ]


def _spec(manifest: Path) -> dict[str, Any]:
    return read_json(manifest).get("spec") or {}


def init_of(manifest: Path) -> Path | None:
    """Manifest of the model whose weights a training started from, if it is in the same results folder."""
    used, results = read_json(manifest)["inputs"].get("init", []), manifest.resolve().parents[2]
    files = sorted(file for stage in ("pretext", "student") for file in results.glob(f"{stage}/*/{MANIFEST}"))
    return next((file for file in files if file_digest(file) in used), None) if used else None


def teachers_of(manifest: Path) -> list[Path]:
    """Manifests of the models, or of the features of a file, that a student learned from, directly or through clusters.

    They are searched in the same results folder by their digests, because the manifest of a student does not contain
    names of files. Empty for other models, and without those that are not there or were trained again since.
    """
    content, results = read_json(manifest), manifest.resolve().parents[2]
    method = _spec(manifest).get("method")
    if method is None:
        return []
    used = {digest for role, digests in content["inputs"].items() if role != "init" for digest in digests}
    # Stored features and clusters know the digest of their model's weights.
    sources = [file for file in results.glob(f"features/*/*/{MANIFEST}") if file_digest(file) in used]
    if "cluster" in method:
        sources += results.glob(f"cluster/{method['cluster']}/{MANIFEST}")
    weights = {read_json(file)["model"] for file in sources}
    found: dict[str, Path] = {}  # by weights: one of several models with the same
    for stage in ("pretext", "student"):
        for file in sorted(results.glob(f"{stage}/*/{MANIFEST}")):
            own = read_json(file).get("weights")
            if file_digest(file) in used or own in weights:
                found.setdefault(own, file)
    made_elsewhere = (file for file in sorted(results.glob(f"features/*/*/{MANIFEST}")) if _spec(file).get("file"))
    return list(found.values()) or [file for file in made_elsewhere if read_json(file)["model"] in weights][:1]
