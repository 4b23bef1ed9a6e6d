"""One pass of a network over a split: its logits, or the features that enter its head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flowers_utils.data import Split, batches
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import backbone_features
from flowers_utils.transforms import eval_batch

EMPTY = (
    "There is nothing to evaluate: the split holds no photographs. "
    "Look at the folder or the profile and load the data again."
)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode inside; afterwards each layer has its mode and the CPU's RNG its state again."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed even in order
            yield model.eval()
    finally:
        for module, training in modes.items():
            module.training = training


def _collect(
    function: Callable[[nn.Module, Tensor], Tensor],
    model: nn.Module,
    split: Split,
    device: Device,
    batch_size: int,
    image_size: int | None,
) -> tuple[Tensor, Tensor]:
    if len(split) == 0:
        raise FlowersError(EMPTY)
    outputs, labels = [], []
    with eval_mode(device.place(model)), torch.inference_mode(), device.autocast():
        for images, targets in batches(split, batch_size=batch_size, device=device):
            outputs.append(
                function(
                    model, device.place_batch(eval_batch(images, image_size or images.shape[-1]))
                )
            )
            labels.append(targets)
    # joined outside of inference mode, so that a linear head may be trained on the result
    return torch.cat(outputs).float().cpu(), torch.cat(labels).cpu()


def predict_logits(
    model: nn.Module,
    split: Split,
    device: Device,
    *,
    batch_size: int = 32,
    image_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float32 and labels (N,) of a split, on the CPU, in the split's order."""
    return _collect(lambda net, x: net(x), model, split, device, batch_size, image_size)


def predict_features(
    model: nn.Module,
    split: Split,
    device: Device,
    *,
    batch_size: int = 32,
    image_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """What enters the head, (N, F) float32, and labels (N,), on the CPU, in the split's order.

    `image_size` is the network's: needed for the train split, which is stored larger.
    """
    return _collect(backbone_features, model, split, device, batch_size, image_size)
