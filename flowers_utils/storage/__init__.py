"""What is written to the disk and read back: checkpoints, phases in progress, results."""

from flowers_utils.storage.results import (
    best_row,
    compare_runs,
    describe_run,
    load_results,
    markdown_table,
    save_results,
)

__all__ = [
    "best_row",
    "compare_runs",
    "describe_run",
    "load_results",
    "markdown_table",
    "save_results",
]
