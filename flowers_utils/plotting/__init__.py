"""Every figure of the lesson: a function takes data and returns a figure that shows itself."""

from flowers_utils.plotting.data import (
    architecture,
    augmentations,
    gradient_sizes,
    pictures,
    samples,
)
from flowers_utils.plotting.evaluation import (
    class_bars,
    confused_pairs,
    confusion,
    mistakes,
    predictions,
)
from flowers_utils.plotting.inside import (
    feature_maps,
    filters,
    grad_cam,
    neighbours,
    own_photo,
    phase_change,
)
from flowers_utils.plotting.recipes import ablation, courses, rate_finder, recipes
from flowers_utils.plotting.results import closing, comparison, reliability
from flowers_utils.plotting.text import numbered_classes
from flowers_utils.plotting.training import (
    curves,
    experiment,
    movement,
    three_numbers,
    time_parts,
    training_size,
)
