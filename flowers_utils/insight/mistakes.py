"""Which flowers are taken for which: look-alikes, confused pairs, the surest mistakes."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from flowers_utils.evaluation import Metrics


def nearest_neighbours(
    queries: Tensor, train_features: Tensor, k: int = 5
) -> tuple[Tensor, Tensor]:
    """For features (Q, F) the k most similar of (N, F): positions and cosines, both (Q, k)."""
    cosines = F.normalize(queries.float()) @ F.normalize(train_features.float()).T
    found = cosines.topk(min(k, len(train_features)), dim=1)
    return found.indices, found.values


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes taken for one another; the examples are positions in the split, or None."""

    first: int
    second: int
    first_as_second: int  # photographs of `first` called `second`
    second_as_first: int
    first_example: int | None
    second_example: int | None


def most_confused_pairs(metrics: Metrics, k: int = 10) -> list[ConfusedPair]:
    """The k pairs with the most mistakes, both directions together; only pairs with any."""
    wrong = metrics.confusion
    both = np.triu(wrong + wrong.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:k]
    pairs = [divmod(int(i), len(wrong)) for i in order if both.flat[i] > 0]
    return [
        ConfusedPair(
            *(a, b),
            *(int(wrong[a, b]), int(wrong[b, a])),
            *(_example(metrics, a, b), _example(metrics, b, a)),
        )
        for a, b in pairs
    ]


def _example(metrics: Metrics, true: int, predicted: int) -> int | None:
    """A photograph of class `true`, preferably one that was taken for `predicted`."""
    own = np.flatnonzero(metrics.labels == true)
    confused = own[metrics.predictions[own] == predicted]
    return next(map(int, (*confused, *own)), None)


def most_confident_mistakes(metrics: Metrics, k: int = 10) -> list[int]:
    """Positions of the wrong predictions, surest first: the most instructive photographs."""
    wrong = np.flatnonzero(metrics.predictions != metrics.labels)
    return wrong[np.argsort(-metrics.confidences[wrong], kind="stable")][:k].tolist()
