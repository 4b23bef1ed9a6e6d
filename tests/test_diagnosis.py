"""Each diagnosis is provoked by its cause: a small training that goes wrong, or its history."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import wilson
from flowers_utils.insight.advice import (
    accuracy_by_training_size,
    diagnose,
    looks_enlarged,
    performance_table,
    why_not_comparable,
)

CLASSES, WIDTH = 20, 64
RANGE = {"phase1": {"val_range": (0.60, 0.999)}, "phase2": {"val_range": (0.70, 0.999)}}


@pytest.fixture(autouse=True)
def one_thread():
    """On matrices this small, several threads wait for one another longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def features(per_class: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """What a good backbone delivers: a cloud for each class, normalised as the head expects."""
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    noise = torch.randn(len(labels), WIDTH, generator=torch.Generator().manual_seed(seed))
    return centres[labels] + spread * noise, labels


def row(phase: int, epoch: int, **values: float) -> dict:
    sound = {"train_loss": 1.0, "train_accuracy": 0.8, "val_loss": 1.0, "val_accuracy": 0.8}
    return {"phase": phase, "epoch": epoch, **sound, **values}


def train_head(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    *,
    rate: float = 0.003,
    epochs: int = 15,
) -> list[dict]:
    """A linear head on features, in batches of 20: a small Phase 1 with its history."""
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, CLASSES)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
    history = []
    for epoch in range(1, epochs + 1):
        losses, right = [], 0
        for rows in torch.randperm(len(train[1])).split(20):
            logits = head(train[0][rows])
            loss = F.cross_entropy(logits, train[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            right += (logits.argmax(dim=1) == train[1][rows]).sum().item()
        with torch.no_grad():
            answers = head(val[0])
        history.append(row(
            1, epoch, train_loss=sum(losses) / len(losses), train_accuracy=right / len(train[1]),
            val_loss=F.cross_entropy(answers, val[1]).item(),
            val_accuracy=(answers.argmax(dim=1) == val[1]).float().mean().item(),
        ))  # fmt: skip
    return history


def findings(history: list[dict], *, expected: dict | None = RANGE, phase: int = 1) -> str:
    return " ".join(diagnose(history, phase, expected, num_classes=CLASSES))


def test_a_sound_training_has_nothing_to_diagnose() -> None:
    assert findings(train_head(features(10, 1, 1.3), features(10, 2, 1.3))) == ""


def test_a_wrong_normalisation_is_suspected_where_val_stays_low() -> None:
    # photographs of 0..255 where the network expects them around 0: the head sees shifted features
    good, (val, labels) = features(10, 1, 1.3), features(10, 2, 1.3)
    shifted = 0.25 * val + 2.0 * torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(5))
    text = findings(train_head(good, (shifted, labels)))
    assert "normalised" in text and "less than 60%" in text


def test_labels_of_other_photographs_are_suspected_where_only_train_is_learned() -> None:
    val, labels = features(10, 2)  # val counts its classes from 1, train from 0
    text = findings(train_head(features(2, 1), (val, (labels + 1) % CLASSES), epochs=40))
    assert "no better than guessing" in text and "labels do not belong" in text
    assert "no pretrained weights" not in text


def test_missing_weights_or_labels_are_suspected_where_nothing_is_learned() -> None:
    noise = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(CLASSES).repeat(20)
    val = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(6)), labels
    text = findings(train_head((noise, labels), val, epochs=5))
    assert "no better than guessing" in text and "no pretrained weights" in text


def test_a_single_epoch_gives_no_alarm() -> None:
    noise = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(CLASSES).repeat(20)
    val = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(6)), labels
    text = findings(train_head((noise, labels), val, epochs=1))
    assert "after a single epoch means nothing" in text and "weights" not in text


def test_a_huge_learning_rate_is_named() -> None:
    text = findings(train_head(features(10, 1, 1.3), features(10, 2, 1.3), rate=300.0, epochs=4))
    assert "learning rate is too high" in text
    falling = [row(1, 1, train_loss=400.0), row(1, 2, train_loss=40.0)]
    assert "learning rate is too high" in findings(falling)


def test_a_tiny_learning_rate_is_named() -> None:
    text = findings(train_head(features(10, 1), features(10, 2), rate=1e-7, epochs=5))
    assert "learning rate is too low" in text and "too high" not in text


def test_overfitting_is_named_where_train_is_learned_by_heart() -> None:
    # two noisy photographs a class, a large rate, many epochs: val loss turns round and climbs
    few = features(2, 1, spread=3.0)
    text = findings(train_head(few, features(10, 2, spread=3.0), rate=0.05, epochs=60))
    assert "Overfitting" in text


def test_overfitting_is_not_claimed_where_val_holds() -> None:
    history = [
        row(1, 1, train_loss=2.0, train_accuracy=0.6, val_loss=0.9),
        row(1, 2, train_loss=0.1, train_accuracy=0.99, val_loss=0.85, val_accuracy=0.82),
    ]
    assert findings(history) == ""


def test_a_loss_that_is_no_number_is_named() -> None:
    assert "learning rate is too high" in findings([row(1, 1, train_loss=float("nan"))])


def test_a_phase_2_that_gains_nothing_is_named() -> None:
    first = [row(1, 1, val_accuracy=0.81)]
    spoiled = [*first, row(2, 1, val_accuracy=0.75), row(2, 2, train_loss=0.5, val_accuracy=0.8)]
    better = [*first, row(2, 1, val_accuracy=0.75), row(2, 2, train_loss=0.5, val_accuracy=0.9)]
    assert "Phase 2 is no better than Phase 1" in findings(spoiled, phase=2)
    assert findings(better, phase=2) == ""


def test_accuracy_too_good_to_be_true_points_to_a_leak() -> None:
    history = [row(1, 1, val_accuracy=0.99)]
    assert "also in train" in " ".join(diagnose(history, 1, config.EXPECTED))


def test_ranges_are_not_applied_where_they_do_not_apply() -> None:
    low = [row(1, 1, val_accuracy=0.4)]
    assert "less than" in findings(low)
    assert findings(low, expected=None) == ""


def test_a_single_short_epoch_is_not_judged_by_the_course_of_its_loss() -> None:
    assert findings([row(1, 1, train_loss=3.1, train_accuracy=0.2)], expected=None) == ""


def test_a_phase_that_was_not_run_is_explained() -> None:
    with pytest.raises(FlowersError, match="Phase 2 has no epochs"):
        diagnose([row(1, 1)], 2, None)


def photographs(side: int, *, count: int = 8) -> np.ndarray:
    """Pictures (N, 3, 224, 224) whose detail is that of `side` pixels: random leaves, as in nature."""
    generator, octaves = torch.Generator().manual_seed(1), []
    for size in (4, 8, 16, 32, 64, 128, 224):
        noise = torch.randn(count, 3, size, size, generator=generator)
        octaves.append(F.interpolate(noise, (224, 224), mode="bilinear"))
    pictures = torch.stack(octaves).sum(dim=0)
    small = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
    large = F.interpolate(small, (224, 224), mode="bilinear")
    return (128 + 20 * large).clamp(0, 255).byte().numpy()


@pytest.mark.parametrize(("side", "enlarged"), [(224, False), (200, False), (64, True), (48, True)])
def test_enlarged_copies_are_told_from_photographs(side: int, enlarged: bool) -> None:
    assert looks_enlarged(photographs(side)) is enlarged


def data_of(source: str, images: np.ndarray) -> FlowerData:
    split = Split("val", images, torch.zeros(len(images), dtype=torch.long))
    return FlowerData(source, "test", ("rose",), split, split, split, 256, 224)


@pytest.mark.parametrize(
    ("source", "side", "run", "reason"),
    [
        ("practice", 224, {}, "practice flowers"),
        ("folder", 224, {}, "your own photographs"),
        ("flowers102", 64, {}, "64x64"),
        ("flowers102", 224, {"profile": "quick"}, '"quick"'),
        ("flowers102", 224, {"backbone": "resnet50"}, "resnet50"),
    ],
)
def test_where_the_promise_does_not_apply_the_reason_is_given(
    source: str, side: int, run: dict, reason: str
) -> None:
    data = data_of(source, photographs(side))
    why_not = why_not_comparable(data, **run)
    assert reason in why_not
    table = performance_table(config.EXPECTED, val={"phase1": 0.5}, test={}, why_not=why_not)
    assert (
        reason in table and table.count("does not apply") == 2 and "see the diagnosis" not in table
    )


def test_the_promise_applies_to_a_full_run_on_full_size_flowers102() -> None:
    assert why_not_comparable(data_of("flowers102", photographs(224))) is None


def test_the_table_gives_promised_published_and_yours_with_a_verdict() -> None:
    val, test = {"phase1": 0.84, "phase2": 0.5}, {"phase1": wilson(4981, 6149)}
    rows = performance_table(config.EXPECTED, val=val, test=test).splitlines()
    assert [len(row.split("|")) for row in rows] == [8] * 4
    assert "75%" in rows[2] and "81.5%, 83.1%" in rows[2] and "84.0%" in rows[2]
    assert "81.0%" in rows[2] and "as promised" in rows[2]
    assert "not scored" in rows[3] and "below the expected 70% to 96%" in rows[3]


def test_more_photographs_help_and_every_class_keeps_its_share() -> None:
    points = accuracy_by_training_size(*features(20, 1, 2.0), *features(20, 2, 2.0))
    counts, accuracies = zip(*points, strict=True)
    assert counts == (2 * CLASSES, 5 * CLASSES, 10 * CLASSES, 20 * CLASSES)
    assert accuracies[-1].value > accuracies[0].value + 0.1


def test_the_smallest_part_has_at_least_one_photograph_of_each_class() -> None:
    ((count, _),) = accuracy_by_training_size(*features(5, 1), *features(5, 2), fractions=[0.01])
    assert count == CLASSES


def test_the_same_seed_draws_the_same_parts_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    state, data = torch.get_rng_state(), (*features(8, 1, 2.0), *features(8, 2, 2.0))
    first, again, other = (accuracy_by_training_size(*data, [0.25], seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_an_impossible_part_is_explained(fraction: float) -> None:
    with pytest.raises(FlowersError, match="fraction above 0"):
        accuracy_by_training_size(*features(2, 1), *features(2, 2), [fraction])
