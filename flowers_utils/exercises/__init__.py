"""The checks of the exercises, and what is said of a cell that is run too early."""

from flowers_utils.exercises.counting import (
    check_head_size,
    check_normalise,
    check_smoothing,
    check_steps,
    check_top_k,
)
from flowers_utils.exercises.networks import check_freeze, check_groups, check_loop
from flowers_utils.exercises.proofs import explain_missing_names
