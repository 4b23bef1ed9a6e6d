"""Keep what finished runs measured, and write it into README.md and tests/benchmarks/README.md.

    python -m tests.benchmarks.readme models models/quick --device "two cores with AVX512-BF16"

Each folder holds the `results.json` of a finished run. The numbers are kept, trimmed, in
`tests/benchmarks/results.json`: one run for each set of flowers, the latest. The tables are made from
that file. A run on practice flowers gives the picture too, so its final checkpoint must be there.
Without a folder the tables are made anew. Nobody types a measured number.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import transfer_learning_config as config
from flowers_utils.insight import gains, head_table, over_seeds, recipe_study, recipe_table
from flowers_utils.insight.study import by_name
from flowers_utils.progress import clock
from flowers_utils.storage.results import load_results, markdown_table
from tests.benchmarks.readme_picture import save_picture

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.json")
PICTURE = ROOT / ".github" / "lesson.png"
LINE = 120  # characters
MAIN, REAL = "practice", "flowers102"  # the runs that README shows: its table, and a line below it


def trimmed(folder: Path, *, device: str | None) -> dict[str, Any]:
    """What README and its test need of a run: no names of classes, no configuration, no history."""
    run = load_results(folder / "results.json")
    kept = {key: run[key] for key in ("data", "precision", "profile", "seed", "versions")}
    kept["data"] = {key: run["data"][key] for key in ("source", "title", "images")}
    kept["device"] = device or run["device"]
    kept["phases"] = {
        key: {"epochs": len(phase["history"])}
        | {name: phase[name] for name in ("name", "best_epoch", "best_val_accuracy", "seconds")}
        for key, phase in run["phases"].items()
    }
    kept["test"] = {key: run["test"][key] for key in ("top1", "top5", "mean_per_class", "ece")}
    kept["peak_memory_bytes"] = run["peak_memory_bytes"]
    notebook = folder / "lesson_run.ipynb"  # where papermill noted how long all of it took
    if notebook.exists():
        metadata = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
        kept["lesson_seconds"] = metadata.get("papermill", {}).get("duration")
    return kept


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{_share(found['value'])} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _listed(values: tuple[float, ...]) -> str:
    *most, last = [_share(value) for value in values]
    return f"{', '.join(most)} and {last}"


def results_block(runs: Mapping[str, Any]) -> str:
    """README's table of four rows, what it was measured on, and what was not measured here."""
    run = runs[MAIN]
    first, second, scratch = (run["phases"].get(k) for k in ("phase1", "phase2", "fromscratch"))
    best, test = max(first, second, key=lambda p: p["best_val_accuracy"]), run["test"]
    what = ("the new head alone", "everything", "no pretraining")
    rows = [
        [
            f"{phase['name']}: {words}, {phase['epochs']} epochs",
            f"{_share(phase['best_val_accuracy'])} of val",
            clock(phase["seconds"]),
            run["device"],
        ]
        for phase, words in zip((first, second, scratch), what, strict=True)
        if phase
    ]
    both, whole = clock(first["seconds"] + second["seconds"]), run.get("lesson_seconds")
    result = [
        f"**Test, scored once**: {best['name']}",
        f"**{_interval(test['top1'])}**",
        f"{clock(whole)} in all" if whole else f"{both} for both",
        run["device"],
    ]
    rows.insert(2, result)
    versions = run["versions"]
    text = (
        f"**Measured** on {run['data']['title']} ({run['precision']}, torch "
        f"{_plain(versions['torch'])}, torchvision {_plain(versions['torchvision'])}, "
        f"seed {run['seed']}; in brackets the 95 % interval)."
    )
    real = [_real_words(runs[REAL])] if REAL in runs else []
    table = markdown_table(["what", "accuracy", "time", "device"], rows)
    texts = [" ".join([text, *real, _recipes_words()]), _expected_words()]
    return "\n\n".join([table, *(textwrap.fill(words, LINE) for words in texts)])


def _plain(version: str) -> str:
    return version.partition("+")[0]


def _real_words(run: Mapping[str, Any]) -> str:
    """One line on a run with photographs."""
    first, second = run["phases"]["phase1"], run["phases"]["phase2"]
    val = [_share(phase["best_val_accuracy"]) for phase in (first, second)]
    return (
        f"{run['data']['title']}, {first['epochs']} + {second['epochs']} epochs: val {' and '.join(val)}, "
        f"test {_interval(run['test']['top1'])}, {clock(first['seconds'] + second['seconds'])}."
    )


def _recipes_words() -> str:
    """What the better recipes reached on photographs, beside the lesson's."""
    told = []
    for name, rows in by_name(recipe_study("recipes")).items():
        if name in config.RECIPES:
            val, test = (_share(mean(row[key] for row in rows)) for key in ("val", "test"))
            minutes = min(row["seconds"] for row in rows) / 60
            told.append(f"`{name}` ({len(rows)}) {val}, {test}, {minutes:.1f} minutes")
    return (
        "The recipes of section 20 in full, on the same copies (runs; val and test, their mean; "
        f"training, the quickest): {'; '.join(told)}."
    )


def study_block(_: Mapping[str, Any]) -> str:
    """The study of recipes: whole recipes, ways to train the head, one change at a time."""
    trials = recipe_study("trials")
    base = [row["val"] for row in trials if row["name"] == trials[0]["name"]]
    rows = [
        [name, f"{mean(points):+.1f}", ", ".join(f"{each:+.1f}" for each in points)]
        for name, points in gains(trials).items()
    ]
    changes = f"points of val above the improved recipe ({over_seeds(base)})"
    table = markdown_table(["one change", changes, "seed by seed"], rows)
    whole, heads = recipe_table(recipe_study("recipes")), head_table(recipe_study("heads"))
    return "\n\n".join([whole, heads, table])


def _expected_words() -> str:
    """What the config promises and quotes; nothing of it was measured here."""
    first, second = (config.EXPECTED[phase] for phase in ("phase1", "phase2"))
    return (
        f"**Promised** on full-size Flowers102: about {100 * first['promised']:.0f} % after Phase 1 "
        f"and {100 * second['promised']:.0f} % after Phase 2. **Published** by others for ResNet18 on its "
        f"test split: {_listed(first['published'])} frozen, {_listed(second['published'])} fine-tuned. "
        "Neither was measured here."
    )


def runs_block(runs: Mapping[str, Any]) -> str:
    """Every run that is kept, in detail."""
    headers = [
        "data",
        "profile",
        "phase",
        "val",
        "epoch",
        "time",
        "test top-1",
        "top-5",
        "mean per class",
    ]
    rows = []
    for run in runs.values():
        best = max(run["phases"], key=lambda key: run["phases"][key]["best_val_accuracy"])
        for key, phase in run["phases"].items():
            test = [_interval(run["test"][name]) for name in ("top1", "top5", "mean_per_class")]
            rows.append(
                [
                    f"{run['data']['title']}",
                    run["profile"],
                    phase["name"],
                    _share(phase["best_val_accuracy"]),
                    f"{phase['best_epoch']} of {phase['epochs']}",
                    clock(phase["seconds"]),
                    *(test if key == best else ["not scored", "", ""]),
                ]
            )
    notes = [
        f"- {run['data']['title']}, {run['profile']}: {run['device']}, {run['precision']}, Python "
        f"{run['versions']['python']}, torch {_plain(run['versions']['torch'])}, torchvision "
        f"{_plain(run['versions']['torchvision'])}, seed {run['seed']}, peak memory "
        f"{run['peak_memory_bytes'] / 1e9:.1f} GB."
        for run in runs.values()
    ]
    return "\n\n".join([markdown_table(headers, rows), "\n".join(notes)])


# Where each text goes: file -> name of the place -> what makes it.
PLACES = {
    ROOT / "README.md": {"results": results_block},
    Path(__file__).with_name("README.md"): {"runs": runs_block, "study": study_block},
}


def written(text: str, name: str, block: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- end of name -->` replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
    found, count = re.subn(pattern, lambda m: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"'<!-- {name} -->' and '<!-- end of {name} -->' must stand there once.")
    return found


def up_to_date(path: Path, runs: Mapping[str, Any]) -> str:
    """The text of the file as it should be."""
    text = path.read_text(encoding="utf-8")
    for name, make in PLACES[path].items():
        text = written(text, name, make(runs))
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="each with the results.json of a run")
    parser.add_argument(
        "--device", help="the machine in plain words (default: as the run names it)"
    )
    given = parser.parse_args()
    runs = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for folder in given.folders:
        run = trimmed(folder, device=given.device)
        runs[run["data"]["source"]] = run
        if run["data"]["source"] == MAIN:
            size = save_picture(folder, load_results(folder / "results.json"), PICTURE)
            print(f"{PICTURE.relative_to(ROOT)}: {size / 1e3:.0f} kB. Look at it.")
    RESULTS.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    for path in PLACES:
        path.write_text(up_to_date(path, runs), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: written from {', '.join(runs)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
