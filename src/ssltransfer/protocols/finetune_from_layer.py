"""Train all layers after a frozen one from scratch (Noroozi & Favaro 2016, table 2; protocols 4.4)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.protocols import FinetuneFromLayer as Options
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.models.backbone import initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, curve_figure
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.harness import SeedResult, train_and_test
from ssltransfer.protocols.layers import CropTask, best_layer, layers_to_measure
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.task import accuracy


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy with each layer as the last frozen one, and of the layer with the best mean over seeds.

    Each layer is a separate training. Images as for `linear-probe-per-layer`.

    Raises:
        LayerError: the model has no such layer.
    """
    options = context.options(Options)
    context, classes = context.with_classes()
    model = read_model(context.model, context.devices.device)
    layers = layers_to_measure(model.backbone, options.layers, context.model)

    def of_layer(layer: str) -> EvalResult:
        def build(seed: int) -> PartialFinetuneTask:
            return PartialFinetuneTask(model, layer, options, len(classes.names), seed)

        def test(task: PartialFinetuneTask, trained: TrainResult, seed: int) -> SeedResult:
            predicted = task.predict(context)
            figure = curve_figure(trained.curve, "loss", f"loss, frozen up to {layer}")
            details = {"figure": figure, **per_class_metrics(classes, predicted)}
            return SeedResult({"accuracy": accuracy_of(classes, predicted)}, classes.chance(), details)

        return train_and_test(context, build, test, suffix=f"-{layer}")

    results = {layer: of_layer(layer) for layer in layers}
    values = {layer: result.values["accuracy"] for layer, result in results.items()}
    best = best_layer(values)
    details = {
        "best_layer": best,
        "layers": list(layers),
        "lines": [result.details.pop("figure") for result in results.values()],
        "chance_loss": round(math.log(len(classes.names)), 6),
        **results[best].details,
    }
    return EvalResult({"best": values[best], **values}, classes.chance(), details, results[best].measured)


class PartialFinetuneTask(CropTask):
    """A network that is frozen up to a layer, and the rest of the same architecture from scratch with a classifier.

    In a network without fully-connected layers (ResNet) the classifier reads the pooled features. The model is on its
    device and in evaluation mode; it is neither trained nor in the checkpoint.
    """

    def __init__(self, model: PretrainedModel, layer: str, options: Options, num_classes: int, seed: int):
        super().__init__()
        self.model, self.layer, self.options = model, layer, options
        # By layer, so that a training does not depend on the other layers that are measured.
        seed = seed_of(seed, "retrained", layer)
        self.backbone = build_backbone(model.backbone.options, include_top=True, seed=seed, dropout=options.dropout)
        self.later = self.backbone.layers[self.backbone.layers.index(layer) + 1 :]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(math.prod(self.backbone.shapes()[self.backbone.layers[-1]]), num_classes)
            initialize_last(last)
        before = nn.Dropout(options.dropout) if self.backbone.options.top_layers else nn.Identity()
        self.head = nn.Sequential(before, nn.Flatten(), last)
        self.eval()
        self._rest(torch.zeros(1, *self.backbone.shapes()[layer])).sum().backward()
        for parameter in self.parameters():
            # The new backbone's layers up to the frozen one get no gradient.
            parameter.requires_grad_(parameter.grad is not None)
        self.zero_grad(set_to_none=True)
        self.chance_loss = math.log(num_classes)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        target, logits = batch.targets["label"], self.logits(self.augment(batch.images, rng))
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float (B, K)."""
        with torch.no_grad():
            frozen = self.model.layers_of(images, [self.layer])[self.layer]
        # A copy, since the next layer may work in place on a tensor of inference mode or of the frozen backbone.
        return self._rest(frozen.clone())

    def _rest(self, x: Tensor) -> Tensor:
        for layer in self.later:
            x = self.backbone.forward_layer(layer, x)
        logits: Tensor = self.head(x)
        return logits
