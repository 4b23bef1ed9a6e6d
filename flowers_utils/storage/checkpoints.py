"""Checkpoints: what one holds, how it is made, checked, and turned back into a network."""

import os
import platform
from typing import Any

import torch
import torchvision
from torch import nn

import transfer_learning_config as config
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, build_model
from flowers_utils.storage.files import atomic_write, load_tensors, save_tensors

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
DTYPES = (torch.float32, torch.int64)  # what `plain_state_dict` makes of a network


def versions() -> dict[str, str]:
    """The versions that made a result."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }


def plain_state_dict(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors copied to the CPU, contiguous, floating ones as float32."""
    return {
        key: (value.float() if value.is_floating_point() else value)
        .detach()
        .to("cpu", copy=True)
        .contiguous()
        for key, value in tensors.items()
    }


def make_checkpoint(
    model: nn.Module,
    data: Any,
    *,
    epoch: int,
    metrics: dict[str, float],
    weights: dict[str, torch.Tensor] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Everything that is needed to use `model` later; `data` is a FlowerData.

    Tensors in `weights` take the place of those of `model` with the same names.
    """
    return {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "normalization": {key: list(value) for key, value in config.NORMALIZATION.items()},
        "state_dict": plain_state_dict({**model.state_dict(), **(weights or {})}),
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
    for key, holds in _values_hold(checkpoint).items():
        if not holds:
            raise FlowersError(f"'{path}' is damaged: its '{key}' is not what it should be.")
    return checkpoint


def _values_hold(checkpoint: dict[str, Any]) -> dict[str, bool]:
    """For each key whose values can be wrong although their type is right: whether they are not."""
    normalization, tensors = checkpoint["normalization"], checkpoint["state_dict"]
    return {
        "format_version": checkpoint["format_version"] > 0,
        "class_names": all(isinstance(name, str) for name in checkpoint["class_names"]),
        "num_classes": checkpoint["num_classes"] >= 2,
        "image_size": 8 <= checkpoint["image_size"] <= 2048,
        "normalization": all(
            _three_numbers(normalization.get(key), low) for key, low in (("mean", 0), ("std", 1e-3))
        ),
        "state_dict": all(
            isinstance(key, str) and _plain_tensor(tensor, low=0 if "running_var" in key else None)
            for key, tensor in tensors.items()
        ),
        "data": all(
            isinstance(checkpoint["data"].get(key), str)
            for key in ("source", "title", "fingerprint")
        ),
        "epoch": checkpoint["epoch"] >= 0,
        "metrics": all(isinstance(key, str) for key in checkpoint["metrics"]),
        "temperature": _is_number(checkpoint.get("temperature", 1.0), 1e-3, 1e3),
    }


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # false for nan too


def _three_numbers(values: Any, low: float) -> bool:
    listed = isinstance(values, (list, tuple)) and len(values) == 3
    return listed and all(_is_number(value, low, 1.0) for value in values)


def _plain_tensor(value: Any, *, low: float | None = None) -> bool:
    """Whether `value` is an ordinary tensor on the CPU without nan, infinity or values below `low`.

    It must hold as many numbers as its shape says: one number can pose as a tensor of any size.
    """
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.dtype in DTYPES
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
        and bool(torch.isfinite(value).all())
        and (low is None or bool((value >= low).all()))
    )


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
    unfit = (
        f"The weights in this checkpoint do not fit a {name} with {classes} classes; it is "
        "damaged or from another network."
    )
    # The size is looked at first: a wrong number of classes could ask for endless memory.
    if all(value.shape[:1] != (classes,) for value in checkpoint["state_dict"].values()):
        raise FlowersError(unfit)
    model = build_model(name, num_classes=classes, weights=None)
    if checkpoint["state_dict"].keys() != model.state_dict().keys():
        raise FlowersError(unfit)  # torch itself lets a missing count of batches pass
    try:
        model.load_state_dict(dict(checkpoint["state_dict"]))  # without what may hang on it
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FlowersError(unfit) from error
    return model.eval()
