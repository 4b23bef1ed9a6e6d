"""ImageNet's weights, by torchvision's own loading code."""

from pathlib import Path

import torch

from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES


def weights_file(name: str) -> Path:
    """Where torch keeps the ImageNet weights of a network (TORCH_HOME moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(BACKBONES[name].weights.url).name


def imagenet_weights(name: str) -> dict[str, torch.Tensor]:
    """The ImageNet weights of a network, from torch's cache or else downloaded into it.

    A file in the cache is judged by whether it loads with the right names and shapes, not by its
    hash, so that an instructor can hand out a substitute; a download is checked by its hash.
    Raises FlowersError with the way out.
    """
    backbone, file, there = BACKBONES[name], weights_file(name), weights_file(name).is_file()
    options = {"check_hash": True, "map_location": "cpu", "weights_only": True}
    try:
        content = backbone.weights.get_state_dict(**options)
        with torch.device("meta"):  # a network of names and shapes only, to compare with
            backbone.build(weights=None).load_state_dict(content, assign=True)
        return content
    except Exception as error:  # torch, urllib and pickle raise almost anything here
        if there:
            raise FlowersError(
                f"The weights file '{file}' is damaged or of another network ({type(error).__name__}"
                "). Delete it and run this cell again, so that it is downloaded anew."
            ) from error
        raise FlowersError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Connect to the "
            f"network and run this cell again, or save {backbone.weights.url} as '{file}' yourself."
            " If that folder cannot be written, set TORCH_HOME to one of your own."
        ) from error
