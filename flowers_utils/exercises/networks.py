"""Exercises on networks: freezing, the training loop, parameter groups."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from flowers_utils.exercises.answers import (
    NotYet,
    Unanswered,
    call,
    dice,
    exercise,
    is_right,
    number,
)

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")  # first to last


@exercise(4)
def check_freeze(function: Callable[[nn.Module, list[str]], Any]) -> str:
    """`function(model, names)` freezes the named children of a network that is in train mode."""
    model, names = _small_resnet(), ["conv1", "bn1", "layer1"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    call(function, model, names)
    learns = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = {key for key, _ in model.named_parameters()}
    if learns == parameters and any("requires_grad" in vars(part) for part in model.modules()):
        raise NotYet("On a module `requires_grad` does nothing: set it on each of its parameters.")
    if learns == parameters and all(module.training for module in model.modules()):
        raise Unanswered("Nothing is frozen yet.")
    if not learns:
        raise NotYet("Nothing learns any more. Freeze only what `names` lists.")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randn(8, 3, 14, 14, generator=dice()) + 1
    F.cross_entropy(model(images), torch.arange(8) % 5).backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    frozen = {key for key in before if key.split(".")[0] in names}
    for keys, hint in (
        (moved & frozen & parameters, "'{}' still learns: it needs requires_grad = False."),
        (moved & frozen, "'{}' moved in a forward pass: its BatchNorm must be in eval mode."),
        (parameters - frozen - moved, "'{}' no longer learns: freeze only what `names` lists."),
        (set(before) - frozen - moved, "'{}' stands still; its BatchNorm is to go on learning."),
    ):
        if keys:
            raise NotYet(hint.format(min(keys)))
    return "The named parts stand still, statistics and all; the others move."


def _small_resnet() -> nn.Sequential:
    """A few layers under ResNet18's names, in train mode; always the same weights."""

    def block() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        stem = {"conv1": nn.Conv2d(3, 4, 3, bias=False), "bn1": nn.BatchNorm2d(4)}
        layers = {f"layer{i}": block() for i in range(1, 5)}
        head = {"flatten": nn.Flatten(), "fc": nn.Linear(4 * 4 * 4, 5)}
        return nn.Sequential(OrderedDict(stem | layers | head)).train()


@exercise(5)
def check_loop(function: Callable[[nn.Module, list, Optimizer], float]) -> str:
    """`function(model, batches, optimizer)`: one epoch of training; returns the mean loss."""
    random, sizes = dice(), (8, 8, 3)
    batches = [(torch.randn(n, 4, generator=random), torch.arange(n) % 3) for n in sizes]
    start = torch.randn(3, 4, generator=random)

    def trained(loop: Callable) -> tuple[Tensor, Any]:
        model = nn.Linear(4, 3, bias=False)
        model.weight.data = start.clone()
        returned = loop(model, batches, torch.optim.SGD(model.parameters(), lr=0.5))
        return model.weight.detach(), returned

    right, losses = trained(lambda *inputs: _losses(*inputs, forget=True))
    piled_up, piled_losses = trained(lambda *inputs: _losses(*inputs, forget=False))
    given, returned = trained(lambda *inputs: call(function, *inputs))
    as_given = returned is not None and is_right(number(returned), sum(piled_losses) / 3, ())
    if torch.allclose(given, piled_up) and as_given:
        raise Unanswered("After its three batches neither the weights nor the loss are right.")
    wrong = (
        (start, "No weight moved: `step` needs the gradients of this batch, from `backward`."),
        (piled_up, "Each step still uses the gradients of the batches before it as well."),
    )
    if not is_right(given, right, wrong):
        raise NotYet("The weights end elsewhere. The order is: zero_grad, backward, step.")
    if returned is None:
        raise NotYet("It trains rightly now, but returns nothing: return the mean loss.")
    total = sum(loss * n for loss, n in zip(losses, sizes, strict=True))
    wrong = (
        (sum(losses) / 3, "It trains rightly now, but a batch of 3 counts as much as one of 8."),
        (total, "It trains rightly now, but the sum is still to be divided by the photographs."),
        (losses[-1], "It trains rightly now, but that is the loss of the last batch alone."),
    )
    if not is_right(number(returned), total / sum(sizes), wrong):
        raise NotYet("It trains rightly now. Return the mean loss over all photographs.")
    return "Old gradients are forgotten, and each photograph counts alike."


def _losses(model: nn.Module, batches: Iterable, optimizer: Optimizer, forget: bool) -> list[float]:
    """Train on each batch; without `forget`, gradients pile up. The loss of each batch."""
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        if forget:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@exercise(6)
def check_groups(function: Callable[[nn.Module, float], list[dict]]) -> str:
    """`function(model, head_lr)`: groups in which each stage learns half as fast as the next."""
    model = _small_resnet()
    groups = call(function, model, 0.064)
    if groups is None:
        raise Unanswered("")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise NotYet("A list of dicts is asked for, each with 'params' and 'lr'.")
    if any(not {"params", "lr"} <= set(group) for group in groups):
        raise NotYet("Each group needs the keys 'params' and 'lr'.")
    given: dict[int, list[float]] = {}
    for group in groups:
        params = group["params"]
        if isinstance(params, nn.Module):
            raise NotYet("'params' must hold the parameters of a layer: call its `.parameters()`.")
        for parameter in [params] if isinstance(params, Tensor) else params:
            if not isinstance(parameter, Tensor):
                raise NotYet("'params' must hold the parameters, not their names: no `named_`.")
            given.setdefault(id(parameter), []).append(float(group["lr"]))
    rates = {stage: 0.064 / 2 ** (5 - depth) for depth, stage in enumerate(STAGES)}
    for name, parameter in model.named_parameters():
        first = name.split(".")[0]
        _check_rate(name, given.get(id(parameter), []), rates.get(first, rates["stem"]))
    return "Each parameter stands in one group, and the head learns 32 times as fast as the stem."


def _check_rate(name: str, given: list[float], wanted: float) -> None:
    if len(given) != 1:
        where = "in no group, so it would never learn" if not given else "in more than one group"
        raise NotYet(f"'{name}' stands {where}.")
    if abs(given[0] - wanted) > 1e-9:
        raise NotYet(
            f"With head_lr = 0.064, '{name}' should learn at {wanted:g}, not {given[0]:g}."
        )
