"""Metrics of known cases, their intervals, and the temperature."""

import json
import math

import numpy as np
import pytest
import torch
from small_training import small_model
from torch.nn import functional as F

import transfer_learning_config as config
from flowers_utils import evaluation
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import compute_metrics, fit_temperature, metrics_as_dict, wilson
from flowers_utils.models import backbone_features, fingerprint
from flowers_utils.transforms import eval_batch, evaluation_batches


def metrics_of(predicted, labels, classes):
    """Metrics of a network that predicts these classes, whatever its second choice."""
    logits = 4.0 * F.one_hot(torch.as_tensor(predicted), classes)
    return compute_metrics(logits, torch.as_tensor(labels), class_names="abcdefg"[:classes])


def test_metrics_of_a_small_example_are_those_counted_by_hand():
    """Six photographs of three classes, none of the fourth; four are classified correctly."""
    got = metrics_of([0, 0, 1, 1, 2, 3], [0, 0, 0, 1, 2, 2], classes=4)
    assert got.top1.value == pytest.approx(4 / 6) and got.top5 is None
    assert got.mean_per_class.value == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    np.testing.assert_allclose(got.recall, [2 / 3, 1, 1 / 2, np.nan])
    assert got.support.tolist() == [3, 1, 2, 0] and got.guessing == pytest.approx(1 / 2)
    assert got.confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    confidence = math.exp(4) / (math.exp(4) + 3)
    np.testing.assert_allclose(got.confidences, confidence, rtol=1e-6)
    assert got.ece == pytest.approx(confidence - 4 / 6, abs=1e-6)
    assert got.bin_count.sum() == 6 and np.nanmax(got.bin_accuracy) == pytest.approx(4 / 6)


def test_equal_logits_count_as_the_first_classes():
    labels = torch.tensor([0, 1, 2, 3, 0, 6])
    got = compute_metrics(torch.full((6, 8), 1e4), labels, class_names="abcdefgh")
    assert (got.top1.value, got.top5.value) == pytest.approx((2 / 6, 5 / 6))


def test_wilson_intervals_are_the_published_ones():
    known = {(0, 5): (0.0, 0.4345), (5, 5): (0.5655, 1.0), (831, 1020): (0.7897, 0.8374)}
    for (hits, count), bounds in known.items():
        got = wilson(hits, count)
        assert (got.low, got.high) == pytest.approx(bounds, abs=1e-4) and got.value == hits / count
    assert wilson(1, 2).percent() == "50.0% (95 % interval 9.5% to 90.5%)"


def test_the_mean_of_equally_large_classes_has_the_interval_of_the_accuracy():
    got = metrics_of([0, 1, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2], classes=3)
    estimate = (got.mean_per_class.value, got.mean_per_class.low, got.mean_per_class.high)
    assert estimate == pytest.approx((got.top1.value, got.top1.low, got.top1.high))
    few = metrics_of([0] * 99 + [1], [0] * 99 + [1], classes=2)  # one photograph decides a half
    assert few.mean_per_class.low < 0.6 < 0.9 < few.top1.low


def test_temperature_is_recovered():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for true_temperature in (0.5, 3.0):
        temperature, why = fit_temperature(true_temperature * logits, labels)
        assert temperature == pytest.approx(true_temperature, rel=0.05) and why == ""


@pytest.mark.parametrize(("count", "shift"), [(6, 1), (200, 0), (200, 1)])
def test_temperature_stays_one_with_few_photographs_no_mistake_or_only_mistakes(count, shift):
    labels = torch.arange(count) % 5
    temperature, why = fit_temperature(3.0 * F.one_hot((labels + shift) % 5, 5), labels)
    assert temperature == 1.0 and why.startswith("The temperature stays 1, since")


WRONG = {
    "do not fit": (torch.zeros(2, 3), torch.tensor([0, 1])),
    "diverged": (torch.tensor([[0.0, math.nan]]), torch.tensor([0])),
    "fit 0 labels": (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)),
}


@pytest.mark.parametrize("told", WRONG)
def test_input_that_cannot_be_scored_is_explained(told):
    with pytest.raises(FlowersError, match=told):
        compute_metrics(*WRONG[told], class_names="ab")


def test_metrics_become_plain_values_without_nan():
    got = metrics_of([0, 0, 1, 6], [0, 0, 1, 1], classes=7)
    again = json.loads(json.dumps(metrics_as_dict(got), allow_nan=False))
    assert again["top1"] == {"value": 0.75, "low": got.top1.low, "high": got.top1.high}
    assert again["count"] == 4 and again["ece"] == got.ece
    assert (again["recall"]["b"], again["recall"]["g"]) == (0.5, None)


def test_logits_and_features_keep_the_order_and_change_nothing(tiny_data, cpu, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 5)
    model, splits = small_model().train(), (tiny_data.val, tiny_data.train)
    before = fingerprint(model)
    logits, labels = evaluation.predict_logits(model, tiny_data.val, cpu)
    batches = evaluation_batches(tiny_data.train, cpu, image_size=32)  # train is stored larger
    features, train_labels = evaluation.features_of(model, batches, cpu)
    assert fingerprint(model) == before and logits.dtype is torch.float32
    val, train = (eval_batch(torch.from_numpy(split.images), 32) for split in splits)
    assert torch.allclose(logits, model.eval()(val), atol=1e-5)
    assert torch.allclose(features, backbone_features(model, train), atol=1e-5)
    for split, found in zip(splits, (labels, train_labels), strict=True):
        assert torch.equal(found, split.labels)
