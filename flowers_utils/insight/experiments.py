"""Short experiments with the head alone, on features that the frozen backbone computed once.

A frozen backbone gives the same features in every epoch. Computed once, they make an epoch a
matter of milliseconds, so that many settings can be tried in a minute.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # comes with scikit-learn
from torch import Tensor, nn

import transfer_learning_config as config
from flowers_utils.device import Device
from flowers_utils.evaluation import Estimate, wilson
from flowers_utils.models import make_optimizer
from flowers_utils.training import evaluate, train_one_epoch
from flowers_utils.transforms import Batches, denormalise

Features = tuple[Tensor, Tensor]  # (N, F) float32 and labels (N,), as `predict_features` gives them
History = list[dict[str, float]]
CPU = Device(torch.device("cpu"), "CPU")  # quick enough for a head, and the same everywhere


def train_head(
    head: nn.Module, splits: tuple[Features, Features], *, rate: float, epochs: int, seed: int = 0
) -> History:
    """Train `head` on the features of (train, val), in place, by the recipe of Phase 1.

    Returns a row an epoch: epoch, train_loss, val_loss, val_accuracy.
    """
    (train, val), recipe, history = splits, config.TRAINING_CONFIG, []
    optimizer = make_optimizer([{"params": list(head.parameters()), "lr": rate}], CPU)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(train[1]), generator=generator).split(recipe["batch_size"])
        batches = ((train[0][i], train[1][i]) for i in order)
        with one_thread():
            learned = train_one_epoch(head, batches, optimizer, CPU)
            scored = evaluate(head, [val], CPU)
        schedule.step()
        row = {"epoch": epoch, "train_loss": learned.loss, "val_loss": scored.loss}
        history.append({**row, "val_accuracy": scored.top1})
    return history


@contextmanager
def one_thread() -> Iterator[None]:
    """On matrices this small, several threads wait for one another longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def head_experiment(
    cases: Mapping[str, tuple[Features, Features]],
    *,
    rate: float = 1e-3,
    epochs: int = 20,
    seed: int = 0,
) -> dict[str, History]:
    """The history of a new head for each case: a name and its features of train and of val.

    Every head has the same random start, so that only the case differs.
    """
    histories = {}
    for name, (train, val) in cases.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = nn.Linear(train[0].shape[1], 1 + int(max(train[1].max(), val[1].max())))
        histories[name] = train_head(head, (train, val), rate=rate, epochs=epochs, seed=seed)
    return histories


def learning_rate_experiment(
    train: Features, val: Features, *, seed: int = 0
) -> dict[str, History]:
    """The history of the same new head at three learning rates: too high, right, too low."""
    histories = {}
    for rate in (1.0, 1e-3, 1e-5):
        case = {f"learning rate {rate:g}": (train, val)}
        histories |= head_experiment(case, rate=rate, seed=seed)
    return histories


def without_normalisation(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """The same images as 0..1: ImageNet's mean and standard deviation put back."""
    for images, labels in batches:
        yield denormalise(images).float() / 255, labels


def accuracy_by_training_size(
    train: Features, val: Features, *, seed: int = 0
) -> list[tuple[int, Estimate]]:
    """(training photographs, top-1 on val) of a linear head on 20, 40, 70 and 100 % of the features.

    The head is scikit-learn's logistic regression. Every class keeps its share, at least two
    photographs; a smaller part lies within a larger one.
    """
    features, labels = (part.numpy() for part in train)
    rng, results = np.random.default_rng(seed), []
    classes = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    for fraction in (0.2, 0.4, 0.7, 1.0):
        rows = np.concatenate([own[: max(2, round(fraction * len(own)))] for own in classes])
        # C is the inverse of the penalty's weight on the sum of the losses: 1e-2 on their mean
        head = make_pipeline(StandardScaler(), LogisticRegression(C=50 / len(rows), max_iter=200))
        with threadpool_limits(1):  # see `one_thread`
            head.fit(features[rows], labels[rows])
        correct = (head.predict(val[0].numpy()) == val[1].numpy()).sum()
        results.append((len(rows), wilson(int(correct), len(val[1]))))
    return results
