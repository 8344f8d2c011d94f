"""Depth prediction by fine-tuning with up-projections (Doersch & Zisserman 2017, Laina et al. 2016; protocols 4.7)."""

import math
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.protocols import Depth as Options
from ssltransfer.data.drawing import data_uri, depth_colors, side_by_side
from ssltransfer.data.loader import Batch
from ssltransfer.data.rgbd import RgbdCenterCrop, RgbdResize, augment, bilinear_sample, channel_jitter
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.models.backbone import LayerError, initialize
from ssltransfer.models.build import rebuild
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.models.normalize import normalize
from ssltransfer.models.up_projection import UpProjection
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, curve_figure, evenly_spaced
from ssltransfer.protocols.depth_errors import Median, berhu, depth_metrics, error_sums, median_depth, share_within
from ssltransfer.protocols.harness import SeedResult, predict, train_and_test
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.task import Task

TEST_BATCH = 16
DRAWN, DRAWN_HEIGHT = 6, 120  # test images in the report, and their height in pixels


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Errors over all pixels in the network's view with a depth value, pooled over the test images.

    `d1`, `d2`, `d3`: percent of the pixels with max(d/p, p/d) below 1.25, 1.25^2, 1.25^3; `mae`: mean absolute error in
    meters; `rel`: mean absolute error relative to the true depth. Each image counts at the resolution of its depth map.

    Raises:
        ArtifactError: a depth map can no longer be read.
        LayerError: the model has no such layer, or it is not a map of stride 4 or more.
    """
    options = context.options(Options)
    model, median = read_model(context.model), median_depth(context.train)

    def build(seed: int) -> DepthTask:
        return DepthTask(model, options, median, seed, context.model.as_posix())

    def test(task: DepthTask, trained: TrainResult, seed: int) -> SeedResult:
        errors, errors_of_median, drawn = task.test(context)
        chance = depth_metrics(errors_of_median)
        details = {
            **({"mix": task.backbone.mix.rounded} if isinstance(task.backbone, MixedBackbone) else {}),
            "layer": task.layer,
            "up_projections": len(task.head) - 1,
            "median_depth": median.meters,
            "chance_loss": round(median.loss, 6),
            "chance": chance,
            "lines": [
                curve_figure(trained.curve, "loss", "berHu", "loss"),
                curve_figure(trained.curve, "d1", "within a factor of 1.25", "fraction of pixels"),
            ],
            "pixels": int(errors[0]),
            "drawn": drawn,
        }
        return SeedResult(depth_metrics(errors), chance["d1"], details)

    return train_and_test(context, build, test)


class DepthTask(Task):
    """A backbone up to a map, up-projections to half the side of the input, and a 3x3 convolution to meters.

    The whole backbone is trained. The up-projections bring the map to stride 2; the prediction spans the image and is
    sampled bilinearly at its pixels. The last convolution starts with the training set's median as its bias and weights
    N(0, 0.01) [chosen], so that the first loss is at chance level. The given model is not changed.
    """

    def __init__(self, model: PretrainedModel, options: Options, median: Median, seed: int, where: str):
        super().__init__()
        self.options, self.normalization, self.median = options, model.normalization, median
        backbone = rebuild(model.backbone, include_top=False, output_stride=options.output_stride)
        self.backbone = (backbone if options.l1_layer_mix is None else MixedBackbone(backbone)).requires_grad_(True)
        last_map = (backbone.options.spatial_layers or backbone.layers)[-1]
        self.layer = options.layer or ("block3" if "block3" in backbone.layers else last_map)
        channels, stride = self._map(where)
        ups = round(math.log2(stride)) - 1
        if ups < 1:
            raise LayerError(f"{where}: {self.layer} is at stride 2 or less already; name a deeper layer.")
        widths = [max(8, options.decoder_dim // 2**place) for place in range(ups)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "up-projections"))
            blocks = [UpProjection(a, b) for a, b in zip([channels, *widths], widths, strict=False)]
            last = nn.Conv2d(widths[-1], 1, 3, padding=1)
            self.head = nn.Sequential(*blocks, last)
            initialize(self.head)
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias, median.meters)  # type: ignore[arg-type]
        self.chance_loss = median.loss

    @property
    def transform(self) -> RgbdResize:
        """The whole image, which is cropped on the device."""
        return RgbdResize(*self.options.resize)

    @property
    def val_transform(self) -> RgbdCenterCrop:
        """The center, with depth at its own resolution."""
        return RgbdCenterCrop(self.transform, *self.options.crop)

    def predict(self, images: Tensor) -> Tensor:
        """uint8 or float (B, 3, H, W), 0 to 255 -> meters, float32 (B, about H / 2, about W / 2)."""
        maps = self.backbone(normalize(images, self.normalization), [self.layer])[self.layer]
        meters: Tensor = self.head(maps)[:, 0].float()
        return meters

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """berHu, and the fraction of pixels within a factor of 1.25."""
        truth, options = batch.targets["depth"], self.options
        if self.training:
            images, truth = augment(
                batch.images,
                truth,
                rng,
                crop=options.crop,
                zoom=options.scale,
                rotation=options.rotation,
                mirror=options.hflip,
            )
            meters = self.predict(channel_jitter(images, rng, *options.color_jitter))
            predicted = F.interpolate(meters[:, None], options.crop, mode="bilinear", align_corners=False)[:, 0]
        else:
            predicted = self._measured(batch)
        loss = berhu(predicted, truth, together=self.training)
        if isinstance(self.backbone, MixedBackbone) and options.l1_layer_mix is not None and self.training:
            loss = loss + options.l1_layer_mix * self.backbone.mix.penalty
        return {"loss": loss, "d1": share_within(predicted, truth, together=self.training)}

    def test(self, context: EvalContext) -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
        """`error_sums` of the predictions and of the training set's median, and drawings of some test images."""
        drawn = set(evenly_spaced(len(context.test), DRAWN))

        def measure(batch: Batch) -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
            truth = batch.targets["depth"]
            predicted = self._measured(batch).clamp(*self.options.depth_range)
            constant = torch.full_like(truth, self.median.meters).clamp(*self.options.depth_range)
            drawings = [
                _drawing(context.test.paths[sample], batch, row, predicted[row])
                for row, sample in enumerate(batch.ids.tolist())
                if sample in drawn
            ]
            return error_sums(predicted, truth), error_sums(constant, truth), drawings

        errors, of_median, drawings = zip(*predict(context, self, measure, self.val_transform, TEST_BATCH), strict=True)
        return np.sum(errors, axis=0), np.sum(of_median, axis=0), list(chain(*drawings))

    def _measured(self, batch: Batch) -> Tensor:
        """Predicted meters at the pixels of the measured depth, float32 (B, H, W)."""
        return bilinear_sample(self.predict(batch.images), batch.targets["rows"], batch.targets["columns"])

    @torch.no_grad()
    def _map(self, where: str) -> tuple[int, float]:
        """Channels and stride of the layer."""
        if self.layer not in self.backbone.layers:
            raise LayerError(f"{where}: no layer {self.layer!r}; its maps are {', '.join(self.backbone.layers)}.")
        height, width = self.options.crop
        try:
            shape = self.backbone(torch.zeros(1, 3, height, width), [self.layer])[self.layer].shape[1:]
        except RuntimeError:
            raise LayerError(
                f"{where}: images of {width} x {height} pixels are too small for {self.layer}; increase `crop`."
            ) from None
        if len(shape) != 3:
            raise LayerError(f"{where}: {self.layer} is a vector; name a map as `layer`.")
        return shape[0], math.sqrt(height * width / (shape[1] * shape[2]))


def _drawing(path: str, batch: Batch, row: int, predicted: Tensor) -> dict[str, str]:
    """A test image, its depth and the prediction; the colors span the range of the true depth."""
    height, width = (int((batch.targets[name][row] <= 1).sum()) for name in ("rows", "columns"))
    truth = batch.targets["depth"][row]
    true, measured = (one[:height, :width].cpu().numpy() for one in (truth, predicted))
    far = float(true.max(initial=0.0))
    near = float(true[true > 0].min(initial=far))
    image = batch.images[row].permute(1, 2, 0).cpu().numpy()
    panels = side_by_side([image, *(depth_colors(one, near, far) for one in (true, measured))], DRAWN_HEIGHT)
    about = depth_metrics(error_sums(predicted, truth))
    title = (
        f"{path}: image, measured depth, prediction, {near:.2f} to {far:.2f} m; "
        f"d1 {about['d1']:.1f} %, mae {about['mae']:.2f} m"
    )
    return {"title": title, "uri": data_uri(panels, "JPEG")}
