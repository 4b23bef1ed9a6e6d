"""From photograph to network input: torchvision's pipelines for one image, and a batched twin.

torchvision's v2 transforms draw once per call, so on a batch all images would be cropped, turned
and coloured alike. The batched twin here gives each image its own draw and runs on the device.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.transforms import v2

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.device import Device, send

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def train_transform(*, resize: int = 256, crop: int = 224) -> v2.Compose:
    """Training pipeline: one PIL image -> augmented, normalised float tensor `(3, crop, crop)`."""
    a = config.AUGMENTATION
    return v2.Compose(
        [
            v2.Resize((resize, resize)),
            v2.RandomCrop(crop),
            v2.RandomHorizontalFlip(a["flip"]),
            v2.RandomRotation(a["rotation"], interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(a["brightness"], a["contrast"], a["saturation"], a["hue"]),
            *_to_normalised_tensor(),
        ]
    )


def eval_transform(*, size: int = 224) -> v2.Compose:
    """Evaluation pipeline: one PIL image -> normalised float tensor `(3, size, size)`.

    The whole photograph is squashed into the square, as in training (where it is then cropped).
    """
    return v2.Compose([v2.Resize((size, size)), v2.CenterCrop(size), *_to_normalised_tensor()])


def _to_normalised_tensor() -> list[v2.Transform]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(config.NORMALIZATION["mean"], config.NORMALIZATION["std"]),
    ]


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Float images `(B, 3, H, W)` in 0..1 -> ImageNet's mean 0 and standard deviation 1."""
    mean, std = _mean_and_std(images.device)
    return (images - mean) / std


def _mean_and_std(device: torch.device) -> list[torch.Tensor]:
    """ImageNet's, each of shape `(3, 1, 1)`."""
    pair = [config.NORMALIZATION["mean"], config.NORMALIZATION["std"]]
    return [send(torch.tensor(values).view(3, 1, 1), device) for values in pair]


@dataclass(frozen=True)
class Draws:
    """What chance decided for each image of a batch; every field has shape `(B,)`."""

    top: torch.Tensor  # first row of the crop, in pixels
    left: torch.Tensor  # first column of the crop, in pixels
    flip: torch.Tensor  # True: mirrored left to right
    angle: torch.Tensor  # in degrees, counter-clockwise
    brightness: torch.Tensor  # factors around 1
    contrast: torch.Tensor
    saturation: torch.Tensor
    hue: torch.Tensor  # shift in turns of the colour circle, around 0


def draw_augmentation(
    batch_size: int,
    generator: torch.Generator,
    *,
    resize: int = 256,
    crop: int = 224,
    hue: float | None = None,
) -> Draws:
    """Draw crop, flip, angle and colour anew for each image (on the CPU); `hue` None: the config's."""
    a = config.AUGMENTATION
    hue = a["hue"] if hue is None else hue

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(batch_size, generator=generator) * (high - low) + low

    def factor(strength: float) -> torch.Tensor:
        return uniform(max(0.0, 1 - strength), 1 + strength)

    room = resize - crop + 1
    return Draws(
        top=torch.randint(room, (batch_size,), generator=generator),
        left=torch.randint(room, (batch_size,), generator=generator),
        flip=torch.rand(batch_size, generator=generator) < a["flip"],
        angle=uniform(-a["rotation"], a["rotation"]),
        brightness=factor(a["brightness"]),
        contrast=factor(a["contrast"]),
        saturation=factor(a["saturation"]),
        hue=uniform(-hue, hue),
    )


def augment_batch(images: torch.Tensor, draws: Draws, *, crop: int = 224) -> torch.Tensor:
    """uint8 images `(B, 3, R, R)` -> augmented, normalised float32 `(B, 3, crop, crop)`."""
    corners = zip(images, draws.top.tolist(), draws.left.tolist(), strict=True)
    windows = [image[:, top : top + crop, left : left + crop] for image, top, left in corners]
    cropped = torch.stack(windows).float() / 255
    turned = flip_and_rotate(cropped, draws.flip, draws.angle)
    return normalise(jitter_colours(turned, draws))


def flip_and_rotate(images: torch.Tensor, flip: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Mirror, then turn each image of `(B, 3, S, S)` in one bilinear resampling.

    What turns in from outside is black, as in torchvision's `RandomRotation`.
    """
    radians = send((angle * (math.pi / 180)).view(-1, 1, 1), images.device)
    mirror = send((1.0 - 2.0 * flip.float()).view(-1, 1, 1), images.device)
    cos, sin = torch.cos(radians), torch.sin(radians)
    # Where in the source each output pixel is read: turned back, then mirrored back. The centre of
    # the image is 0 and its edges are -1 and 1, as `grid_sample` counts.
    middles = (torch.arange(images.shape[-1], device=images.device) * 2 + 1) / images.shape[-1] - 1
    x, y = middles.view(1, 1, -1), middles.view(1, -1, 1)
    grid = torch.stack([mirror * (cos * x - sin * y), sin * x + cos * y], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def jitter_colours(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Brightness, contrast, saturation, hue, in this order; float images `(B, 3, H, W)` in 0..1.

    The formulas are those of torchvision's `adjust_brightness` and its siblings. torchvision
    shuffles the order of the four; here it is fixed, which changes the result very little.
    """

    def each(factor: torch.Tensor) -> torch.Tensor:
        return send(factor.view(-1, 1, 1, 1), images.device)

    def blend(ours: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return (ours * each(factor) + other * (1 - each(factor))).clamp(0, 1)

    images = (images * each(draws.brightness)).clamp(0, 1)
    images = blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), draws.contrast)
    images = blend(images, grey(images), draws.saturation)
    return shift_hue(images, send(draws.hue.view(-1, 1, 1), images.device))


def grey(images: torch.Tensor) -> torch.Tensor:
    """Luminance `(B, 1, H, W)` of RGB images, with the weights of ITU-R BT.601."""
    red, green, blue = images.unbind(dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def shift_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn the hue of RGB images `(B, 3, H, W)` in 0..1 by `turns` (1.0 is once around).

    The same as going to HSV and back (Smith 1978). Red lies at hue 0, green at 1/3, blue at 2/3.
    low: the smallest channel; chroma: the largest minus low. A colour lies
    `1 + (green + blue - red - low) / chroma` sixths of a turn away from red, towards green or blue.
    """
    red, green, blue = images.unbind(dim=1)
    low = images.amin(dim=1)
    chroma = images.amax(dim=1) - low
    # Grey has no hue; its chroma is 0, so any hue gives the same grey and only 0/0 is avoided.
    from_red = 1 + (green + blue - red - low) / chroma.clamp(min=1e-12)
    hue = torch.copysign(from_red, green - blue) / 6 + turns + 1  # in turns, never below 0
    # A channel is full up to a sixth of a turn from its own hue, and falls to 0 within the next.
    # (torch.where for the six parts of the circle reads like a textbook and costs 30 ms more a
    # batch on a CPU: 8 % of a step of Phase 1.)
    opposite = send(torch.tensor([0, 2 / 3, 1 / 3]).view(3, 1, 1), images.device)
    distance = ((hue.unsqueeze(1) + opposite).frac() * 6 - 3).abs()
    return low.unsqueeze(1) + chroma.unsqueeze(1) * (distance - 1).clamp(0, 1)


def eval_batch(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images `(B, 3, R, R)` -> normalised float32 `(B, 3, size, size)`, without augmentation.

    Images already at `size` (the val and test splits) are only normalised.
    """
    scaled = images.float() / 255
    if images.shape[-1] == size:
        return normalise(scaled)
    if images.device.type == "mps":  # torch 2.6 cannot shrink with antialiasing there
        scaled = scaled.cpu()
    smaller = F.interpolate(scaled, size=(size, size), mode="bilinear", antialias=True)
    return normalise(smaller.to(images.device))


def denormalise(images: torch.Tensor) -> torch.Tensor:
    """Undo `normalise` for showing: normalised float images -> uint8, same shape."""
    mean, std = _mean_and_std(images.device)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Views:
    """How the better recipes show a photograph; as it stands here, as the lesson does."""

    smallest_crop: float = 0.0  # any part from this share of it on, scaled to `size`; 0: as usual
    size: int | None = None  # pixels; None: the network's
    hue: float | None = None  # None: the config's


AS_THE_LESSON = Views()


def training_batches(
    data: FlowerData, device: Device, generator: torch.Generator, views: Views = AS_THE_LESSON
) -> Batches:
    """Yield the training photographs once: shuffled, freshly augmented, normalised.

    Float32 images `(B, 3, S, S)` and labels `(B,)`, on the device. `generator` (on the CPU) draws
    both the order and the augmentation.
    """
    resize, crop = data.resize_size, data.image_size
    batch_size = config.TRAINING_CONFIG["batch_size"]
    shuffled = batches(data.train, device, batch_size=batch_size, shuffle=True, generator=generator)
    for images, labels in shuffled:
        if views.smallest_crop:
            resize = crop = views.size or data.image_size
            images = crop_and_resize(images, crop, views.smallest_crop)
        pixels = {"resize": resize, "crop": crop}
        draws = draw_augmentation(len(images), generator, **pixels, hue=views.hue)
        yield device.place_batch(augment_batch(images, draws, crop=crop)), labels


def crop_and_resize(images: torch.Tensor, size: int, smallest: float) -> torch.Tensor:
    """uint8 images `(B, 3, R, R)` -> `(B, 3, size, size)`: of each another part, scaled to `size`.

    torchvision's RandomResizedCrop, image by image; it draws from torch's own generator.
    """
    crop = v2.RandomResizedCrop(size, scale=(smallest, 1.0), antialias=True)
    return torch.stack([crop(image) for image in images])


def evaluation_batches(split: Split, device: Device, *, image_size: int | None = None) -> Batches:
    """Yield each photograph of a split once, in order, normalised but not augmented.

    `image_size` in pixels is needed for the train split, which is stored larger than val and test.
    """
    for images, labels in batches(split, device, batch_size=config.TRAINING_CONFIG["batch_size"]):
        yield device.place_batch(eval_batch(images, image_size or images.shape[-1])), labels
