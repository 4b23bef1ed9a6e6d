"""Backbones side by side: the same data and the same metrics for each."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowers_utils.errors import FlowersError
from flowers_utils.insight import comparison

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
def rows(small_net, tiny_data, cpu):
    return comparison.compare_backbones(["mobilenet_v2", "small"], tiny_data, cpu, epochs=2)


def test_a_row_with_weights_is_scored_on_val(rows, tiny_data):
    row = rows[1]
    assert 0 <= row.val.low <= row.val.value <= row.val.high <= 1
    assert (row.val.value * len(tiny_data.val)) % 1 == pytest.approx(0, abs=1e-6)
    assert row.seconds > 0 and row.latency_ms == 20
    assert json.loads(json.dumps(row.as_dict()))["val"]["value"] == row.val.value


def test_without_weights_a_row_keeps_its_place_with_what_can_be_measured(rows):
    assert rows[0].name == "mobilenet_v2" and NO_WEIGHTS in rows[0].note
    assert rows[0].parameters > 2e6 and rows[0].flops > 0 and rows[0].val is None
    table = comparison.comparison_table(rows)
    assert table.count(comparison.DASH) == 2
    assert f"- **mobilenet_v2**: No pretrained weights: {NO_WEIGHTS}" in table


def test_where_nothing_was_trained_the_table_has_no_empty_columns(rows):
    assert comparison.why_no_comparison(rows).startswith("Only small has")
    table = comparison.comparison_table(rows[:1])
    assert "ms an image" in table and "head on val" not in table and comparison.DASH not in table
    assert comparison.why_no_comparison([rows[1]] * 2) is None


def test_practice_flowers_have_a_backbone_for_resnet18_alone(tiny_data, cpu, small_net):
    practice = replace(tiny_data, source="practice")
    [row] = comparison.compare_backbones(["small"], practice, cpu, epochs=1)
    assert "ResNet18 only" in row.note and row.val is None


def test_an_unknown_backbone_is_named_before_anything_is_trained(tiny_data, cpu):
    with pytest.raises(FlowersError, match="resnet19"):
        comparison.compare_backbones(["resnet19"], tiny_data, cpu, epochs=1)
