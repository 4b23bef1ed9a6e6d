"""Two saved runs side by side: differences that chance explains are told from those it does not."""

import pytest

from flowers_utils.errors import FlowersError
from flowers_utils.storage.results import compare_runs, load_results, save_results


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
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(FlowersError, match="is not the results"):
        load_results(tmp_path / "other.json")
