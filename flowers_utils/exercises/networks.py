"""Exercises on networks: freezing, the training loop, parameter groups."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchvision.models import resnet18

from flowers_utils.exercises.answers import NotYet, Unanswered, call, compare, equal, number


def check_freeze(function: Callable[[nn.Module, list[str]], Any]) -> str:
    """`function(model, names)` freezes the named children of a network that is in train mode."""
    model, names = _new_resnet18(), ["conv1", "bn1", "layer1"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    call(function, model, names)
    parameters = {key for key, _ in model.named_parameters()}
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    loss = F.cross_entropy(model(images), torch.arange(8) % 5)
    if loss.requires_grad:  # False if the student froze everything
        loss.backward()
        SGD(model.parameters(), lr=0.1).step()
    moved = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    frozen = {key for key in before if key.split(".")[0] in names}
    if moved == set(before):
        raise Unanswered("Every part of the network still changes.")
    for keys, hint in (
        (moved & frozen & parameters, "'{}' still changes: set requires_grad of each parameter."),
        (moved & frozen, "'{}' changed in a forward pass: its BatchNorm must be in eval mode."),
        (set(before) - frozen - moved, "'{}' no longer changes: freeze only what `names` lists."),
    ):
        if keys:
            raise NotYet(hint.format(min(keys)))
    return "The named parts do not change, running averages included; the others do."


def _new_resnet18() -> nn.Module:
    """A ResNet18 in train mode; the random numbers of the notebook stay as they are."""
    with torch.random.fork_rng(devices=[]):
        return resnet18(num_classes=5)


def check_loop(function: Callable[[nn.Module, list, Optimizer], float]) -> str:
    """`function(model, batches, optimizer)`: one epoch of training; returns the mean loss."""
    generator, sizes = torch.Generator().manual_seed(7), (8, 8, 3)
    batches = [(torch.randn(n, 4, generator=generator), torch.arange(n) % 3) for n in sizes]
    start = torch.randn(3, 4, generator=generator)

    def trained(loop: Callable) -> tuple[Tensor, Any]:
        model = nn.Linear(4, 3, bias=False)
        model.weight.data = start.clone()
        returned = loop(model, batches, SGD(model.parameters(), lr=0.5))
        return model.weight.detach(), returned

    correct, losses = trained(lambda *inputs: _losses(*inputs, zero_grad=True))
    accumulated, gap = trained(lambda *inputs: _losses(*inputs, zero_grad=False))
    given, returned = trained(lambda *inputs: call(function, *inputs))
    if equal(given, accumulated) and returned is not None and equal(returned, sum(gap) / 3):
        raise Unanswered("Neither the weights nor the loss are correct after its three batches.")
    wrong = (
        (start, "No weight changed: `step` needs the gradients that `backward` computes."),
        (accumulated, "Each step also uses the gradients of the batches before: use zero_grad."),
    )
    compare(given, correct, wrong, "The weights are wrong. The order is zero_grad, backward, step.")
    if returned is None:
        raise NotYet("The training is correct now. Return the mean loss.")
    total = sum(loss * n for loss, n in zip(losses, sizes, strict=True))
    counted = "The training is correct now, but a batch of 3 counts as much as one of 8."
    otherwise = "The training is correct now. Return the mean loss over all photographs."
    compare(number(returned), total / sum(sizes), [(sum(losses) / 3, counted)], otherwise)
    return "Each step uses the gradients of its own batch, and each photograph counts equally."


def _losses(model: nn.Module, batches: list, optimizer: Optimizer, zero_grad: bool) -> list[float]:
    """The loss of each batch in one epoch; without `zero_grad`, gradients accumulate."""
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        if zero_grad:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_groups(function: Callable[[nn.Module, float], list[dict]]) -> str:
    """`function(model, head_lr)`: groups in which each stage has half the rate of the next one."""
    model, head_lr = _new_resnet18(), 0.064
    groups = call(function, model, head_lr)
    if groups is None:
        raise Unanswered
    # torch itself refuses what is no group, and a parameter that stands in two of them.
    optimizer = SGD(groups, lr=0.0)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stages = ("bn1", "layer1", "layer2", "layer3", "layer4", "fc")
    for name, parameter in model.named_parameters():
        stage = name.split(".")[0].replace("conv1", "bn1")  # these two are the stem
        correct = head_lr / 2 ** (5 - stages.index(stage))
        if parameter not in rates:
            raise NotYet(f"'{name}' is in no group, so it would never be trained.")
        if not equal(rates[parameter], correct):
            given = f"not {rates[parameter]:g}"
            raise NotYet(f"With head_lr = {head_lr}, the rate of '{name}' is {correct:g}, {given}.")
    return "Each parameter is in one group, and the rate of the head is 32 times the stem's."
