"""From a checkpoint and a photograph to the names of flowers, with calibrated probabilities.

A student's own photograph takes the same way as the photographs of the evaluation: upright RGB,
squashed to the network's size, normalised, through the network, divided by the temperature, softmax.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as F

import transfer_learning_config as config
from flowers_utils.datasets.photos import open_photo, to_rgb
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import load_checkpoint, model_from_checkpoint

BATCH = 32


def as_photo(photograph: Any) -> Image.Image:
    """Any kind of photograph (see `Predictor.__call__`) as an upright 8-bit RGB image.

    Raises FlowersError, in one sentence, for what is no photograph.
    """
    if isinstance(photograph, (str, os.PathLike)):
        return open_photo(photograph)
    if isinstance(photograph, Image.Image):
        return _from_pil(photograph)
    if isinstance(photograph, torch.Tensor):
        tensor = photograph.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        return _from_array((tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy())
    if isinstance(photograph, np.ndarray):
        return _from_array(photograph)
    kind = type(photograph).__name__
    raise FlowersError(
        f"A {kind} is no photograph: give a path, a PIL image, an array or a tensor."
    )


def _from_pil(image: Image.Image) -> Image.Image:
    try:
        return to_rgb(image)
    except Exception as error:  # PIL reads the file only now, and a damaged one raises anything
        raise FlowersError(
            f"This PIL image cannot be read ({error}); its file may be damaged, or closed already."
        ) from error


def _from_array(array: np.ndarray) -> Image.Image:
    """`(H, W)`, `(H, W, 1)` or `(H, W, 3)`; uint8, uint16 or float from 0 to 1."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] != 3):
        raise FlowersError(
            f"Something of shape {array.shape} is no photograph: "
            "give an array (H, W, 3) or (H, W), or a tensor (3, H, W)."
        )
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        if not (low >= 0 and high <= 1):  # also false for nan
            raise FlowersError(
                "Pixels given as floats must lie between 0 and 1: "
                "give the photograph as it was before it was normalised."
            )
        array = np.rint(array * 255)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257)
    elif low < 0 or high > 255:
        raise FlowersError(
            "Pixels given as whole numbers must lie between 0 and 255: rescale them."
        )
    return Image.fromarray(array.astype(np.uint8)).convert("RGB")


class Prediction(NamedTuple):
    """One name with its probability (0 to 1)."""

    name: str
    probability: float


class Deployable(nn.Module):
    """uint8 images `(B, 3, S, S)` to probabilities `(B, classes)`: what an application needs.

    Normalisation, network and temperature in one module, so that none of them can be forgotten.
    """

    def __init__(
        self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float], temperature: float
    ):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = (images.float() / 255 - self.mean) / self.std
        return torch.softmax(self.network(normalised) / self.temperature, dim=1)


def deployable_from_checkpoint(checkpoint: dict[str, Any]) -> Deployable:
    """The checkpoint's network with its own normalisation and temperature (1 if it has none).

    In eval mode, float32, on the CPU.
    """
    normalization = checkpoint["normalization"]
    return Deployable(
        model_from_checkpoint(checkpoint),
        mean=normalization["mean"],
        std=normalization["std"],
        temperature=checkpoint.get("temperature", 1.0),
    ).eval()


class Predictor:
    """Names for photographs. `Predictor.from_checkpoint("models/resnet18_final.pth")("photo.jpg")`."""

    def __init__(self, checkpoint: dict[str, Any]):
        self.class_names = tuple(checkpoint["class_names"])
        self.image_size = int(checkpoint["image_size"])
        self.data_title = checkpoint["data"]["title"]
        self.module = deployable_from_checkpoint(checkpoint)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> Predictor:
        """Raises FlowersError if there is no such checkpoint or it cannot be used."""
        return cls(load_checkpoint(path))

    def prepare(self, photograph: Any) -> torch.Tensor:
        """One photograph of any kind as the network takes it: uint8 `(3, S, S)`."""
        size = [self.image_size, self.image_size]
        return F.pil_to_tensor(F.resize(as_photo(photograph), size))

    def probabilities(self, photographs: Sequence[Any]) -> torch.Tensor:
        """Calibrated probabilities `(N, classes)` of `N` photographs."""
        parts = [torch.empty(0, len(self.class_names))]
        for start in range(0, len(photographs), BATCH):
            chunk = torch.stack([self.prepare(p) for p in photographs[start : start + BATCH]])
            with torch.inference_mode():
                parts.append(self.module(chunk))
        return torch.cat(parts)

    def __call__(self, photographs: Any, *, top_k: int = 5) -> Any:
        """The `top_k` likeliest names: `list[Prediction]` for one photograph, a list of those for many.

        A photograph is a path, a PIL image, an array `(H, W)` or `(H, W, 3)` or a tensor `(3, H, W)`,
        uint8 or float from 0 to 1. Many: a list or tuple of these, or an array or tensor with one
        axis more in front. Raises FlowersError for what is no photograph.
        """
        if top_k < 1:
            raise FlowersError(f"top_k must be at least 1, but it is {top_k}.")
        batched = isinstance(photographs, (np.ndarray, torch.Tensor)) and photographs.ndim == 4
        many = batched or isinstance(photographs, (list, tuple))
        top = self.probabilities(list(photographs) if many else [photographs]).topk(
            min(top_k, len(self.class_names)), dim=1
        )
        named = [
            [Prediction(self.class_names[i], p) for i, p in zip(indices, values, strict=True)]
            for indices, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        return named if many else named[0]


def default_checkpoint() -> Path:
    """Where a run of the lesson leaves the model to deploy."""
    return Path(config.PATHS["models"]) / f"{config.BACKBONE}_final.pth"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowers_utils predict", description="Name the flowers on photographs."
    )
    parser.add_argument("photographs", nargs="+", metavar="photo.jpg")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    parser.add_argument("--top", type=int, default=5, help="how many names (default: 5)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


def _as_table(results: list[dict[str, Any]]) -> str:
    lines: list[str] = []
    for result in results:
        lines.append(result["photograph"])
        if "error" in result:
            continue
        width = max(len(row["name"]) for row in result["predictions"])
        lines += [f"  {r['name']:<{width}}  {r['probability']:6.1%}" for r in result["predictions"]]
    return "\n".join(lines)


def predict_command(argv: Sequence[str]) -> int:
    """`python -m flowers_utils predict photo.jpg [more.jpg] [--checkpoint C] [--top 5] [--json]`.

    Writes a table or JSON to standard output, and one sentence for each photograph that cannot be
    used to standard error; the others are still named. Returns 0, or 1 if anything failed.
    """
    arguments = _parser().parse_args(argv)
    results: list[dict[str, Any]] = []
    try:
        predictor = Predictor.from_checkpoint(arguments.checkpoint)
    except FlowersError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for path in arguments.photographs:
        result: dict[str, Any] = {"photograph": path}
        try:
            predictions = predictor(path, top_k=arguments.top)
            result["predictions"] = [row._asdict() for row in predictions]
        except FlowersError as error:
            result["error"] = str(error)
            sys.stderr.write(f"{error}\n")
        results.append(result)
    header = {"checkpoint": str(arguments.checkpoint), "trained_on": predictor.data_title}
    if arguments.json:
        text = json.dumps({**header, "results": results}, indent=2, ensure_ascii=False)
    else:
        text = f"Model trained on {predictor.data_title}\n\n{_as_table(results)}"
    sys.stdout.write(text + "\n")
    return int(any("error" in result for result in results))
