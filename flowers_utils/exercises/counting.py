"""Exercises on numbers and tensors: counting, normalising, top-k, label smoothing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import transfer_learning_config as config
from flowers_utils.exercises.answers import NotYet, Unanswered, call, compare, number


def check_steps(answer: float) -> str:
    """How many optimizer steps does one epoch of 1,020 photographs take, 32 at a time?"""
    wrong = (
        (31, "With 31 steps the photographs of the last, smaller batch would never be used."),
        (1020 / 32, "A step cannot be taken in part. Round up."),
    )
    otherwise = "Divide the photographs by the batch size. What happens to the remainder?"
    compare(number(answer), 32, wrong, otherwise)
    return "31 full batches, and a last one of 28 photographs."


def check_normalise(function: Callable[[Tensor], Tensor]) -> str:
    """`function(images)`: uint8 `(B, 3, H, W)` to floats, normalised with ImageNet's numbers."""
    images = (torch.arange(4 * 3 * 6 * 8).view(4, 3, 6, 8) % 256).to(torch.uint8)
    mean, std = (torch.tensor(config.NORMALIZATION[key]).view(3, 1, 1) for key in ("mean", "std"))
    given = call(function, images.clone())
    if given is None:
        raise Unanswered
    if not isinstance(given, Tensor):
        raise NotYet(f"Return a tensor of the images' shape, not a {type(given).__name__}.")
    wrong = (
        ((images - mean) / std, "MEAN and STD belong to pixels from 0 to 1, not from 0 to 255."),
        (images / 255 - mean, "The mean is subtracted. Now divide by the standard deviation."),
    )
    otherwise = "Divide by 255, then subtract MEAN, then divide all of it by STD."
    compare(given, (images / 255 - mean) / std, wrong, otherwise)
    return "Every later use of the network needs the same normalisation."


def check_head_size(answer: float) -> str:
    """How many parameters of ResNet18 are trained in Phase 1 with 10 classes instead of 102?"""
    wrong = (
        (512 * 10, "These are the weights. Each of the 10 outputs also has a bias."),
        (513 * 102, "This is the head for 102 classes. Here there are 10."),
    )
    otherwise = "The head has 512 inputs and 10 outputs. Count its weights, then its biases."
    compare(number(answer), 512 * 10 + 10, wrong, otherwise)
    return "512 x 10 weights and 10 biases, of 11,181,642 parameters in all."


def check_top_k(function: Callable[[Tensor, Tensor, int], float]) -> str:
    """`function(logits, labels, k)`: the proportion of labels among the `k` largest logits."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(200, 10, generator=generator)
    labels = torch.randint(10, (200,), generator=generator)
    ranked = (logits.argsort(descending=True) == labels[:, None]).double()
    for k in (5, 1, 3):
        correct = ranked[:, :k].sum() / 200
        wrong = (
            (ranked[:, 0].sum() / 200, f"For k={k} this is top-1: it uses the largest logit only."),
            (ranked[:, :k].sum(), "This is a count. Divide it by the number of photographs."),
        )
        otherwise = (
            f"For k={k}, {correct:.3f} is correct. Compare labels[:, None] with topk's indices."
        )
        given = call(function, logits.clone(), labels.clone(), k)
        compare(number(given), correct, wrong, otherwise)
    return "It was tried with k = 1, 3 and 5."


def check_smoothing(function: Callable[[Tensor, Tensor], Tensor]) -> str:
    """`function(logits, labels)`: cross-entropy with 10 % of the target spread over all classes."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(20, 10, generator=generator)
    labels = torch.randint(10, (20,), generator=generator)
    usual, mean = F.cross_entropy(logits, labels), logits.log_softmax(dim=1).mean()
    wrong = (
        (usual, "This is the usual cross-entropy, without any smoothing."),
        (0.9 * usual + 0.1 * mean, "Log probabilities are negative: a minus sign is missing."),
    )
    otherwise = "Add 0.9 of the usual loss and 0.1 of the mean loss over all classes."
    given = number(call(function, logits.clone(), labels.clone()))
    compare(given, F.cross_entropy(logits, labels, label_smoothing=0.1), wrong, otherwise)
    return "It equals F.cross_entropy(logits, labels, label_smoothing=0.1)."
