"""Checkpoints: what one holds, how it is made, checked, and turned back into a network."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

import transfer_learning_config as config
from flowers_utils.config_check import check
from flowers_utils.data import FlowerData
from flowers_utils.models import build_model
from flowers_utils.storage.files import load_tensors, save_tensors

FORMAT_VERSION = 1


def versions() -> dict[str, str]:
    """The versions of torch and torchvision that made a result."""
    return {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}


def about(data: FlowerData) -> dict[str, str]:
    """What identifies a data set, as plain values."""
    return {"source": data.source, "title": data.title, "fingerprint": data.fingerprint}


def make_checkpoint(
    model: nn.Module, data: FlowerData, *, epoch: int, metrics: dict[str, float], **extra: Any
) -> dict[str, Any]:
    """Everything that is needed to use `model` later, and `extra`: tensors and plain values.

    The tensors are copied to the CPU, floating ones as float32: every machine can open them.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        weights[name] = tensor.to("cpu", dtype, copy=True).contiguous()  # training changes its own
    return {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "normalization": {key: list(value) for key, value in config.NORMALIZATION.items()},
        "state_dict": weights,
        "config": dict(config.TRAINING_CONFIG),
        "data": about(data),
        "epoch": epoch,
        "metrics": metrics,
        "versions": versions(),
        **extra,
    }


def save_checkpoint(path: Path, model: nn.Module, *, data: FlowerData, **content: Any) -> None:
    """Write `make_checkpoint(model, data, **content)` to `path`: completely, or not at all."""
    save_tensors(path, make_checkpoint(model, data, **content))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this lesson, on the CPU; raises FlowersError if the file is none."""
    checkpoint = load_tensors(path)
    told = f"'{path}' is no checkpoint of this lesson, or of another version of it; train again."
    check(checkpoint.get("format_version") == FORMAT_VERSION, told)
    return checkpoint


def model_from_checkpoint(checkpoint: dict[str, Any]) -> nn.Module:
    """The network of a checkpoint, on the CPU and in eval mode."""
    classes = checkpoint["num_classes"]
    model = build_model(checkpoint["architecture"], num_classes=classes, weights=None)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()
