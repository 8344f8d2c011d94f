"""Exported programs (torch.export) and ONNX files as frozen networks."""

from collections.abc import Callable

import torch
from torch import Tensor

from ssltransfer.config.backbones import exported as config
from ssltransfer.errors import UserError
from ssltransfer.extras import import_extra
from ssltransfer.models.backbone import BACKBONES, Backbone, LayerError

TOLERANCE = 1e-3  # of features in batches of other sizes, relative to the largest one


@BACKBONES.register(config.Exported)
class Exported(Backbone):
    """A network whose weights stay in its file; the state dict has the digest of the file only.

    Raises:
        ConfigError: the file has changed since the configuration was read.
        LayerError: the file is not a network, or does not return (B, D).
        MissingExtraError: ONNX Runtime is not installed.
    """

    digest: Tensor

    def __init__(self, options: config.Exported, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, include_top=include_top)
        self.file = options.file.checked()
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(options.file.digest)), dtype=torch.uint8))
        self._networks: dict[torch.device, Callable[[Tensor], object]] = {}

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """float (B, 3, S, S) -> float32 (B, D)."""
        if x.is_meta:  # for estimates of cost
            image = torch.zeros(1, *x.shape[1:], device="cpu")
            return x.new_zeros(len(x), self.forward_layer(layer, image).shape[1])
        try:
            if x.device not in self._networks:
                load = _load_onnx if self.file.suffix == ".onnx" else _load_program
                with torch.device("cpu"):
                    self._networks[x.device] = load(str(self.file), x.device)
            output = self._networks[x.device](x.float().contiguous())
        except OSError:
            raise LayerError(f"{self.file}: no such file, or not readable; check the path.") from None
        except UserError:
            raise
        except Exception as error:  # torch and ONNX Runtime raise many types, with long messages
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise LayerError(
                f"{self.file}: not a network for images {tuple(x.shape)} ({reason}); set `img_size` of the backbone, "
                "and export it with a dynamic batch size."
            ) from None
        if isinstance(output, tuple | list) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(x):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise LayerError(f"{self.file}: the network returns {shape}; export one that returns (B, D).")
        return output.float()


def require_independent_images(backbone: Exported) -> None:
    """The features of an image do not depend on the batch.

    Raises:
        LayerError: they do, as those of a network that was exported in training mode.
    """
    size = backbone.options.img_size
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = backbone.forward_layer("output", images)
        parts = torch.cat([backbone.forward_layer("output", images[:1]), backbone.forward_layer("output", images[1:])])
    if (whole - parts).abs().max() > TOLERANCE * whole.abs().max():  # NaN: `require_activations` refuses it
        raise LayerError(
            f"{backbone.file}: the features of an image depend on the batch; export the network after `.eval()`."
        )


def _load_program(file: str, device: torch.device) -> Callable[[Tensor], object]:
    program = torch.export.load(file)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def _load_onnx(file: str, device: torch.device) -> Callable[[Tensor], object]:
    onnxruntime = import_extra("onnxruntime", "onnx", f"backbone exported: {file}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [one for one in (*wanted, "CPUExecutionProvider") if one in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(file, options, providers=providers)
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(value).to(device) for value in session.run(None, {name: images.cpu().numpy()})]

    return run
