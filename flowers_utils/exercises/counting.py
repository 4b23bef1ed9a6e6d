"""Exercises on numbers and tensors: counting, normalising, top-k, label smoothing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import transfer_learning_config as config
from flowers_utils.exercises.answers import (
    NotYet,
    Unanswered,
    call,
    dice,
    exercise,
    is_right,
    number,
)


@exercise(1)
def check_steps(answer: float) -> str:
    """How many optimizer steps does one epoch of 1,020 photographs take, 32 at a time?"""
    photographs, batch = 1020, 32
    steps = -(-photographs // batch)
    wrong = (
        (steps - 1, "Then the photographs of the last, smaller batch would never be seen."),
        (photographs / batch, "A step is taken or not: there is no part of one. Round up."),
        (photographs, "That is the number of photographs; one step takes a batch of them."),
        (steps * 20, "That is all of Phase 1; asked is one epoch."),
    )
    if not is_right(number(answer), steps, wrong):
        raise NotYet("Divide the photographs by the batch size. What becomes of the remainder?")
    return f"{steps - 1} full batches, and a last one of {photographs - (steps - 1) * batch}."


@exercise(2)
def check_normalise(function: Callable[[Tensor], Tensor]) -> str:
    """`function(images)`: uint8 `(B, 3, H, W)` to floats with ImageNet's mean 0 and spread 1."""
    images = torch.randint(256, (4, 3, 6, 8), generator=dice(), dtype=torch.uint8)
    mean, std = (torch.tensor(config.NORMALIZATION[key]).view(3, 1, 1) for key in ("mean", "std"))
    unit = images / 255
    shapes = "Each colour has its own mean and spread: give both the shape (3, 1, 1)."
    given = call(function, images.clone(), hint=shapes)
    if given is None:
        raise Unanswered("")
    if not isinstance(given, Tensor) or given.shape != images.shape:
        what = (
            f"has the shape {tuple(given.shape)}" if isinstance(given, Tensor) else "is no tensor"
        )
        raise NotYet(f"A tensor of the images' shape is asked for; what you return {what}.")
    wrong = (
        ((images - mean) / std, "Mean and spread belong to a scale of 0 to 1, not of 0 to 255."),
        (unit, "The pixels run from 0 to 1 now; mean and spread are still to come."),
        (unit - mean, "The mean is taken away; now divide by the spread."),
        (unit / std, "Divided by the spread, but the mean is still there."),
        (unit - mean / std, "Take the mean away first, then divide: mind the brackets."),
    )
    if not is_right(given, (unit - mean) / std, wrong):
        raise NotYet("Other numbers are right: divide by 255, take MEAN away, divide by STD.")
    return "Whoever uses the network later must do the same."


@exercise(3)
def check_head_size(answer: float) -> str:
    """How many parameters of ResNet18 learn in Phase 1 with 10 classes instead of 102?"""
    features, classes, backbone = 512, 10, 11_176_512
    right = features * classes + classes
    wrong = (
        (features * classes, "You have the weights; each of the 10 outputs also has a bias."),
        (features * classes + features, "The biases belong to the outputs, not to the inputs."),
        ((features + 1) * 102, "That is the head for 102 classes; here there are 10."),
        (backbone + right, "That is the whole network; in Phase 1 only the head learns."),
        (backbone, "That is the frozen backbone: the part that does not learn."),
    )
    if not is_right(number(answer), right, wrong):
        raise NotYet("The head has 512 inputs and 10 outputs. Count its weights, then its biases.")
    return f"512 x 10 weights and 10 biases, of {backbone + right:,} parameters in all."


@exercise(7)
def check_top_k(function: Callable[[Tensor, Tensor, int], float]) -> str:
    """`function(logits, labels, k)`: the share of labels among the `k` largest logits."""
    logits = torch.randn(200, 10, generator=dice())
    labels = torch.randint(10, (200,), generator=dice())
    order = (logits.argsort(descending=True) == labels[:, None]).double()
    for k in (5, 1, 3):
        right = order[:, :k].sum() / 200
        wrong = (
            (order[:, 0].sum() / 200, f"For k={k} that is top-1: only the largest logit is used."),
            (order[:, :5].sum() / 200, f"For k={k} that is top-5: `k` is ignored."),
            (order[:, :k].sum(), "That counts the photographs; divide by how many there are."),
            (100 * right, "That is a percentage; a share from 0 to 1 is asked for."),
            (right / k, "Divide by the photographs, not by photographs times k."),
            (order[:, -k:].sum() / 200, "Those are the k smallest logits."),
        )
        hint = "labels[:, None] gives one row a photograph, to compare with its k best."
        given = call(function, logits.clone(), labels.clone(), k, hint=hint)
        if not is_right(number(given), right, wrong):
            raise NotYet(f"For k={k} it is {right:.3f}. Look at logits.topk(k, dim=1).indices.")
    return "For k = 1, 3 and 5."


@exercise(8)
def check_smoothing(function: Callable[[Tensor, Tensor], Tensor]) -> str:
    """`function(logits, labels)`: cross-entropy with 10 % of the truth spread over all classes."""
    logits = torch.randn(20, 10, generator=dice())
    labels = torch.randint(10, (20,), generator=dice())
    log_p, plain = logits.log_softmax(dim=1), F.cross_entropy(logits, labels)
    smooth = F.cross_entropy(logits, labels, label_smoothing=0.1)
    picked = log_p.gather(1, labels[:, None])[:, 0]
    others = (log_p.sum(dim=1) - picked) / 9
    wrong = (
        (plain, "That is plain cross-entropy: nothing is smoothed yet."),
        (20 * smooth, "That is the sum over the photographs; take their mean."),
        (-smooth, "The sign is wrong: a loss gets smaller when the answers get better."),
        (-log_p.mean(), "All of the truth is spread now; 90 % is to stay with the label."),
        (0.1 * plain - 0.9 * log_p.mean(), "The shares are swapped: 90 % stays with the label."),
        (0.9 * plain - 0.1 * log_p.sum(1).mean(), "Divide the 10 % by the number of classes."),
        (0.9 * plain + 0.1 * log_p.mean(), "Log probabilities are negative: a minus is missing."),
        (-(0.9 * picked + 0.1 * others).mean(), "Spread 10 % over all classes, label included."),
    )
    if not is_right(number(call(function, logits.clone(), labels.clone())), smooth, wrong):
        raise NotYet("Mix 0.9 of the usual loss with 0.1 of the mean loss over all classes.")
    return "It equals F.cross_entropy(logits, labels, label_smoothing=0.1)."
