"""Exercises on numbers and tensors: counting, normalising, top-k, label smoothing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import transfer_learning_config as config
from flowers_utils.exercises.answers import compare


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
