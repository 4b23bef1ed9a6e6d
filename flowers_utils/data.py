"""The flowers as the lesson uses them: three splits in memory-mapped arrays, and batches of them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from flowers_utils.config_check import check
from flowers_utils.device import Device, send


@dataclass(frozen=True)
class Split:
    """Photographs and labels of one split."""

    name: str
    images: np.ndarray  # uint8 (N, 3, S, S): decoded once, then a file that is mapped into memory
    labels: torch.Tensor  # int64 (N,), counted from 0

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> "Split":
        """The photographs at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=int)
        return Split(self.name, self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class FlowerData:
    """One data set: photographs of three splits as squares, and the sizes of these in pixels."""

    source: str  # "flowers102", "practice" or "folder"
    title: str  # in every figure title and table
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    resize_size: int  # a photograph in training, before the crop; `train` may be stored larger
    image_size: int  # what enters the network in evaluation and in use; val and test are stored so
    crop_size: int = 0  # what enters the network in training; 0: as in use
    note: str = ""  # what the student must know about how this data was chosen
    left_out: Mapping[str, str] = field(default_factory=dict)  # split -> what was not used, and why
    photo_side: int | None = None  # shorter side of the photographs on the disk, in pixels
    files: Mapping[str, tuple[list[Path], list[int]]] = field(default_factory=dict)  # and labels

    @property
    def root(self) -> Path:
        """The folder that torchvision's `Flowers102` reads, or `ImageFolder` below its split."""
        return self.files["train"][0][0].parents[2]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def is_practice(self) -> bool:
        return self.source == "practice"

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of class names, labels and all pixels, computed once (about a second)."""
        digest = hashlib.sha256(repr((self.source, self.class_names, self.image_size)).encode())
        for split in (self.train, self.val, self.test):
            digest.update(split.labels.numpy().tobytes())
            digest.update(np.ascontiguousarray(split.images))
        return digest.hexdigest()[:16]


def batches(
    split: Split, device: Device, *, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield uint8 images `(B, 3, S, S)` and labels `(B,)` on the device, each photograph once.

    In their order, or shuffled if a `generator` draws one. This is what a `DataLoader` does, without
    its worker processes: they hang or crash in notebooks on Windows and macOS, and once photographs
    are decoded nothing is left for them to do.
    """
    count, shuffle = len(split), generator is not None
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    for chosen in order.split(batch_size):
        if shuffle and count > 1 and len(chosen) == 1:
            break  # BatchNorm's statistics of a single photograph are poor, or impossible
        images = torch.from_numpy(split.images[chosen.numpy()])
        if device.torch_device.type == "cuda":
            images = images.pin_memory()  # only then does the program go on during the copy
        yield send(images, device.torch_device), send(split.labels[chosen], device.torch_device)


def check_data(data: FlowerData) -> None:
    """Raise FlowersError for data on which training would fail."""
    for split in (data.train, data.val, data.test):
        images, labels, told = split.images, split.labels, f"The {split.name} split must hold"
        square = images.shape == (len(labels), 3, images.shape[-1], images.shape[-1])
        told_images = f"{told} uint8 photographs (N, 3, size, size) and as many labels."
        check(images.dtype == np.uint8 and square, told_images)
        known = len(labels) > 0 and labels.min() >= 0 and labels.max() < data.num_classes
        check(known, f"{told} photographs with labels from 0 to {data.num_classes - 1}.")
    check(len(data.train.labels.unique()) > 1, "Train needs photographs of at least two classes.")
