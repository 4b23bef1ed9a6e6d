"""README's table of results. Each of its numbers has its row in `results.json`; nobody types one.

    python -m tests.benchmarks.readme models models/fast --device "two cores with AVX512-BF16"

Each folder holds the `results.json` of a finished run of the notebook, which becomes a row of
`tests/benchmarks/results.json`. The recipes of the study (`photos.json`) stand beside these rows.
Without a folder only the table is written anew.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import transfer_learning_config as config
from flowers_utils.config_check import phase_settings
from flowers_utils.progress import clock
from flowers_utils.storage.results import load_results, markdown_table
from tests.benchmarks.readme_picture import save_picture

ROOT = Path(__file__).parents[2]
README, PICTURE = ROOT / "README.md", ROOT / ".github" / "lesson.png"
RESULTS, STUDY = (Path(__file__).with_name(name) for name in ("results.json", "photos.json"))
SAME_RUN = ("data", "profile", "recipe", "seed")
PHASES = {"phase1": "phase1_val", "phase2": "phase2_val", "fromscratch": "scratch_val"}
LINES = {  # of the table: what it says -> key of the rows
    "val after Phase 1 (the new head alone)": "phase1_val",
    "val after Phase 2 (everything)": "phase2_val",
    "**test, scored once**": "test",
    "test, mean of the classes": "test_mean_per_class",
    "val from scratch (no pretraining)": "scratch_val",
}
OF_STUDY = {"phase 1, val": "phase1_val", "phase 2, val": "phase2_val"}
Row = dict[str, Any]


def row_of(path: Path, *, device: str | None = None) -> Row:
    """The figures of a finished run's results.json; `device` in words, None: as the run says it."""
    run = load_results(path)
    phases, test = run["phases"], run["test"]
    row = {"data": run["data"]["title"], "device": device or run["device"]}
    row |= {key: run[key] for key in ("profile", "recipe", "seed", "precision")}
    row["torch"] = run["versions"]["torch"].partition("+")[0]
    row["epochs"] = [len(phases[key]["history"]) for key in ("phase1", "phase2")]
    row |= {name: phases[key]["best_val_accuracy"] for key, name in PHASES.items() if key in phases}
    row["training_seconds"] = sum(phases[key]["seconds"] for key in ("phase1", "phase2"))
    row["test_interval"] = [test["top1"]["low"], test["top1"]["high"]]
    row |= {"test": test["top1"]["value"], "test_mean_per_class": test["mean_per_class"]["value"]}
    return row


def rows_of_study() -> list[Row]:
    """The recipes of `photos.json`, as rows; `lesson` with the network from scratch of its seed."""
    rows, study = [], json.loads(STUDY.read_text(encoding="utf-8"))
    scratch = {run["seed"]: run["val"] for run in study if run["part"] == "scratch"}
    for run in study:
        if run["part"] == "recipes" and run["name"] in config.RECIPES:
            row = {"data": "photographs of 89 of the 102 species, full size", "profile": "full"}
            row |= {"recipe": run["name"], "seed": run["seed"], "training_seconds": run["seconds"]}
            row |= {new: run[old] for old, new in OF_STUDY.items() if old in run}
            row |= {"test": run["test"], "test_interval": [run["low"], run["high"]]}
            row |= {"test_mean_per_class": run["mean per class"]}
            if run["name"] == "lesson" and run["seed"] in scratch:
                row["scratch_val"] = scratch[run["seed"]]
            busy = ", beside other work" if run.get("beside_other_work") else ""
            row |= {"device": f"two cores with AVX2{busy}"}
            phases = [phase_settings(name, recipe=run["name"]) for name in config.PHASES]
            row |= {"epochs": [phase["epochs"] for phase in phases]}
            row |= {"precision": run["device"].split(", ")[-2]}
            rows.append(row | {"torch": run["torch"].partition("+")[0]})
    return rows


def kept(rows: Sequence[Row], new: Row) -> list[Row]:
    """The rows with `new` in the place of an earlier row of the same run, or at the end."""
    by_run = {tuple(row[key] for key in SAME_RUN): row for row in [*rows, new]}
    return list(by_run.values())


def table(rows: Sequence[Row]) -> str:
    """A column for each data set, recipe and profile: means over the seeds, or one run's interval."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        short = "" if row["profile"] == "full" else f" ({row['profile']})"
        groups.setdefault(f"`{row['recipe']}`{short}, {row['data']}", []).append(row)
    columns = [_column(runs) for runs in groups.values()]
    lines = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return markdown_table(["", *groups], lines)


def _column(runs: Sequence[Row]) -> dict[str, Any]:
    """What stands in one column, by line; `runs` differ in their seed alone."""
    first = runs[0]
    cells = {"epochs": " + ".join(map(str, first["epochs"])), "runs": len(runs)}
    for name, key in LINES.items():
        values = [run[key] for run in runs if key in run]
        cells[name] = mean_and_deviation(values) if values else "not measured"
        if key == "test" and len(runs) == 1:
            cells[name] += " ({:.1f} to {:.1f})".format(*(100 * e for e in first["test_interval"]))
    cells["training"] = clock(mean(run["training_seconds"] for run in runs))
    cells["where"] = f"{first['device']}, {first['precision']}, torch {first['torch']}"
    return cells


def mean_and_deviation(values: Sequence[float]) -> str:
    """Proportions in percent: `81.7 %`, or `81.7 % ± 0.6` of two or more."""
    percents = [100 * value for value in values]
    deviation = f" ± {stdev(percents):.1f}" if len(percents) > 1 else ""
    return f"{mean(percents):.1f} %{deviation}"


def with_table(text: str, rows: Sequence[Row]) -> str:
    """README's text with the table between `<!-- results -->` and `<!-- end of results -->`."""
    pattern = r"(?s)(<!-- results -->\n).*?(\n<!-- end of results -->)"
    return re.sub(pattern, lambda marks: f"{marks[1]}{table(rows)}{marks[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folders", nargs="*", type=Path, help="each with the results.json of a run")
    add("--device", help="the machine in words (default: as the run says it)")
    add("--picture", type=Path, help="draw README's picture from this folder of a practice run")
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    for folder in given.folders:
        rows = kept(rows, row_of(folder / "results.json", device=given.device))
    if given.picture:
        save_picture(given.picture, PICTURE)
        print(f"Look at {PICTURE.relative_to(ROOT)}.")
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = with_table(README.read_text(encoding="utf-8"), [*rows_of_study(), *rows])
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
