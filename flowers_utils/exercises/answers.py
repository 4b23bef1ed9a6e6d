"""How a student's answer is compared."""

from collections.abc import Sequence
from typing import Any

import torch


class NotYet(Exception):
    """A wrong answer; the text is the hint."""


class Unanswered(Exception):
    """The gap is as it was; the text, if there is one, says what to look at."""


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
