"""How a student's answer is read: one line comes back whatever was written, and nothing is raised.

The typical wrong answers are computed beside the right one, so that a check can say what went wrong.
"""

import functools
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


class NotYet(Exception):
    """A wrong answer; the text is the hint."""


class Unanswered(Exception):
    """The gap is as it was; the text, if any, says what to look at."""


def exercise(number: int) -> Callable:
    """Turn a check that returns praise and raises hints into one that always returns a line."""

    def decorate(check: Callable[[Any], str]) -> Callable[[Any], str]:
        @functools.wraps(check)
        def line(answer: Any) -> str:
            try:
                if answer is None or answer is ...:
                    raise Unanswered("")
                return f"Exercise {number}: right. {check(answer)}"
            except Unanswered as more:
                return f"Exercise {number}: not answered yet. {more}".rstrip()
            except NotYet as hint:
                return f"Exercise {number}: not yet. {hint}"
            except (TypeError, ValueError, RuntimeError) as error:  # it cannot be read as asked
                return f"Exercise {number}: not yet. What comes back cannot be read: {error}."

        return line

    return decorate


def call(function: Any, *inputs: Any, hint: str = "") -> Any:
    """What the student's function returns; an error in it is told, with `hint`."""
    if not callable(function):
        kind = type(function).__name__
        raise NotYet(f"A function is asked for (def ...), but this is a {kind}.")
    try:
        return function(*inputs)
    except Exception as error:  # a student's code may raise anything, and it is told, not hidden
        told = f"Your function stops with {type(error).__name__}: {error}. {hint}"
        raise NotYet(told.rstrip()) from error


def number(value: Any) -> float:
    """One plain number, or a hint; a tensor that holds a single number counts as one."""
    if value is None or value is ...:
        raise Unanswered("")
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if getattr(value, "shape", ()) != ():
        raise NotYet(
            f"One number is asked for, but this has the shape {tuple(value.shape)}: one value for "
            "each photograph, it seems. Take their mean."
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        shown = " ".join(repr(value).split())[:60]
        raise NotYet(f"One plain number is asked for, without quotes or brackets, not {shown}.")
    return float(value)


def is_right(given: Any, right: Any, wrong: Sequence[tuple[Any, str]]) -> bool:
    """Whether numbers or tensors agree; raises the hint of the first value in `wrong` that fits."""
    if _equal(given, right):
        return True
    for value, hint in wrong:
        if _equal(given, value):
            raise NotYet(hint)
    return False


def _equal(one: Any, other: Any) -> bool:
    pair = [torch.as_tensor(value).detach().double().cpu() for value in (one, other)]
    return pair[0].shape == pair[1].shape and torch.allclose(*pair, rtol=1e-4, atol=1e-6)


def dice() -> torch.Generator:
    """The same random numbers for each check."""
    return torch.Generator().manual_seed(7)
