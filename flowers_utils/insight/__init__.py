"""A look behind the numbers: what the network responds to, where it errs, what its result means."""

from flowers_utils.insight.advice import diagnose, why_not_comparable
from flowers_utils.insight.experiments import (
    accuracy_by_training_size,
    compare_backbones,
    comparison_table,
    train_head,
)
from flowers_utils.insight.inside import gradient_at_each_block, heat_map
