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
_INTEGERS = ("format_version", "num_classes", "image_size", "epoch")
_DICTS = ("normalization", "state_dict", "config", "data", "metrics", "versions")
KEYS = dict.fromkeys(_INTEGERS, int) | dict.fromkeys(_DICTS, dict)
KEYS |= {"architecture": str, "class_names": list}


def versions() -> dict[str, str]:
    """The versions of Python, torch and torchvision that made a result."""
    packages = {each.__name__: str(each.__version__) for each in (torch, torchvision)}
    return {"python": platform.python_version(), **packages}


def about(data: FlowerData) -> dict[str, str]:
    """What identifies a data set, as plain values."""
    return {"source": data.source, "title": data.title, "fingerprint": data.fingerprint}


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
        "state_dict": {key: _portable(tensor) for key, tensor in tensors.items()},
        "config": dict(config.TRAINING_CONFIG),
        "data": about(data),
        "epoch": epoch,
        "metrics": metrics,
        "versions": versions(),
        **extra,
    }


def _portable(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that every machine can open, and that further training does not change."""
    tensor = tensor.detach().to("cpu", copy=True).contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor


def save_checkpoint(
    path: str | os.PathLike, model: nn.Module, *, data: FlowerData, **content: Any
) -> None:
    """Write `make_checkpoint(model, data, **content)` to `path`: completely, or not at all.

    The weights are those in memory. An earlier file of the same phase may be older than they are,
    because training goes on when the disk is full.
    """
    save_tensors(path, make_checkpoint(model, data, **content))


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint of this lesson, checked; raises FlowersError that says what is wrong with it."""
    checkpoint = load_tensors(path)
    for key, kind in KEYS.items():
        if key not in checkpoint:
            raise FlowersError(f"'{path}' is not a checkpoint of this lesson: it lacks '{key}'.")
        if type(checkpoint[key]) is not kind:  # `isinstance` would take True for a number
            raise FlowersError(f"'{path}' is damaged: its '{key}' is not of type {kind.__name__}.")
    if checkpoint["format_version"] > FORMAT_VERSION:
        raise FlowersError(f"'{path}' was written by a newer version of this lesson; update it.")
    return checkpoint


def model_from_checkpoint(checkpoint: dict[str, Any]) -> nn.Module:
    """The network of a checkpoint on the CPU, in eval mode.

    Raises FlowersError for an unknown architecture, or for tensors that do not fit it.
    """
    name, classes = checkpoint["architecture"], checkpoint["num_classes"]
    if name not in BACKBONES:
        raise FlowersError(f"This lesson has no network '{name}', which this checkpoint is of.")
    model = build_model(name, num_classes=classes, weights=None)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FlowersError(
            f"The weights in this checkpoint do not fit a {name} with {classes} classes; it is "
            "damaged or from another network."
        ) from error
    return model.eval()
