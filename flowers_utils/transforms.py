"""From photograph to network input: torchvision's pipelines for one image, and a batched twin.

Training and evaluation use the twin (`training_batches`, `evaluation_batches`): torchvision's v2
transforms draw once for each call, so they would crop, rotate and colour all images of a batch alike.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.device import Device, send

Batches = Iterator[tuple[Tensor, Tensor]]
SIZES = config.AUGMENTATION
# How both pipelines end: a tensor of whole numbers, then of decimal ones from 0 to 1, normalised.
FINISH = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**config.NORMALIZATION)]


def train_transform(*, resize: int = SIZES["resize"], crop: int = SIZES["crop"]) -> v2.Compose:
    """Training pipeline: one PIL image -> augmented, normalised float tensor `(3, crop, crop)`."""
    a = config.AUGMENTATION
    return v2.Compose(
        [
            v2.Resize((resize, resize)),
            # Before the crop, so that most of the black corners of a rotation are cut off again.
            v2.RandomRotation(a["rotation"], interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomCrop(crop),
            v2.RandomHorizontalFlip(a["flip"]),
            v2.ColorJitter(a["brightness"], a["contrast"], a["saturation"], a["hue"]),
            *FINISH,
        ]
    )


def eval_transform(*, size: int = SIZES["crop"]) -> v2.Compose:
    """Evaluation pipeline: one PIL image -> normalised float tensor `(3, size, size)`.

    The complete photograph is squashed into the square, as in training (where it is then cropped).
    """
    # The crop changes nothing, since the image is already a square of this size.
    return v2.Compose([v2.Resize((size, size)), v2.CenterCrop(size), *FINISH])


def normalise(images: Tensor) -> Tensor:
    """Float images `(B, 3, H, W)` in 0..1 -> ImageNet's mean 0 and standard deviation 1."""
    return TF.normalize(images, **config.NORMALIZATION)


def denormalise(images: Tensor) -> Tensor:
    """Undo `normalise` for showing: normalised float images -> uint8, same shape."""
    mean, std = _mean_and_std(images.device)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _mean_and_std(device: torch.device) -> list[Tensor]:
    """ImageNet's, each of shape `(3, 1, 1)`."""
    pair = [config.NORMALIZATION["mean"], config.NORMALIZATION["std"]]
    return [send(torch.tensor(values).view(3, 1, 1), device) for values in pair]


def augment_batch(
    images: Tensor, generator: torch.Generator, *, crop: int, resize: int | None = None
) -> Tensor:
    """Images `(B, 3, R, R)` in 0..255 -> augmented, normalised float32 `(B, 3, crop, crop)`.

    The crop is taken as if the images had `resize` pixels (None: R, what they have).
    `generator` (on the CPU) draws for each image an angle, a position, a mirror image and colours.
    """
    a, count, full = config.AUGMENTATION, len(images), resize or images.shape[-1]

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    top, left = draw(0, 1 - crop / full), draw(0, 1 - crop / full)
    geometry = affine_matrices(
        angle=draw(-a["rotation"], a["rotation"]),
        flip=draw(0, 1) < a["flip"],
        box=torch.stack([left, top, torch.full((count,), crop / full)]),
    )
    colours = [draw(max(0, 1 - a[k]), 1 + a[k]) for k in ("brightness", "contrast", "saturation")]
    # One resampling and one matrix: each of torchvision's six steps would read all pixels again.
    shape = (count, 3, crop, crop)
    grid = F.affine_grid(send(geometry, images.device), shape, align_corners=False)
    views = F.grid_sample(images.float(), grid, align_corners=False)
    return colour_and_normalise(views, *colours, draw(-a["hue"], a["hue"]))


def affine_matrices(angle: Tensor, flip: Tensor, box: Tensor) -> Tensor:
    """Where each output pixel is read in the source, as `F.affine_grid` takes it: `(B, 2, 3)`.

    `angle` `(B,)` in degrees, counter-clockwise about the centre of the photograph; then the crop
    `box` `(3, B)`: left, top and side as proportions of the photograph; then mirrored where `flip`.
    Read backwards, from the output: mirror, scale and shift into the crop, rotate.
    """
    radians = angle * (math.pi / 180)
    cos, sin = torch.cos(radians), torch.sin(radians)
    left, top, side = box
    mirror, zero = 1 - 2 * flip.float(), torch.zeros_like(side)  # -1 where mirrored
    x = torch.stack([side * mirror, zero, 2 * left + side - 1])
    y = torch.stack([zero, side, 2 * top + side - 1])
    return torch.stack([cos * x - sin * y, sin * x + cos * y]).permute(2, 0, 1)


def colour_and_normalise(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Colour jitter and normalisation of float images `(B, 3, H, W)` in 0..255, in one matrix.

    The first three are factors `(B,)` around 1, in the order of torchvision's formulas
    (`adjust_brightness` and its siblings); `hue` `(B,)` in turns of the colour circle. It differs
    from torchvision in three ways: the order of the four is fixed, colours are clipped once at the
    end, and the hue turns about the grey axis, which keeps the mean of the three colours.
    """
    grey = torch.tensor([0.2989, 0.587, 0.114])  # how bright the colours appear (ITU-R BT.601)
    matrix = _hue_rotation(hue) @ (
        saturation.view(-1, 1, 1) * torch.eye(3) + (1 - saturation).view(-1, 1, 1) * grey
    )
    matrix = send((brightness * contrast).view(-1, 1, 1) * matrix / 255, images.device)
    # Contrast mixes each image with its mean grey. Saturation and hue leave a grey as it is, so
    # this part can be added after them.
    mean_grey = images.mean(dim=(2, 3)) @ send(grey / 255, images.device)
    offset = send((1 - contrast) * brightness, images.device) * mean_grey
    mean, std = (values.view(3, 1) for values in _mean_and_std(images.device))
    pixels = torch.baddbmm((offset.view(-1, 1, 1) - mean) / std, matrix / std, images.flatten(2))
    return pixels.clamp(-mean / std, (1 - mean) / std).view_as(images)  # 0 and 1, normalised


def _hue_rotation(turns: Tensor) -> Tensor:
    """Rotations `(B, 3, 3)` of red, green and blue about the axis of grey (Rodrigues' formula)."""
    angle = (2 * math.pi * turns).view(-1, 1, 1)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return torch.cos(angle) * torch.eye(3) + (1 - torch.cos(angle)) / 3 + torch.sin(angle) * cross


def shrink(images: Tensor, size: int) -> Tensor:
    """uint8 images `(B, 3, R, R)` -> float32 `(B, 3, size, size)` in 0..255, with antialiasing.

    Without antialiasing an image far smaller than its source would keep only some of its pixels.
    """
    if images.shape[-1] == size:
        return images.float()
    there = "cpu" if images.device.type == "mps" else images.device  # not on MPS in older torch
    return TF.resize(images.to(there).float(), [size, size]).to(images.device)


def eval_batch(images: Tensor, size: int) -> Tensor:
    """uint8 images `(B, 3, R, R)` -> normalised float32 `(B, 3, size, size)`, without augmentation."""
    return normalise(shrink(images, size) / 255)


def training_batches(data: FlowerData, device: Device, generator: torch.Generator) -> Batches:
    """Yield the training photographs once: shuffled, freshly augmented, normalised.

    Float32 images `(B, 3, S, S)` and labels `(B,)`, on the device. `generator` (on the CPU) draws
    both the order and the augmentation.
    """
    batch_size = config.TRAINING_CONFIG["batch_size"]
    shuffled = batches(data.train, device, batch_size=batch_size, shuffle=True, generator=generator)
    for images, labels in shuffled:
        views = augment_batch(images, generator, crop=data.crop_size, resize=data.resize_size)
        yield device.place_batch(views), labels


def evaluation_batches(split: Split, device: Device, *, image_size: int | None = None) -> Batches:
    """Yield each photograph of a split once, in order, normalised but not augmented.

    `image_size` in pixels is needed for the train split, which is stored larger than val and test.
    """
    for images, labels in batches(split, device, batch_size=config.TRAINING_CONFIG["batch_size"]):
        yield device.place_batch(eval_batch(images, image_size or images.shape[-1])), labels
