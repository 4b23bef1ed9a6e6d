"""The look inside finds what is there, and leaves the model as it was."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowers_utils.evaluation import compute_metrics
from flowers_utils.insight import inside
from flowers_utils.models import build_model, fingerprint, freeze_backbone
from flowers_utils.transforms import eval_batch

GREY = np.array([124, 116, 104], dtype=np.uint8)[:, None, None]  # ImageNet's mean: zeros


class RedOrBlue(nn.Module):
    """Class 0 is the amount of red, class 1 of blue, class 2 of nothing; pooled like a ResNet."""

    architecture = "resnet18"  # the names of its parts: layer4 and fc

    def __init__(self) -> None:
        super().__init__()
        colours = nn.Conv2d(3, 2, 1, bias=False)
        self.layer4 = nn.Sequential(colours, nn.ReLU(inplace=True))
        self.norm, self.fc = nn.BatchNorm1d(2), nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            colours.weight.copy_(torch.tensor([[1.0, 0, -1], [-1, 0, 1]])[:, :, None, None])
            self.fc.weight.copy_(torch.tensor([[1.0, -1], [-1, 1], [0, 0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.layer4(x).mean(dim=(2, 3))))


def painted(side: int, *, red: int, blue: int) -> np.ndarray:
    """A grey photograph with squares of these widths: red near the top left, blue bottom right."""
    photo = np.zeros((3, side, side), dtype=np.uint8) + GREY
    photo[0, 4 : 4 + red, 4 : 4 + red] = 255
    photo[2, side - blue :, side - blue :] = 255
    return photo


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)


@pytest.mark.parametrize(("side", "method"), [(224, "Grad-CAM on layer4"), (64, "occlusion")])
@pytest.mark.parametrize("target", [0, 1])
def test_heat_lies_where_the_predicted_class_is_also_in_a_frozen_network(side, method, target, cpu):
    red, blue = ((16, 8), (8, 16))[target]
    model, photo = RedOrBlue().requires_grad_(target == 0), painted(side, red=red, blue=blue)
    heat = inside.heat_map(model, photo, cpu)
    square = slice(0, 32) if target == 0 else slice(side - 28, side)  # with a grey square's margin
    assert (heat.method, heat.target) == (method, target)
    assert heat.values.shape == (side, side) and heat.values.max() == pytest.approx(1)
    hot = heat.values > 0.1
    assert hot[square, square].sum() == hot.sum()


def test_grad_cam_weights_are_the_gradients_of_the_logit(cpu):
    resnet = build_model("resnet18", num_classes=5, weights=None)
    # behind layer4 a ResNet has mean pooling and fc, so the weights are fc's rows (Zhou et al. 2016)
    heat = inside.grad_cam(resnet, noise(224), cpu)
    x = eval_batch(torch.from_numpy(noise(224))[None], 224)
    with torch.no_grad():
        maps = nn.Sequential(*list(resnet.eval().children())[:-2])(x)[0]
    expected = (resnet.fc.weight[heat.target].detach()[:, None, None] * maps).sum(dim=0)
    expected = nn.functional.interpolate(expected.relu()[None, None], (224, 224), mode="bilinear")
    torch.testing.assert_close(heat.values, expected[0, 0] / expected.max(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [inside.grad_cam, inside.occlusion])
def test_where_nothing_speaks_for_the_class_heat_is_blank_not_nan(method, cpu):
    nn.init.zeros_((model := RedOrBlue()).fc.weight)
    heat = method(model, painted(32, red=9, blue=5), cpu).values
    assert torch.equal(heat, torch.zeros(32, 32))


@pytest.mark.parametrize("method", [inside.grad_cam, inside.occlusion])
def test_a_look_changes_no_weights_stores_no_gradients_and_draws_nothing(method, cpu):
    model = build_model("mobilenet_v2", num_classes=3, weights=None).train()
    freeze_backbone(model)
    before, chance = fingerprint(model), torch.get_rng_state()
    method(model, noise(32), cpu)
    assert fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), chance)
    assert [name for name, p in model.named_parameters() if p.grad is not None] == []
    assert not any(p.requires_grad for p in model.features.parameters())


def test_skip_connections_keep_the_gradient_from_growing_block_by_block():
    with_skip, without = (inside.gradient_at_each_block(skip=skip) for skip in (True, False))
    assert len(with_skip) == len(without) == 16
    assert 1 < with_skip[0] < 30 and without[0] > 5 * with_skip[0]
    assert inside.gradient_at_each_block(skip=True) == with_skip


def test_confused_pairs_hold_the_photographs_that_were_taken_for_the_other():
    labels, said = torch.tensor([0, 0, 1, 1, 3, 3]), torch.tensor([0, 1, 0, 0, 2, 3])
    metrics = compute_metrics(nn.functional.one_hot(said), labels, class_names="abcd")
    assert inside.most_confused_pairs(metrics, 5) == [(0, 1, [1], [2, 3]), (2, 3, [], [4])]


def test_auroc_is_the_share_of_pairs_in_which_the_known_one_has_more_confidence():
    area = inside.auroc(torch.tensor([0.9, 0.8, 0.4]), torch.tensor([0.5, 0.1]))
    assert area.value == pytest.approx(5 / 6) and 0 <= area.low < area.value < area.high <= 1
    random = torch.rand(2, 4000, generator=torch.Generator().manual_seed(0))
    blind = inside.auroc(*random)
    assert blind.low < 0.5 < blind.high and blind.high - blind.low < 0.03
