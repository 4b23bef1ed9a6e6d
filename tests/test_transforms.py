"""The batched augmentation is torchvision's, with a draw of its own for each image."""

from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

import transfer_learning_config as config
from flowers_utils import transforms
from flowers_utils.data import Split
from flowers_utils.device import seed_everything
from flowers_utils.transforms import eval_batch
from tests.benchmarks.textbook import eval_transform

SIZE, CROP = 40, 32
NO_COLOURS = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
NOTHING = NO_COLOURS | {"flip": 0.0, "rotation": 0.0}


def photos(count=6, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def augmented(images):
    return transforms.augment_batch(images, torch.Generator().manual_seed(0), crop=CROP)


@pytest.fixture
def drawn(monkeypatch):
    """What `augment_batch` draws for each image; crops are moved to pixels, as torchvision's are."""
    seen, matrices, colour = {}, transforms.affine_matrices, transforms.colour_and_normalise

    def geometry(angle, flip, box):
        pixels = (box * SIZE).round()
        seen.update(angle=angle, flip=flip, box=pixels)
        return matrices(angle, flip, pixels / SIZE)

    def colours(images, *values):
        seen.update(zip(("brightness", "contrast", "saturation", "hue"), values, strict=True))
        return colour(images, *values)

    monkeypatch.setattr(transforms, "affine_matrices", geometry)
    monkeypatch.setattr(transforms, "colour_and_normalise", colours)
    return seen


def test_rotation_crop_and_mirror_are_torchvisions(monkeypatch, drawn):
    monkeypatch.setattr(config, "AUGMENTATION", NO_COLOURS | {"flip": 0.5, "rotation": 15.0})
    images = photos(12)
    ours = augmented(images)
    for i, image in enumerate(images / 255):
        left, top, side = drawn["box"][:, i].int().tolist()
        turn = float(drawn["angle"][i])
        image = TF.rotate(image, turn, interpolation=v2.InterpolationMode.BILINEAR)
        image = TF.crop(image, top, left, side, side)
        image = TF.horizontal_flip(image) if drawn["flip"][i] else image
        theirs = TF.normalize(image, **config.NORMALIZATION)
        inside = (..., slice(2, -2), slice(2, -2))  # the edge of the picture is blended with black
        assert torch.allclose(ours[i][inside], theirs[inside], atol=2e-3), f"image {i}"


def test_the_crop_of_photographs_that_are_stored_larger_shows_the_same_part(monkeypatch):
    monkeypatch.setattr(config, "AUGMENTATION", NOTHING)
    large = photos(size=2 * SIZE)
    generator = torch.Generator().manual_seed(0)
    ours = transforms.augment_batch(large, generator, crop=CROP, resize=SIZE)
    assert (ours - augmented(TF.resize(large, [SIZE, SIZE]))).abs().mean() < 0.05


def test_each_image_has_its_own_draw_in_the_ranges_of_the_recipe(drawn):
    count = 2000
    augmented(photos(1).expand(count, -1, -1, -1))
    left, top, side = drawn["box"]
    assert (left.min(), left.max(), top.min(), top.max()) == (0, 8, 0, 8) and (side == CROP).all()
    assert drawn["flip"].float().mean() == pytest.approx(0.5, abs=0.05)
    widths = {"angle": 15, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}
    for name, width in widths.items():
        moved = (drawn[name] - (0 if name in ("angle", "hue") else 1)) / width
        assert len(moved.unique()) > 0.9 * count and moved.mean() == pytest.approx(0, abs=0.1)
        assert moved.abs().max() == pytest.approx(1, rel=0.02)
        assert moved.std() == pytest.approx(1 / 3**0.5, rel=0.1)  # uniform


def coloured(images, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
    """Images in 0..1 by the twin's colours, back in 0..1."""
    factors = (torch.full((len(images),), f) for f in (brightness, contrast, saturation, hue))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in config.NORMALIZATION.values())
    return transforms.colour_and_normalise(images * 255, *factors) * std + mean


def test_colours_are_torchvisions_in_its_order_and_clipped_once():
    images = 0.4 + 0.2 * photos() / 255  # nothing is clipped
    for b, c, s in ((0.8, 1, 1), (1, 1.2, 1), (1, 1, 0.8), (1.2, 0.8, 1.2)):
        theirs = TF.adjust_saturation(TF.adjust_contrast(TF.adjust_brightness(images, b), c), s)
        assert torch.allclose(coloured(images, b, c, s), theirs, atol=1e-3)
    assert coloured(photos() / 255, 1.2, 1.2).max() == pytest.approx(1, abs=1e-5)


def test_hue_turns_as_torchvisions_does_and_leaves_grey_alone():
    grey = torch.linspace(0.1, 0.9, 16).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    assert torch.allclose(coloured(grey, hue=0.07), grey, atol=1e-5)
    images = 0.4 + 0.2 * photos() / 255
    for turn in (-1 / 3, 0, 1 / 3):  # where both turns exchange the three colours
        theirs = TF.adjust_hue(images, turn)
        assert torch.allclose(coloured(images, hue=turn), theirs, atol=1e-4)
    red = torch.tensor([0.6, 0.3, 0.3]).view(1, 3, 1, 1)
    for image in (coloured(red, hue=0.1), TF.adjust_hue(red, 0.1)):
        assert image[0, 1] > image[0, 2] + 0.1  # towards yellow


def test_evaluation_of_a_batch_is_the_pipeline_for_one_image_antialiased_too():
    generator = torch.Generator().manual_seed(0)
    for size in (32, 40, 160):  # the network's own, the train split's, and far larger
        image = torch.randint(256, (3, size, size), generator=generator, dtype=torch.uint8)
        single = eval_transform(32)(v2.ToPILImage()(image))
        assert torch.allclose(eval_batch(image[None], 32)[0], single, atol=0.03)


# Batches of a split


def test_one_generator_draws_all_that_training_sees(tiny_data, cpu, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 8)

    def epoch(seed, chance):
        seed_everything(chance)  # must not matter
        generator = torch.Generator().manual_seed(seed)
        seen = list(transforms.training_batches(tiny_data, cpu, generator))
        return [torch.cat(part) for part in zip(*seen, strict=True)]

    (images, labels), again, other = epoch(0, 0), epoch(0, 1), epoch(1, 0)
    assert images.shape == (24, 3, 32, 32) and images.dtype is torch.float32
    assert sorted(labels.tolist()) == sorted(tiny_data.train.labels.tolist())
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    assert not torch.equal(images, other[0])


def test_without_augmentation_training_sees_what_evaluation_sees(tiny_data, cpu, monkeypatch):
    monkeypatch.setattr(config, "AUGMENTATION", NOTHING)
    train = Split("train", photos(4).numpy(), torch.arange(4))
    data = replace(tiny_data, train=train, resize_size=SIZE, image_size=SIZE)
    images, labels = next(transforms.training_batches(data, cpu, torch.Generator()))
    assert torch.allclose(images, eval_batch(photos(4), SIZE)[labels], atol=1e-4)
