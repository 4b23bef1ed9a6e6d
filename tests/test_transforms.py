"""The batched augmentation is torchvision's, with a draw of its own for each image."""

import itertools

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from flowers_utils.transforms import (
    Draws,
    augment_batch,
    denormalise,
    draw_augmentation,
    eval_batch,
    eval_transform,
    normalise,
    shift_hue,
    train_transform,
)


def photos(count=6, size=40):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def drawn(count=6, *, seed=0, resize=40, crop=32):
    generator = torch.Generator().manual_seed(seed)
    return draw_augmentation(count, generator, resize=resize, crop=crop)


def torchvision_version(image, draws, i, crop):
    """The same draw through torchvision's functional operations, for one image in 0..1."""
    image = TF.crop(image, int(draws.top[i]), int(draws.left[i]), crop, crop)
    if draws.flip[i]:
        image = TF.horizontal_flip(image)
    image = TF.rotate(image, float(draws.angle[i]), interpolation=v2.InterpolationMode.BILINEAR)
    image = TF.adjust_brightness(image, float(draws.brightness[i]))
    image = TF.adjust_contrast(image, float(draws.contrast[i]))
    image = TF.adjust_saturation(image, float(draws.saturation[i]))
    image = TF.adjust_hue(image, float(draws.hue[i]))
    return TF.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_batched_augmentation_equals_torchvision_with_the_same_draws():
    images, draws = (photos() * 255).to(torch.uint8), drawn()
    ours = augment_batch(images, draws, crop=32)
    for i, image in enumerate(images):
        theirs = torchvision_version(image.float() / 255, draws, i, 32)
        assert torch.allclose(ours[i], theirs, atol=2e-3), f"image {i}"


def test_hue_shift_equals_torchvision_also_where_channels_are_equal():
    levels = torch.tensor([0.0, 0.5, 1.0])
    with_ties = torch.cartesian_prod(levels, levels, levels).view(27, 3, 1, 1)
    for images, turns in itertools.product((photos(), with_ties), (-0.5, 0.07, 0.5)):
        ours = shift_hue(images, torch.tensor(turns))
        assert torch.allclose(ours, TF.adjust_hue(images, turns), atol=1e-5)


def test_neutral_draw_changes_nothing():
    images = (photos() * 255).to(torch.uint8)
    ones, zeros = torch.ones(6), torch.zeros(6)
    corner = {"top": zeros.long(), "left": zeros.long(), "flip": zeros.bool(), "angle": zeros}
    neutral = Draws(**corner, brightness=ones, contrast=ones, saturation=ones, hue=zeros)
    unchanged = eval_batch(images, 40)
    assert torch.allclose(augment_batch(images, neutral, crop=40), unchanged, atol=1e-4)


def test_draws_have_the_ranges_of_the_recipe():
    draws = draw_augmentation(20_000, torch.Generator().manual_seed(0))
    assert (draws.top.min(), draws.top.max()) == (0, 32) == (draws.left.min(), draws.left.max())
    assert draws.flip.float().mean() == pytest.approx(0.5, abs=0.02)
    assert draws.angle.abs().max() == pytest.approx(15, abs=0.05)
    assert draws.angle.mean() == pytest.approx(0, abs=0.2)
    for factor in (draws.brightness, draws.contrast, draws.saturation):
        assert (factor.min(), factor.max()) == pytest.approx((0.8, 1.2), abs=0.01)
        assert factor.std() == pytest.approx(0.4 / 12**0.5, abs=0.01)
    assert draws.hue.abs().max() == pytest.approx(0.1, abs=0.001)


def test_batched_augmentation_has_the_statistics_of_the_torchvision_pipeline():
    torch.manual_seed(0)
    image = (photos(1)[0] * 255).to(torch.uint8)
    pil = v2.ToPILImage()(image)
    theirs = torch.stack([train_transform(resize=40, crop=32)(pil) for _ in range(300)])
    ours = augment_batch(image.expand(300, 3, 40, 40), drawn(300), crop=32)
    for statistic in (torch.mean, torch.std):
        per_channel = [statistic(b.transpose(0, 1).flatten(1), dim=1) for b in (ours, theirs)]
        assert torch.allclose(*per_channel, atol=0.06)


def test_same_seed_same_draws_and_another_seed_others():
    first, second, other = (vars(drawn(seed=seed)).values() for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_evaluation_of_a_batch_equals_the_single_image_pipeline():
    for size in (32, 40):  # at the network's size; and larger, as the train split is
        image = (photos(1, size=size)[0] * 255).to(torch.uint8)
        single = eval_transform(size=32)(v2.ToPILImage()(image))
        assert torch.allclose(eval_batch(image[None], 32)[0], single, atol=0.02)


def test_normalised_imagenet_mean_is_zero_and_can_be_undone():
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert torch.allclose(normalise(mean), torch.zeros(1, 3, 2, 2), atol=1e-6)
    images = (photos() * 255).to(torch.uint8)
    assert torch.equal(denormalise(normalise(images.float() / 255)), images)
