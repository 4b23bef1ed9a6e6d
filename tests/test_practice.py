"""Practice flowers: the same every time, fine-grained, and disjoint from what pretraining uses."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from flowers_utils.datasets import practice
from flowers_utils.datasets import practice_drawing as drawing
from flowers_utils.datasets import practice_species as flowers

SIZE, LIMIT = 16, 3


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """As few pictures as possible are drawn only to be cut off."""
    monkeypatch.setattr(practice, "DRAWING_BATCH", 6)


def drawn(split, **how):
    return np.stack([picture.numpy() for _, picture, _ in practice.practice_scenes(split, **how)])


def test_source_species_are_outside_the_102_and_lack_the_unseen_words():
    known = {"avoid": flowers.PRACTICE_SPECIES, "unseen": flowers.UNSEEN}
    source = flowers.species_table(300, seed=2012, **known)
    assert len(set(source)) == 300 and not set(source) & set(flowers.PRACTICE_SPECIES)
    for (trait, words), column in zip(flowers.WORDS.items(), np.array(source).T, strict=True):
        assert {words[i] for i in column} == set(words) - set(flowers.UNSEEN.get(trait, ()))


def test_the_102_species_differ_from_the_first_of_their_genus_in_one_trait_or_two():
    assert len(set(flowers.PRACTICE_NAMES)) == 102 == len(set(flowers.PRACTICE_SPECIES))
    genera = np.array(flowers.PRACTICE_SPECIES).reshape(-1, flowers.RELATIVES, len(flowers.WORDS))
    assert set((genera[:, 1:] != genera[:, :1]).sum(axis=2).flat) == {1, 2}


def test_predicted_traits_stand_beside_the_true_ones_without_those_never_trained():
    place = next(i for i, row in enumerate(flowers.PRACTICE_SPECIES) if row[0] and row[1] == 5)
    name, row = flowers.PRACTICE_NAMES[place], flowers.PRACTICE_SPECIES[place]  # a square outline
    logits = torch.zeros(1, flowers.MOST_WORDS, len(flowers.WORDS))
    logits[0, flowers.MOST_WORDS - 1] = 9.0  # a position where most traits have no word at all
    for column, word in enumerate(row):
        logits[0, word if column else 0, column] = 1.0  # all correct but the number of petals
    [line] = flowers.traits_in_words(logits.flatten(1), [name])
    assert "petals three ✗ (eight)" in line and "outline" not in line
    assert f"accent {flowers.WORDS['accent'][row[3]]} ✓" in line


def test_pictures_follow_seed_and_split_and_a_limit_keeps_the_first():
    few, more = (drawn("train", size=SIZE, seed=0, limit=limit) for limit in (7, 14))
    assert few.shape == (7, 3, SIZE, SIZE) and np.array_equal(few, more[:7])
    assert not np.array_equal(few, drawn("train", size=SIZE, seed=1, limit=7))
    splits = [drawn(name, size=SIZE, seed=0, limit=12) for name in practice.SPLIT_SIZES]
    assert len({image.tobytes() for images in splits for image in images}) == 3 * 12


def test_pictures_are_those_that_the_committed_outputs_show():
    species = torch.tensor(flowers.PRACTICE_SPECIES)
    pictures = drawing.draw_scenes(species, size=32, seed=0)[0].float()
    assert pictures.mean().item() == pytest.approx(76.69, abs=0.02)


def test_mask_is_where_another_hue_changes_the_picture(monkeypatch):
    species = torch.tensor(flowers.PRACTICE_SPECIES[:20])
    pictures, masks = drawing.draw_scenes(species, size=32, seed=1)
    monkeypatch.setitem(drawing.POSE, "hue", (0.0, 0.0))
    repainted, _ = drawing.draw_scenes(species, size=32, seed=1)
    changed = (pictures.int() - repainted.int()).abs().sum(1) > 60
    assert changed[masks].float().mean() > 5 * changed[~masks].float().mean()


def test_pictures_are_drawn_again_for_another_seed_or_version_and_if_one_is_gone(
    tmp_path, monkeypatch
):
    def time_drawn(seed):
        folder = practice.draw_practice_folder(tmp_path, seed=seed, limit=LIMIT)
        return next(folder.glob("train/*/0000.png")).stat().st_mtime_ns

    first, again, other = time_drawn(0), time_drawn(0), time_drawn(1)
    assert first == again != other
    next(tmp_path.glob("practice*/val/*/*.png")).unlink()  # one that was damaged, for example
    complete = time_drawn(1)
    assert complete != other
    monkeypatch.setattr(practice, "PRACTICE_VERSION", 99)
    assert time_drawn(1) != complete


def test_a_complete_folder_holds_each_picture_under_its_species(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(practice, "PRACTICE_CROP", None)  # val cannot be drawn: stops after train
        practice.draw_practice_folder(tmp_path, seed=0, limit=LIMIT)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    folder = practice.draw_practice_folder(tmp_path, seed=0, limit=LIMIT)
    for split, size in (("train", practice.PRACTICE_RESIZE), ("val", practice.PRACTICE_CROP)):
        for number, picture in enumerate(drawn(split, size=size, seed=0, limit=LIMIT)):
            path = folder / split / flowers.PRACTICE_NAMES[number] / f"{number:04d}.png"
            assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), picture)
    assert len(list(folder.glob("*/*/*.png"))) == 3 * LIMIT


def test_backbone_fits_a_resnet18_and_only_a_complete_file_of_its_seed_is_reused(
    tmp_path, cpu, monkeypatch
):
    short = {"images": 16, "batch_size": 8, "sizes": ((SIZE, 0.5), (2 * SIZE, 0.5))}
    monkeypatch.setattr(practice, "PRETRAINING", practice.PRETRAINING | short)
    path, random_numbers = tmp_path / "backbone.pth", torch.get_rng_state()
    first = practice.pretrain_backbone(path, device=cpu)
    assert torch.equal(torch.get_rng_state(), random_numbers)  # the caller's are left alone
    resnet18(num_classes=flowers.MOST_WORDS * len(flowers.WORDS)).load_state_dict(first)
    path.write_bytes(path.read_bytes()[:5000])
    again = practice.pretrain_backbone(path, device=cpu)  # trained anew, from the same numbers
    assert all(torch.equal(first[key], again[key]) for key in first)
    written = path.stat().st_mtime_ns
    practice.pretrain_backbone(path, device=cpu)
    assert path.stat().st_mtime_ns == written
    other = practice.pretrain_backbone(path, device=cpu, seed=1)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
