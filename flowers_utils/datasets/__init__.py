"""Where the flowers come from: Flowers102, practice flowers drawn by a formula, or your own folder."""

from flowers_utils.datasets.folder import describe_folder
from flowers_utils.datasets.load import data_root, load_data, split_table, starting_weights
from flowers_utils.datasets.photos import open_photo
from flowers_utils.datasets.practice import flower_masks
from flowers_utils.datasets.practice_drawing import draw_species
from flowers_utils.datasets.practice_species import describe_species, traits_in_words

__all__ = [
    "data_root",
    "describe_folder",
    "describe_species",
    "draw_species",
    "flower_masks",
    "load_data",
    "open_photo",
    "split_table",
    "starting_weights",
    "traits_in_words",
]
