"""Where the flowers come from: Flowers102, a folder of your own, or drawn practice flowers."""

from flowers_utils.datasets.load import load_data, split_table, starting_weights
from flowers_utils.datasets.practice import (
    describe_species,
    draw_species,
    flower_masks,
    traits_in_words,
)

__all__ = [
    "describe_species",
    "draw_species",
    "flower_masks",
    "load_data",
    "split_table",
    "starting_weights",
    "traits_in_words",
]
