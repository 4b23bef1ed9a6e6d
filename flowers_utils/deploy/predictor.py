"""From a checkpoint and a photograph to the names of flowers, with calibrated probabilities.

A student's own photograph takes the same way as the photographs of the evaluation: upright RGB,
squashed to the network's size, normalised, through the network, divided by the temperature, softmax.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as F

import transfer_learning_config as config
from flowers_utils.datasets.photos import PHOTO, kind_of, open_photo, to_rgb
from flowers_utils.errors import FlowersError
from flowers_utils.progress import progress_style, say
from flowers_utils.storage.checkpoints import load_checkpoint, model_from_checkpoint


def as_photo(photograph: Any) -> Image.Image:
    """Any kind of photograph (see `Predictor.__call__`) as an upright 8-bit RGB image.

    Raises FlowersError, in one sentence, for what is no photograph.
    """
    if isinstance(photograph, (str, os.PathLike)):
        return open_photo(photograph)
    try:
        if isinstance(photograph, (np.ndarray, torch.Tensor)):
            photograph = _from_pixels(photograph)
        return to_rgb(photograph)
    except (OSError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise FlowersError(
            f"This is no photograph that can be used ({error}). Give a path, a PIL image, an array "
            "(H, W, 3) or a tensor (3, H, W), uint8 or floats from 0 to 1."
        ) from error


def _from_pixels(pixels: np.ndarray | torch.Tensor) -> Image.Image:
    values = pixels.numpy(force=True) if isinstance(pixels, torch.Tensor) else pixels
    if values.dtype.kind == "f" and not 0 <= values.min() <= values.max() <= 1:
        raise ValueError("its pixels do not lie between 0 and 1; perhaps they are normalised")
    return F.to_pil_image(pixels)


def photo_picker() -> Any:
    """Show an upload button and return it, for `photo_from`; None where nobody could press it."""
    if progress_style() != "widget":
        return None
    from IPython.display import display  # both come with Jupyter, and only a notebook has a page
    from ipywidgets import FileUpload

    button = FileUpload(accept="image/*", description="Your photo")
    display(button)
    return button


def photo_from(button: Any, path: str | os.PathLike | None = None) -> Image.Image | None:
    """The photograph uploaded with the button of `photo_picker`, else the one at `path`, else None."""
    if button is None or not button.value:
        return None if path is None else open_photo(path)
    upload = button.value[-1]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(upload["name"]).name  # its own name, for the error's sentence
        copy.write_bytes(upload["content"])
        return open_photo(copy)


class Prediction(NamedTuple):
    """One name with its probability (0 to 1), and the number of its class."""

    name: str
    probability: float
    number: int


class Deployable(nn.Module):
    """uint8 images `(B, 3, S, S)` to probabilities `(B, classes)`: what an application needs.

    A checkpoint's network, its normalisation and its temperature (1 if it has none) in one module,
    so that none of them can be forgotten; in eval mode, float32, on the CPU.
    """

    def __init__(self, checkpoint: dict[str, Any]):
        super().__init__()
        self.network = model_from_checkpoint(checkpoint)
        for name in ("mean", "std"):
            values = torch.tensor(checkpoint["normalization"][name])
            self.register_buffer(name, values.view(1, 3, 1, 1))
        self.temperature = float(checkpoint.get("temperature", 1.0))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = (images.float() / 255 - self.mean) / self.std
        return torch.softmax(self.network(normalised) / self.temperature, dim=1)


class Predictor:
    """Names for photographs. `Predictor.from_checkpoint("models/resnet18_final.pth")("photo.jpg")`."""

    def __init__(self, checkpoint: dict[str, Any]):
        self.class_names = tuple(checkpoint["class_names"])
        self.image_size = int(checkpoint["image_size"])
        self.data_title = checkpoint["data"]["title"]
        self.module = Deployable(checkpoint)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike) -> "Predictor":
        """Raises FlowersError if there is no such checkpoint or it cannot be used."""
        path = Path(path)
        if path.suffix in (".onnx", ".pt2") or kind_of(path) == PHOTO:
            raise FlowersError(  # before a sound file is called damaged
                f"'{path}' is an exported model or a photograph, but a checkpoint is needed: the "
                f".pth file that the lesson saved, usually '{default_checkpoint()}'."
            )
        return cls(load_checkpoint(path))

    def __call__(self, photographs: Any, *, top_k: int = 5) -> Any:
        """The `top_k` likeliest names: `list[Prediction]` for one photograph, a list of those for many.

        A photograph is a path, a PIL image, an array `(H, W, 3)` or a tensor `(3, H, W)`,
        uint8 or float from 0 to 1. Many: a list or tuple of these, or an array or tensor with one
        axis more in front. Raises FlowersError for what is no photograph.
        """
        batched = isinstance(photographs, (np.ndarray, torch.Tensor)) and photographs.ndim == 4
        many = batched or isinstance(photographs, (list, tuple))
        named = []
        for row in self.probabilities(photographs if many else [photographs]):
            best = row.argsort(descending=True)[: max(top_k, 1)].tolist()
            named.append([Prediction(self.class_names[i], float(row[i]), i) for i in best])
        return named if many else named[0]

    def prepare(self, photograph: Any) -> torch.Tensor:
        """What the network gets to see of a photograph: uint8 `(3, S, S)`, squashed to its size."""
        return F.pil_to_tensor(F.resize(as_photo(photograph), [self.image_size] * 2))

    def probabilities(self, photographs: Iterable[Any]) -> torch.Tensor:
        """Calibrated probabilities `(N, classes)` of `N` photographs."""
        rows = [torch.empty(0, len(self.class_names))]
        with torch.inference_mode():
            rows += [self.module(self.prepare(photograph)[None]) for photograph in photographs]
        return torch.cat(rows)


def default_checkpoint() -> Path:
    """Where a run of the lesson leaves the model to deploy."""
    return Path(config.PATHS["models"]) / f"{config.BACKBONE}_final.pth"


def predict_command(argv: Sequence[str]) -> int:
    """`python -m flowers_utils predict photo.jpg [more.jpg] [--checkpoint C] [--top 5]`.

    Writes the names to standard output, and one sentence for each photograph that cannot be used to
    standard error; the others are still named. Returns 0, or 1 if anything failed.
    """
    parser = argparse.ArgumentParser("python -m flowers_utils predict")
    parser.add_argument("photographs", nargs="+", metavar="photo.jpg")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    parser.add_argument("--top", type=int, default=5, help="how many names (default: 5)")
    arguments = parser.parse_args(argv)
    failed = 0
    try:
        predictor = Predictor.from_checkpoint(arguments.checkpoint)
        say(f"Model trained on {predictor.data_title}\n")
    except FlowersError as error:
        say(str(error), sys.stderr)
        return 1
    for path in arguments.photographs:
        try:
            answers = predictor(path, top_k=arguments.top)
        except FlowersError as error:
            say(str(error), sys.stderr)
            failed = 1
        else:
            say("\n".join([path, *(f"  {a.probability:6.1%}  {a.name}" for a in answers)]))
    return failed
