"""How a student's answer is read and compared."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


class NotYet(Exception):
    """A wrong answer; the text is the hint."""


class Unanswered(Exception):
    """The gap is as it was; the text, if there is one, says what to look at."""


def call(function: Callable, *inputs: Any) -> Any:
    """What the student's function returns; NotYet for an error in it, with its text."""
    try:
        return function(*inputs)
    except Exception as error:  # a student's code may raise anything; the student reads what it was
        raise NotYet(f"Your function raises {type(error).__name__}: {error}.") from error


def number(value: Any) -> float:
    """One plain number; NotYet for anything else. A tensor with a single number counts as one."""
    if value is None:
        raise Unanswered
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise NotYet(f"One number is needed (of several, their mean), not {str(value)[:60]!r}.")
    return float(value)


def equal(one: Any, other: Any) -> bool:
    """Whether two numbers or tensors have the same shape and, up to rounding, the same values."""
    pair = [torch.as_tensor(value).detach().double().cpu() for value in (one, other)]
    return pair[0].shape == pair[1].shape and torch.allclose(*pair, rtol=1e-4, atol=1e-6)


def compare(given: Any, correct: Any, wrong: Sequence[tuple[Any, str]], otherwise: str) -> None:
    """Raise NotYet unless `given` is `correct`, with the hint of the value in `wrong` that fits."""
    if given is None:
        raise Unanswered
    if not equal(given, correct):
        raise NotYet(next((hint for value, hint in wrong if equal(given, value)), otherwise))
