"""Practice flowers: the same every time, fine-grained, and disjoint from what pretraining sees."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from flowers_utils.datasets import practice
from flowers_utils.datasets.practice import (
    SPLIT_SIZES,
    draw_practice_split,
    flower_masks,
    practice_labels,
    pretrain_backbone,
    source_batches,
)
from flowers_utils.datasets.practice_drawing import draw_species
from flowers_utils.datasets.practice_species import (
    NUM_SPECIES,
    PRACTICE_NAMES,
    PRACTICE_SPECIES,
    RELATIVES,
    UNSEEN,
    WORDS,
    source_species,
    traits_in_words,
)
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress

SIZE = 16


@pytest.fixture
def tiny_pretraining(monkeypatch):
    """Two steps of eight images, and a count of how often training was started."""
    calls = []
    train = practice._train_source

    def counted(settings, device):
        calls.append(settings)
        return train(settings, device)

    tiny = {"images": 16, "batch_size": 8, "sizes": ((SIZE, 0.5), (2 * SIZE, 0.5))}
    for key, value in tiny.items():
        monkeypatch.setitem(practice.PRETRAINING, key, value)
    monkeypatch.setattr(practice, "_train_source", counted)
    return calls


def drawn(split, **how):
    with Progress(None, "Drawing", unit="image") as bar:
        return np.concatenate(list(draw_practice_split(split, bar, **how)))


def test_species_and_their_names_are_102_different_ones():
    assert len(set(PRACTICE_NAMES)) == NUM_SPECIES == len(set(PRACTICE_SPECIES))


def test_splits_have_the_promised_sizes_and_each_species_equally_often():
    for split, count in SPLIT_SIZES.items():
        per_species = np.bincount(practice_labels(split), minlength=NUM_SPECIES)
        assert set(per_species) == {count // NUM_SPECIES}


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="'valid'"):
        practice_labels("valid")


def test_pictures_follow_their_seed_and_a_limit_keeps_the_first():
    few, more, other = (
        drawn("train", size=SIZE, seed=seed, limit=limit)
        for seed, limit in ((0, 70), (0, 140), (1, 70))
    )
    assert few.shape == (70, 3, SIZE, SIZE) and few.dtype == np.uint8
    assert np.array_equal(few, more[:70]) and not np.array_equal(few, other)


def test_the_same_flowers_are_drawn_at_every_size():
    small = drawn("val", size=32, limit=8).astype(float)
    large = drawn("val", size=96, limit=8).astype(float)
    shrunk = large.reshape(8, 3, 32, 3, 32, 3).mean((3, 5))
    for one, same in zip(small, shrunk, strict=True):
        assert np.corrcoef(one.ravel(), same.ravel())[0, 1] > 0.8


def test_splits_share_no_picture():
    splits = [drawn(name, size=SIZE, limit=102) for name in SPLIT_SIZES]
    assert len({image.tobytes() for images in splits for image in images}) == 3 * 102


def test_masks_mark_the_flowers_and_leave_most_of_each_picture():
    masks = flower_masks("test", size=64, limit=50)
    shares = masks.mean((1, 2))
    assert masks.shape == (50, 64, 64) and masks.dtype == bool
    assert shares.min() > 0.02 and 0.15 < shares.mean() < 0.45


def test_mask_is_where_another_hue_changes_the_picture(monkeypatch):
    from flowers_utils.datasets import practice_drawing as drawing

    species = torch.tensor(PRACTICE_SPECIES[:20])
    pictures, masks = drawing.draw_scenes(species, size=32, seed=1)
    pose = drawing.random_pose
    monkeypatch.setattr(
        drawing, "random_pose", lambda dice: {**pose(dice), "hue": torch.zeros(20, 1, 1)}
    )
    repainted, same = drawing.draw_scenes(species, size=32, seed=1)
    changed = (pictures.int() - repainted.int()).abs().sum(1) > 60
    assert torch.equal(masks, same)
    assert changed[masks].float().mean() > 5 * changed[~masks].float().mean()


def test_source_species_are_outside_the_102_and_lack_the_unseen_words():
    source = source_species(practice.PRETRAINING["species"])
    assert len(set(source)) == practice.PRETRAINING["species"]
    assert not set(source) & set(PRACTICE_SPECIES)
    for column, (trait, words) in enumerate(WORDS.items()):
        seen = {words[row[column]] for row in source}
        assert seen == set(words) - set(UNSEEN.get(trait, ()))


def test_relatives_differ_from_the_first_of_their_genus_in_one_trait_or_two():
    for start in range(0, NUM_SPECIES, RELATIVES):
        first, *others = np.array(PRACTICE_SPECIES[start : start + RELATIVES])
        assert all(1 <= (first != other).sum() <= 2 for other in others)


def test_a_species_of_your_own_is_drawn_from_words():
    row = zip(WORDS.items(), PRACTICE_SPECIES[5], strict=True)
    known = draw_species(
        count=4, size=SIZE, seed=1, **{trait: words[i] for (trait, words), i in row}
    )
    other = draw_species(count=4, size=SIZE, seed=1, petals="three", outline="narrow")
    assert known.dtype == torch.uint8 and known.shape == (4, 3, SIZE, SIZE)
    assert known.shape == other.shape and not torch.equal(known, other)


@pytest.mark.parametrize(
    ("traits", "told"), [({"petals": 7}, "three, five"), ({"smell": "sweet"}, "outline")]
)
def test_words_that_are_not_there_are_answered_with_those_that_are(traits, told):
    with pytest.raises(FlowersError, match=told):
        draw_species(**traits)


def test_source_pictures_start_small_and_end_large():
    settings = dict(practice.PRETRAINING, images=16, batch_size=4, seed=0)
    settings["sizes"] = ((SIZE, 0.5), (2 * SIZE, 0.5))
    shapes = [tuple(images.shape) for images, _ in source_batches(settings)]
    assert shapes == [(4, 3, SIZE, SIZE)] * 2 + [(4, 3, 2 * SIZE, 2 * SIZE)] * 2


def test_backbone_fits_a_resnet18_and_a_whole_file_is_reused(tmp_path, cpu, tiny_pretraining):
    path = tmp_path / "backbone.pth"
    first, second = pretrain_backbone(path, device=cpu), pretrain_backbone(path, device=cpu)
    model = resnet18(num_classes=sum(map(len, WORDS.values())))
    model.load_state_dict(first)  # all of it, with the head that reads traits
    told = traits_in_words(model.eval()(torch.zeros(2, 3, 32, 32)))
    assert len(told) == 2 and told[0].startswith("petals ")
    assert len(tiny_pretraining) == 1
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_damaged_backbone_file_is_made_anew(tmp_path, cpu, tiny_pretraining):
    path = tmp_path / "backbone.pth"
    first = pretrain_backbone(path, device=cpu)
    path.write_bytes(path.read_bytes()[:5000])
    again = pretrain_backbone(path, device=cpu)
    assert len(tiny_pretraining) == 2
    assert torch.equal(first["conv1.weight"], again["conv1.weight"])


def test_other_settings_train_anew(tmp_path, cpu, tiny_pretraining):
    path = tmp_path / "backbone.pth"
    pretrain_backbone(path, device=cpu)
    pretrain_backbone(path, device=cpu, seed=1)
    assert len(tiny_pretraining) == 2


def test_pretraining_leaves_the_callers_random_numbers_alone(tmp_path, cpu, tiny_pretraining):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain_backbone(tmp_path / "backbone.pth", device=cpu)
    assert torch.equal(torch.rand(3), expected)
