"""From a network's answers to metrics: accuracy with intervals, confusion, calibration.

One pass over a split gives the logits (`predictions.predict_logits`); all else is computed from them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from flowers_utils.errors import FlowersError
from flowers_utils.predictions import EMPTY

Z_95 = 1.959964  # half-width of a 95 % interval, in standard errors
BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float
    method: str  # "Wilson" or "bootstrap"

    def percent(self) -> str:
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Evaluation:
    """Everything known about one model on one split; accuracies are fractions 0..1.

    A class without photographs in the split has support 0 and nan for precision, recall and F1; the
    mean per-class accuracy leaves it out. With five classes or fewer top-5 is always 1.
    """

    class_names: tuple[str, ...]
    loss: Estimate
    top1: Estimate
    top5: Estimate
    mean_per_class: Estimate  # the Oxford metric: the mean of the recalls
    precision: np.ndarray  # (C,)
    recall: np.ndarray  # (C,)
    f1: np.ndarray  # (C,)
    support: np.ndarray  # (C,) photographs of each class
    confusion: np.ndarray  # (C, C), row: true class, column: predicted class
    ece: float  # expected calibration error
    bin_count: np.ndarray  # (BINS,) equally wide bins of confidence
    bin_confidence: np.ndarray  # (BINS,) mean confidence, nan in an empty bin
    bin_accuracy: np.ndarray  # (BINS,) accuracy, nan in an empty bin
    labels: np.ndarray  # (N,) true class of each photograph
    predictions: np.ndarray  # (N,)
    confidences: np.ndarray  # (N,) probability of the predicted class

    def to_dict(self) -> dict:
        """Plain Python values for results.json; nan becomes None, mistakes are sparse."""
        headlines = ("loss", "top1", "top5", "mean_per_class")
        columns = ("support", "precision", "recall", "f1")
        rows = zip(self.class_names, *(getattr(self, name) for name in columns), strict=True)
        true, predicted = np.nonzero(self.confusion - np.diag(np.diag(self.confusion)))
        counts = self.confusion[true, predicted]
        return {
            "count": len(self.labels),
            **{name: dict(vars(getattr(self, name))) for name in headlines},
            "ece": self.ece,
            "per_class": [
                dict(zip(("name", *columns), (name, int(n), *map(_or_none, scores)), strict=True))
                for name, n, *scores in rows
            ],
            "mistakes": np.stack([true, predicted, counts], axis=1).tolist(),
            "reliability": {
                name: [_or_none(v) for v in getattr(self, f"bin_{name}")]
                for name in ("count", "confidence", "accuracy")
            },
        }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value.item()


def wilson(successes: float, count: int) -> Estimate:
    """A proportion with its 95 % score interval (Wilson 1927), which holds near 0 and 1 too."""
    p, z2 = successes / count, Z_95**2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), "Wilson")


def _bootstrap(value: float, resampled: np.ndarray) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), "bootstrap")


def evaluate(
    logits: Tensor, labels: Tensor, *, class_names: Sequence[str], seed: int = 0
) -> Evaluation:
    """Metrics of logits (N, C) against labels (N,); `seed` draws the bootstrap's 1,000 resamples.

    Raises FlowersError for an empty split, shapes that do not fit, unknown labels, nan logits.
    """
    logits, labels = _checked(logits, labels, len(class_names))
    rng = np.random.default_rng(seed)
    losses = F.cross_entropy(logits, labels, reduction="none").numpy()
    best_five = logits.argsort(dim=1, descending=True, stable=True)[:, :5]
    predictions, truth = best_five[:, 0].numpy(), labels.numpy()
    confidences = logits.softmax(dim=1).amax(dim=1).numpy()
    in_five = int((best_five == labels[:, None]).any(dim=1).sum())
    confusion = np.zeros((len(class_names),) * 2, dtype=np.int64)
    np.add.at(confusion, (truth, predictions), 1)
    n = len(truth)
    means = losses[rng.integers(n, size=(1000, n), dtype=np.int32)].mean(axis=1)
    return Evaluation(
        class_names=tuple(class_names),
        loss=_bootstrap(losses.mean(), means),
        top1=wilson(int((predictions == truth).sum()), n),
        top5=wilson(in_five, n),
        **_per_class(confusion, rng),
        **_calibration(confidences, predictions == truth),
        confusion=confusion,
        labels=truth,
        predictions=predictions,
        confidences=confidences,
    )


def _checked(logits: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    logits, labels = torch.as_tensor(logits).detach().cpu(), torch.as_tensor(labels).cpu()
    if labels.numel() == 0:
        raise FlowersError(EMPTY)
    if labels.ndim != 1 or logits.shape != (len(labels), num_classes):
        raise FlowersError(
            f"Answers and labels do not fit: logits of shape {tuple(logits.shape)}, {len(labels)} "
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


def _per_class(confusion: np.ndarray, rng: np.random.Generator) -> dict:
    hits, support, named = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present = support > 0
    recall = np.where(present, hits / np.maximum(support, 1), np.nan)
    # 0 for a class that is never predicted, as scikit-learn's zero_division=0 has it
    precision = np.where(present, hits / np.maximum(named, 1), np.nan)
    f1 = np.where(present, 2 * hits / np.maximum(support + named, 1), np.nan)
    # resampling the n photographs of a class gives Binomial(n, recall) hits
    n = support[present]
    drawn = rng.binomial(n, hits[present] / n, size=(1000, len(n))) / n
    mean = _bootstrap(recall[present].mean(), drawn.mean(axis=1))
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": support}
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


def fit_temperature(val_logits: Tensor, val_labels: Tensor) -> float:
    """The T that makes softmax(logits / T) most likely on val (Guo et al. 2017), 0.05 to 20.

    It changes no prediction, only how sure the network claims to be. Where val holds no mistake,
    nothing would stop T from shrinking, so 1.0 is returned.
    """
    logits, labels = _checked(val_logits, val_labels, torch.as_tensor(val_logits).shape[-1])
    if bool((logits.argmax(dim=1) == labels).all()):
        return 1.0
    found = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
    )
    return math.exp(found.x)
