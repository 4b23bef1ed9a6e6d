"""The checks of the exercises, and the explanation for a cell that is run too early."""

from typing import Any

from flowers_utils.exercises import counting, networks
from flowers_utils.exercises.answers import NotYet, Unanswered
from flowers_utils.exercises.missing_names import explain_missing_names

CHECKS = [counting.check_steps, counting.check_normalise, counting.check_head_size]
CHECKS += [networks.check_freeze, networks.check_loop, networks.check_groups]
CHECKS += [counting.check_top_k, counting.check_smoothing]


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
