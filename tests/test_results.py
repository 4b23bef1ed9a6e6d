"""Results are proper JSON, two runs are compared however odd their files, and no run's files vanish."""

import json
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


def run_of(accuracy: float, count: int, *, seconds: float = 60.0, epochs: int = 20) -> dict:
    phase = {"best_val_accuracy": accuracy, "seconds": seconds}
    images = {"train": count, "val": count, "test": count}
    settings = {"config": {"PHASES": {"phase1": {"epochs": epochs}}}, "data": {"images": images}}
    return {**settings, "phases": {"phase1": phase}, "test": {"top1": {"value": accuracy}}}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (run_of(0.50, 6000), run_of(0.60, 6000), "+10.0 points, beyond noise (±1.8)"),
        (run_of(0.50, 32), run_of(0.60, 6000), "+10.0 points, within noise (±17.4)"),
        (run_of(0.60, 6000), run_of(0.61, 6000), "+1.0 points, within noise (±1.7)"),
    ],
)
def test_a_difference_counts_only_beyond_the_noise_of_both_runs(old, new, told):
    lines = compare_runs(old, new).splitlines()
    assert next(line for line in lines if line.startswith("| test top1 |")).endswith(f"{told} |")


def test_settings_and_seconds_that_differ_are_named(tmp_path):
    for name, run in (("old", run_of(0.5, 100)), ("new", run_of(0.5, 100, seconds=90, epochs=5))):
        save_results(tmp_path / f"{name}.json", run)
    text = compare_runs(*(load_results(tmp_path / f"{name}.json") for name in ("old", "new")))
    assert "| `config.PHASES.phase1.epochs` | 20 | 5 |" in text
    assert "| phase1, seconds | 60 | 90 | 1.50 times |" in text


WRONG = [
    None,
    [],
    [1],
    "0.5",
    7,
    -1,
    True,
    float("nan"),
    float("inf"),
    10**400,
    {},
    {"value": "0.5"},
]
PLACES = [
    ("phases",),
    ("phases", "phase1"),
    ("phases", "phase1", "best_val_accuracy"),
    ("phases", "phase1", "seconds"),
    ("test",),
    ("test", "top1"),
    ("test", "top1", "value"),
    ("data",),
    ("data", "images"),
    ("data", "images", "val"),
    ("config",),
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("wrong", [*WRONG, "missing"], ids=repr)
def test_runs_with_missing_or_wrong_parts_are_still_compared(place, wrong):
    complete, partial = run_of(0.5, 100), run_of(0.5, 100)
    inside = partial
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = wrong
    if wrong == "missing":
        del inside[place[-1]]
    for text in (compare_runs(partial, complete), compare_runs(complete, partial)):
        measures = text.partition("| measure | old | new | difference |")[2]
        assert measures and "nan" not in measures.lower() and "100.0%" not in measures


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "{", "[" * 100_000, "\xff", None])
def test_a_file_that_is_no_result_is_explained(tmp_path, content):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(FlowersError, match=r"other\.json"):
        load_results(path)


def test_not_a_number_is_written_as_null(tmp_path):
    path, odd = tmp_path / "results.json", {"value": float("nan"), "ece": (float("inf"), 0.1)}
    save_results(path, run_of(0.5, 100) | {"test": odd})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == load_results(path)
    assert load_results(path)["test"] == {"value": None, "ece": [None, 0.1]}
    path.write_text('{"phases": {}, "test": NaN}')  # as older versions wrote it
    assert load_results(path)["test"] is None


def test_a_run_is_described_without_the_places_of_this_computer(cpu, tmp_path):
    phase = {"name": "Phase 1", **run_of(0.5, 100)["phases"]["phase1"]}
    run = describe_run(small_data(), cpu, [phase], KNOBS)
    save_results(tmp_path / "results.json", run)
    read = load_results(tmp_path / "results.json")
    assert read["phases"]["phase1"]["seconds"] == 60 and read["seed"] == 0
    assert read["data"]["images"] == {"train": 24, "val": 16, "test": 16}
    assert read["config"]["BACKBONE"] == config.BACKBONE and "PATHS" not in read["config"]


ENDINGS = ("_final.pth", "_final.onnx", ".onnx.data", "_final.pt2", "_final.md", "_int8.onnx")
MADE = ("results.json", *(f"a{ending}" for ending in ENDINGS))


def finish(folder):
    for name in (*MADE, "a_phase1_best.pth", "notes.txt"):
        (folder / name).write_text("first run")


CHANGES = {
    "data": (lambda data: replace(data, title="other $flowers$"), KNOBS, "other $flowers$"),
    "photographs": (lambda data: replace(data, image_size=20), KNOBS, "photographs were others"),
    "knobs": (lambda data: data, KNOBS | {"seed": 1}, "knobs.seed was 0 and is now 1"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_run_keeps_the_files_of_the_one_before_and_says_so(tmp_path, what):
    change, knobs, told = CHANGES[what]
    tmp_path = tmp_path / "new"
    assert begin_run(tmp_path, small_data(), KNOBS) == ""
    finish(tmp_path)
    sentence = begin_run(tmp_path, change(small_data()), knobs)
    assert told in sentence
    for name in MADE:
        assert not (tmp_path / name).exists() and f"{name} is now " in sentence
    kept = [path for path in tmp_path.iterdir() if ".earlier" in path.name]
    assert len(kept) == len(MADE) and {path.read_text() for path in kept} == {"first run"}
    assert {"a_phase1_best.pth", "notes.txt"} < {path.name for path in tmp_path.iterdir()}
    assert begin_run(tmp_path, small_data(), KNOBS | {"seed": 9}) == ""  # nothing is kept twice


def test_the_same_run_keeps_its_files_where_they_are(tmp_path, monkeypatch):
    begin_run(tmp_path, small_data(), KNOBS)
    finish(tmp_path)
    monkeypatch.setitem(config.PATHS, "models", "elsewhere")  # this changes no result
    assert begin_run(tmp_path, small_data(), KNOBS) == ""
    assert all((tmp_path / name).exists() for name in MADE)
    monkeypatch.setitem(config.TRAINING_CONFIG, "gamma", 0.5)
    assert "config.TRAINING_CONFIG.gamma was" in begin_run(tmp_path, small_data(), KNOBS)


@pytest.mark.parametrize("owner", [None, "{", "[]", '{"data": 1}'])
def test_files_of_an_unknown_run_are_kept_too(tmp_path, owner):
    finish(tmp_path)
    if owner is not None:
        (tmp_path / "run.json").write_text(owner)
    assert "a_final.pth is now a_final.earlier" in begin_run(tmp_path, small_data(), KNOBS)


def test_every_name_is_shown_by_markdown_and_not_obeyed():
    assert plain("a|b <b>c</b> *d* $e$ _f_ `g` &lt;\n# h") == (
        r"a\|b \<b\>c\</b\> \*d\* \$e\$ \_f\_ \`g\` \&lt; \# h"
    )
