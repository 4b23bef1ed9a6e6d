"""Networks: their new head, what freezing means, and who learns at which rate."""

import pytest
import torch
from torch import nn

from flowers_utils.errors import FlowersError
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
    how_far_each_group_moved,
    output_shapes,
    parameter_groups,
    train_mode,
    unfreeze,
)


def blank(name="resnet18", num_classes=102, seed=0):
    return build_model(name, num_classes=num_classes, weights=None, seed=seed)


def test_parameter_counts_are_the_published_ones():
    assert count_parameters(blank(num_classes=1000))[0] == 11_689_512
    model = blank()
    assert count_parameters(model) == (11_228_838, 11_228_838)
    freeze_backbone(model)
    assert count_parameters(model) == (11_228_838, 52_326)


def test_unfreeze_undoes_freeze():
    model = blank()
    freeze_backbone(model)
    unfreeze(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_frozen_batchnorm_statistics_do_not_move_in_train_mode():
    model = blank()
    freeze_backbone(model)
    before = fingerprint(model)
    train_mode(model)(torch.randn(4, 3, 64, 64) + 2)
    assert fingerprint(model) == before
    assert model.fc.training


def test_plain_train_mode_would_move_them():
    """The mistake that train_mode avoids, so that the test above is known to be able to fail."""
    model = blank()
    freeze_backbone(model)
    before = fingerprint(model)
    model.train()(torch.randn(4, 3, 64, 64) + 2)
    assert fingerprint(model) != before


def test_batchnorm_that_may_learn_is_in_train_mode():
    model = train_mode(blank().eval())
    assert model.bn1.training and model.layer4[1].bn2.training


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


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_stands_in_exactly_one_group(name):
    model = blank(name, num_classes=5)
    groups = parameter_groups(model, backbone_lr=1e-4, head_lr=1e-3)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    assert {group["lr"] for group in groups[:-1]} == {1e-4}
    assert groups[-1]["lr"] == 1e-3
    assert head_of(model).weight is groups[-1]["params"][0]


def test_resnet_groups_have_the_names_of_the_lesson():
    model = blank()
    groups = parameter_groups(model, backbone_lr=1e-4, head_lr=1e-3)
    names = [group["name"] for group in groups]
    assert names == ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]
    freeze_backbone(model)
    (only,) = parameter_groups(model, backbone_lr=1e-4, head_lr=1e-3)
    assert only["name"] == "fc"


def test_a_forgotten_or_doubled_parameter_is_named():
    model = blank()
    groups = parameter_groups(model, backbone_lr=1e-4, head_lr=1e-3)
    with pytest.raises(FlowersError, match=r"conv1\.weight' stands in 0"):
        check_groups_cover(model, groups[1:])
    with pytest.raises(FlowersError, match=r"fc\.weight' stands in 2"):
        check_groups_cover(model, [*groups, groups[-1]])


def test_the_same_seed_builds_the_same_network_whatever_ran_before():
    prints = []
    for seed in (3, 3, 4):
        torch.rand(1000)
        prints.append(fingerprint(blank(num_classes=7, seed=seed), backbone_only=False))
    assert prints[0] == prints[1] != prints[2]


def test_building_a_model_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    blank()
    assert torch.equal(torch.get_rng_state(), before)


def test_given_weights_are_loaded_into_the_backbone_but_not_the_head():
    source = blank(num_classes=1000, seed=1)
    model = build_model("resnet18", num_classes=7, weights=source.state_dict(), seed=2)
    assert fingerprint(model) == fingerprint(source)
    assert model.fc.out_features == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {**state, "conv9.weight": torch.zeros(1)},
        lambda state: {key: value for key, value in state.items() if key != "conv1.weight"},
        lambda state: {**state, "conv1.weight": torch.zeros(64, 3, 5, 5)},
    ],
    ids=["unknown", "missing", "other shape"],
)
def test_weights_of_another_network_are_named(change):
    with pytest.raises(FlowersError, match=r"another network\. .*conv\d\.weight"):
        build_model("resnet18", num_classes=7, weights=change(blank().state_dict()))


def test_unknown_backbone_is_named_with_those_that_are_known():
    with pytest.raises(FlowersError, match=r"resnet18, .*'resnet19'"):
        blank("resnet19")


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_what_the_classifier_sees(name):
    model = blank(name, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone_features(model, images)
        logits = classifier_of(model)(features)
        assert torch.allclose(logits, model(images), atol=1e-5)
    assert features.shape == (2, head_of(model).in_features)


def test_movement_is_relative_to_the_size_of_the_weights():
    before, after = blank(), blank()
    with torch.no_grad():
        for parameter in after.layer2.parameters():
            parameter *= 1.1
    moved = how_far_each_group_moved(before, after)
    assert moved["layer2"] == pytest.approx(0.1, rel=1e-4)
    assert moved["layer1"] == 0


def test_stages_are_listed_with_the_shapes_that_they_give():
    shapes = dict(output_shapes(blank(), 64))
    assert shapes["image"] == (3, 64, 64)
    assert shapes["layer2"] == (128, 8, 8) and shapes["fc"] == (102,)
