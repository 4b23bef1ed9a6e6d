"""The data as the lesson holds it: splits, their batches, and what cannot be trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowers_utils.data import Split, batches
from flowers_utils.data_check import check_data
from flowers_utils.errors import FlowersError


def test_batches_cover_the_split_once_in_order(tiny_data, cpu):
    seen = list(batches(tiny_data.val, cpu, batch_size=5))
    assert [len(labels) for _, labels in seen] == [5, 5, 5, 1]
    assert torch.equal(torch.cat([labels for _, labels in seen]), tiny_data.val.labels)
    images = torch.cat([images for images, _ in seen])
    assert images.dtype is torch.uint8 and np.array_equal(images, tiny_data.val.images)


def test_the_seed_decides_the_order_of_a_shuffled_pass(tiny_data, cpu):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        seen = batches(tiny_data.train, cpu, batch_size=8, shuffle=True, generator=generator)
        return torch.cat([images.flatten(1).sum(1) for images, _ in seen]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


def test_a_lonely_last_image_is_left_out_of_training(tiny_data, cpu):
    split = tiny_data.train.subset(range(17))
    shuffled = batches(split, cpu, batch_size=8, shuffle=True)
    assert [len(labels) for _, labels in shuffled] == [8, 8]


def test_a_read_only_cache_can_be_trained_from(tiny_data, cpu, tmp_path, recwarn):
    path = tmp_path / "images.npy"
    np.save(path, tiny_data.train.images)
    split = Split("train", np.load(path, mmap_mode="r"), tiny_data.train.labels)
    for images, _ in batches(split, cpu, batch_size=8):
        images.add_(1)  # a batch is the caller's own
    assert np.array_equal(split.images, tiny_data.train.images) and not recwarn.list


def test_the_fingerprint_changes_with_every_part_of_the_data_and_is_computed_once(
    tiny_data, monkeypatch
):
    val = tiny_data.val
    one_photograph = val.images.copy()
    one_photograph[3] += 1
    changes = (
        {},
        {"val": val.subset(range(15))},
        {"val": replace(val, images=one_photograph)},
        {"val": replace(val, labels=val.labels.roll(1))},
        {"class_names": ("red", "green", "blue", "black")},
    )
    prints = [replace(tiny_data, **change).fingerprint for change in changes]
    assert prints[0] == tiny_data.fingerprint and len(set(prints)) == 5
    monkeypatch.setattr("flowers_utils.data.hashlib.sha256", None)  # once more would fail
    assert tiny_data.fingerprint == prints[0]


def put(value):
    return lambda labels: torch.cat([labels[:-1], torch.tensor([value])])


def same(values):
    return values


BAD_SPLITS = {
    "empty": (lambda x: x[:0], lambda y: y[:0], "is empty"),
    "a label too large": (same, put(4), "from 0 to 4, but for 4 classes they must lie in 0 to 3"),
    "channels last": (lambda x: x.transpose(0, 2, 3, 1), same, "shape"),
    "floats": (lambda x: x / 255, same, "float64"),
    "fewer labels": (same, lambda y: y[:-3], "as many int64 labels"),
}


@pytest.mark.parametrize("what", BAD_SPLITS)
def test_a_split_that_cannot_be_trained_on_is_named(tiny_data, what):
    images, labels, told = BAD_SPLITS[what]
    for name in ("train", "val", "test"):
        split = getattr(tiny_data, name)
        split = Split(name, images(split.images), labels(split.labels))
        with pytest.raises(FlowersError, match=told) as caught:
            check_data(replace(tiny_data, **{name: split}))
        assert name in str(caught.value)


def test_too_few_or_too_small_photographs_to_train_on_are_told(tiny_data):
    check_data(replace(tiny_data, val=tiny_data.val.subset([0])))  # enough to evaluate
    with pytest.raises(FlowersError, match="at least two photographs"):
        check_data(replace(tiny_data, train=tiny_data.train.subset([0])))
    with pytest.raises(FlowersError, match="36 pixels wide, but must have 40"):
        check_data(replace(tiny_data, resize_size=40))
