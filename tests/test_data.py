"""The data as the lesson holds it: splits, their batches, and what cannot be trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowers_utils.data import Split, batches, check_data
from flowers_utils.errors import FlowersError


def test_batches_cover_a_read_only_cache_once_in_order(tiny_data, cpu, tmp_path, recwarn):
    images, labels = tiny_data.val.images, tiny_data.val.labels
    np.save(tmp_path / "images.npy", images)
    split = Split("val", np.load(tmp_path / "images.npy", mmap_mode="r"), labels)
    seen = list(batches(split, cpu, batch_size=5))
    assert [len(labels) for _, labels in seen] == [5, 5, 5, 1]
    assert torch.equal(torch.cat([labels for _, labels in seen]), labels)
    together = torch.cat([images for images, _ in seen])
    assert together.dtype is torch.uint8 and np.array_equal(together, images)
    seen[0][0].add_(1)  # a batch is the caller's own
    assert np.array_equal(split.images, images) and not recwarn.list


def test_the_generator_draws_the_order_of_a_shuffled_pass(tiny_data, cpu):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        seen = batches(tiny_data.train, cpu, batch_size=8, generator=generator)
        return torch.cat([images.flatten(1).sum(1) for images, _ in seen]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))
    split = tiny_data.train.subset(range(17))  # BatchNorm cannot learn from a last batch of one
    shuffled = batches(split, cpu, batch_size=8, generator=torch.Generator())
    assert [len(y) for _, y in shuffled] == [8, 8]


def test_the_fingerprint_changes_with_any_pixel_and_with_labels_and_classes(tiny_data):
    changed = [tiny_data, replace(tiny_data, class_names=("red", "green", "blue", "black"))]
    for name in ("train", "val", "test"):
        split = getattr(tiny_data, name)
        changed.append(replace(tiny_data, **{name: replace(split, labels=split.labels.roll(1))}))
        for row, column in ((0, 0), (5, 30), (31, 31)):
            images = split.images.copy()
            images[3, 1, row, column] ^= 1
            changed.append(replace(tiny_data, **{name: replace(split, images=images)}))
    prints = [data.fingerprint for data in changed]
    assert prints[0] == replace(tiny_data).fingerprint and len(set(prints)) == 14


SPOILED = {  # what is done to images and labels
    "no photographs": lambda x, y: (x[:0], y[:0]),
    "labels from 1 on": lambda x, y: (x, y + 1),
    "colours last": lambda x, y: (x.transpose(0, 2, 3, 1), y),
    "pixels from 0 to 1": lambda x, y: (x / 255, y),
    "labels are missing": lambda x, y: (x, y[:-3]),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_that_cannot_be_trained_on_is_named(tiny_data, spoil, name):
    split = getattr(tiny_data, name)
    spoiled = Split(name, *spoil(split.images, split.labels))
    with pytest.raises(FlowersError, match=f"{name} split must hold"):
        check_data(replace(tiny_data, **{name: spoiled}))
