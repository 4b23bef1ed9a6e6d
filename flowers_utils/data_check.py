"""The rules for data and network: what would fail in training is told before it starts."""

import numpy as np
import torch
from torch import nn

from flowers_utils.data import FlowerData, Split
from flowers_utils.errors import FlowersError
from flowers_utils.models import head_of


def check_data(data: FlowerData) -> None:
    """Raise FlowersError for data on which the lesson would fail, now or after training."""
    for split in (data.train, data.val, data.test):
        _check_split(split, data.num_classes)
    if len(data.train) < 2:
        raise FlowersError("Training needs at least two photographs; add some to the train split.")
    side = data.train.images.shape[-1]
    if side != data.resize_size or side < data.image_size:
        raise FlowersError(
            f"The train images are {side} pixels wide, but must have {data.resize_size} (resize) "
            f"and at least {data.image_size} (crop); load the data again."
        )


def _check_split(split: Split, num_classes: int) -> None:
    """Empty splits, odd shapes or types, labels out of range: each in one sentence."""
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


def check_head(model: nn.Module, num_classes: int) -> None:
    """Raise FlowersError for a network of other origin, or with another number of outputs."""
    if not hasattr(model, "architecture"):
        raise FlowersError("This network is not one of the lesson's; make it with build_model().")
    outputs = head_of(model).out_features
    if outputs != num_classes:
        raise FlowersError(
            f"The network's head has {outputs} outputs, but the data has {num_classes} classes; "
            "build the network for this data again."
        )
