import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from flowers_utils.transforms import (
    Draws,
    augment_batch,
    draw_augmentation,
    eval_transform,
    flip_and_rotate,
    jitter_colours,
    normalise,
    normalise_batch,
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
    images = (photos() * 255).to(torch.uint8)
    draws = drawn()
    ours = augment_batch(images, draws, crop=32)
    for i, image in enumerate(images):
        theirs = torchvision_version(image.float() / 255, draws, i, 32)
        assert torch.allclose(ours[i], theirs, atol=2e-3), f"image {i}"


def test_rotation_turns_the_same_way_as_torchvision():
    images = photos(1)
    ours = flip_and_rotate(images, torch.tensor([False]), torch.tensor([15.0]))
    theirs = TF.rotate(images, 15.0, interpolation=v2.InterpolationMode.BILINEAR)
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_shift_equals_torchvision(turns):
    images = photos()
    ours = shift_hue(images, torch.tensor(turns))
    assert torch.allclose(ours, TF.adjust_hue(images, turns), atol=1e-5)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_shift_equals_torchvision_where_channels_are_equal(turns):
    levels = torch.tensor([0.0, 0.5, 1.0])
    colours = torch.cartesian_prod(levels, levels, levels).view(27, 3, 1, 1)
    ours = shift_hue(colours, torch.tensor(turns))
    assert torch.allclose(ours, TF.adjust_hue(colours, turns), atol=1e-5)


def test_hue_shift_leaves_grey_alone():
    grey = torch.full((1, 3, 4, 4), 0.3)
    assert torch.equal(shift_hue(grey, torch.tensor(0.2)), grey)


def test_neutral_draw_changes_nothing():
    images = (photos() * 255).to(torch.uint8)
    ones, zeros = torch.ones(6), torch.zeros(6)
    neutral = Draws(
        top=zeros.long(), left=zeros.long(), flip=zeros.bool(), angle=zeros,
        brightness=ones, contrast=ones, saturation=ones, hue=zeros,
    )  # fmt: skip
    assert torch.allclose(
        augment_batch(images, neutral, crop=40), normalise_batch(images), atol=1e-4
    )


def test_each_image_of_a_batch_gets_its_own_draw():
    draws = drawn(64)
    for name, values in vars(draws).items():
        assert len(values.unique()) > 1, name


def test_draws_have_the_ranges_of_the_recipe():
    draws = draw_augmentation(20_000, torch.Generator().manual_seed(0))
    assert (draws.top.min(), draws.top.max()) == (0, 32)
    assert (draws.left.min(), draws.left.max()) == (0, 32)
    assert draws.flip.float().mean() == pytest.approx(0.5, abs=0.02)
    assert draws.angle.abs().max() == pytest.approx(15, abs=0.05)
    assert draws.angle.mean() == pytest.approx(0, abs=0.2)
    for factor in (draws.brightness, draws.contrast, draws.saturation):
        assert (factor.min(), factor.max()) == (
            pytest.approx(0.8, abs=0.01),
            pytest.approx(1.2, abs=0.01),
        )
        assert factor.std() == pytest.approx(0.4 / 12**0.5, abs=0.01)
    assert draws.hue.abs().max() == pytest.approx(0.1, abs=0.001)


def test_batched_augmentation_has_the_statistics_of_the_torchvision_pipeline():
    torch.manual_seed(0)
    image = (photos(1)[0] * 255).to(torch.uint8)
    pil = v2.ToPILImage()(image)
    theirs = torch.stack([train_transform(resize=40, crop=32)(pil) for _ in range(300)])
    ours = augment_batch(image.expand(300, 3, 40, 40), drawn(300), crop=32)
    for statistic in (torch.mean, torch.std):
        per_channel = [
            statistic(batch.transpose(0, 1).flatten(1), dim=1) for batch in (ours, theirs)
        ]
        assert torch.allclose(*per_channel, atol=0.06)


def test_colours_stay_in_range():
    coloured = jitter_colours(photos(64), drawn(64))
    assert coloured.min() >= 0 and coloured.max() <= 1 + 1e-6


def test_same_seed_same_draws():
    first, second = drawn(seed=3), drawn(seed=3)
    assert all(
        torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True)
    )


def test_batch_normalisation_equals_the_single_image_pipeline():
    image = (photos(1, size=32)[0] * 255).to(torch.uint8)
    single = eval_transform(size=32)(v2.ToPILImage()(image))
    assert torch.allclose(normalise_batch(image[None])[0], single, atol=1e-6)


def test_normalised_imagenet_mean_is_zero():
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert torch.allclose(normalise(mean), torch.zeros(1, 3, 2, 2), atol=1e-6)
