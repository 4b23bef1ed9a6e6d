"""Backbones side by side: the same data, phases and metrics for each."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowers_utils.errors import FlowersError
from flowers_utils.insight import ComparisonSettings, comparison

NO_WEIGHTS = "the server cannot be reached"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No download and no stopwatch: random weights stand for pretrained ones, mobilenet has none."""

    def random_or_none(data, device, *, backbone, seed=0):
        if backbone == "mobilenet_v2":
            raise FlowersError(NO_WEIGHTS)
        return

    monkeypatch.setattr(comparison, "starting_weights", random_or_none)
    timed = SimpleNamespace(median=0.02)
    monkeypatch.setattr(
        comparison, "measure", lambda call, device, seconds: call() is None or timed
    )


@pytest.fixture
def rows(small_net, tiny_data, cpu, tmp_path):
    settings = ComparisonSettings(phase1_epochs=2, phase2_epochs=1, folder=tmp_path)
    return comparison.compare_backbones(["mobilenet_v2", "small"], tiny_data, cpu, settings)


def test_a_trained_row_has_both_phases_on_the_same_val_split(rows, tiny_data):
    row = rows[1]
    for score in (row.phase1_top1, row.phase2_top1):
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert (score.value * len(tiny_data.val)) % 1 == pytest.approx(0, abs=1e-6)
    assert row.seconds > 0
    assert row.best is row.phase2_top1 and row.latency_ms == 20
    assert json.loads(json.dumps(row.as_dict()))["phase1_top1"]["method"] == "Wilson"


def test_without_weights_a_row_keeps_its_place_with_what_can_be_measured(rows):
    assert rows[0].name == "mobilenet_v2" and NO_WEIGHTS in rows[0].note
    assert rows[0].parameters > 2e6 and rows[0].flops > 0 and rows[0].best is None
    table = comparison.comparison_table(rows)
    assert table.count(comparison.DASH) == 3
    assert f"- **mobilenet_v2**: No pretrained weights: {NO_WEIGHTS}" in table


def test_where_nothing_was_trained_the_table_has_no_empty_columns(rows):
    assert comparison.why_no_comparison(rows).startswith("Only small has")
    table = comparison.comparison_table(rows[:1])
    assert "ms an image" in table and "Phase 1" not in table and comparison.DASH not in table
    assert comparison.why_no_comparison([rows[1]] * 2) is None


def test_the_head_learns_on_features_and_nothing_is_written(tiny_data, cpu, small_net, tmp_path):
    settings = ComparisonSettings(phase1_epochs=2, folder=tmp_path)
    [row] = comparison.compare_backbones(["small"], tiny_data, cpu, settings)
    assert row.best is row.phase1_top1 and list(tmp_path.iterdir()) == []
    practice = replace(tiny_data, source="practice")  # they come with a ResNet18 alone
    [row] = comparison.compare_backbones(["small"], practice, cpu, settings)
    assert "ResNet18 only" in row.note and row.best is None


def test_an_unknown_backbone_is_named_before_anything_is_trained(tiny_data, cpu):
    with pytest.raises(FlowersError, match="resnet19"):
        comparison.compare_backbones(["resnet19"], tiny_data, cpu, ComparisonSettings(1))
