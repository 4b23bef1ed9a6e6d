"""What the study of recipes found: rows made by `tests/benchmarks/study_recipe.py`."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from flowers_utils.storage.results import markdown_table

STUDY_FILE = Path(__file__).with_name("recipe_study.json")
Rows = list[dict[str, Any]]


def recipe_study(part: str) -> Rows:
    """The rows of "heads" (trained on stored features), of "trials" (fine-tuning with one change)
    or of "recipes" (whole runs), seed by seed.

    Each has name, seed, seconds, val (fraction 0..1; after training on val as well, None) and, in
    whole runs, test with its 95 % interval as test_low and test_high, and its course: seconds of
    training and val after each epoch.
    """
    rows = json.loads(STUDY_FILE.read_text(encoding="utf-8"))
    return [row for row in rows if row["part"] == part]


def gains(rows: Rows) -> dict[str, list[float]]:
    """Points of val that each change brings against the first row's recipe, seed by seed.

    Sorted by their mean, the best change first.
    """
    first = rows[0]["name"]
    base = {row["seed"]: row["val"] for row in rows if row["name"] == first}
    gained: dict[str, list[float]] = {}
    for row in rows:
        if row["name"] != first:
            gained.setdefault(row["name"], []).append(100 * (row["val"] - base[row["seed"]]))
    return dict(sorted(gained.items(), key=lambda item: -mean(item[1])))


def over_seeds(values: Sequence[float]) -> str:
    """Mean and standard deviation of fractions, in percent: "72.0% ± 2.8"."""
    return f"{mean(values):.1%}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def by_name(rows: Rows) -> dict[str, Rows]:
    """The rows of each name, in the order in which the names come first."""
    return {
        name: [row for row in rows if row["name"] == name]
        for name in dict.fromkeys(row["name"] for row in rows)
    }


def head_table(rows: Rows) -> str:
    """Ways to train a head as Markdown, the best first: val over the seeds."""
    found = {name: [row["val"] for row in runs] for name, runs in by_name(rows).items()}
    best_first = sorted(found, key=lambda name: -mean(found[name]))
    table = [(name, over_seeds(found[name])) for name in best_first]
    return markdown_table(["how the head learns", "val"], table)


def recipe_table(rows: Rows) -> str:
    """Whole runs as Markdown: val and test as mean and spread over the seeds, and the minutes of
    the quickest run (beside others the machine may have been busy).
    """
    table = []
    for name, runs in by_name(rows).items():
        val = [row["val"] for row in runs if row["val"] is not None]
        table.append(
            [
                name,
                len(runs),
                f"{min(row['seconds'] for row in runs) / 60:.1f}",
                over_seeds(val) if val else "trained on it",
                over_seeds([row["test"] for row in runs]),
            ]
        )
    return markdown_table(["recipe", "runs", "minutes of training", "val", "test"], table)
