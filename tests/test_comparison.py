"""Backbones side by side: the same data, phases and metrics for each."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from flowers_utils.plotting.comparison import plot_comparison
from torch import nn

from flowers_utils.data import FlowerData, Split
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.insight import comparison
from flowers_utils.insight.comparison import (
    compare_backbones,
    comparison_table,
    stored_features,
    train_head,
)
from flowers_utils.machine.profiling import Latency
from flowers_utils.models import backbone_features, build_model, fingerprint, frozen_trunk
from flowers_utils.progress import Progress
from flowers_utils.transforms import normalise_batch

NO_WEIGHTS = "the server cannot be reached"


def some_split(name, count, size):
    """Noise, brighter for the second class."""
    labels = np.arange(count) % 2
    images = np.random.default_rng(count).integers(0, 100, (count, 3, size, size))
    images += 100 * labels[:, None, None, None]
    return Split(name, images.astype(np.uint8), torch.from_numpy(labels).long())


def random_or_none(data, device, *, backbone, seed=0):
    """Random weights stand for pretrained ones; EfficientNet's "cannot be had"."""
    if backbone.startswith("efficientnet"):
        raise FlowersError(NO_WEIGHTS)
    return


def no_waiting(model, device, **_):
    """Latency in proportion to the parameters, without measuring."""
    median = 1e-6 * sum(p.numel() for p in model.parameters())
    return Latency(median_ms=median, p95_ms=2 * median, images_per_second=10.0)


@pytest.fixture(scope="module")
def data():
    val = some_split("val", 8, 32)
    return FlowerData("folder", "patches", ("dark", "light"), some_split("train", 12, 36), val, val,
                      resize_size=36, image_size=32)  # fmt: skip


@pytest.fixture(scope="module")
def shared_cpu():
    return Device(torch.device("cpu"), "test")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """No download and no stopwatch in this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "starting_weights", random_or_none)
        patch.setattr(comparison, "reachable", lambda url: True)
        patch.setattr(comparison, "measure_latency", no_waiting)
        yield


@pytest.fixture(scope="module")
def rows(quick, data, shared_cpu, tmp_path_factory):
    names = ["efficientnet_b0", "mobilenet_v2"]
    folder = tmp_path_factory.mktemp("models")
    return compare_backbones(
        names, data, shared_cpu, phase1_epochs=2, phase2_epochs=1, folder=folder
    )


def test_a_trained_row_has_both_phases_on_the_same_val_split(rows, data):
    row = rows[1]
    for score in (row.phase1_top1, row.phase2_top1):
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert (score.value * len(data.val)) % 1 == pytest.approx(0, abs=1e-6)
    assert row.phase1_seconds > 0 and row.phase2_seconds > 0
    assert row.best is row.phase2_top1


def test_without_weights_a_row_keeps_its_place_and_says_why(rows):
    row = rows[0]
    assert row.name == "efficientnet_b0" and NO_WEIGHTS in row.note
    assert row.parameters > 4e6 and row.flops > 0 and row.best is None


def test_table_has_a_line_for_each_backbone_and_the_reason_below(rows):
    table = comparison_table(rows)
    lines = table.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:4]] == [r.name for r in rows]
    assert lines[2].count(comparison.DASH) == 4
    assert f"- **efficientnet_b0**: No pretrained weights: {NO_WEIGHTS}" in lines


def test_rows_are_plain_values_for_results_json(rows):
    assert json.loads(json.dumps(rows[1].as_dict()))["phase1_top1"]["method"] == "Wilson"


def test_figure_names_every_backbone_and_the_data(rows):
    figure = plot_comparison(rows, title="practice flowers")
    axes = figure.axes[0]
    words = " ".join(text.get_text() for text in axes.texts)
    assert all(row.name in words for row in rows) and "no pretrained weights" in words
    assert "practice flowers" in axes.get_title()


def test_unreachable_weights_are_told_at_once(data, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(comparison, "reachable", lambda url: False)
    with pytest.raises(FlowersError, match=r"mobilenet_v2.*neither on this machine nor reachable"):
        comparison.check_weights_at_hand("mobilenet_v2", data)


def test_practice_flowers_have_weights_for_resnet18_alone(data):
    practice = replace(data, source="practice")
    comparison.check_weights_at_hand("resnet18", practice)
    with pytest.raises(FlowersError, match="ResNet18 only"):
        comparison.check_weights_at_hand("resnet50", practice)


def test_phase1_alone_leaves_phase2_empty(data, cpu, tmp_path):
    [row] = compare_backbones(
        ["resnet18"], data, cpu, phase1_epochs=1, phase2_epochs=0, folder=tmp_path
    )
    assert row.phase2_top1 is None and row.best is row.phase1_top1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backbone_is_named_before_anything_is_trained(data, cpu, tmp_path):
    with pytest.raises(FlowersError, match="resnet19"):
        compare_backbones(
            ["resnet19"], data, cpu, phase1_epochs=1, phase2_epochs=0, folder=tmp_path
        )


def test_stored_features_are_those_of_the_network(data, cpu):
    model = build_model("resnet18", num_classes=2, weights=None).eval()
    with Progress(8, "test", unit="image", style="lines") as bar:
        features, labels = stored_features(
            frozen_trunk(model), data.val, cpu, size=32, progress=bar
        )
    with torch.no_grad():
        expected = backbone_features(model, normalise_batch(torch.tensor(data.val.images)))
    assert torch.allclose(features, expected, atol=1e-4)
    assert torch.equal(labels, data.val.labels) and bar.done == 8


def test_the_head_learns_what_can_be_separated_and_repeats_itself(cpu):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    centres = torch.randn(4, 128, generator=generator)
    features = centres[labels] + torch.randn(120, 128, generator=generator) * 0.3
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Dropout(0.2), nn.Linear(128, 4))
        train = (features[:80], labels[:80])
        train_head(head, train, (features[80:], labels[80:]), cpu, epochs=30, seed=0)
        states.append(head[1].weight.detach().clone())
    with torch.no_grad():
        accuracy = (head.eval()(features[80:]).argmax(1) == labels[80:]).float().mean()
    assert accuracy > 0.8
    assert torch.equal(*states)


def test_phase1_of_the_comparison_does_not_move_the_backbone(data, cpu):
    model = build_model("mobilenet_v2", num_classes=2, weights=None)
    row = comparison._measure("mobilenet_v2", data, cpu)
    before, head = fingerprint(model), model.classifier[1].weight.detach().clone()
    comparison._phase1(row, model, data, cpu, epochs=2, seed=0)
    assert fingerprint(model) == before
    assert not torch.equal(model.classifier[1].weight, head)
