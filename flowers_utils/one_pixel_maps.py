"""Convolutions on maps of one pixel, without the work that only meets padding.

On the practice pictures of 32 pixels, `layer4` of a ResNet18 sees maps of 1x1. There a 3x3
convolution with padding 1 multiplies one pixel by the middle one of its nine weights, and zeros by
the rest. On a CPU that rest costs more than a third of a training step, most of it for gradients
that are 0.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def skip_padding(model: nn.Module) -> nn.Module:
    """Let the 3x3 convolutions of `model` learn with their middle weights alone on 1x1 maps.

    Outputs and gradients stay the same within rounding; on larger maps, and without gradients
    (evaluation, export), nothing changes. Returns the model, changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _same_size_3x3(module):
            module._conv_forward = _convolve  # where nn.Conv2d.forward does its work
    return model


def _same_size_3x3(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and conv.padding_mode == "zeros"


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution with padding 1: images `(B, C, H, W)` -> `(B, D, H, W)`."""
    if torch.is_grad_enabled() and weight.requires_grad and images.shape[2:] == (1, 1):
        return functional.conv2d(images, weight[:, :, 1:2, 1:2], bias)
    return functional.conv2d(images, weight, bias, padding=1)
