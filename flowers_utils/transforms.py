"""From photographs to network input: augmentation and normalisation of a batch.

torchvision's pipeline (section 4 of the notebook) draws once for each call, so it would crop, turn and
colour all images of a batch alike; here each has its own draw.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.device import Device, send

Batches = Iterator[tuple[Tensor, Tensor]]
# ImageNet's mean and standard deviation of each colour.
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in config.NORMALIZATION.values())


def eval_batch(images: Tensor, size: int) -> Tensor:
    """uint8 images `(B, 3, R, R)` -> normalised float32 `(B, 3, size, size)`, without augmentation."""
    # With antialiasing (torchvision's default): a far smaller image would lose most pixels otherwise.
    resized = TF.resize(images.float(), [size, size])
    return TF.normalize(resized / 255, **config.NORMALIZATION)


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

    top, left = draw(0, 1 - crop / full), draw(0, 1 - crop / full)  # proportions of the side
    geometry = affine_matrices(
        angle=draw(-a["rotation"], a["rotation"]),
        flip=draw(0, 1) < a["flip"],
        box=torch.stack([left, top, torch.full((count,), crop / full)]),
    )
    colours = [draw(max(0, 1 - a[k]), 1 + a[k]) for k in ("brightness", "contrast", "saturation")]
    # One resampling and one matrix: each of torchvision's six steps would read all pixels again.
    grid = F.affine_grid(send(geometry, images.device), (count, 3, crop, crop), align_corners=False)
    views = F.grid_sample(images.float(), grid, align_corners=False)
    return colour_and_normalise(views, *colours, draw(-a["hue"], a["hue"]))


def affine_matrices(angle: Tensor, flip: Tensor, box: Tensor) -> Tensor:
    """Where each output pixel is read in the source, as `F.affine_grid` takes it: `(B, 2, 3)`.

    The photograph is rotated about its centre by `angle` `(B,)`, in degrees, counter-clockwise; cut to
    `box` `(3, B)`: left, top and side as proportions of it; and mirrored where `flip`.
    """
    radians = angle * (math.pi / 180)
    cos, sin = torch.cos(radians), torch.sin(radians)
    left, top, side = box
    mirror, zero = 1 - 2 * flip.float(), torch.zeros_like(side)  # -1 where mirrored
    # From the output back to the source: mirror, scale and shift into the crop, then rotate.
    x = torch.stack([side * mirror, zero, 2 * left + side - 1])  # a picture reaches from -1 to 1
    y = torch.stack([zero, side, 2 * top + side - 1])
    return torch.stack([cos * x - sin * y, sin * x + cos * y]).permute(2, 0, 1)


def colour_and_normalise(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Colour jitter and normalisation of float images `(B, 3, H, W)` in 0..255, in one matrix.

    The first three are factors `(B,)` around 1, as in torchvision; `hue` `(B,)` is in turns of the
    colour circle. Other than in torchvision, the order of the four is fixed, colours are clipped once
    at the end, and the hue turns about the grey axis, which keeps the mean of the three colours.
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
    mean, std = (send(values.view(3, 1), images.device) for values in (MEAN, STD))
    pixels = torch.baddbmm((offset.view(-1, 1, 1) - mean) / std, matrix / std, images.flatten(2))
    return pixels.clamp(-mean / std, (1 - mean) / std).view_as(images)  # 0 and 1, normalised


def _hue_rotation(turns: Tensor) -> Tensor:
    """Rotations `(B, 3, 3)` of red, green and blue about the axis of grey (Rodrigues' formula)."""
    angle = (2 * math.pi * turns).view(-1, 1, 1)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return torch.cos(angle) * torch.eye(3) + (1 - torch.cos(angle)) / 3 + torch.sin(angle) * cross


def training_batches(data: FlowerData, device: Device, generator: torch.Generator) -> Batches:
    """Yield the training photographs once: shuffled, freshly augmented, normalised.

    Float32 images `(B, 3, S, S)` and labels `(B,)`, on the device. `generator` (on the CPU) draws
    both the order and the augmentation.
    """
    size, crop = config.TRAINING_CONFIG["batch_size"], data.crop_size or data.image_size
    for images, labels in batches(data.train, device, batch_size=size, generator=generator):
        views = augment_batch(images, generator, crop=crop, resize=data.resize_size)
        yield device.place_batch(views), labels


def evaluation_batches(split: Split, device: Device, *, image_size: int | None = None) -> Batches:
    """Yield each photograph of a split once, in order, normalised but not augmented.

    `image_size` in pixels is needed for the train split, which is stored larger than val and test.
    """
    for images, labels in batches(split, device, batch_size=config.TRAINING_CONFIG["batch_size"]):
        yield device.place_batch(eval_batch(images, image_size or images.shape[-1])), labels
