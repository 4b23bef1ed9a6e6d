"""Metrics as plain values, for results.json and the model card."""

import math
from typing import Any

import numpy as np

from flowers_utils.evaluation import Metrics


def metrics_as_dict(metrics: Metrics) -> dict[str, Any]:
    """Plain Python values; nan becomes None, of the confusion only the mistakes are kept."""
    headlines = {name: getattr(metrics, name) for name in ("top1", "top5", "mean_per_class")}
    columns = ("support", "precision", "recall")
    rows = zip(metrics.class_names, *(getattr(metrics, name) for name in columns), strict=True)
    true, predicted = np.nonzero(metrics.confusion - np.diag(np.diag(metrics.confusion)))
    counts = metrics.confusion[true, predicted]
    return {
        "count": len(metrics.labels),
        **{name: value and dict(vars(value)) for name, value in headlines.items()},
        "guessing": metrics.guessing,
        "ece": metrics.ece,
        "per_class": [
            dict(zip(("name", *columns), (name, int(n), *map(_or_none, scores)), strict=True))
            for name, n, *scores in rows
        ],
        "mistakes": np.stack([true, predicted, counts], axis=1).tolist(),
        "reliability": {
            name: [_or_none(v) for v in getattr(metrics, f"bin_{name}")]
            for name in ("count", "confidence", "accuracy")
        },
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value.item()
