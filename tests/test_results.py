"""Results are proper JSON, two runs are compared however odd their files, and no run's files vanish."""

from dataclasses import replace

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


def run_of(accuracy: float, count: int) -> dict:
    phases, test = {"phase1": {"best_val_accuracy": accuracy}}, {"top1": {"value": accuracy}}
    images = {"val": count, "test": count}
    return {"config": {}, "data": {"images": images}, "phases": phases, "test": test}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (run_of(0.50, 6000), run_of(0.60, 6000), "+10.0 points, beyond noise (±1.8)"),
        (run_of(0.50, 32), run_of(0.60, 6000), "+10.0 points, within noise (±17.4)"),
    ],
)
def test_a_difference_counts_only_beyond_the_noise_of_both_runs(old, new, told):
    lines = compare_runs(old, new | {"seed": 7}).splitlines()
    assert "| `seed` | None | 7 |" in lines
    for name in ("phase1 best val accuracy", "test top1"):
        assert next(line for line in lines if name in line).endswith(f"{told} |")


WRONG = (None, [1], "0.5", 7, -1, True, float("nan"), 10**400, {}, {"value": "0.5"}, "missing")
PHASE = ("phases", "phases.phase1", "phases.phase1.best_val_accuracy")
PLACES = (*PHASE, "test.top1.value", "data.images.val", "config")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_runs_with_missing_or_wrong_parts_are_still_compared(place, wrong):
    complete, partial = run_of(0.5, 100), run_of(0.5, 100)
    inside, (*outer, last) = partial, place.split(".")
    for key in outer:
        inside = inside[key]
    inside[last] = wrong
    if wrong == "missing":
        del inside[last]
    for text in (compare_runs(partial, complete), compare_runs(complete, partial)):
        measures = text.partition("| measure | old | new | difference |")[2]
        assert "| test top1 |" in measures
        assert "nan" not in measures.lower() and "100.0%" not in measures


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "{", "[" * 100_000, "\xff", None])
def test_a_file_that_is_no_result_is_explained(tmp_path, content):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(FlowersError, match=r"other\.json"):
        load_results(path)


def test_a_run_is_saved_as_proper_json_without_the_places_of_this_computer(cpu, tmp_path):
    path, phase = tmp_path / "results.json", {"name": "Phase 1", "seconds": 60}
    run = describe_run(small_data(), cpu, [phase], KNOBS)
    save_results(path, run | {"test": {"value": float("nan"), "ece": (float("inf"), 0.1)}})
    read = load_results(path)
    assert read["test"] == {"value": None, "ece": [None, 0.1]}
    assert read["phases"]["phase1"] == phase and read["seed"] == 0
    assert read["data"]["images"] == {"train": 24, "val": 16, "test": 16}
    assert read["config"]["BACKBONE"] == config.BACKBONE and "PATHS" not in read["config"]


MADE = ("results.json", "a_final.pth", "a_final.onnx", "a_final.pt2", "a_final.md", "a_int8.onnx")
OTHERS = {
    "data": (replace(small_data(), title="other flowers"), KNOBS, b""),
    "photographs": (replace(small_data(), image_size=20), KNOBS, b""),
    "knobs": (small_data(), KNOBS | {"seed": 1}, b""),
    "no owner": (small_data(), KNOBS, b"{"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_keeps_the_files_of_the_one_before_and_says_so(tmp_path, what):
    data, knobs, owner = OTHERS[what]
    folder = tmp_path / "new"
    assert begin_run(folder, small_data(), KNOBS) == ""
    for name in (*MADE, "a_phase1_best.pth", "notes.txt"):
        (folder / name).write_text("first run")
    (folder / "run.json").write_bytes(owner or (folder / "run.json").read_bytes())
    sentence = begin_run(folder, data, knobs)
    for name in MADE:
        assert not (folder / name).exists() and f"{name} is now " in sentence
    kept = [path for path in folder.iterdir() if ".earlier" in path.name]
    assert len(kept) == len(MADE) and {path.read_text() for path in kept} == {"first run"}
    assert {"a_phase1_best.pth", "notes.txt"} < {path.name for path in folder.iterdir()}
    assert begin_run(folder, data, knobs | {"seed": 9}) == ""  # nothing is kept twice


def test_the_same_run_keeps_its_files_where_they_are(tmp_path, monkeypatch):
    begin_run(tmp_path, small_data(), KNOBS)
    (tmp_path / "a_final.pth").write_text("first run")
    monkeypatch.setitem(config.PATHS, "models", "elsewhere")  # this changes no result
    assert begin_run(tmp_path, small_data(), KNOBS) == ""
    monkeypatch.setitem(config.TRAINING_CONFIG, "gamma", 0.5)
    assert "a_final.pth is now a_final.earlier.pth" in begin_run(tmp_path, small_data(), KNOBS)


def test_every_name_is_shown_by_markdown_and_not_obeyed():
    assert plain("a|b <b>c</b> *d* $e$ _f_ `g` &lt;\n# h") == (
        r"a\|b \<b\>c\</b\> \*d\* \$e\$ \_f\_ \`g\` \&lt; \# h"
    )
