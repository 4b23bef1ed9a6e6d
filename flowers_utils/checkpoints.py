"""Checkpoints: what one holds, how it is made, checked, and turned back into a network."""

import os
import platform
from typing import Any

import torch
import torchvision
from torch import nn

import transfer_learning_config as config
from flowers_utils.errors import FlowersError
from flowers_utils.files import atomic_write, load_tensors, save_tensors
from flowers_utils.models import BACKBONES, build_model

__all__ = ["atomic_write"]  # also found here by its users

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


def plain_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors copied to the CPU, contiguous, floating ones as float32."""
    return {
        key: (value.float() if value.is_floating_point() else value)
        .detach()
        .to("cpu", copy=True)
        .contiguous()
        for key, value in model.state_dict().items()
    }


def make_checkpoint(
    model: nn.Module, data: Any, *, epoch: int, metrics: dict[str, float], **extra: Any
) -> dict[str, Any]:
    """Everything that is needed to use `model` later; `data` is a FlowerData."""
    return {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "normalization": {key: list(value) for key, value in config.NORMALIZATION.items()},
        "state_dict": plain_state_dict(model),
        "config": dict(config.TRAINING_CONFIG),
        "data": {"source": data.source, "title": data.title, "fingerprint": data.fingerprint},
        "epoch": epoch,
        "metrics": metrics,
        "versions": versions(),
        **extra,
    }


def save_checkpoint(path: str | os.PathLike, model: nn.Module, **kwargs: Any) -> None:
    """`make_checkpoint`, written atomically to `path`; takes `data`, `epoch` and `metrics`."""
    save_tensors(path, make_checkpoint(model, kwargs.pop("data"), **kwargs))


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint of this lesson, checked; raises FlowersError that says what is wrong with it."""
    checkpoint = load_tensors(path)
    for key, kind in KEYS.items():
        if key not in checkpoint:
            raise FlowersError(f"'{path}' is not a checkpoint of this lesson: it lacks '{key}'.")
        if not isinstance(checkpoint[key], kind) or isinstance(checkpoint[key], bool):
            raise FlowersError(f"'{path}' is damaged: its '{key}' is not what it should be.")
    if checkpoint["format_version"] > FORMAT_VERSION:
        raise FlowersError(f"'{path}' was written by a newer version of this lesson; update it.")
    if len(checkpoint["class_names"]) != checkpoint["num_classes"]:
        raise FlowersError(f"'{path}' names {len(checkpoint['class_names'])} classes, not the "
                           f"{checkpoint['num_classes']} that it says it has.")  # fmt: skip
    return checkpoint


def model_from_checkpoint(
    checkpoint: dict[str, Any], *, num_classes: int | None = None
) -> nn.Module:
    """The network of a checkpoint on the CPU, in eval mode.

    Raises FlowersError for an unknown architecture, tensors that do not fit it, or, if
    `num_classes` is given, another number of classes.
    """
    name, classes = checkpoint["architecture"], checkpoint["num_classes"]
    if name not in BACKBONES:
        raise FlowersError(f"This checkpoint is of a network this lesson does not know: '{name}'.")
    if num_classes is not None and classes != num_classes:
        raise FlowersError(
            f"This checkpoint knows {classes} classes, but the data has {num_classes}; it belongs "
            "to another data set. Train anew, or load that data set."
        )
    model = build_model(name, num_classes=classes, weights=None)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FlowersError(
            f"The weights in this checkpoint do not fit a {name} with {classes} classes; it is "
            "damaged or from another network."
        ) from error
    return model.eval()
