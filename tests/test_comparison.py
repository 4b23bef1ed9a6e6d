"""Backbones side by side, and experiments with the head alone."""

import json

import pytest
import torch

from flowers_utils.errors import FlowersError
from flowers_utils.insight import (
    accuracy_by_training_size,
    comparison_table,
    experiments,
    train_head,
)

NO_WEIGHTS = "the server cannot be reached"


@pytest.fixture
def rows(tiny_data, cpu, monkeypatch):
    """Random weights stand for pretrained ones, and mobilenet_v2 has none; no stopwatch."""

    def random_or_none(data, device, *, backbone, seed=0):
        if backbone == "mobilenet_v2":
            raise FlowersError(NO_WEIGHTS)

    monkeypatch.setattr(experiments, "starting_weights", random_or_none)
    monkeypatch.setattr(experiments, "measure", lambda call, repeats: [0.02] * repeats)
    return experiments.compare_backbones(["mobilenet_v2", "small"], tiny_data, cpu)


def test_a_row_with_weights_is_scored_on_val_and_one_without_keeps_its_size(rows):
    without, scored = rows
    assert 0 <= scored["val"] <= 1 and scored["minutes"] > 0 and scored["ms"] == 20
    assert without["parameters"] > 2e6 and without["GFLOPs"] > 0 and without["val"] is None
    assert json.loads(json.dumps(rows)) == rows


def test_the_table_compares_accuracies_only_where_there_are_two(rows, tiny_data):
    table = comparison_table([*rows, {**rows[0], "name": "resnet50"}], tiny_data)
    assert "Accuracies are not compared" in table and "on val" not in table
    assert f"- **mobilenet_v2**, **resnet50**: No pretrained weights: {NO_WEIGHTS}" in table
    assert "fitted head on val" in comparison_table([rows[1]] * 2, tiny_data)


def features(each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty classes around fixed centres, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(20 * each) % 20
    centres = torch.randn(20, 64, generator=torch.Generator().manual_seed(99))
    return centres[labels] + 2 * torch.randn(len(labels), 64, generator=generator), labels


def test_more_photographs_help_and_every_class_keeps_its_proportion():
    points = accuracy_by_training_size(features(20, 1), features(20, 2))
    names = [f"{count} photographs" for count in (80, 160, 280, 400)]
    assert [point["name"] for point in points] == names
    assert points[-1]["val"] > points[0]["val"] + 0.1


def test_the_lessons_learning_rate_learns_and_a_tiny_one_does_not():
    train, val = features(20, 1), features(10, 2)
    lesson, low = (train_head(train, val, rate=rate)[-1]["val_accuracy"] for rate in (1e-3, 1e-5))
    assert lesson > 0.5 > 0.2 > low


def test_a_heads_training_repeats_itself_and_draws_from_its_own_seed():
    train, val, state = features(10, 1), features(10, 2), torch.get_rng_state()
    first, again, other = (train_head(train, val, epochs=3, seed=seed) for seed in (0, 0, 1))
    assert first == again != other and torch.equal(torch.get_rng_state(), state)
