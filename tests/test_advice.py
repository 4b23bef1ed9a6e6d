"""Advice and lists of mistakes claim no more than was measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import transfer_learning_config as config
from flowers_utils import insight
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Metrics, compute_metrics, wilson

RANGE = {"phase1": {"val_range": (0.60, 0.999)}, "phase2": {"val_range": (0.70, 0.999)}}


def scored(pairs: list[tuple[int, int]], classes: int = 4, *, sure: float = 4.0) -> Metrics:
    """Metrics of photographs given as (true class, predicted class), each surer than the last."""
    logits = torch.zeros(len(pairs), classes)
    for i, (_, said) in enumerate(pairs):
        logits[i, said] = sure + i / 10
    labels = torch.tensor([true for true, _ in pairs])
    return compute_metrics(logits, labels, class_names=[f"class {i}" for i in range(classes)])


def test_confused_pairs_count_both_directions_and_show_a_confused_photograph():
    metrics = scored([(0, 0), (0, 1), (1, 0), (1, 0), (3, 2), (3, 3)])
    first, second = insight.most_confused_pairs(metrics)
    assert (first.first, first.second) == (0, 1)
    assert (first.first_as_second, first.second_as_first) == (1, 2)
    assert (first.first_example, first.second_example) == (1, 2)
    assert (second.first_example, second.second_example) == (None, 4)  # no photograph of class 2


def test_mistakes_are_ranked_by_confidence():
    assert insight.most_confident_mistakes(scored([(0, 1), (0, 0), (1, 2), (2, 1)])) == [3, 2, 0]
    assert insight.most_confident_mistakes(scored([(0, 0), (1, 1)])) == []


def row(phase: int, epoch: int, **values: float) -> dict:
    sound = {"train_loss": 1.0, "train_accuracy": 0.8, "val_loss": 1.0, "val_accuracy": 0.8}
    return {"phase": phase, "epoch": epoch, **sound, **values}


def measured(count: int = 1000, classes: int = 20, *, right: float = 0.8) -> Metrics:
    """Metrics of `count` val photographs, as many of each class."""
    true = np.arange(count) % classes
    said = np.where(np.arange(count) < right * count, true, (true + 1) % classes)
    return scored(list(zip(true.tolist(), said.tolist(), strict=True)), classes)


def findings(history: list[dict], *, phase: int = 1, expected=RANGE, metrics=None) -> str:
    return " ".join(insight.diagnose(history, phase, expected, metrics=metrics or measured()))


LEARNED = {"train_loss": 0.1, "train_accuracy": 0.99}


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([row(1, 1, train_loss=float("nan"))], "learning rate is too high"),
        ([row(1, 1, train_loss=400.0), row(1, 2, train_loss=40.0)], "learning rate is too high"),
        ([row(1, 1, train_loss=3.0), row(1, 2, train_loss=2.99)], "learning rate is too low"),
        ([row(1, 1, val_accuracy=0.05, train_accuracy=0.1)] * 2, "no pretrained weights"),
        ([row(1, 1, val_accuracy=0.05, **LEARNED)] * 2, "so the labels do not belong"),
        ([row(1, 1, val_accuracy=0.05)], "after a single epoch means nothing"),
        ([row(1, 1, val_accuracy=0.4)], "normalised with ImageNet's mean"),
        ([row(1, 1), row(1, 2, val_accuracy=0.7, val_loss=2.0, **LEARNED)], "Overfitting"),
    ],
)
def test_each_fault_is_named_by_its_signs(history, said):
    assert said in findings(history)


def test_a_sound_training_has_nothing_to_diagnose():
    sound = [row(1, 1, train_loss=3.0), row(1, 2, val_accuracy=0.82, val_loss=0.9)]
    assert findings(sound) == ""
    fit = row(1, 4, train_loss=0.05, learning_rates={})
    assert "too high" in findings(
        [row(1, e, train_loss=x) for e, x in enumerate((0.5, 9, 9), 1)] + [fit]
    )
    assert "too low" in findings(
        [row(1, e, train_loss=4.6, train_accuracy=0.1) for e in (1, 2)] + [fit]
    )
    cycle = [row(1, epoch, train_loss=loss) for epoch, loss in enumerate((0.5, 1.0, 0.1), 1)]
    assert findings(cycle) == "" and "too high" in findings(cycle[:2])
    assert findings([row(1, 1, val_accuracy=0.4)], expected=None) == ""
    with pytest.raises(FlowersError, match="Phase 2 has no epochs"):
        findings(sound, phase=2)


def test_a_difference_is_named_only_beyond_the_interval():
    assert "also in train" in findings([row(1, 1, val_accuracy=0.99)], expected=config.EXPECTED)
    history = [row(1, 1, val_accuracy=0.81), row(2, 1, train_loss=0.5, val_accuracy=0.75)]
    assert "worse than the one before" in findings(history, phase=2)
    few = measured(40, 4)
    assert findings(history, phase=2, metrics=few) == ""


def test_few_photographs_are_no_fault_but_a_model_that_names_one_class_is():
    few = scored([(0, 0), (1, 1), (0, 0), (1, 0)], classes=2)
    text = findings([row(1, 1, val_accuracy=0.75)] * 2, metrics=few, expected=None)
    assert "cannot be told from guessing (50.0%) with 4 photographs" in text
    uneven = scored([(0, 0)] * 150 + [(1, 0)] * 30 + [(2, 0)] * 3, classes=3)
    text = findings([row(1, 1, val_accuracy=0.82)] * 2, metrics=uneven, expected=None)
    assert 'calls every photograph of val "class 0"' in text


def test_where_the_promise_does_not_apply_the_reason_is_given(tiny_data):
    full = replace(tiny_data, source="flowers102", photo_side=500)
    why_not = insight.why_not_comparable
    assert why_not(full) is None
    assert "practice flowers" in why_not(replace(full, source="practice"))
    assert "your own photographs" in why_not(replace(full, source="folder"))
    assert "64 pixels" in why_not(replace(full, photo_side=64))
    assert '"quick"' in why_not(full, profile="quick")
    table = insight.performance_table(
        config.EXPECTED, val={}, test={}, why_not=why_not(full, backbone="resnet50")
    )
    assert "resnet50" in table and table.count("does not apply") == 2


def test_the_table_gives_promised_published_and_yours_with_a_verdict():
    val = {"phase1": wilson(857, 1020), "phase2": wilson(510, 1020)}
    test = {"phase1": wilson(4981, 6149)}
    rows = insight.performance_table(config.EXPECTED, val=val, test=test).splitlines()
    assert "75%" in rows[2] and "81.5%, 83.1%" in rows[2] and "better than promised" in rows[2]
    assert "not scored" in rows[3] and "below the expected 70% to 96%" in rows[3]
    unsure = insight.performance_table(config.EXPECTED, val={"phase1": wilson(22, 32)}, test={})
    assert "as promised (the interval holds it)" in unsure
