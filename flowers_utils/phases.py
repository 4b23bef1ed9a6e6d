"""What goes into a phase of training, and what comes out of it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from flowers_utils.errors import FlowersError


@dataclass(frozen=True)
class Phase:
    """The settings of one phase of training; its files are named after it."""

    number: int
    epochs: int
    head_lr: float
    backbone_lr: float | None = None  # None: the backbone is frozen
    seed: int = 0
    title: str = ""  # "Phase 1" if empty
    # Two choices of the faster recipes (RECIPES in the config); False is the lesson's.
    one_cycle: bool = False  # the learning rates rise and fall once; False: StepLR
    fit_head: bool = False  # after the last epoch of the last phase: `fit_final_head`

    @property
    def rows(self) -> int:
        """Rows of its history: one for each epoch, one more if the head is fitted at the end."""
        return self.epochs + self.fit_head

    @property
    def name(self) -> str:
        return self.title or f"Phase {self.number}"

    @property
    def stem(self) -> str:
        """The phase's part of the names of its files, such as "phase1"."""
        return re.sub(r"\W+", "", self.name.lower()) or f"phase{self.number}"

    def numbers(self) -> dict[str, Any]:
        """The values that decide what is learned."""
        return {k: v for k, v in asdict(self).items() if k != "title" and v is not None}


@dataclass(frozen=True)
class EpochResult:
    """Loss and accuracy of one pass over a split."""

    # Train can be worse than val: its images are augmented, and its first steps count like its last.
    loss: float  # mean over the images, in nats
    top1: float  # accuracy as a proportion 0..1
    correct: Tensor  # bool, for each image of the pass, in its order: classified correctly
    logits: Tensor  # (images, classes) float32


def epoch_result(logits: Tensor, labels: Tensor) -> EpochResult:
    """Loss and accuracy of all logits of a pass; FlowersError if the loss is not finite."""
    loss, correct = F.cross_entropy(logits, labels).item(), logits.argmax(dim=1) == labels
    if not math.isfinite(loss):
        raise FlowersError(
            "The loss is no longer a finite number: training has diverged. Try a learning rate ten "
            "times smaller, or choose_device(fast=False)."
        )
    return EpochResult(loss, int(correct.sum()) / len(correct), correct, logits)


@dataclass(frozen=True)
class PhaseResult:
    """What a phase leaves behind; `model` holds the weights of the epoch that was best on val.

    `history` has a row for each epoch: phase, epoch, train_loss, train_accuracy, val_loss,
    val_accuracy, seconds, and learning_rates by group (none if the head was fitted).
    """

    name: str
    number: int
    model: nn.Module
    checkpoint: Path
    history: list[dict[str, Any]]
    val_correct: Tensor  # bool (rows of history, N photographs of val): classified correctly
    val_logits: Tensor  # (N, classes) of the best epoch; those of a fitted head are cross-validated
    note: str = ""  # what the student should know: went on, was already finished, disk full

    @property
    def best_epoch(self) -> int:
        return best_row(self.history)["epoch"]

    @property
    def head_saw_val(self) -> bool:
        """The head of `model` was fitted to train and val: on val only `val_logits` measure it."""
        return not best_row(self.history)["learning_rates"]

    @property
    def best_val_accuracy(self) -> float:
        return best_row(self.history)["val_accuracy"]

    @property
    def seconds(self) -> float:
        """Time of all epochs with their evaluation, in seconds, over all sittings."""
        return sum(row["seconds"] for row in self.history)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results.json."""
        names = ("name", "best_epoch", "best_val_accuracy", "seconds", "history")
        return {name: getattr(self, name) for name in names}


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the epoch that was best on val; the first of them, if several were."""
    return max(history, key=lambda row: row["val_accuracy"])
