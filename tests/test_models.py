"""Networks: their new head and their weights, what freezing means, who learns at which rate."""

import os
from unittest.mock import Mock
from urllib.error import URLError

import pytest
import torch
from small_training import backbone_print
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from flowers_utils import models
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model, fingerprint, freeze_backbone, parameter_groups

RATES = {"backbone_lr": 1e-4, "head_lr": 1e-3}


def blank(name="resnet18", num_classes=102, seed=0):
    return build_model(name, num_classes=num_classes, weights=None, seed=seed)


# Building


def test_the_same_seed_builds_the_same_network_and_leaves_chance_alone():
    prints, before = [], torch.get_rng_state()
    for seed in (3, 3, 4):
        prints.append(fingerprint(blank(num_classes=7, seed=seed)))
        assert torch.equal(torch.get_rng_state(), before)
        before = torch.manual_seed(seed + 10).get_state()
    assert prints[0] == prints[1] != prints[2]


def test_given_weights_are_loaded_into_the_backbone_but_not_the_head():
    source = blank(num_classes=1000, seed=1)
    model = build_model("resnet18", num_classes=7, weights=source.state_dict(), seed=2)
    assert backbone_print(model) == backbone_print(source) and model.fc.out_features == 7


def test_incomplete_weights_and_an_unknown_network_are_named():
    incomplete = blank().state_dict()
    del incomplete["conv1.weight"]
    with pytest.raises(FlowersError, match=r"(?s)another network\. .*conv1\.weight"):
        build_model("resnet18", num_classes=7, weights=incomplete)
    with pytest.raises(FlowersError, match=r"'resnet18', .*'resnet19'"):
        blank("resnet19")


# What is frozen, and what moves


def test_in_train_mode_a_frozen_backbone_does_not_move_and_drops_only_before_the_head():
    model, images = blank("efficientnet_b0", num_classes=5), torch.randn(4, 3, 64, 64) + 2
    freeze_backbone(model)
    before = fingerprint(model)
    models.train_mode(model)(images)
    assert fingerprint(model) == before  # BatchNorm's statistics too
    modes = {type(part).__name__: part.training for part in model.modules()}
    assert not modes["StochasticDepth"] and modes["Dropout"]
    model.requires_grad_(True)
    models.train_mode(model)(images)  # what is trainable is in train mode
    assert fingerprint(model) != before


# Groups and features of each family


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b3", "mobilenet_v2"])
def test_parameters_are_each_in_one_group_and_features_are_the_input_of_the_classifier(name):
    model, images = blank(name, num_classes=5).eval(), torch.randn(2, 3, 64, 64)
    groups = parameter_groups(model, **RATES)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    assert [group["lr"] for group in groups] == [1e-4] * (len(groups) - 1) + [1e-3]
    assert models.head_of(model).weight is groups[-1]["params"][0]
    with torch.no_grad():
        features = models.backbone_features(model, images)
        assert torch.allclose(models.classifier_of(model)(features), model(images), atol=1e-5)


def test_the_groups_of_a_resnet_are_its_stages_and_a_frozen_one_gets_none():
    model = blank()
    names = [group["name"] for group in parameter_groups(model, **RATES)]
    assert names == ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]
    freeze_backbone(model)
    assert [group["name"] for group in parameter_groups(model, **RATES)] == ["fc"]


# ImageNet weights: from torch's cache, else one message says what to do


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The place of a small network's weights file in an empty torch cache; no network."""
    monkeypatch.setattr("torch.hub.urlopen", Mock(side_effect=URLError("no network")))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    path.parent.mkdir(parents=True)
    return path


def test_a_float16_substitute_in_the_cache_is_taken(cached):
    """As a teacher may hand it out: float16, without BatchNorm's step counters."""
    state = mobilenet_v2(weights=None).state_dict()
    small = {key: v.half() for key, v in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(small, cached)
    found = models.imagenet_weights("mobilenet_v2")
    taken = build_model("mobilenet_v2", num_classes=5, weights=found).features[0][0].weight
    assert taken.dtype is torch.float32 and torch.equal(taken.half(), found["features.0.0.weight"])


SPOILED = {
    "nothing": lambda path: None,
    "a web page": lambda path: path.write_text("<!DOCTYPE html><html>Log in</html>"),
    "code": lambda path: torch.save({"to run": os.remove}, path),
}


@pytest.mark.parametrize("found", SPOILED)
def test_weights_that_cannot_be_had_are_told_with_the_way_out_and_no_code_is_run(cached, found):
    SPOILED[found](cached)
    with pytest.raises(FlowersError, match="could not be read") as caught:
        models.imagenet_weights("mobilenet_v2")
    url = MobileNet_V2_Weights.IMAGENET1K_V1.url
    assert all(words in str(caught.value) for words in (str(cached), "delete it", url))
