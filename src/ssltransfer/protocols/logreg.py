"""L2-regularized logistic regression by L-BFGS on cached features (Kolesnikov et al. 2019; protocols 4.5).

The objective is mean cross-entropy + lambda ||W||^2, W (C, M), without a penalty on the bias; lambda = 100 / (M C)
[recalled: the supplement gives the penalty, not whether the loss is a mean or a sum; compared with a sum of 1.2 million
losses it would be negligible, so it is a mean]. scikit-learn's C is 1 / (2 N lambda).

The protocol uses scipy's defaults, but scipy's L-BFGS-B keeps no state between calls and cannot resume. This is torch's
L-BFGS with the same memory (10), gradient tolerance (1e-5), change tolerance (2.2e-9) and number of updates, a
strong-Wolfe line search, float64 parameters and float32 products. It finds the same minimum of a convex function; in
preconditioned coordinates it needs a third of the evaluations or less.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.protocols import LogReg
from ssltransfer.kmeans import PointLoader, PointSource, SubsetSource
from ssltransfer.logs import logger
from ssltransfer.protocols.base import PROTOCOLS, Classes, EvalContext, EvalResult, percent
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.subsets import labeled_subsets, stratified
from ssltransfer.training.checkpoint import Checkpoint

VAL_FRACTION = 0.1  # of each class's training images, to select a penalty
SEGMENT = 20  # updates between two checkpoints; each segment costs one more evaluation
MEMORY, GRADIENT_TOLERANCE, CHANGE_TOLERANCE = 10, 1e-5, 2.2e-9


@PROTOCOLS.register(LogReg)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of the classifier at the minimum, starting from zero.

    With a label subset there is one number per seed, else one number. Of several penalties the one with the best
    accuracy on a validation tenth of the training images is selected; then the classifier is fitted to all of them.

    Raises:
        ArtifactError: the features are not finite, or no class has two images to select a penalty.
    """
    options, classes = context.options(LogReg), context.classes()
    accuracies: list[float] = []
    details: dict[str, Any] = {}
    subsets = labeled_subsets(context.train.paths, classes.train, options.label_subset, context.spec.seeds)
    for number, chosen in enumerate(subsets):
        predicted, fit = _fit(context, options, classes, chosen, number)
        accuracies.append(accuracy_of(classes, predicted))
        details = details or fit | per_class_metrics(classes, predicted)
    return EvalResult({"accuracy": accuracies}, classes.chance(), details)


def _fit(
    context: EvalContext, options: LogReg, classes: Classes, chosen: np.ndarray, number: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit to the chosen training images. Returns the predicted class of each test image, and details."""
    labels, c = classes.train[chosen], len(classes.names)

    def loader(source: PointSource, where: str, keep: bool) -> PointLoader:
        return PointLoader(source, c, normalize=False, device=context.devices.device, where=where, keep=keep)

    source = SubsetSource(context.features[0], chosen) if options.label_subset else context.features[0]
    train, test = loader(source, context.spec.train, True), loader(context.features[1], context.spec.test, False)
    standard = standardization(train) if options.standardize else None
    logger.info(f"{train}, {c} classes; {context.devices}")
    details: dict[str, Any] = {"num_labeled": len(chosen)}
    penalty = options.l2
    if isinstance(penalty, tuple):
        held = stratified(labels, VAL_FRACTION, context.spec.seeds[0], keep=1)
        if not len(held):
            raise ArtifactError(
                f"{context.spec.train}: no class has two images to select a penalty; give one value of `l2`."
            )
        grid = Objective(train, labels, c, penalty, standard, without=held)
        minimize(grid, options.max_iter, Checkpoint(context.folder / f"grid-{number}.pt"))
        right = (grid.predict(train)[:, held] == labels[held]).mean(1)
        details["grid"] = [{"l2": one, "val": percent(share)} for one, share in zip(penalty, right, strict=True)]
        logger.info(f"of {len(held)} validation images: {details['grid']}")
        penalty = penalty[int(right.argmax())]
    elif penalty is None:
        penalty = 100 / (train.shape[1] * c)
    objective = Objective(train, labels, c, (penalty,), standard)
    curve = minimize(objective, options.max_iter, Checkpoint(context.folder / f"checkpoint-{number}.pt"))
    train_accuracy = percent((objective.predict(train)[0] == labels).mean())
    details |= {"l2": penalty, "curve": curve, "converged": curve[-1]["update"] < options.max_iter}
    return objective.predict(test)[0], details | {"train_accuracy": train_accuracy}


class Objective:
    """mean cross-entropy + lambda ||W||^2 and its gradient, over features that need not fit in memory.

    For G values of lambda at once, in the same pass over the features.

    Args:
        points: N features of M dimensions.
        labels: int64 (N,), C classes.
        classes: C.
        penalties: G values of lambda.
        standard: mean and standard deviation of the features, float32 (M,) each, or None.
        without: samples to exclude.

    Attributes:
        parameters: float64 (G, C, M + 1), the bias in the last column; initially zero.
        penalty: float64 (G, 1, 1).
    """

    def __init__(
        self,
        points: PointLoader,
        labels: np.ndarray,
        classes: int,
        penalties: Sequence[float],
        standard: tuple[Tensor, Tensor] | None = None,
        without: Sequence[int] | np.ndarray = (),
    ):
        self.points, self._standardization = points, standard
        self.labels = torch.from_numpy(labels).to(points.device)
        self._excluded = torch.from_numpy(np.isin(np.arange(len(labels)), without)).to(points.device)
        self._n = len(labels) - len(without)
        shape = (len(penalties), classes, points.shape[1] + 1)
        self.parameters = torch.zeros(shape, dtype=torch.float64, device=points.device)
        self.penalty = torch.tensor(penalties, dtype=torch.float64, device=points.device).view(-1, 1, 1)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """The objectives, float64 (G,); gradients in `parameters.grad`. Sums have a fixed order."""
        weight = self.parameters[:, :, :-1]
        single = self.parameters.flatten(0, 1).float()
        total = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        gradient = torch.zeros_like(self.parameters)
        flat = gradient.flatten(0, 1)
        for span, x in self.points:
            x = self._standard(x)
            scores = _scores(single, x).unflatten(1, weight.shape[:2]).log_softmax(2)
            rows, target = torch.arange(len(x), device=x.device), self.labels[span]
            losses = scores[rows, :, target].double()
            residual = scores.exp_()
            residual[rows, :, target] -= 1
            if self._n < len(self.labels):
                losses[self._excluded[span]] = 0
                residual[self._excluded[span]] = 0
            total -= losses.sum(0)
            flat[:, :-1] += residual.flatten(1).T @ x
            flat[:, -1] += residual.flatten(1).double().sum(0)
        gradient /= self._n
        gradient[:, :, :-1] += 2 * self.penalty * weight
        self.parameters.grad = gradient
        return total / self._n + self.penalty.flatten() * weight.square().sum((1, 2))

    @torch.inference_mode()
    def predict(self, points: PointLoader) -> np.ndarray:
        """int64 (G, N), the most likely class of each point."""
        single, shape = self.parameters.flatten(0, 1).float(), self.parameters.shape[:2]
        scores = (_scores(single, self._standard(x)).unflatten(1, shape) for _, x in points)
        return torch.cat([one.argmax(2).cpu() for one in scores]).T.numpy()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension, float64 (M,), approximately: a variance is at least 1e-4 mean^2."""
        total, squares = torch.zeros(2, self.points.shape[1], dtype=torch.float64, device=self.labels.device)
        for _, x in self.points:
            x = self._standard(x)
            total += x.sum(0)
            squares += torch.linalg.vector_norm(x, dim=0).double().square_()
        mean, square = total / len(self.labels), squares / len(self.labels)
        return mean, torch.maximum(square - mean.square(), 1e-4 * square)

    def _standard(self, x: Tensor) -> Tensor:
        return x if self._standardization is None else (x - self._standardization[0]) / self._standardization[1]


def _scores(parameters: Tensor, x: Tensor) -> Tensor:
    return torch.addmm(parameters[:, -1], x, parameters[:, :-1].T)


class Coordinates:
    """A change of variables after which the second derivatives of the objective at zero are about 1.

    At zero every class has the probability 1/C. The second derivative along a weight of dimension j, with centered
    features, is h var_j + 2 lambda with h = (1 - 1/C) / C, and along a bias h (Jacobi preconditioning).
    """

    def __init__(self, objective: Objective):
        classes = objective.parameters.shape[1]
        h = (1 - 1 / classes) / classes
        self.center, variance = objective.moments()
        self._weight = (h * variance + 2 * objective.penalty).rsqrt()
        self._weight[self._weight.isinf()] = 1.0
        self._bias = h**-0.5

    def parameters(self, inner: Tensor) -> Tensor:
        """float64 (G, C, M + 1) in these coordinates -> weights and bias."""
        weight = inner[..., :-1] * self._weight
        return torch.cat([weight, (inner[..., -1] * self._bias - weight @ self.center)[..., None]], -1)

    def gradient(self, outer: Tensor) -> Tensor:
        """The gradient by weights and bias -> the gradient by these coordinates."""
        weight, bias = outer[..., :-1], outer[..., -1:]
        return torch.cat([(weight - bias * self.center) * self._weight, bias * self._bias], -1)


def minimize(objective: Objective, updates: int, checkpoint: Checkpoint) -> list[dict[str, float]]:
    """Set `objective.parameters` to the minimum. Returns rows of {update, objective, gradient}.

    Several objectives are minimized as their sum. The optimizer runs in segments, and its whole state is saved between
    them, so a resumed run ends with the same bits.

    Raises:
        ArtifactError: the objective is not finite.
        Interrupted: by a signal; the state is saved.
    """
    coordinates, inner = Coordinates(objective), torch.zeros_like(objective.parameters)

    @torch.no_grad()
    def evaluated() -> Tensor:
        objective.parameters.copy_(coordinates.parameters(inner))
        value = objective().sum()
        assert objective.parameters.grad is not None
        inner.grad = coordinates.gradient(objective.parameters.grad)
        return value

    optimizer = torch.optim.LBFGS(
        [inner],
        max_iter=SEGMENT,
        max_eval=100 * SEGMENT,  # the default would cut the last line search of a segment short
        history_size=MEMORY,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=CHANGE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )
    curve: list[dict[str, float]] = []
    done, finished = 0, False
    state = checkpoint.load()
    if state:
        inner.copy_(state["inner"])
        objective.parameters.copy_(coordinates.parameters(inner))
        optimizer.load_state_dict(state["optimizer"])
        curve, done, finished = state["curve"], state["done"], state["finished"]
        logger.info(f"L-BFGS: resuming from update {done}")
    with checkpoint:
        while not finished:
            optimizer.param_groups[0]["max_iter"] = min(SEGMENT, updates - done)
            optimizer.step(evaluated)
            before, done = done, int(optimizer.state[inner].get("n_iter", 0))
            value, gradient = float(evaluated()), objective.parameters.grad
            assert gradient is not None
            largest = float(gradient.abs().max())
            if not np.isfinite(value):
                raise ArtifactError(f"{objective.points.where}: the objective is not finite; set standardize: true.")
            finished = done < before + SEGMENT or done >= updates or largest <= GRADIENT_TOLERANCE
            curve.append({"update": done, "objective": float(f"{value:.9g}"), "gradient": float(f"{largest:.3g}")})
            logger.info(f"L-BFGS: update {done}/{updates}, objective {value:.6f}, largest gradient {largest:.2g}")
            if finished or checkpoint.due(len(curve)):
                content = {"inner": inner, "optimizer": optimizer.state_dict(), "curve": curve}
                checkpoint.save(content | {"done": done, "finished": finished}, done)
    return curve


def standardization(points: PointLoader) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each dimension, float32 (M,); 1 for constant dimensions."""
    n, m = points.shape
    total = torch.zeros(m, dtype=torch.float64, device=points.device)
    for _, x in points:
        total += x.double().sum(0)
    mean = total / n
    squares = torch.zeros_like(mean)
    for _, x in points:
        squares += (x.double() - mean).square_().sum(0)
    deviation = (squares / n).sqrt()
    # A smaller standard deviation is the rounding of a constant.
    constant = deviation <= 1e-6 * mean.abs()
    return mean.float(), deviation.where(~constant & (deviation > 0), 1.0).float()
