"""README.md: what it promises is there, and each of its numbers has its row."""

import json
import re
from importlib import import_module
from importlib.util import find_spec

import transfer_learning_config as config
from flowers_utils import exercises
from flowers_utils.models import weights_file
from flowers_utils.storage.results import save_results
from tests.benchmarks.readme import (
    README,
    RESULTS,
    ROOT,
    kept,
    row_of,
    rows_of_study,
    table,
    with_table,
)

TEXT = README.read_text(encoding="utf-8")
ROWS = [*rows_of_study(), *json.loads(RESULTS.read_text(encoding="utf-8"))]
# What only a run, a download or a reader makes.
MADE = {
    *("models/", "models/lesson_run.ipynb", "models/results.json", "results.json"),
    *("resnet18_final.pth", "102flowers.tgz", "imagelabels.mat", "setid.mat"),
    *("data/flowers-102/", "flowers-102/", "train/", "val/", "test/"),
    f"hub/checkpoints/{weights_file('resnet18').name}",
}


def test_the_table_holds_the_rows_of_the_results_file():
    assert with_table(TEXT, ROWS) == TEXT, "run `python -m tests.benchmarks.readme`"


def test_the_text_repeats_only_numbers_of_the_rows_and_of_the_config():
    photographs = json.loads(RESULTS.with_name("photos.json").read_text(encoding="utf-8"))
    known = {value for row in photographs for value in row.values() if isinstance(value, float)}
    known |= {float(number) for number in re.findall(r"0\.\d+", str(config.EXPECTED))}
    known |= {0.95, 0.667, 0.698}  # intervals; top-1 on ImageNet, by the sources of the weights
    shown = {f"{100 * value:.{digits}f}" for value in known for digits in (0, 1)}
    text, of_rows = (re.findall(r"\d+(?:\.\d+)?(?= ?%)", part) for part in (TEXT, table(ROWS)))
    assert set(text) <= shown | set(of_rows)


def test_every_link_file_and_module_named_is_there():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    files = re.findall(r"`([\w.-]*[/\w-]+(?:/|\.\w+))`", prose)  # `a/`, `a/b.py`, `a.json`
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    modules = set(re.findall(r"python3? -m ([\w.]+)", TEXT))
    assert files and links and {"flowers_utils", "papermill", "pytest"} <= modules
    assert not [name for name in {*links, *files} - MADE if not (ROOT / name).exists()]
    assert not [name for name in modules if find_spec(name) is None]


def test_every_benchmark_finds_the_names_that_it_imports():
    for file in RESULTS.parent.glob("*.py"):
        import_module(f"tests.benchmarks.{file.stem}")


def test_names_from_the_code_are_correct():
    assert f"hub/checkpoints/{weights_file('resnet18').name}" in TEXT
    for heading in ("Download errors", "**Colab:**"):  # the notebook and messages point there
        assert heading in TEXT


def test_graders_find_the_verdicts_of_the_checks():
    pattern = re.search(r'grep -oE "(.*)" models', TEXT)[1]
    found = [re.search(pattern, exercises.check(1, answer))[1] for answer in (32, 31, ...)]
    assert len(set(found)) == 3


def test_a_finished_run_becomes_a_row_and_seeds_share_a_column(tmp_path):
    top1, phases = {"value": 0.8, "low": 0.75, "high": 0.84}, {}
    for key, val in (("phase1", 0.5), ("phase2", 0.7)):
        phases[key] = {"name": key, "best_val_accuracy": val, "seconds": 61.0, "history": [{}]}
    run = {"data": {"title": "test patches"}, "phases": phases, "profile": "full", "seed": 0}
    run |= {"device": "CPU", "precision": "float32", "recipe": "lesson"}
    run |= {"versions": {"torch": "2.14.1+cpu"}, "test": {"top1": top1, "mean_per_class": top1}}
    save_results(tmp_path / "results.json", run)
    first = row_of(tmp_path / "results.json", device="two cores")
    shown = table([first])
    assert "`lesson`, test patches" in shown and "| epochs | 1 + 1 |" in shown
    assert "| 80.0 % (75.0 to 84.0) |" in shown and "| 2 min 02 s |" in shown
    assert "| not measured |" in shown and "two cores, float32, torch 2.14.1" in shown
    rows = kept([first], first | {"seed": 1, "test": 0.9})
    assert len(rows) == 2 and "| **test, scored once** | 85.0 % ± 7.1 |" in table(rows)
    assert kept(rows, first | {"test": 0.6}) == [first | {"test": 0.6}, rows[1]]  # made again
