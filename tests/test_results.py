"""Results are proper JSON, two runs are compared however odd their files, and no run's files vanish."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small_training import small_data

import transfer_learning_config as config
from flowers_utils.errors import FlowersError
from flowers_utils.storage.results import (
    begin_run,
    compare_runs,
    describe_run,
    load_results,
    plain,
    save_results,
)

KNOBS = {"profile": "full", "recipe": "lesson", "seed": 0}


def run_of(accuracy, count):
    phases, test = {"phase1": {"best_val_accuracy": accuracy}}, {"top1": {"value": accuracy}}
    return {"data": {"images": {"val": count, "test": count}}, "phases": phases, "test": test}


@pytest.mark.parametrize(
    ("count", "told"),
    [(6000, "+10.0 points, beyond noise (±1.8)"), (32, "+10.0 points, within noise (±17.4)")],
)
def test_a_difference_counts_only_beyond_the_noise_of_both_runs(count, told):
    lines = compare_runs(run_of(0.5, count), run_of(0.6, 6000) | {"seed": 7}).splitlines()
    assert "| `seed` | None | 7 |" in lines
    assert f"| `phases.phase1.best_val_accuracy` | 50.0% | 60.0% | {told} |" in lines
    assert f"| `test.top1.value` | 50.0% | 60.0% | {told} |" in lines


@pytest.mark.parametrize("wrong", [None, [1], "0.5", 7, {}], ids=repr)
def test_runs_with_missing_or_wrong_parts_are_still_compared(wrong):
    complete = run_of(0.5, 100)
    partial = [run_of(wrong, 100), run_of(0.5, wrong)]
    partial += [complete | {part: wrong} for part in ("data", "phases", "test", "config")]
    for run in partial:
        for pair in ((run, complete), (complete, run)):
            assert "| `test.top1.value` |" in compare_runs(*pair)


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "{", "\xff", None])
def test_a_file_that_is_no_result_is_explained(tmp_path, content):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(FlowersError, match=r"other\.json"):
        load_results(path)


def test_a_run_is_saved_as_proper_json_without_the_places_of_this_computer(cpu, tmp_path):
    path, phase = tmp_path / "results.json", {"name": "Phase 1", "seconds": 60}
    run = describe_run(small_data(), cpu, [phase], KNOBS)
    numbers = (math.nan, math.inf, np.float32(0.5))
    odd = {"ece": numbers, "recall": np.ones(2), "at": tmp_path}
    save_results(path, run | {"test": odd})
    read = load_results(path)
    assert read["test"] == {"ece": [None, None, 0.5], "recall": [1, 1], "at": str(tmp_path)}
    assert read["phases"]["phase1"] == phase and read["seed"] == 0
    assert read["data"]["images"] == {"train": 24, "val": 16, "test": 16}
    assert read["config"]["BACKBONE"] == config.BACKBONE and "PATHS" not in read["config"]
    assert 50e6 < read["peak_memory_bytes"] < 1e12  # bytes, whatever the system counts in


MADE = {"results.json", "a_final.pth", "a_final.onnx", "a_final.pt2", "a_final.md", "a_int8.onnx"}
OTHERS = {
    "data": (replace(small_data(), title="other flowers"), KNOBS),
    "photographs": (replace(small_data(), image_size=20), KNOBS),
    "knobs": (small_data(), KNOBS | {"seed": 1}),
}


@pytest.mark.parametrize("what", [*OTHERS, "config", "unknown owner"])
def test_another_run_keeps_the_files_of_the_one_before_and_says_so(tmp_path, monkeypatch, what):
    monkeypatch.setitem(config.RECIPES, "mine", {"kept in": tmp_path})  # a Path, which JSON lacks
    assert begin_run(tmp_path, small_data(), KNOBS) == ""
    for name in {*MADE, "a_phase1_best.pth", "notes.txt"}:
        (tmp_path / name).write_text("first run")
    monkeypatch.setitem(config.PATHS, "models", "elsewhere")  # this changes no result
    assert begin_run(tmp_path, small_data(), KNOBS) == ""
    if what == "config":
        monkeypatch.setitem(config.TRAINING_CONFIG, "gamma", 0.5)
    if what == "unknown owner":
        (tmp_path / "run.json").write_text("{")
    sentence = begin_run(tmp_path, *OTHERS.get(what, (small_data(), KNOBS)))
    assert all(f"{name} is now {name.replace('.', '.earlier.')}" in sentence for name in MADE)
    kept = {name.replace(".", ".earlier.") for name in MADE}
    found = {path.name for path in tmp_path.iterdir()}
    assert found == kept | {"a_phase1_best.pth", "notes.txt", "run.json"}
    assert begin_run(tmp_path, small_data(), KNOBS | {"seed": 9}) == ""  # nothing twice


def test_every_name_is_shown_by_markdown_and_not_obeyed():
    assert plain("a|b <b>c</b> *d* $e$ _f_ `g` &lt;\n# h") == (
        r"a\|b \<b\>c\</b\> \*d\* \$e\$ \_f\_ \`g\` \&lt; \# h"
    )
