"""Every figure of the lesson: a function takes data and returns a figure that shows itself."""

from flowers_utils.plotting.data import block, gradient_sizes, pictures
from flowers_utils.plotting.evaluation import (
    class_bars,
    confused_pairs,
    confusion,
    heat,
    predictions,
    reliability,
    unknown_classes,
)
from flowers_utils.plotting.results import carried_over, closing, tradeoff
from flowers_utils.plotting.training import bars, curves, experiment
