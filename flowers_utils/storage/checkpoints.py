"""Checkpoints: what one holds, how it is made, checked, and turned back into a network."""

import os
import platform
from typing import Any

import torch
import torchvision
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, build_model
from flowers_utils.storage.files import load_tensors, save_tensors

FORMAT_VERSION = 1
KEYS = {
    "format_version": int,
    "architecture": str,
    "num_classes": int,
    "class_names": list,
    "image_size": int,
    "normalization": dict,
    "state_dict": dict,
    "config": dict,
    "data": dict,
    "epoch": int,
    "metrics": dict,
    "versions": dict,
}


def versions() -> dict[str, str]:
    """The versions that made a result."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }


def make_checkpoint(
    model: nn.Module, data: FlowerData, *, epoch: int, metrics: dict[str, float], **extra: Any
) -> dict[str, Any]:
    """Everything that is needed to use `model` later.

    The tensors are copied to the CPU, contiguous, floating ones as float32. Those in `weights`, if
    it is given, take the place of the model's. All else in `extra` is added as it is.
    """
    tensors = {**model.state_dict(), **extra.pop("weights", {})}
    return {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "normalization": {key: list(value) for key, value in config.NORMALIZATION.items()},
        "state_dict": {key: _plain(tensor) for key, tensor in tensors.items()},
        "config": dict(config.TRAINING_CONFIG),
        "data": {"source": data.source, "title": data.title, "fingerprint": data.fingerprint},
        "epoch": epoch,
        "metrics": metrics,
        "versions": versions(),
        **extra,
    }


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().to("cpu", copy=True).contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor


def save_checkpoint(
    path: str | os.PathLike, model: nn.Module, *, data: FlowerData, **content: Any
) -> None:
    """Write `make_checkpoint(model, data, **content)` to `path`: whole or not at all."""
    save_tensors(path, make_checkpoint(model, data, **content))


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint of this lesson, checked; raises FlowersError that says what is wrong with it."""
    checkpoint = load_tensors(path)
    for key, kind in KEYS.items():
        if key not in checkpoint:
            raise FlowersError(f"'{path}' is not a checkpoint of this lesson: it lacks '{key}'.")
        if type(checkpoint[key]) is not kind:
            raise FlowersError(f"'{path}' is damaged: its '{key}' is not what it should be.")
    if checkpoint["format_version"] > FORMAT_VERSION:
        raise FlowersError(f"'{path}' was written by a newer version of this lesson; update it.")
    return checkpoint


def model_from_checkpoint(checkpoint: dict[str, Any]) -> nn.Module:
    """The network of a checkpoint on the CPU, in eval mode.

    Raises FlowersError for an unknown architecture, or tensors that do not fit it.
    """
    name, classes = checkpoint["architecture"], checkpoint["num_classes"]
    if name not in BACKBONES:
        raise FlowersError(f"This checkpoint is of a network this lesson does not know: '{name}'.")
    model = build_model(name, num_classes=classes, weights=None)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FlowersError(
            f"The weights in this checkpoint do not fit a {name} with {classes} classes; it is "
            "damaged or from another network."
        ) from error
    return model.eval()
