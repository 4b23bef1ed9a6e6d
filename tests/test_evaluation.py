"""Metrics against scikit-learn's, intervals and temperature against known values."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics
from small_training import small_model
from torch.nn import functional as F

import transfer_learning_config as config
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import (
    compute_metrics,
    predict_features,
    predict_logits,
    wilson,
)
from flowers_utils.insight import fit_temperature, metrics_as_dict
from flowers_utils.models import backbone_features, fingerprint
from flowers_utils.transforms import eval_batch


def names(count: int) -> tuple[str, ...]:
    return tuple(f"flower {i}" for i in range(count))


def random_answers(count: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    noise = torch.randn(count, classes, generator=generator)
    return noise + 1.5 * F.one_hot(labels, classes), labels


@pytest.mark.parametrize(("count", "classes"), [(300, 102), (7, 30)])
def test_metrics_are_those_of_scikit_learn(count: int, classes: int) -> None:
    logits, labels = random_answers(count, classes, seed=count)
    got = compute_metrics(logits, labels, class_names=names(classes))
    every, said, true = range(classes), logits.argmax(dim=1), labels
    present = got.support > 0
    precision, recall, _, support = metrics.precision_recall_fscore_support(
        true, said, labels=every, zero_division=0
    )
    assert got.top1.value == pytest.approx(metrics.accuracy_score(true, said))
    top5 = metrics.top_k_accuracy_score(true, logits, k=5, labels=every)
    assert got.top5.value == pytest.approx(top5)
    assert got.mean_per_class.value == pytest.approx(recall[present].mean())
    np.testing.assert_array_equal(got.confusion, metrics.confusion_matrix(true, said, labels=every))
    np.testing.assert_array_equal(got.support, support)
    for ours, theirs in ((got.precision, precision), (got.recall, recall)):
        np.testing.assert_allclose(ours[present], theirs[present])
        assert np.isnan(ours[~present]).all()


def test_equal_answers_are_counted_as_the_first_class() -> None:
    labels = torch.tensor([0, 1, 2, 3, 0, 6])
    got = compute_metrics(torch.full((6, 8), 1e4), labels, class_names=names(8))
    assert (got.top1.value, got.top5.value) == pytest.approx((2 / 6, 5 / 6))


def test_top5_is_left_out_where_it_is_certain() -> None:
    for classes in (5, 6):
        logits, labels = random_answers(30, classes, seed=1)
        got = compute_metrics(logits, labels, class_names=names(classes))
        assert (got.top5 is None) == (classes == 5)
        json.dumps(metrics_as_dict(got), allow_nan=False)


def test_guessing_is_at_least_to_name_always_the_largest_class() -> None:
    for counts, share in (((150, 30, 3), 150 / 183), ((10, 10, 10), 1 / 3)):
        labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
        got = compute_metrics(torch.zeros(len(labels), 3), labels, class_names=names(3))
        assert got.guessing == pytest.approx(share)


def test_wilson_interval_is_scipys() -> None:
    for hits, count in ((0, 5), (5, 5), (831, 1020)):
        got, known = wilson(hits, count), binomtest(hits, count).proportion_ci(method="wilson")
        assert (got.low, got.high) == pytest.approx((known.low, known.high), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 5, 102])
def test_the_interval_of_the_mean_per_class_covers_the_truth(classes: int) -> None:
    rates = np.random.default_rng(0).uniform(0.5, 1.0, classes)
    for per_class in (1, 3, 10):
        assert share_covered(per_class, rates, runs=100) >= 0.88  # 0.95 but for chance


def share_covered(per_class: int, rates: np.ndarray, runs: int) -> float:
    """How often the 95 % interval of the mean per class holds the true mean."""
    classes, covered = len(rates), 0
    labels = torch.arange(classes).repeat_interleave(per_class)
    for seed in range(runs):
        right = np.random.default_rng(seed).random(len(labels)) < rates[labels]
        said = torch.where(torch.from_numpy(right), labels, (labels + 1) % classes)
        answers = F.one_hot(said, classes).float()
        got = compute_metrics(answers, labels, class_names=names(classes)).mean_per_class
        covered += got.low - 1e-9 <= rates.mean() <= got.high + 1e-9
    return covered / runs


def test_calibration_error_of_a_known_case() -> None:
    # ten answers, each 80 % sure, six of them right: the gap is 20 points
    logits = torch.tensor([0.8, 0.2]).log().repeat(10, 1)
    labels = torch.tensor([0] * 6 + [1] * 4)
    got = compute_metrics(logits, labels, class_names=names(2))
    assert got.ece == pytest.approx(0.2, abs=1e-6)
    assert got.bin_count.sum() == 10
    assert np.nanmax(got.bin_accuracy) == pytest.approx(0.6)


def test_temperature_is_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for true_temperature in (0.5, 3.0):
        temperature, why = fit_temperature(true_temperature * logits, labels)
        assert temperature == pytest.approx(true_temperature, rel=0.05) and why == ""


def test_temperature_stays_one_where_val_cannot_tell_it_and_a_line_says_so() -> None:
    few, many = torch.arange(6) % 2, torch.arange(200) % 5
    too_few = (3.0 * F.one_hot(1 - few, 2), few)
    all_right = (3.0 * F.one_hot(many, 5), many)
    all_wrong = (3.0 * F.one_hot((many + 1) % 5, 5), many)
    for answers in (too_few, all_right, all_wrong):
        temperature, why = fit_temperature(*answers)
        assert temperature == 1.0 and len(why) > 20


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), "nothing to evaluate"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), "do not fit"),
        (torch.zeros(2, 2), torch.tensor([1, 2]), "from 0 to 1"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "diverged"),
    ],
)
def test_bad_input_is_explained(logits: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(FlowersError, match=words):
        compute_metrics(logits, labels, class_names=names(2))


def test_results_survive_json_and_count_every_mistake() -> None:
    logits, labels = random_answers(50, 20, seed=5)
    got = compute_metrics(F.pad(logits, (0, 1)), labels, class_names=names(21))
    again = json.loads(json.dumps(metrics_as_dict(got), allow_nan=False))
    assert again["top1"]["value"] == got.top1.value
    nothing = {"precision": None, "recall": None}
    assert again["per_class"][20] == {"name": "flower 20", "support": 0, **nothing}
    wrong = int((got.predictions != got.labels).sum())
    assert sum(count for _, _, count in again["mistakes"]) == wrong > 0


def test_predictions_keep_the_order_of_the_split_and_change_nothing(
    small_net, tiny_data, cpu, monkeypatch
) -> None:
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 5)
    model, split = small_model().train(), tiny_data.val
    before, chance = fingerprint(model, backbone_only=False), torch.get_rng_state()
    logits, labels = predict_logits(model, split, cpu)
    assert torch.equal(torch.get_rng_state(), chance) and model.bn1.training
    assert fingerprint(model, backbone_only=False) == before
    assert torch.equal(labels, split.labels) and logits.dtype is torch.float32
    with torch.no_grad():
        expected = model.eval()(eval_batch(torch.from_numpy(split.images), 32))
    assert torch.allclose(logits, expected, atol=1e-5)


def test_features_of_the_larger_train_split_are_those_at_the_networks_size(
    small_net, tiny_data, cpu
) -> None:
    model, split = small_model().eval(), tiny_data.train
    found, labels = predict_features(model, split, cpu, image_size=32)
    with torch.no_grad():
        expected = backbone_features(model, eval_batch(torch.from_numpy(split.images), 32))
    assert torch.allclose(found, expected, atol=1e-5) and torch.equal(labels, split.labels)
