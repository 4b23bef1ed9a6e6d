"""README's table of results. Each of its numbers has its row in `results.json`; nobody types one.

    python -m tests.benchmarks.readme models models/fast --device "two cores with AVX512-BF16"

Each folder holds the `results.json` of a finished run of the notebook. Its figures become a row of
`tests/benchmarks/results.json`, in the place of the row of the same data, profile, recipe and seed.
The recipes that the study of photographs scored (`photos.json`) stand beside them. Without a folder
only the table is written anew. `--picture` draws README's picture, too, from a folder with a finished
run on practice flowers.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import transfer_learning_config as config
from flowers_utils.config_check import phase_settings
from flowers_utils.progress import clock
from flowers_utils.storage.results import load_results, markdown_table
from tests.benchmarks.readme_picture import save_picture
from tests.benchmarks.seeds import mean_and_deviation

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
Row = dict[str, Any]


def row_of(folder: Path, *, device: str | None = None, data: str | None = None) -> Row:
    """The figures of a finished run; `device` and `data` in words, None: as the run says them."""
    run = load_results(folder / "results.json")
    phases, test = run["phases"], run["test"]
    row = {"data": data or run["data"]["title"], "device": device or run["device"]}
    row |= {key: run[key] for key in ("profile", "recipe", "seed", "precision")}
    row["torch"] = run["versions"]["torch"].partition("+")[0]
    row["epochs"] = [len(phases[key]["history"]) for key in ("phase1", "phase2")]
    row |= {name: phases[key]["best_val_accuracy"] for key, name in PHASES.items() if key in phases}
    row["training_seconds"] = sum(phases[key]["seconds"] for key in ("phase1", "phase2"))
    row |= {"test": test["top1"]["value"], "test_ece": test["ece"]}
    row["test_interval"] = [test["top1"]["low"], test["top1"]["high"]]
    row |= {f"test_{key}": test[key]["value"] for key in ("top5", "mean_per_class")}
    return row | {"peak_memory_bytes": run["peak_memory_bytes"]}


def rows_of_study() -> list[Row]:
    """The recipes of `photos.json`, as rows."""
    rows = []
    for run in json.loads(STUDY.read_text(encoding="utf-8")):
        if run["part"] == "recipes":
            row = {"data": "photographs of 89 of the 102 species, full size", "profile": "full"}
            row |= {"recipe": run["name"], "seed": run["seed"], "training_seconds": run["seconds"]}
            row |= {"phase1_val": run["phase 1, val"], "phase2_val": run["phase 2, val"]}
            row |= {"test": run["test"], "test_interval": [run["low"], run["high"]]}
            row |= {"test_mean_per_class": run["mean per class"], "test_ece": run["ece"]}
            row["epochs"] = [
                phase_settings(name, "full", run["name"])["epochs"] for name in config.PHASES
            ]
            busy = ", beside other work" if run.get("beside_other_work") else ""
            row |= {"device": f"two cores with AVX2{busy}"}
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


def with_table(text: str, rows: Sequence[Row]) -> str:
    """README's text with the table between `<!-- results -->` and `<!-- end of results -->`."""
    pattern = r"(?s)(<!-- results -->\n).*?(\n<!-- end of results -->)"
    return re.sub(pattern, lambda marks: f"{marks[1]}{table(rows)}{marks[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folders", nargs="*", type=Path, help="each with the results.json of a run")
    add("--device", help="the machine in words (default: as the run says it)")
    add("--data", help="the data set in words (default: as the run says it)")
    add("--picture", type=Path, help="the folder of a finished run on practice flowers")
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    for folder in given.folders:
        rows = kept(rows, row_of(folder, device=given.device, data=given.data))
    if given.picture:
        save_picture(given.picture, PICTURE)
        print(f"Look at {PICTURE.relative_to(ROOT)}.")
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = with_table(README.read_text(encoding="utf-8"), [*rows_of_study(), *rows])
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
