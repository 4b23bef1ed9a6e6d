"""A look behind the numbers: what the network responds to, where it errs, what its result means."""

from flowers_utils.insight.advice import (
    diagnose,
    half_val_check,
    interval_on_val,
    performance_table,
    why_not_comparable,
)
from flowers_utils.insight.experiments import (
    accuracy_by_training_size,
    compare_backbones,
    comparison_table,
    train_head,
    without_normalisation,
)
from flowers_utils.insight.inside import (
    auroc,
    first_layer_filters,
    grad_cam,
    gradient_at_each_block,
    heat_map,
    how_far_each_group_moved,
    most_confident_mistakes,
    most_confused_pairs,
    occlusion,
)
