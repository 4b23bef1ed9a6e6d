"""Convolutions on maps of one pixel: the same results with a ninth of the weights."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import flowers_utils as fu
from flowers_utils.one_pixel_maps import skip_padding


def _gradients(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The outputs and every gradient of one training step."""
    outputs = model.train()(images)
    nn.functional.cross_entropy(outputs, torch.arange(len(images)) % 5).backward()
    return [outputs.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("pixels", [32, 48])
def test_outputs_and_gradients_are_the_plain_networks(pixels):
    torch.manual_seed(0)
    plain = resnet18(num_classes=5)
    quick = skip_padding(copy.deepcopy(plain))
    images = torch.randn(8, 3, pixels, pixels)
    for ours, theirs in zip(_gradients(quick, images), _gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_learning_uses_the_middle_weights_alone_and_evaluation_all_of_them(monkeypatch):
    conv = skip_padding(nn.Conv2d(2, 3, 3, padding=1))
    used, plain = [], nn.functional.conv2d

    def watched(images, weight, *args, **kwargs):
        used.append(tuple(weight.shape[2:]))
        return plain(images, weight, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "conv2d", watched)
    conv(torch.ones(1, 2, 1, 1))
    conv(torch.ones(1, 2, 2, 2))
    with torch.no_grad():
        conv(torch.ones(1, 2, 1, 1))
    assert used == [(1, 1), (3, 3), (3, 3)]


def test_other_convolutions_are_left_alone():
    others = [
        nn.Conv2d(2, 2, 3, padding=1, stride=2),
        nn.Conv2d(2, 2, 3),
        nn.Conv2d(2, 2, 3, padding=1, groups=2),
        nn.Conv2d(2, 2, 5, padding=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    ]
    for conv in others:
        skip_padding(conv)
        assert "_conv_forward" not in vars(conv)


def test_the_lessons_networks_have_it_in_layer4_of_a_resnet18():
    model = fu.build_model("resnet18", num_classes=5, weights=None)
    assert "_conv_forward" in vars(model.layer4[1].conv1)
