"""Mean and standard deviation over runs: `python -m tests.benchmarks.seeds models/seed-*.json`."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from flowers_utils.storage.results import load_results, markdown_table


def mean_and_deviation(values: Iterable[float]) -> str:
    """Proportions in percent: `81.7 %`, or `81.7 % ± 0.6` of two or more."""
    values = [100 * value for value in values]
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f} %{deviation}"


def over_seeds(runs: list[dict]) -> str:
    """A Markdown table of val after each phase and of test: mean, standard deviation, all values."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for phase in run["phases"].values():
            found.setdefault(f"{phase['name']}, val", []).append(phase["best_val_accuracy"])
        found.setdefault("test top-1", []).append(run["test"]["top1"]["value"])
    rows = [
        [name, mean_and_deviation(values), *(f"{100 * value:.1f} %" for value in values)]
        for name, values in found.items()
    ]
    seeds = [f"seed {run['seed']}" for run in runs]
    return markdown_table(["", "mean ± standard deviation", *seeds], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="results.json of each run, two or more")
    print(over_seeds([load_results(path) for path in parser.parse_args().runs]))
