"""The checks of the exercises, and the explanation for a cell that is run too early."""

from flowers_utils.exercises.checks import check
from flowers_utils.exercises.missing_names import explain_missing_names
