"""The checks of the exercises, and the explanation for a cell that is run too early."""

from typing import Any

from flowers_utils.errors import FlowersError
from flowers_utils.exercises import counting, networks
from flowers_utils.exercises.answers import NotYet, Unanswered
from flowers_utils.exercises.missing_names import explain_missing_names

CHECKS = {
    1: counting.check_steps,
    2: counting.check_normalise,
    3: counting.check_head_size,
    4: networks.check_freeze,
    5: networks.check_loop,
    6: networks.check_groups,
    7: counting.check_top_k,
    8: counting.check_smoothing,
}


def check(number: int, answer: Any) -> str:
    """One line about the answer to exercise `number`: correct, not yet (with a hint), or no answer.

    Nothing is raised, whatever was written. Only an unknown number raises FlowersError.
    """
    if number not in CHECKS:
        raise FlowersError(f"There is no exercise {number}; they count from 1 to {len(CHECKS)}.")
    try:
        if answer is None or answer is ...:
            raise Unanswered
        return f"Exercise {number}: correct. {CHECKS[number](answer)}"
    except Unanswered as more:
        return f"Exercise {number}: not answered yet. {more}".rstrip()
    except NotYet as hint:
        return f"Exercise {number}: not yet. {hint}"
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        return f"Exercise {number}: not yet. The answer cannot be used ({error})."
