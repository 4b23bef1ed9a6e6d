"""A look behind the numbers: what the network sees, where it errs, what its result means."""

from flowers_utils.insight.advice import (
    diagnose,
    interval_on_val,
    performance_table,
    why_not_comparable,
)
from flowers_utils.insight.calibration import fit_temperature
from flowers_utils.insight.comparison import (
    compare_backbones,
    comparison_table,
    why_no_comparison,
)
from flowers_utils.insight.experiments import (
    accuracy_by_training_size,
    head_experiment,
    learning_rate_experiment,
    without_normalisation,
)
from flowers_utils.insight.inside import (
    feature_maps,
    first_layer_filters,
    grad_cam,
    gradient_at_each_block,
    how_far_each_group_moved,
    output_shapes,
)
from flowers_utils.insight.mistakes import (
    most_confident_mistakes,
    most_confused_pairs,
    nearest_neighbours,
)
from flowers_utils.insight.report import metrics_as_dict
from flowers_utils.insight.study import gains, head_table, over_seeds, recipe_study, recipe_table
