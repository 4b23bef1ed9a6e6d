"""What is written to the disk and read back: checkpoints, phases in progress, results."""

from flowers_utils.storage.results import begin_run, describe_run, markdown_table, save_results
