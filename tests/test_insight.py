"""The look inside finds what is there, and leaves the model as it was."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowers_utils.evaluation import compute_metrics
from flowers_utils.insight import inside
from flowers_utils.models import build_model, fingerprint, freeze_backbone
from flowers_utils.transforms import normalise

GREY = np.array([124, 116, 104], dtype=np.uint8)[:, None, None]  # ImageNet's mean: zeros


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return build_model("resnet18", num_classes=5, weights=None)


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


def painted(side: int, *, red: tuple[int, int], width: int = 10) -> np.ndarray:
    """A grey photograph with a red square at (top, left), and a blue one in its lower right corner."""
    photo = np.zeros((3, side, side), dtype=np.uint8) + GREY
    top, left = red
    photo[0, top : top + width, left : left + width] = 255
    photo[2, -width:, -width:] = 255
    return photo


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)


@pytest.mark.parametrize("method", [inside.grad_cam, inside.occlusion])
@pytest.mark.parametrize(("target", "place"), [(0, (4, 2)), (1, (30, 30))])
def test_heat_lies_where_the_class_is_also_in_a_frozen_network(method, target, place, cpu):
    model = RedOrBlue().requires_grad_(target == 0)
    heat = method(model, painted(40, red=(4, 2)), cpu, target=target).values
    square = [slice(max(0, start - 5), start + 15) for start in place]  # a grey square's margin
    assert heat.shape == (40, 40) and heat.max() == pytest.approx(1)
    assert heat[square[0], square[1]].sum() > 0.95 * heat.sum()


def test_grad_cam_weights_are_the_gradients_of_the_logit(resnet, cpu):
    # behind layer4 a ResNet has mean pooling and fc, so the weights are fc's rows (Zhou et al. 2016)
    heat = inside.grad_cam(resnet, noise(224), cpu, target=3).values
    x = normalise(torch.from_numpy(noise(224))[None] / 255)
    with torch.no_grad():
        maps = nn.Sequential(*list(resnet.eval().children())[:-2])(x)[0]
    expected = (resnet.fc.weight[3].detach()[:, None, None] * maps).sum(dim=0)
    expected = nn.functional.interpolate(expected.relu()[None, None], (224, 224), mode="bilinear")
    torch.testing.assert_close(heat, expected[0, 0] / expected.max(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("side", "method"), [(224, "Grad-CAM on layer4"), (64, "occlusion")])
def test_a_heat_map_explains_the_predicted_class_by_the_method_for_its_size(side, method, cpu):
    red = painted(side, red=(8, 8), width=30)
    red[2] = 0  # no blue: class 0
    heat = inside.heat_map(RedOrBlue(), red, cpu)
    assert (heat.method, heat.target) == (method, 0)


@pytest.mark.parametrize("method", [inside.grad_cam, inside.occlusion])
def test_where_nothing_speaks_for_the_class_heat_is_blank_not_nan(method, cpu):
    class Constant(RedOrBlue):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * super().forward(x)

    heat = method(Constant(), painted(32, red=(4, 2)), cpu, target=2).values
    assert torch.equal(heat, torch.zeros(32, 32))


@pytest.mark.parametrize("method", [inside.grad_cam, inside.occlusion])
def test_a_look_changes_no_weights_stores_no_gradients_and_draws_nothing(method, cpu):
    model = build_model("mobilenet_v2", num_classes=3, weights=None).train()
    freeze_backbone(model)
    before, chance = fingerprint(model, backbone_only=False), torch.get_rng_state()
    method(model, noise(32), cpu, target=1)
    assert fingerprint(model, backbone_only=False) == before
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
    assert inside.most_confused_pairs(metrics) == [(0, 1, [1], [2, 3]), (2, 3, [], [4])]


def test_auroc_is_the_share_of_pairs_in_which_the_known_one_has_more_confidence():
    area = inside.auroc(torch.tensor([0.9, 0.8, 0.4]), torch.tensor([0.5, 0.1]))
    assert area.value == pytest.approx(5 / 6) and 0 <= area.low < area.value < area.high <= 1
    random = torch.rand(2, 4000, generator=torch.Generator().manual_seed(0))
    blind = inside.auroc(*random)
    assert blind.low < 0.5 < blind.high and blind.high - blind.low < 0.03
