"""Practice flowers: the same every time, fine-grained, and disjoint from what pretraining sees."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from flowers_utils.datasets import practice
from flowers_utils.datasets.practice import (
    NUM_SPECIES,
    PRACTICE_NAMES,
    PRACTICE_SPECIES,
    SPLIT_SIZES,
    draw_practice_split,
    draw_source_task,
    practice_labels,
    pretrain_backbone,
    source_species,
)

SIZE = 16


@pytest.fixture
def tiny_pretraining(monkeypatch):
    """Two steps of eight images, and a count of how often training was started."""
    calls = []
    train = practice._train_source

    def counted(settings, device):
        calls.append(settings)
        return train(settings, device)

    monkeypatch.setattr(practice, "PRACTICE_CROP", SIZE)
    monkeypatch.setitem(practice.PRETRAINING, "images", 16)
    monkeypatch.setitem(practice.PRETRAINING, "batch_size", 8)
    monkeypatch.setattr(practice, "_train_source", counted)
    return calls


def test_names_are_102_different_ones():
    assert len(set(PRACTICE_NAMES)) == NUM_SPECIES == len(set(PRACTICE_SPECIES))


def test_splits_have_the_promised_sizes_and_each_species_equally_often():
    for split, count in SPLIT_SIZES.items():
        per_species = np.bincount(practice_labels(split), minlength=NUM_SPECIES)
        assert set(per_species) == {count // NUM_SPECIES}


def test_images_and_labels_have_the_contracted_shapes_and_types():
    images, labels = draw_practice_split("val", size=SIZE, limit=10)
    assert images.shape == (10, 3, SIZE, SIZE) and images.dtype == np.uint8
    assert labels.shape == (10,) and labels.dtype == np.int64 and labels.min() == 0


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="'valid'"):
        draw_practice_split("valid", size=SIZE)


def test_same_seed_draws_the_same_and_another_seed_does_not():
    first, again, other = (draw_practice_split("train", size=SIZE, seed=s)[0] for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_limit_keeps_the_first_images():
    few = draw_practice_split("train", size=SIZE, limit=70)[0]
    more = draw_practice_split("train", size=SIZE, limit=140)[0]
    assert np.array_equal(few, more[:70])


def test_the_same_flowers_are_drawn_at_every_size():
    small = draw_practice_split("val", size=32, limit=8)[0].astype(float)
    large = draw_practice_split("val", size=96, limit=8)[0].astype(float)
    shrunk = large.reshape(8, 3, 32, 3, 32, 3).mean((3, 5))
    for one, same in zip(small, shrunk, strict=True):
        assert np.corrcoef(one.ravel(), same.ravel())[0, 1] > 0.8


def test_splits_share_no_image():
    drawn = [draw_practice_split(name, size=SIZE, limit=102)[0] for name in SPLIT_SIZES]
    unique = {image.tobytes() for images in drawn for image in images}
    assert len(unique) == 3 * 102


def test_source_species_are_outside_the_102():
    source = source_species(practice.PRETRAINING["species"])
    assert len(set(source)) == practice.PRETRAINING["species"]
    assert not set(source) & set(PRACTICE_SPECIES)


def test_every_species_has_relatives_that_differ_in_at_most_two_traits():
    for start in range(0, NUM_SPECIES, practice.RELATIVES):
        first, *others = np.array(PRACTICE_SPECIES[start : start + practice.RELATIVES])
        assert all(1 <= (first != other).sum() <= 2 for other in others)


def test_source_task_follows_its_seed():
    images, labels = draw_source_task(9, 5, size=SIZE, seed=3)
    again, other = (draw_source_task(9, 5, size=SIZE, seed=s)[0] for s in (3, 4))
    assert images.shape == (9, 3, SIZE, SIZE) and labels.max() < 5
    assert np.array_equal(images, again) and not np.array_equal(images, other)


def test_backbone_lacks_only_the_head_of_torchvisions_resnet18(tmp_path, cpu, tiny_pretraining):
    state = pretrain_backbone(tmp_path / "backbone.pth", device=cpu)
    result = resnet18(num_classes=NUM_SPECIES).load_state_dict(state, strict=False)
    assert set(result.missing_keys) == {"fc.weight", "fc.bias"} and not result.unexpected_keys
    assert all(v.dtype in (torch.float32, torch.int64) for v in state.values())


def test_whole_backbone_file_is_reused(tmp_path, cpu, tiny_pretraining):
    path = tmp_path / "backbone.pth"
    first, second = pretrain_backbone(path, device=cpu), pretrain_backbone(path, device=cpu)
    assert len(tiny_pretraining) == 1
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.load(path, weights_only=True)["settings"]["seed"] == 0


def spoil_bytes(path):
    path.write_bytes(path.read_bytes()[:5000])


def spoil_tensor(path):
    content = torch.load(path, weights_only=True)
    content["state_dict"]["conv1.weight"][0] = float("nan")
    torch.save(content, path)


def spoil_keys(path):
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["conv1.weight"]
    torch.save(content, path)


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_tensor, spoil_keys])
def test_damaged_backbone_file_is_made_anew(spoil, tmp_path, cpu, tiny_pretraining):
    path = tmp_path / "backbone.pth"
    first = pretrain_backbone(path, device=cpu)
    spoil(path)
    again = pretrain_backbone(path, device=cpu)
    assert len(tiny_pretraining) == 2
    assert torch.equal(first["conv1.weight"], again["conv1.weight"])


def test_other_settings_or_fresh_train_anew(tmp_path, cpu, tiny_pretraining):
    path = tmp_path / "backbone.pth"
    pretrain_backbone(path, device=cpu)
    pretrain_backbone(path, device=cpu, seed=1)
    pretrain_backbone(path, device=cpu, seed=1, fresh=True)
    assert len(tiny_pretraining) == 3


def test_pretraining_leaves_the_callers_random_numbers_alone(tmp_path, cpu, tiny_pretraining):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain_backbone(tmp_path / "backbone.pth", device=cpu)
    assert torch.equal(torch.rand(3), expected)
