"""The checks of the exercises, and the proofs that the notebook shows."""

from flowers_utils.exercises.counting import (
    check_head_size,
    check_normalise,
    check_smoothing,
    check_steps,
    check_top_k,
)
from flowers_utils.exercises.networks import check_freeze, check_groups, check_loop
from flowers_utils.exercises.proofs import backbone_unmoved, explain_missing_names
