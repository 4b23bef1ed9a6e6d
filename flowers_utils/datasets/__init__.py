"""Where the flowers come from: Flowers102, practice flowers drawn by a formula, or your own folder."""

from flowers_utils.datasets.load import split_table
from flowers_utils.datasets.photos import PhotoFiles
from flowers_utils.datasets.practice_species import traits_in_words
