"""What one phase of training is told, and what the better recipes do otherwise than the lesson."""

import math
import re
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer, lr_scheduler

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.data import FlowerData
from flowers_utils.device import Device
from flowers_utils.transforms import Batches, Views, training_batches

PENALTY = 0.003  # of the fitted head's squared weights; after Phase 2, 0.05 costs a point of val


@dataclass(frozen=True)
class Phase:
    """What one phase of training does; its name gives its files their names.

    What stands after `title` belongs to the better recipes (RECIPES in the config). As it stands
    here, it changes nothing.
    """

    number: int
    epochs: int
    head_lr: float
    backbone_lr: float | None = None  # None: the backbone is frozen
    seed: int = 0
    title: str = ""  # "Phase 1" if empty
    fit_head: bool = False  # in the last epoch, at once: logistic regression on stored features
    one_cycle: bool = False  # rates rise and fall once, in the place of StepLR
    freeze_batchnorm: bool = False
    smallest_crop: float = 0.0  # share of the photograph; 0: the random crop of the lesson
    hue: float | None = None  # strength of the jitter; None: the config's
    sizes: tuple[float, ...] = ()  # shares of the network's size, from the first epochs to the last

    @property
    def name(self) -> str:
        return self.title or f"Phase {self.number}"

    @property
    def stem(self) -> str:
        """Its name in those of its files: "phase1"."""
        return re.sub("[^a-z0-9]+", "", self.name.lower())

    @property
    def trained_epochs(self) -> int:
        """All epochs but the one in which the head is fitted."""
        return self.epochs - self.fit_head

    def numbers(self) -> dict[str, Any]:
        """The values that decide what is learned; of a better recipe's only those in use."""
        always = ("number", "epochs", "head_lr", "seed")
        usual = {field.name: field.default for field in fields(self)}
        used = {k: v for k, v in vars(self).items() if k in always or v != usual[k]}
        return {k: v for k, v in used.items() if k != "title"}


def make_scheduler(
    optimizer: Optimizer, phase: Phase, photographs: int
) -> lr_scheduler.LRScheduler:
    """StepLR of the config, to be stepped after an epoch; or one cycle, after each batch.

    One cycle (Smith 2018): the rates rise from a tenth within a fifth of the time, then fall to
    nothing along half a cosine. A start at the full rate would shake a head that is good already.
    """
    recipe = config.TRAINING_CONFIG
    if not phase.one_cycle:
        return lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    steps = max(2, math.ceil(photographs / recipe["batch_size"]) * phase.trained_epochs + 1)
    return lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=max(0.2, 2 / steps),  # at least one step
        div_factor=10,
        cycle_momentum=False,
    )


def epoch_batches(
    phase: Phase, epoch: int, data: FlowerData, device: Device, generator: torch.Generator
) -> Batches:
    """The training batches of an epoch (the first is 1), as the phase wants them."""
    size = None
    if phase.sizes:  # small pictures first: they cost little, and show enough to begin with
        share = phase.sizes[(epoch - 1) * len(phase.sizes) // phase.trained_epochs]
        size = round(share * data.image_size / 16) * 16  # whole places in every stage's map
    views = Views(phase.smallest_crop, size, phase.hue)
    return training_batches(data, device, generator, views)


def freeze_batchnorm(model: nn.Module) -> None:
    """Let no BatchNorm layer learn: its scale and shift stay, and by `train_mode` its statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for parameter in module.parameters():
                parameter.requires_grad = False


def stepping(batches: Batches, scheduler: lr_scheduler.LRScheduler, phase: Phase) -> Batches:
    """The same batches. The scheduler takes a step after each, in one cycle; else after the last."""
    for batch in batches:
        yield batch  # the optimizer takes its step before the next batch is asked for
        if phase.one_cycle:
            scheduler.step()
    if not phase.one_cycle:
        scheduler.step()


def fit_head(
    model: nn.Module, batches: Batches, device: Device, *, penalty: float = PENALTY
) -> tuple[Tensor, Tensor]:
    """Give `model` the best linear head for its backbone at once, in the place of an epoch.

    `batches` are the training photographs, not augmented. The features of each and of its mirror
    image are computed once. What is left is logistic regression, a convex problem: it has one best
    answer, and L-BFGS goes straight to it. Returns the features `(2N, F)` and their labels.
    """
    features, labels = [], []
    with models.eval_mode(model), torch.no_grad(), device.autocast():
        for images, truth in batches:
            for view in (images, images.flip(3)):
                features.append(models.backbone_features(model, view).float())
                labels.append(truth)
    x, y = torch.cat(features), torch.cat(labels)
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-6
    head = nn.Linear(x.shape[1], models.head_of(model).out_features, device=x.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    solver = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        total = F.cross_entropy(head((x - mean) / std), y) + penalty * head.weight.square().sum()
        total.backward()
        return total

    solver.step(loss)
    with torch.no_grad():  # the same answers from features that are not standardised
        weight = head.weight / std
        models.head_of(model).weight.copy_(weight)
        models.head_of(model).bias.copy_(head.bias - weight @ mean)
    return x, y
