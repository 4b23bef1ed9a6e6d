"""The flowers as the lesson uses them: three splits in memory-mapped arrays, and batches of them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from flowers_utils.device import Device, send
from flowers_utils.errors import FlowersError


@dataclass(frozen=True)
class Split:
    """Photographs and labels of one split: `images` uint8 `(N, 3, S, S)`, `labels` int64 `(N,)`."""

    name: str
    images: np.ndarray | torch.Tensor  # a tensor only where `on_card` has put it
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> "Split":
        """The photographs at `indices`, in that order."""
        chosen = np.asarray(indices)
        return Split(self.name, self.images[chosen], self.labels[torch.as_tensor(chosen)])


@dataclass(frozen=True)
class FlowerData:
    """One data set: training photographs at `resize_size`, val and test at `image_size` pixels."""

    source: str  # "flowers102", "practice" or "folder"
    title: str  # stands in every figure title and table
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    resize_size: int
    image_size: int
    note: str = ""  # what the student must know about how this data was chosen
    left_out: Mapping[str, str] = field(default_factory=dict)  # split -> what was not used, and why
    photo_side: int | None = None  # shorter side in pixels of the photographs as they lie on the disk

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def is_practice(self) -> bool:
        return self.source == "practice"

    @property
    def fingerprint(self) -> str:
        """A short hash of what the data is: names, sizes, labels, and some pixels of each photograph."""
        digest = hashlib.sha256(repr((self.source, self.class_names, self.image_size)).encode())
        for split in (self.train, self.val, self.test):
            digest.update(repr(split.images.shape).encode())
            digest.update(split.labels.numpy().tobytes())
            middle = split.images.shape[-1] // 2  # a row of every photograph
            digest.update(np.ascontiguousarray(split.images[:, :, middle]).tobytes())
        return digest.hexdigest()[:16]


def check_split(split: Split, num_classes: int) -> None:
    """Raise FlowersError for an empty split, odd shapes or types, or labels out of range."""
    images, labels = split.images, split.labels
    if not isinstance(images, np.ndarray) or not isinstance(labels, torch.Tensor):
        raise FlowersError(
            f"The {split.name} split must hold a numpy array of images and a tensor of labels, but "
            f"holds a {type(images).__name__} and a {type(labels).__name__}."
        )
    if len(images) == 0 or labels.numel() == 0:
        raise FlowersError(f"The {split.name} split is empty; put photographs into it.")
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise FlowersError(
            f"The {split.name} images have shape {images.shape}, not (N, 3, size, size)."
        )
    if images.dtype != np.uint8 or labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise FlowersError(
            f"The {split.name} split must hold uint8 images and as many int64 labels, but holds "
            f"{len(images)} of {images.dtype} and {tuple(labels.shape)} of {labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise FlowersError(
            f"Labels of the {split.name} split run from {labels.min()} to {labels.max()}, but for "
            f"{num_classes} classes they must lie in 0 to {num_classes - 1}."
        )


def check_data(data: FlowerData) -> None:
    """Raise FlowersError for data that this lesson would stumble over, now or after training."""
    for split in (data.train, data.val, data.test):
        check_split(split, data.num_classes)
    if len(data.train) < 2:
        raise FlowersError("Training needs at least two photographs; add some to the train split.")
    side = data.train.images.shape[-1]
    if side != data.resize_size or side < data.image_size:
        raise FlowersError(
            f"The train images are {side} pixels wide, but must have {data.resize_size} (resize) "
            f"and at least {data.image_size} (crop); load the data again."
        )


class _WholeBatches(Dataset):
    """Indexed by a list of indices, it returns the whole batch in one piece."""

    def __init__(self, images: np.ndarray | torch.Tensor, labels: torch.Tensor):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(self.images, np.ndarray):
            return torch.from_numpy(self.images[indices]), self.labels[indices]
        chosen = send(torch.tensor(indices), self.images.device)
        return self.images[chosen], self.labels[chosen]


def on_card(split: Split, device: Device) -> Split:
    """The split with its images in the memory of a CUDA card, so that batches need no copying.

    The split itself where there is no such card, or where it would fill over a quarter of what is
    free there.
    """
    target = device.torch_device
    if target.type != "cuda" or 4 * split.images.nbytes > torch.cuda.mem_get_info(target)[0]:
        return split
    images = torch.tensor(split.images).to(target)
    return Split(split.name, images, split.labels.to(target))


class Batches:
    """An iterable of (images, labels) on the device; has a length. See `batches`."""

    def __init__(self, loader: DataLoader, device: Device):
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        target = self.device.torch_device
        for images, labels in self.loader:
            yield send(images, target), send(labels, target)


def batches(
    split: Split,
    *,
    batch_size: int,
    device: Device,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Batches:
    """Batches of uint8 images `(B, 3, S, S)` and labels `(B,)`, on the device.

    There are no worker processes: they hang or crash in notebooks on Windows and macOS, and with
    decoding done once nothing is left for them to do. A shuffled (training) pass leaves a last
    batch of a single image out, since BatchNorm cannot train on one.
    """
    waits_on_cpu = isinstance(split.images, np.ndarray)  # see `on_card`
    sampler = RandomSampler(split, generator=generator) if shuffle else SequentialSampler(split)
    lonely = shuffle and len(split) > batch_size and len(split) % batch_size == 1
    loader = DataLoader(
        _WholeBatches(split.images, split.labels),
        sampler=BatchSampler(sampler, batch_size, drop_last=lonely),
        batch_size=None,
        pin_memory=waits_on_cpu and device.torch_device.type == "cuda",
    )
    return Batches(loader, device)
