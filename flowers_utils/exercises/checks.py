"""The check of each exercise: what is correct, and the hints for what often goes wrong."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

import transfer_learning_config as config
from flowers_utils.models import build_model


class NotYet(Exception):
    """A wrong answer; the text is the hint."""


class Unanswered(Exception):
    """The gap is as it was; the text, if there is one, says what to look at."""


def check(number: int, answer: Any) -> str:
    """One line about an answer: correct, not yet (with a hint), or not answered. Never an error."""
    try:
        if answer is None or answer is ...:
            raise Unanswered
        return f"Exercise {number}: correct. {CHECKS[number - 1](answer)}"
    except Unanswered as more:
        return f"Exercise {number}: not answered yet. {more}".rstrip()
    except NotYet as hint:
        return f"Exercise {number}: not yet. {hint}"
    except Exception as error:  # a student's code may raise anything; the student reads what it was
        told = f"{type(error).__name__}: {error}"
        return f"Exercise {number}: not yet. Your answer leads to an error, {told}."


def equal(one: Any, other: Any) -> bool:
    """Whether two numbers or tensors of one shape have, up to rounding, the same values."""
    pair = [torch.as_tensor(value).detach().double().cpu() for value in (one, other)]
    return torch.allclose(*pair, rtol=1e-4, atol=1e-6)


def compare(given: Any, correct: Any, wrong: Sequence[tuple[Any, str]], otherwise: str) -> None:
    """Raise NotYet unless `given` is `correct`, with the hint of the value in `wrong` that fits."""
    if given is None:
        raise Unanswered
    shape, needed = (tuple(torch.as_tensor(value).shape) for value in (given, correct))
    if shape != needed:
        raise NotYet(f"The shape of the answer is {shape}, but {needed} is needed.")
    if not equal(given, correct):
        raise NotYet(next((hint for value, hint in wrong if equal(given, value)), otherwise))


def check_steps(answer: float) -> str:
    """How many optimizer steps does one epoch of 1,020 photographs take, 32 at a time?"""
    wrong = [(31, "With 31 steps the last, smaller batch would never be used.")]
    compare(answer, 32, wrong, "Divide by the batch size. Is there a remainder?")
    return "31 full batches, and a last one of 28 photographs."


def check_normalise(function: Callable[[Tensor], Tensor]) -> str:
    """`function(images)`: uint8 `(B, 3, H, W)` to floats, normalised with ImageNet's numbers."""
    images = (torch.arange(4 * 3 * 6 * 8).view(4, 3, 6, 8) % 256).to(torch.uint8)
    mean, std = (torch.tensor(config.NORMALIZATION[key]).view(3, 1, 1) for key in ("mean", "std"))
    wrong = [((images - mean) / std, "MEAN and STD belong to pixels from 0 to 1.")]
    otherwise = "Divide by 255, then subtract MEAN, then divide all of it by STD."
    compare(function(images.clone()), (images / 255 - mean) / std, wrong, otherwise)
    return "Every later use of the network needs the same normalisation."


def check_head_size(answer: float) -> str:
    """How many parameters of ResNet18 are trained in Phase 1 with 10 classes instead of 102?"""
    wrong = [(5120, "These are the weights. Each of the 10 outputs also has a bias.")]
    compare(answer, 5130, wrong, "Count the weights from 512 inputs, then the biases.")
    return "512 x 10 weights and 10 biases, of 11,181,642 parameters in all."


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


def _logits_and_labels(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(count, 10, generator=generator)
    return logits, torch.randint(10, (count,), generator=generator)


def check_top_k(function: Callable[[Tensor, Tensor, int], float]) -> str:
    """`function(logits, labels, k)`: the proportion of labels among the `k` largest logits."""
    logits, labels = _logits_and_labels(200)
    ranked = (logits.argsort(descending=True) == labels[:, None]).double()
    for k in (5, 1, 3):
        correct = ranked[:, :k].sum() / 200
        wrong = [
            (ranked[:, 0].sum() / 200, f"For k={k} this is top-1: it uses the largest logit only."),
            (correct * 200, "This is a count. Divide it by the number of photographs."),
        ]
        otherwise = f"k={k}: {correct:.3f} is correct. Compare labels[:, None] with topk's indices."
        given = function(logits.clone(), labels.clone(), k)
        compare(given, correct, wrong, otherwise)
    return "It was tried with k = 1, 3 and 5."


def check_smoothing(function: Callable[[Tensor, Tensor], Tensor]) -> str:
    """`function(logits, labels)`: cross-entropy with 10 % of the target spread over all classes."""
    logits, labels = _logits_and_labels(20)
    wrong = [(F.cross_entropy(logits, labels), "This is the usual loss, without any smoothing.")]
    otherwise = "Add 0.9 of the usual loss and 0.1 of the mean loss over all classes."
    given = function(logits.clone(), labels.clone())
    compare(given, F.cross_entropy(logits, labels, label_smoothing=0.1), wrong, otherwise)
    return "It equals F.cross_entropy(logits, labels, label_smoothing=0.1)."


CHECKS = [check_steps, check_normalise, check_head_size, check_freeze]
CHECKS += [check_loop, check_groups, check_top_k, check_smoothing]
