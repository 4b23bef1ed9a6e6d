"""The look inside finds what is there, and leaves the model as it was."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowers_utils import insight
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import features_of, predict_logits
from flowers_utils.insight.experiments import train_head
from flowers_utils.models import build_model, freeze_backbone
from flowers_utils.transforms import evaluation_batches


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
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

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.layer4(x).mean(dim=(2, 3))))


def red_left_blue_right() -> np.ndarray:
    photo = np.zeros((3, 32, 32), dtype=np.uint8)
    photo += np.array([124, 116, 104], dtype=np.uint8)[:, None, None]  # ImageNet's mean: zeros
    photo[0, 4:12, 2:10] = 255
    photo[2, 20:30, 20:30] = 255
    return photo


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)


@pytest.mark.parametrize(
    ("target", "inside", "frozen"), [(0, (4, 12, 2, 10), False), (1, (20, 30, 20, 30), True)]
)
def test_grad_cam_finds_the_region_that_speaks_for_the_class(target, inside, frozen, cpu):
    model = RedOrBlue().requires_grad_(not frozen)
    seen = insight.grad_cam(model, red_left_blue_right(), cpu, target=target)
    top, bottom, left, right = inside
    assert seen.heat.shape == (32, 32) and seen.heat.max() == pytest.approx(1)
    assert seen.heat[top:bottom, left:right].sum() > 0.95 * seen.heat.sum()


def test_grad_cam_weights_are_the_gradients_of_the_logit(resnet, cpu):
    # behind layer4 a ResNet has mean pooling and fc, so the weights are fc's rows (Zhou et al. 2016)
    maps = insight.feature_maps(resnet, noise(224), cpu)["layer4"]
    expected = (resnet.fc.weight[3].detach()[:, None, None] * maps).sum(dim=0).relu()
    seen = insight.grad_cam(resnet, noise(224), cpu, target=3)
    expected = nn.functional.interpolate(expected[None, None], (224, 224), mode="bilinear")[0, 0]
    torch.testing.assert_close(seen.heat, expected / expected.max(), atol=1e-4, rtol=1e-4)
    assert seen.stage == "layer4"


def test_grad_cam_of_a_small_picture_takes_a_stage_that_tells_places_apart(resnet, cpu):
    assert insight.grad_cam(resnet, noise(32), cpu).stage in ("layer2", "layer1")


def test_grad_cam_where_nothing_speaks_for_the_class_is_blank_not_nan(cpu):
    seen = insight.grad_cam(RedOrBlue(), red_left_blue_right(), cpu, target=2)
    assert torch.equal(seen.heat, torch.zeros(32, 32))


def test_grad_cam_answers_as_the_evaluation_does_in_its_precision(resnet, tiny_data):
    half = Device(torch.device("cpu"), "test", torch.bfloat16, channels_last=True)
    logits, _ = predict_logits(resnet, tiny_data.val.subset([0]), half)
    seen = insight.grad_cam(resnet, tiny_data.val.images[0], half)
    torch.testing.assert_close(seen.probabilities, logits[0].softmax(0), atol=1e-3, rtol=1e-2)


def test_grad_cam_gives_probabilities_at_the_temperature_asked_for(cpu):
    plain, warm = (
        insight.grad_cam(RedOrBlue(), red_left_blue_right(), cpu, temperature=t) for t in (1.0, 2.0)
    )
    expected = plain.probabilities.sqrt() / plain.probabilities.sqrt().sum()
    assert torch.allclose(warm.probabilities, expected) and torch.equal(plain.heat, warm.heat)


def state_of(model: nn.Module) -> list:
    """All that a look inside might disturb."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    modes = [module.training for module in model.modules()]
    gradients = [(p.requires_grad, p.grad) for p in model.parameters()]
    values = [value.double().sum().item() for value in model.state_dict().values()]
    return [hooks, modes, gradients, values, torch.get_rng_state().tolist()]


def test_a_look_leaves_the_model_as_it_was(cpu):
    model = build_model("mobilenet_v2", num_classes=3, weights=None).train()
    freeze_backbone(model)
    before = state_of(model)
    maps = insight.feature_maps(model, noise(64), cpu)
    insight.grad_cam(model, noise(64), cpu, target=1)
    assert state_of(model) == before and len(maps) == 4


def test_the_model_is_as_it_was_after_an_error_too(cpu):
    model = RedOrBlue().train()
    before = state_of(model)
    with pytest.raises(FlowersError, match="no class 99"):
        insight.grad_cam(model, red_left_blue_right(), cpu, target=99)
    with pytest.raises(FlowersError, match="One photograph is needed"):
        insight.grad_cam(model, np.zeros((32, 32, 3), np.uint8), cpu)
    assert state_of(model) == before


def test_filters_are_pictures_in_which_grey_is_no_weight():
    assert insight.first_layer_filters(RedOrBlue())[0, :, 0, 0].tolist() == [1.0, 0.5, 0.0]


def test_skip_connections_carry_the_gradient_to_the_first_block():
    with_skip, without = (insight.gradient_at_each_block(skip=skip) for skip in (True, False))
    assert len(with_skip) == 16 and with_skip[0] > 0.1 > 1e-4 > without[0]


def test_neighbours_are_ranked_by_direction_not_by_length():
    train = torch.tensor([[100.0, 0], [0.1, 0.1], [0, 5], [-3, 0]])
    positions, cosines = insight.nearest_neighbours(torch.tensor([[2.0, 2.0]]), train, k=3)
    assert positions[0, 0] == 1
    assert cosines[0].tolist() == pytest.approx([1, 0.5**0.5, 0.5**0.5])


# --- experiments on stored features


def features(per_class: int, seed: int, *, classes: int = 20) -> tuple[Tensor, Tensor]:
    """What a good backbone delivers: a cloud for each class."""
    centres = torch.randn(classes, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(classes).repeat_interleave(per_class)
    cloud = torch.randn(len(labels), 64, generator=torch.Generator().manual_seed(seed))
    return centres[labels] + 2 * cloud, labels


def test_more_photographs_help_and_every_class_keeps_its_share():
    points = insight.accuracy_by_training_size(features(20, 1), features(20, 2))
    counts, accuracies = zip(*points, strict=True)
    assert counts == (80, 160, 280, 400)
    assert accuracies[-1].value > accuracies[0].value + 0.1


def test_the_right_learning_rate_learns_best_and_a_tiny_one_nothing():
    found = insight.learning_rate_experiment(features(60, 1), features(10, 2))
    high, right, low = (rows[-1]["val_accuracy"] for rows in found.values())
    assert list(found) == ["learning rate 1", "learning rate 0.001", "learning rate 1e-05"]
    assert right > high > 0.5 > 0.1 > low


def test_a_heads_training_repeats_itself():
    train, val, heads = features(10, 1), features(10, 2), []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(nn.Linear(64, 20))
        history = train_head(heads[-1], (train, val), rate=0.01, epochs=6)
    accuracy = (heads[0](val[0]).argmax(1) == val[1]).float().mean().item()
    assert accuracy == pytest.approx(history[-1]["val_accuracy"])
    assert torch.equal(heads[0].weight, heads[1].weight)


def test_without_normalisation_the_network_gets_plain_brightness(resnet, tiny_data, cpu):
    plain, _ = next(insight.without_normalisation(evaluation_batches(tiny_data.val, cpu)))
    expected = torch.from_numpy(tiny_data.val.images.copy()).float() / 255
    torch.testing.assert_close(plain, expected)
    found, labels = features_of(resnet, [(plain, tiny_data.val.labels)], cpu)
    assert found.shape == (16, 512) and torch.equal(labels, tiny_data.val.labels)
