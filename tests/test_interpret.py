"""The look inside: Grad-CAM finds what matters, and the model is left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import evaluate
from flowers_utils.insight.inside import (
    compare_phases,
    feature_maps,
    first_layer_filters,
    grad_cam,
    most_confident_mistakes,
    most_confused_pairs,
    nearest_neighbours,
    observing,
    stages,
)
from flowers_utils.models import build_model, freeze_backbone


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet18", num_classes=5, weights=None)


class RedOrBlue(nn.Module):
    """Class 0 is the amount of red, class 1 of blue, class 2 of nothing; pooled like a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=True))
        self.layer1, self.layer2, self.layer3 = nn.Identity(), nn.Identity(), nn.Identity()
        self.norm, self.fc = nn.BatchNorm1d(2), nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.layer4[0].weight.copy_(torch.tensor([[1.0, 0, -1], [-1, 0, 1]])[:, :, None, None])
            self.fc.weight.copy_(torch.tensor([[1.0, -1], [-1, 1], [0, 0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.layer4(x).mean(dim=(2, 3))))


def red_left_blue_right() -> np.ndarray:
    photo = np.zeros((3, 32, 32), dtype=np.uint8)
    photo += np.array([124, 116, 104], dtype=np.uint8)[:, None, None]  # ImageNet's mean: zeros
    photo[0, 4:12, 2:10] = 255
    photo[2, 20:30, 20:30] = 255
    return photo


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("target", "inside"), [(0, (4, 12, 2, 10)), (1, (20, 30, 20, 30))])
def test_grad_cam_finds_the_region_that_speaks_for_the_class(
    target: int, inside: tuple[int, ...], frozen: bool, cpu: Device
) -> None:
    model = RedOrBlue().requires_grad_(not frozen)
    heat = grad_cam(model, red_left_blue_right(), cpu, target=target).heat
    top, bottom, left, right = inside
    assert heat.shape == (32, 32) and heat.max() == pytest.approx(1)
    assert heat[top:bottom, left:right].sum() > 0.95 * heat.sum()


def test_grad_cam_explains_a_right_and_a_wrong_class_differently(cpu: Device) -> None:
    own = grad_cam(RedOrBlue(), red_left_blue_right(), cpu)
    other = grad_cam(RedOrBlue(), red_left_blue_right(), cpu, target=1 - own.predicted)
    assert own.target == own.predicted
    assert torch.equal(own.probabilities, other.probabilities)
    assert (own.heat - other.heat).abs().max() > 0.5


def test_grad_cam_gives_probabilities_at_the_temperature_asked_for(cpu: Device) -> None:
    model, photo = RedOrBlue(), red_left_blue_right()
    plain, warm = (grad_cam(model, photo, cpu, temperature=t) for t in (1.0, 2.0))
    expected = plain.probabilities.sqrt() / plain.probabilities.sqrt().sum()
    assert not torch.allclose(plain.probabilities, warm.probabilities)
    assert torch.allclose(warm.probabilities, expected) and torch.equal(plain.heat, warm.heat)


def test_grad_cam_of_an_indifferent_class_is_dark_not_nan(cpu: Device) -> None:
    heat = grad_cam(RedOrBlue(), red_left_blue_right(), cpu, target=2).heat
    assert torch.equal(heat, torch.zeros(32, 32))


def test_grad_cam_weights_are_the_gradients_of_the_logit(resnet: nn.Module, cpu: Device) -> None:
    # behind layer4 a ResNet has mean pooling and fc, so the weights are fc's rows (Zhou et al. 2016)
    photo = np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)
    maps = feature_maps(resnet, photo, cpu)["layer4"]
    expected = (resnet.fc.weight[3].detach()[:, None, None] * maps).sum(dim=0).relu()
    heat = grad_cam(resnet, photo, cpu, target=3, layer=resnet.layer4).heat
    expected = nn.functional.interpolate(expected[None, None], (96, 96), mode="bilinear")[0, 0]
    torch.testing.assert_close(heat, expected / expected.max(), atol=1e-4, rtol=1e-4)


def test_grad_cam_of_a_small_picture_takes_a_stage_that_tells_places_apart(resnet, cpu) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    by_default = grad_cam(resnet, photo, cpu, target=3).heat
    torch.testing.assert_close(
        by_default, grad_cam(resnet, photo, cpu, target=3, layer=resnet.layer2).heat
    )


def state_of(model: nn.Module) -> list:
    """All that a look inside might disturb, apart from the values of the tensors."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    modes = [module.training for module in model.modules()]
    gradients = [(p.requires_grad, p.grad) for p in model.parameters()]
    return [hooks, modes, gradients, torch.get_rng_state().tolist(), torch.is_grad_enabled()]


LOOKS = {
    "grad_cam": grad_cam,
    "feature_maps": feature_maps,
    "compare_phases": lambda model, photo, cpu: compare_phases(model, model, photo, cpu, label=1),
    "first_layer_filters": lambda model, _photo, _cpu: first_layer_filters(model),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_leaves_the_model_as_it_was(name: str, resnet: nn.Module, cpu: Device) -> None:
    resnet.train()
    freeze_backbone(resnet)
    resnet.bn1.eval()
    weights = {key: value.clone() for key, value in resnet.state_dict().items()}
    before = state_of(resnet)
    LOOKS[name](resnet, np.zeros((3, 64, 64), dtype=np.uint8), cpu)
    assert state_of(resnet) == before
    assert all(torch.equal(weights[key], value) for key, value in resnet.state_dict().items())


@pytest.mark.parametrize("breaking", ["inside the network", "in the target", "in the layer's name"])
def test_the_model_is_as_it_was_after_an_error_too(breaking: str, cpu: Device) -> None:
    model = RedOrBlue().train()
    before = state_of(model)
    photo, target, layer = red_left_blue_right(), 0, None
    if breaking == "inside the network":
        model.fc = nn.Linear(7, 3)
        before = state_of(model)
    elif breaking == "in the target":
        target = 99
    else:
        layer = "layer4"
    with pytest.raises((RuntimeError, AttributeError)):
        grad_cam(model, photo, cpu, target=target, layer=layer)
    assert state_of(model) == before


def test_random_layers_do_not_move_the_random_numbers(cpu: Device) -> None:
    model = RedOrBlue()
    model.norm.register_forward_hook(lambda _module, _inputs, output: output + 0 * torch.rand(1))
    state = torch.get_rng_state()
    grad_cam(model, red_left_blue_right(), cpu)
    assert torch.equal(torch.get_rng_state(), state)


def test_grad_cam_works_where_gradients_are_switched_off(cpu: Device) -> None:
    model = RedOrBlue()
    with torch.inference_mode():
        heat = grad_cam(model, red_left_blue_right(), cpu, target=0).heat
    assert heat.max() == pytest.approx(1)


def test_what_was_observed_is_not_changed_by_a_later_in_place_layer(cpu: Device) -> None:
    model = RedOrBlue()
    with observing(model, {"conv": model.layer4[0]}) as outputs:
        model(torch.randn(1, 3, 8, 8))
    assert outputs["conv"].min() < 0  # the ReLU after it works in place


def test_feature_maps_shrink_from_stage_to_stage(resnet: nn.Module, cpu: Device) -> None:
    maps = feature_maps(resnet, np.zeros((3, 64, 64), dtype=np.uint8), cpu)
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "layer1": (64, 16, 16),
        "layer2": (128, 8, 8),
        "layer3": (256, 4, 4),
        "layer4": (512, 2, 2),
    }


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_other_families_can_be_looked_into(name: str, cpu: Device) -> None:
    model = build_model(name, num_classes=3, weights=None)
    photo = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    assert len(feature_maps(model, photo, cpu)) == len(stages(model)) == 4
    assert grad_cam(model, photo, cpu).heat.shape == (64, 64)


def test_filters_are_pictures_in_which_grey_is_no_weight() -> None:
    model = RedOrBlue()
    filters = first_layer_filters(model)
    assert filters[0, :, 0, 0].tolist() == [1.0, 0.5, 0.0]
    with torch.no_grad():
        model.layer4[0].weight[1] *= 1e-9
    assert first_layer_filters(model)[1].sub(0.5).abs().max() < 1e-6  # a dead one stays grey


def test_neighbours_are_ranked_by_direction_not_by_length() -> None:
    train = torch.tensor([[100.0, 0], [0.1, 0.1], [0, 5], [-3, 0]])
    positions, cosines = nearest_neighbours(torch.tensor([[2.0, 2.0]]), train, k=3)
    assert positions[0, 0] == 1
    assert cosines[0].tolist() == pytest.approx([1, 0.5**0.5, 0.5**0.5])
    assert nearest_neighbours(train, train, k=99)[0].shape == (4, 4)


def test_phases_are_both_explained_for_the_true_class(cpu: Device) -> None:
    before, after = RedOrBlue(), RedOrBlue()
    with torch.no_grad():
        after.fc.weight.mul_(-1)  # now red speaks for class 1
    first, second = compare_phases(before, after, red_left_blue_right(), cpu, label=0)
    assert first.target == second.target == 0
    assert first.heat[8, 6] > 0.9 > 0.1 > second.heat[8, 6]


@pytest.mark.parametrize(
    "photo",
    [np.zeros((32, 32, 3), np.uint8), np.zeros((3, 8, 8)), np.zeros((1, 3, 8, 8), np.uint8)],
)
def test_what_is_no_photograph_is_explained(photo: np.ndarray, cpu: Device) -> None:
    with pytest.raises(FlowersError, match="One photograph is needed"):
        grad_cam(RedOrBlue(), photo, cpu)


def test_features_of_two_networks_are_not_compared() -> None:
    with pytest.raises(FlowersError, match="same network"):
        nearest_neighbours(torch.zeros(1, 512), torch.zeros(9, 2048))


def answers(pairs: list[tuple[int, int, float]], classes: int = 4):
    """An evaluation of photographs given as (true class, predicted class, confidence)."""
    logits = torch.full((len(pairs), classes), 0.0)
    for i, (_, said, sure) in enumerate(pairs):
        logits[i, said] = float(np.log(sure * (classes - 1) / (1 - sure)))
    labels = torch.tensor([true for true, _, _ in pairs])
    return evaluate(logits, labels, class_names=tuple("abcd"[:classes]))


def test_confused_pairs_count_both_directions_and_show_a_confused_photograph() -> None:
    scored = answers([(0, 0, 0.9), (0, 1, 0.9), (1, 0, 0.9), (1, 0, 0.5), (3, 2, 0.8), (3, 3, 0.9)])
    first, second = most_confused_pairs(scored)
    assert (first.first, first.second) == (0, 1)
    assert (first.first_as_second, first.second_as_first) == (1, 2)
    assert (first.first_example, first.second_example) == (1, 2)
    assert (second.first_example, second.second_example) == (None, 4)  # no photograph of class 2


def test_no_mistakes_make_no_pairs_and_no_photographs() -> None:
    scored = answers([(0, 0, 0.9), (1, 1, 0.9)])
    assert most_confused_pairs(scored) == most_confident_mistakes(scored) == []


def test_mistakes_are_ranked_by_confidence() -> None:
    scored = answers([(0, 1, 0.6), (0, 0, 0.99), (1, 2, 0.95), (2, 1, 0.7)])
    assert most_confident_mistakes(scored) == [2, 3, 0]
    assert most_confident_mistakes(scored, k=1) == [2]
