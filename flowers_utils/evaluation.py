"""From a network's logits to metrics: accuracy with intervals, confusion, calibration."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from flowers_utils.data import Split
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import backbone_features, eval_mode
from flowers_utils.transforms import Batches, evaluation_batches

Z_95 = 1.959964  # half-width of a 95 % interval, in standard errors
BINS = 15  # as in Guo et al. 2017


def predict_logits(model: nn.Module, split: Split, device: Device) -> tuple[Tensor, Tensor]:
    """Logits `(N, C)` float32 and labels `(N,)` of a split, on the CPU, in the split's order."""
    return _collect(model, model, evaluation_batches(split, device), device)


def predict_features(
    model: nn.Module, split: Split, device: Device, *, image_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """What enters the head, `(N, F)` float32, and labels `(N,)`, on the CPU, in the split's order.

    `image_size` in pixels is the network's: needed for the train split, which is stored larger.
    """
    return features_of(model, evaluation_batches(split, device, image_size=image_size), device)


def features_of(model: nn.Module, batches: Batches, device: Device) -> tuple[Tensor, Tensor]:
    """What enters the head for each image of `batches`, as `predict_features` has it."""
    return _collect(partial(backbone_features, model), model, batches, device)


def _collect(
    function: Callable[[Tensor], Tensor], model: nn.Module, batches: Batches, device: Device
) -> tuple[Tensor, Tensor]:
    outputs, labels = [], []
    with eval_mode(device.place(model)), torch.no_grad(), device.autocast():
        for images, targets in batches:
            outputs.append(function(images))
            labels.append(targets)
    return torch.cat(outputs).float().cpu(), torch.cat(labels).cpu()


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Metrics:
    """Everything known about one model on one split; accuracies are fractions 0..1.

    A class without photographs in the split has support 0 and nan for precision and recall; the mean
    per-class accuracy leaves it out.
    """

    class_names: tuple[str, ...]
    top1: Estimate
    top5: Estimate | None  # None with five classes or fewer: it would always be 1
    mean_per_class: Estimate  # the Oxford metric: the mean of the recalls
    precision: np.ndarray  # (C,)
    recall: np.ndarray  # (C,)
    support: np.ndarray  # (C,) photographs of each class
    confusion: np.ndarray  # (C, C), row: true class, column: predicted class
    ece: float  # expected calibration error
    bin_count: np.ndarray  # (BINS,) equally wide bins of confidence
    bin_confidence: np.ndarray  # (BINS,) mean confidence, nan in an empty bin
    bin_accuracy: np.ndarray  # (BINS,) accuracy, nan in an empty bin
    labels: np.ndarray  # (N,) true class of each photograph
    predictions: np.ndarray  # (N,)
    confidences: np.ndarray  # (N,) probability of the predicted class

    @property
    def guessing(self) -> float:
        """What one gets without looking: by chance, or by always naming the largest class."""
        return max(1 / len(self.class_names), float(self.support.max() / self.support.sum()))


def compute_metrics(logits: Tensor, labels: Tensor, *, class_names: Sequence[str]) -> Metrics:
    """Metrics of logits `(N, C)` against labels `(N,)`.

    Raises FlowersError for an empty split, shapes that do not fit, unknown labels, nan logits.
    """
    logits, labels = check_logits(logits, labels, len(class_names))
    best_five = logits.argsort(dim=1, descending=True, stable=True)[:, :5]
    predictions, truth = best_five[:, 0].numpy(), labels.numpy()
    confidences = logits.softmax(dim=1).amax(dim=1).numpy()
    in_five = int((best_five == labels[:, None]).any(dim=1).sum())
    confusion = np.zeros((len(class_names),) * 2, dtype=np.int64)
    np.add.at(confusion, (truth, predictions), 1)
    n = len(truth)
    return Metrics(
        class_names=tuple(class_names),
        top1=wilson(int((predictions == truth).sum()), n),
        top5=wilson(in_five, n) if len(class_names) > 5 else None,
        **_per_class(confusion),
        **_calibration(confidences, predictions == truth),
        confusion=confusion,
        labels=truth,
        predictions=predictions,
        confidences=confidences,
    )


def check_logits(logits: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    logits, labels = torch.as_tensor(logits).detach().cpu(), torch.as_tensor(labels).cpu()
    if labels.numel() == 0:
        raise FlowersError("There is nothing to evaluate: there are no labels.")
    if labels.ndim != 1 or logits.shape != (len(labels), num_classes):
        raise FlowersError(
            f"Logits and labels do not fit: logits of shape {tuple(logits.shape)}, {len(labels)} "
            f"labels, {num_classes} class names. Take all three from the same split and model."
        )
    if labels.is_floating_point() or labels.min() < 0 or labels.max() >= num_classes:
        raise FlowersError(
            f"Labels must be whole numbers from 0 to {num_classes - 1}, but these run from "
            f"{labels.min()} to {labels.max()}. Oxford's files count from 1: subtract 1."
        )
    if not torch.isfinite(logits).all():
        raise FlowersError(
            "The network answers nan or infinity: its training has diverged. "
            "Lower the learning rate and train it again from the last good checkpoint."
        )
    return logits.double(), labels.long()


def wilson(successes: float, count: float) -> Estimate:
    """A proportion with its 95 % score interval (Wilson 1927), which holds near 0 and 1 too."""
    p, z2 = successes / count, Z_95**2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half))


def _per_class(confusion: np.ndarray) -> dict:
    """Precision, recall and support of each class, and the mean recall with its interval."""
    hits, support, named = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present = support > 0
    recall = np.where(present, hits / np.maximum(support, 1), np.nan)
    # 0 for a class that is never predicted, as scikit-learn's zero_division=0 has it
    precision = np.where(present, hits / np.maximum(named, 1), np.nan)
    # Each recall of n photographs has the variance p(1 - p)/n, so the mean of C recalls is as
    # uncertain as a proportion of C^2 / sum(1/n) photographs. (Resampling instead would claim
    # certainty for classes of one photograph, which are always all right or all wrong.)
    effective = present.sum() ** 2 / (1 / support[present]).sum()
    mean = wilson(recall[present].mean() * effective, effective)
    columns = {"precision": precision, "recall": recall, "support": support}
    return {"mean_per_class": mean, **columns}


def _calibration(confidences: np.ndarray, correct: np.ndarray) -> dict:
    """Expected calibration error: the gap between confidence and accuracy, bin by bin."""
    bins = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    some = np.where(count > 0, count, np.nan)
    confidence = np.bincount(bins, confidences, BINS) / some
    accuracy = np.bincount(bins, correct, BINS) / some
    ece = np.nansum(count * np.abs(accuracy - confidence)) / len(confidences)
    columns = {"bin_count": count, "bin_confidence": confidence, "bin_accuracy": accuracy}
    return {"ece": float(ece), **columns}
