"""Advice claims no more than was measured."""

from dataclasses import replace

import pytest
import torch

from flowers_utils import insight

LEARNED = {"train_loss": 0.1, "train_accuracy": 0.99}


def row(epoch: int, **values) -> dict:
    sound = {"train_loss": 1.0, "train_accuracy": 0.8, "val_loss": 1.0, "val_accuracy": 0.8}
    return {"phase": 1, "epoch": epoch, **sound, **values}


@pytest.fixture
def data(tiny_data):
    """Four classes with 250 photographs each in val, so that guessing has 25 %."""
    return replace(tiny_data, val=replace(tiny_data.val, labels=torch.arange(1000) % 4))


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([row(1, train_loss=400.0), row(2, train_loss=40.0)], "learning rate is too high"),
        ([row(1, train_loss=3.0), row(2, train_loss=2.99)], "learning rate is too low"),
        ([row(1, val_accuracy=0.26), row(2, val_accuracy=0.25)], "cannot be told from guessing"),
        ([row(1), row(2, val_accuracy=0.7, val_loss=2.0, **LEARNED)], "Overfitting"),
    ],
)
def test_each_fault_is_named_by_its_signs(history, said, data):
    assert said in " ".join(insight.diagnose(history, 1, data))


def test_a_sound_training_has_nothing_to_diagnose(data):
    sound = [row(1, train_loss=3.0), row(2, val_accuracy=0.82, val_loss=0.9)]
    cycle = [row(epoch, train_loss=loss) for epoch, loss in enumerate((0.5, 1.0, 0.1), 1)]
    assert insight.diagnose(sound, 1, data) == insight.diagnose(cycle, 1, data) == []
    fitted = row(3, train_loss=0.05, learning_rates={})  # it must not hide what came before
    assert "too high" in insight.diagnose([*cycle[:2], fitted], 1, data)[0]
    learned = row(2, val_loss=0.9, **LEARNED)  # nor look like a best epoch that was lost again
    assert insight.diagnose([row(1), learned, {**fitted, "val_accuracy": 0.95}], 1, data) == []


def test_where_the_promise_does_not_apply_the_reason_is_given(tiny_data):
    full = replace(tiny_data, source="flowers102", photo_side=500)
    why_not = insight.why_not_comparable
    assert why_not(full) is None
    for changes, reason in (
        ({"source": "practice"}, "practice flowers"),
        ({"source": "folder"}, "your own photographs"),
        ({"photo_side": 64}, "64 pixels"),
    ):
        assert reason in why_not(replace(full, **changes))
    for knob in ({"profile": "quick"}, {"recipe": "best"}, {"backbone": "resnet50"}):
        assert next(iter(knob.values())) in why_not(full, **knob)
