"""Networks: their new head and their weights, what freezing means, who learns at which rate."""

import urllib.error
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from flowers_utils.datasets.weights import imagenet_weights, weights_file
from flowers_utils.errors import FlowersError
from flowers_utils.insight import how_far_each_group_moved, output_shapes
from flowers_utils.models import (
    BACKBONES,
    backbone_features,
    build_model,
    check_groups_cover,
    classifier_of,
    count_parameters,
    eval_mode,
    fingerprint,
    freeze_backbone,
    head_of,
    parameter_groups,
    train_mode,
    unfreeze,
)

RATES = {"backbone_lr": 1e-4, "head_lr": 1e-3}


def blank(name="resnet18", num_classes=102, seed=0):
    return build_model(name, num_classes=num_classes, weights=None, seed=seed)


# Building


def test_the_same_seed_builds_the_same_network_and_leaves_chance_alone():
    prints, before = [], torch.get_rng_state()
    for seed in (3, 3, 4):
        prints.append(fingerprint(blank(num_classes=7, seed=seed), backbone_only=False))
        assert torch.equal(torch.get_rng_state(), before)
        before = torch.manual_seed(seed + 10).get_state()
    assert prints[0] == prints[1] != prints[2]


def test_given_weights_are_loaded_into_the_backbone_but_not_the_head():
    source = blank(num_classes=1000, seed=1)
    model = build_model("resnet18", num_classes=7, weights=source.state_dict(), seed=2)
    assert fingerprint(model) == fingerprint(source)
    assert model.fc.out_features == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {key: value for key, value in state.items() if key != "conv1.weight"},
        lambda state: {**state, "conv1.weight": torch.zeros(64, 3, 5, 5)},
    ],
    ids=["missing", "other shape"],
)
def test_weights_of_another_network_are_named(change):
    with pytest.raises(FlowersError, match=r"another network\. .*conv1\.weight"):
        build_model("resnet18", num_classes=7, weights=change(blank().state_dict()))


def test_unknown_backbone_is_named_with_those_that_are_known():
    with pytest.raises(FlowersError, match=r"resnet18, .*'resnet19'"):
        blank("resnet19")


def test_parameter_counts_are_the_published_ones():
    assert count_parameters(blank(num_classes=1000))[0] == 11_689_512
    model = blank()
    freeze_backbone(model)
    assert count_parameters(model) == (11_228_838, 52_326)
    unfreeze(model)
    assert count_parameters(model) == (11_228_838, 11_228_838)


# What is frozen, and what moves


def test_frozen_batchnorm_statistics_do_not_move_in_train_mode():
    model = blank()
    freeze_backbone(model)
    before = fingerprint(model)
    train_mode(model)(torch.randn(4, 3, 64, 64) + 2)
    assert fingerprint(model) == before and model.fc.training
    unfreeze(model)
    train_mode(model)(torch.randn(4, 3, 64, 64) + 2)  # those that may learn are in train mode
    assert fingerprint(model) != before


def test_a_frozen_backbone_drops_no_blocks_but_the_heads_dropout_stays_on():
    model = build_model("efficientnet_b0", num_classes=5, weights=None)
    freeze_backbone(model)
    modes = {type(part).__name__: part.training for part in train_mode(model).modules()}
    assert not modes["StochasticDepth"] and modes["Dropout"]


def test_eval_mode_gives_each_layer_its_own_mode_back_even_after_an_error():
    model = blank().train()
    model.bn1.eval()
    with pytest.raises(RuntimeError), eval_mode(model) as same:
        assert same is model and not any(module.training for module in model.modules())
        raise RuntimeError
    assert not model.bn1.training and model.layer1.training


def test_fingerprint_sees_one_changed_buffer_and_not_the_head():
    model = blank()
    before, whole = fingerprint(model), fingerprint(model, backbone_only=False)
    nn.init.zeros_(model.fc.weight)
    assert fingerprint(model) == before and fingerprint(model, backbone_only=False) != whole
    model.layer3[0].bn1.running_mean[5] += 1e-6
    assert fingerprint(model) != before


def test_movement_is_relative_to_the_size_of_the_weights():
    before, after = blank(), blank()
    with torch.no_grad():
        for parameter in after.layer2.parameters():
            parameter *= 1.1
    moved = how_far_each_group_moved(before, after)
    assert moved["layer2"] == pytest.approx(0.1, rel=1e-4)
    assert moved["layer1"] == 0


# Groups and features of each family


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b3", "mobilenet_v2"])
def test_every_parameter_stands_in_exactly_one_group(name):
    model = blank(name, num_classes=5)
    groups = parameter_groups(model, **RATES)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    assert [group["lr"] for group in groups] == [1e-4] * (len(groups) - 1) + [1e-3]
    assert head_of(model).weight is groups[-1]["params"][0]


def test_resnet_groups_have_the_names_of_the_lesson():
    model = blank()
    names = [group["name"] for group in parameter_groups(model, **RATES)]
    assert names == ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]
    freeze_backbone(model)
    assert [group["name"] for group in parameter_groups(model, **RATES)] == ["fc"]


def test_a_forgotten_or_doubled_parameter_is_named():
    model = blank()
    groups = parameter_groups(model, **RATES)
    with pytest.raises(FlowersError, match=r"conv1\.weight' stands in 0"):
        check_groups_cover(model, groups[1:])
    with pytest.raises(FlowersError, match=r"fc\.weight' stands in 2"):
        check_groups_cover(model, [*groups, groups[-1]])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_features_are_what_the_classifier_sees(name):
    model = blank(name, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone_features(model, images)
        assert torch.allclose(classifier_of(model)(features), model(images), atol=1e-5)
    assert features.shape == (2, head_of(model).in_features)


def test_stages_are_listed_with_the_shapes_that_they_give():
    shapes = dict(output_shapes(blank(), 64))
    assert shapes["image"] == (3, 64, 64)
    assert shapes["layer2"] == (128, 8, 8) and shapes["fc"] == (102,)


# ImageNet weights: from torch's cache if they fit, else one message says what to do


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The place of a small network's weights file in an empty torch cache; no network."""

    def unreachable(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    path.parent.mkdir(parents=True)
    assert weights_file("mobilenet_v2") == path
    return path


def test_a_float16_substitute_in_the_cache_is_taken(cached):
    """As a teacher may hand it out: float16, without BatchNorm's step counters."""
    state = mobilenet_v2(weights=None).state_dict()
    small = {key: v.half() for key, v in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(small, cached)
    found = imagenet_weights("mobilenet_v2")
    model = build_model("mobilenet_v2", num_classes=5, weights=found)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    taken = model.state_dict()["features.0.0.weight"]
    torch.testing.assert_close(taken.half(), small["features.0.0.weight"])


class Evil:
    """Unpickling this makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("damage", ["a web page", "another network", "code"])
def test_a_damaged_or_foreign_weights_file_is_named_and_not_opened_blindly(cached, damage):
    marker = cached.with_name("harm")
    if damage == "a web page":
        cached.write_text("<!DOCTYPE html><html>Log in</html>", encoding="utf-8")
    else:
        torch.save({"conv1.weight": Evil(marker) if damage == "code" else torch.zeros(2)}, cached)
    with pytest.raises(FlowersError, match="damaged or of another network") as caught:
        imagenet_weights("mobilenet_v2")
    assert str(cached) in str(caught.value) and "Delete it" in str(caught.value)
    assert not marker.exists()


def test_without_network_and_file_one_message_says_what_goes_where(cached):
    with pytest.raises(FlowersError) as caught:
        imagenet_weights("mobilenet_v2")
    message = str(caught.value)
    assert cached.name in message and str(cached.parent) in message
    assert BACKBONES["mobilenet_v2"].weights.url in message
