"""Mean and spread over runs with several seeds: `python -m tests.benchmarks.seeds models/seed-*.json`."""

import argparse
from pathlib import Path
from statistics import mean, stdev

from flowers_utils.storage.results import load_results, markdown_table


def spread(runs: list[dict]) -> str:
    """A Markdown table of val after each phase and of test: mean, standard deviation, all values."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for phase in run["phases"].values():
            found.setdefault(f"{phase['name']}, val", []).append(phase["best_val_accuracy"])
        found.setdefault("test top-1", []).append(run["test"]["top1"]["value"])
    rows = [
        [
            name,
            f"{mean(values):.1%}",
            f"{100 * stdev(values):.1f} points",
            *map("{:.1%}".format, values),
        ]
        for name, values in found.items()
    ]
    seeds = [f"seed {run['seed']}" for run in runs]
    return markdown_table(["", "mean", "standard deviation", *seeds], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="results.json of each run, two or more")
    print(spread([load_results(path) for path in parser.parse_args().runs]))
