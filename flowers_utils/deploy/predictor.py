"""From a checkpoint and a photograph to the names of flowers, with calibrated probabilities."""

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as F

from flowers_utils.datasets.photos import open_photo, to_rgb
from flowers_utils.progress import is_watched
from flowers_utils.storage.checkpoints import load_checkpoint, model_from_checkpoint

Photograph = str | os.PathLike | Image.Image


class Prediction(NamedTuple):
    """A class: its name, its probability (0 to 1), its number."""

    name: str
    probability: float
    number: int


class Deployable(nn.Module):
    """uint8 images `(B, 3, S, S)` to probabilities `(B, classes)`: normalise, network, temperature.

    On the CPU, in float32. `mirrored`: the mean of the logits of each image and its mirror image.
    """

    def __init__(self, checkpoint: dict[str, Any], *, mirrored: bool = False):
        super().__init__()
        self.network = model_from_checkpoint(checkpoint)
        for name in ("mean", "std"):
            values = torch.tensor(checkpoint["normalization"][name])
            self.register_buffer(name, values.view(1, 3, 1, 1))
        self.temperature = float(checkpoint.get("temperature", 1.0))
        self.mirrored = mirrored
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = (images.float() / 255 - self.mean) / self.std
        logits = self.network(normalised)
        if self.mirrored:
            logits = (logits + self.network(normalised.flip(-1))) / 2
        return torch.softmax(logits / self.temperature, dim=1)


class Predictor:
    """Names for photographs: `Predictor("models/resnet18_final.pth")("photo.jpg")`."""

    def __init__(self, path: str | os.PathLike, *, mirrored: bool = False):
        checkpoint = load_checkpoint(path)
        self.class_names = tuple(checkpoint["class_names"])
        self.image_size = checkpoint["image_size"]
        self.data_title = checkpoint["data"]["title"]
        self.module = Deployable(checkpoint, mirrored=mirrored)

    def __call__(self, photograph: Photograph, *, top_k: int = 5) -> list[Prediction]:
        """The `top_k` most probable classes; FlowersError for a file that is no photograph."""
        with torch.inference_mode():
            row = self.module(self.prepare(photograph)[None])[0]
        best = row.argsort(descending=True)[:top_k].tolist()
        return [Prediction(self.class_names[i], float(row[i]), i) for i in best]

    def prepare(self, photograph: Photograph) -> torch.Tensor:
        """The photograph as the network gets it: uint8 `(3, S, S)`, squashed to a square."""
        opened = isinstance(photograph, Image.Image)
        image = to_rgb(photograph) if opened else open_photo(photograph)
        return F.pil_to_tensor(F.resize(image, [self.image_size] * 2))


def photo_picker() -> Any:
    """Show an upload button and return it, for `photo_from`; None where nobody can press it."""
    if not is_watched():
        return None
    from IPython.display import display  # both come with Jupyter
    from ipywidgets import FileUpload

    display(button := FileUpload(accept="image/*", description="Your photo"))
    return button


def photo_from(button: Any, path: str | os.PathLike | None = None) -> Image.Image | None:
    """The photograph uploaded with the button of `photo_picker`, else the one at `path`, else None."""
    if button is None or not button.value:
        return None if path is None else open_photo(path)
    values = button.value
    if isinstance(values, dict):  # in ipywidgets 7, which Colab has
        values = [{"name": name, **value} for name, value in values.items()]
    upload = values[-1]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(upload["name"]).name)  # its own name, for the error's sentence
        copy.write_bytes(upload["content"])
        return open_photo(copy)
