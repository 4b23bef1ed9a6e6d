"""From a network's logits to metrics: accuracy with intervals, confusion, calibration."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn
from torch.nn import functional as F

from flowers_utils.config_check import check
from flowers_utils.data import Split
from flowers_utils.device import Device
from flowers_utils.models import backbone_features
from flowers_utils.transforms import Batches, evaluation_batches

Z_95 = 1.959964  # half-width of a 95 % interval, in standard errors
BINS = 15  # as in Guo et al. 2017
TEMPERATURES = (0.05, 20.0)  # where the best one is searched
FEWEST_TO_CALIBRATE = 50  # val photographs; one number fitted on fewer is mostly chance


def predict_logits(model: nn.Module, split: Split, device: Device) -> tuple[Tensor, Tensor]:
    """Logits `(N, C)` float32 and labels `(N,)` of val or test (train is larger), on the CPU."""
    return _collect(device.place(model).eval(), evaluation_batches(split, device), device)


def features_of(model: nn.Module, batches: Batches, device: Device) -> tuple[Tensor, Tensor]:
    """What enters the head, `(N, F)` float32, and labels `(N,)`, on the CPU, in their order."""
    return _collect(partial(backbone_features, device.place(model).eval()), batches, device)


def _collect(function: Callable, batches: Batches, device: Device) -> tuple[Tensor, Tensor]:
    """What `function` makes of each batch, and the labels."""
    outputs, labels = [], []
    with torch.no_grad(), device.autocast():
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
    """All measures of one model on one split; accuracies are proportions 0..1."""

    class_names: tuple[str, ...]
    top1: Estimate
    top5: Estimate | None  # None with five classes or fewer: it would always be 1
    mean_per_class: Estimate  # the Oxford metric: the mean of the recalls that are not nan
    recall: np.ndarray  # (C,) nan for a class without photographs in the split
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
        """Accuracy without a network: always predict the largest class."""
        return float(self.support.max() / self.support.sum())


def compute_metrics(logits: Tensor, labels: Tensor, *, class_names: Sequence[str]) -> Metrics:
    """Metrics of logits `(N, C)` and labels `(N,)`; FlowersError if they do not fit, or are nan."""
    logits, labels = check_logits(logits, labels, len(class_names))
    best_five = logits.argsort(dim=1, descending=True, stable=True)[:, :5]
    predictions, truth = best_five[:, 0].numpy(), labels.numpy()
    confidences = logits.softmax(dim=1).amax(dim=1).numpy()
    in_five = int((best_five == labels[:, None]).any(dim=1).sum())
    every = range(len(class_names))
    scores = precision_recall_fscore_support(truth, predictions, labels=every, zero_division=0)
    _, recall, _, support = scores
    # Each recall of n photographs has the variance p(1 - p)/n, so the mean of C recalls is as
    # uncertain as a proportion of C^2 / sum(1/n) photographs.
    present = support > 0
    effective = present.sum() ** 2 / (1 / support[present]).sum()
    return Metrics(
        class_names=tuple(class_names),
        top1=wilson(int((predictions == truth).sum()), len(truth)),
        top5=wilson(in_five, len(truth)) if len(class_names) > 5 else None,
        mean_per_class=wilson(recall[present].mean() * effective, effective),
        recall=np.where(present, recall, np.nan),
        support=support,
        confusion=confusion_matrix(truth, predictions, labels=every),
        **_calibration(confidences, predictions == truth),
        labels=truth,
        predictions=predictions,
        confidences=confidences,
    )


def check_logits(logits: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits `(N, C)` as float64 and labels `(N,)` on the CPU; FlowersError if they do not fit."""
    told = f"Logits of shape {tuple(logits.shape)} do not fit {len(labels)} labels of {num_classes}"
    fits = len(labels) > 0 and logits.shape == (len(labels), num_classes)
    check(fits, f"{told} classes: take both from one split and model.")
    told = "The logits contain nan or infinity: training has diverged. Lower the learning rate."
    check(bool(torch.isfinite(logits).all()), told)
    return logits.detach().cpu().double(), labels.cpu().long()


def wilson(successes: float, count: float) -> Estimate:
    """A proportion with its 95 % score interval (Wilson 1927), which holds near 0 and 1 too."""
    p, z2 = successes / count, Z_95**2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half))


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


def fit_temperature(val_logits: Tensor, val_labels: Tensor) -> tuple[float, str]:
    """The T that makes softmax(logits / T) most likely on val (Guo et al. 2017), and a remark.

    It changes no prediction, only the probabilities. Where val cannot tell which T is best, T stays
    1.0 and the remark says why; else the remark is empty.
    """
    logits, labels = check_logits(val_logits, val_labels, val_logits.shape[-1])
    if len(labels) < FEWEST_TO_CALIBRATE:
        return 1.0, f"The temperature stays 1, since {len(labels)} val photographs are too few."
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(low, high),
        method="bounded",
    )
    # Without a mistake a smaller T is always better, so the search would end at its bound.
    no_mistake = bool((logits.argmax(dim=1) == labels).all())
    if no_mistake or min(found.x - low, high - found.x) < 0.01 * (high - low):
        return 1.0, "The temperature stays 1, since val has no mistake, or no better than chance."
    return math.exp(found.x), ""


def metrics_as_dict(metrics: Metrics) -> dict[str, Any]:
    """Plain values for results.json: each estimate with its interval, and recall by class."""
    estimates = {name: getattr(metrics, name) for name in ("top1", "top5", "mean_per_class")}
    recall = zip(metrics.class_names, metrics.recall.tolist(), strict=True)
    return {
        "count": len(metrics.labels),
        **{name: estimate and asdict(estimate) for name, estimate in estimates.items()},
        "ece": metrics.ece,
        "recall": {name: None if math.isnan(value) else value for name, value in recall},
    }
