"""Exercises on networks: freezing, the training loop, parameter groups."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from flowers_utils.exercises.answers import NotYet, Unanswered, compare, equal
from flowers_utils.models import build_model


def check_freeze(function: Callable[[nn.Module, list[str]], Any]) -> str:
    """`function(model, names)` freezes the named children of a network that is in train mode."""
    model, names = build_model(num_classes=5, weights=None), ["conv1", "bn1", "layer1"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    function(model, names)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    loss = F.cross_entropy(model(images), torch.arange(8) % 5)
    if loss.requires_grad:  # False if the student froze everything
        loss.backward()
        SGD(model.parameters(), lr=0.1).step()
    moved = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    frozen = {key for key in before if key.split(".")[0] in names}
    if moved == set(before):
        raise Unanswered("Every part of the network still changes.")
    if key := min(moved & frozen & dict(model.named_parameters()).keys(), default=None):
        raise NotYet(f"'{key}' still changes: set requires_grad of each parameter.")
    if key := min(moved & frozen, default=None):
        raise NotYet(f"'{key}' changed in a forward pass: its BatchNorm must be in eval mode.")
    if key := min(set(before) - frozen - moved, default=None):
        raise NotYet(f"'{key}' no longer changes: freeze only what `names` lists.")
    return "The named parts do not change, running averages included; the others do."


def check_loop(function: Callable[[nn.Module, list, Optimizer], float]) -> str:
    """`function(model, batches, optimizer)`: one epoch of training; returns the mean loss."""
    generator = torch.Generator().manual_seed(7)
    batches = [(torch.randn(n, 4, generator=generator), torch.arange(n) % 3) for n in (8, 8, 3)]
    start = torch.randn(3, 4, generator=generator)

    def trained(loop: Callable) -> tuple[Tensor, Any]:
        model = nn.Linear(4, 3, bias=False)
        model.weight.data = start.clone()
        returned = loop(model, batches, SGD(model.parameters(), lr=0.5))
        return model.weight.detach(), returned

    correct, losses = trained(_losses)
    accumulated, gap = trained(partial(_losses, reset=False))
    given, returned = trained(function)
    if equal(given, accumulated) and equal(returned, sum(gap) / 3):
        raise Unanswered("Neither the weights nor the loss are correct after its three batches.")
    wrong = [(accumulated, "Each step also uses the gradients of earlier batches: use zero_grad.")]
    compare(given, correct, wrong, "The weights are wrong. The order is zero_grad, backward, step.")
    counted = "The training is correct now, but a batch of 3 counts as much as one of 8."
    otherwise = "The training is correct now. Return the mean loss over all photographs."
    mean = (8 * losses[0] + 8 * losses[1] + 3 * losses[2]) / 19
    compare(returned, mean, [(sum(losses) / 3, counted)], otherwise)
    return "Each step uses the gradients of its own batch, and each photograph counts equally."


def _losses(model: nn.Module, batches: list, optimizer: Optimizer, reset: bool = True) -> list:
    """The loss of each batch in one epoch; without `reset`, gradients accumulate."""
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        if reset:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_groups(function: Callable[[nn.Module, float], list[dict]]) -> str:
    """`function(model, head_lr)`: groups in which each stage has half the rate of the next one."""
    model, head_lr = build_model(num_classes=5, weights=None), 0.064
    groups = function(model, head_lr)
    if groups is None:
        raise Unanswered
    optimizer = SGD(groups, lr=0.0)  # torch refuses a parameter that stands in two groups
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stages = ("bn1", "layer1", "layer2", "layer3", "layer4", "fc")
    for name, parameter in model.named_parameters():
        stage = name.split(".")[0].replace("conv1", "bn1")  # these two are the stem
        correct = head_lr / 2 ** (5 - stages.index(stage))
        if parameter not in rates:
            raise NotYet(f"'{name}' is in no group, so it would never be trained.")
        if not equal(rates[parameter], correct):
            rate = f"the rate of '{name}' is {correct:g}, not {rates[parameter]:g}"
            raise NotYet(f"With head_lr = {head_lr}, {rate}.")
    return "Each parameter is in one group, and the rate of the head is 32 times the stem's."
