from itertools import pairwise

import pytest
import torch
from torch import nn

from flowers_utils.errors import FlowersError
from flowers_utils.insight.anatomy import gradient_at_each_block, output_shapes, shape_in_words
from flowers_utils.models import (
    BACKBONES,
    backbone_features,
    build_model,
    check_groups_cover,
    classifier_of,
    count_parameters,
    fingerprint,
    freeze_backbone,
    frozen_trunk,
    head_of,
    how_far_each_group_moved,
    parameter_groups,
    train_mode,
    unfreeze,
)


def blank(name="resnet18", num_classes=102):
    return build_model(name, num_classes=num_classes, weights=None)


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


def test_plain_train_mode_would_move_them():
    """The mistake that train_mode avoids, so that the test above is known to be able to fail."""
    model = blank()
    freeze_backbone(model)
    before = fingerprint(model)
    model.train()(torch.randn(4, 3, 64, 64) + 2)
    assert fingerprint(model) != before


def test_fingerprint_sees_one_changed_buffer():
    model = blank()
    before = fingerprint(model)
    model.layer3[0].bn1.running_mean[5] += 1e-6
    assert fingerprint(model) != before


def test_fingerprint_of_the_backbone_ignores_the_head():
    model = blank()
    before = fingerprint(model)
    nn.init.zeros_(model.fc.weight)
    assert fingerprint(model) == before


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
    groups = parameter_groups(blank(), backbone_lr=1e-4, head_lr=1e-3)
    names = [group["name"] for group in groups]
    assert names == ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]


def test_only_the_head_has_a_group_when_the_backbone_is_frozen():
    model = blank()
    freeze_backbone(model)
    groups = parameter_groups(model, backbone_lr=0.0, head_lr=1e-3)
    assert [group["name"] for group in groups] == ["fc"]


def test_a_forgotten_stem_is_named():
    model = blank()
    groups = parameter_groups(model, backbone_lr=1e-4, head_lr=1e-3)
    with pytest.raises(FlowersError, match=r"conv1\.weight"):
        check_groups_cover(model, groups[1:])


def test_the_same_seed_builds_the_same_network_whatever_ran_before():
    first = build_model("resnet18", num_classes=7, weights=None, seed=3)
    torch.rand(1000)
    second = build_model("resnet18", num_classes=7, weights=None, seed=3)
    other = build_model("resnet18", num_classes=7, weights=None, seed=4)
    prints = [fingerprint(model, backbone_only=False) for model in (first, second, other)]
    assert prints[0] == prints[1] != prints[2]


def test_building_a_model_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    blank()
    assert torch.equal(torch.rand(3), expected)


def test_given_weights_are_loaded_into_the_backbone_but_not_the_head():
    source = build_model("resnet18", num_classes=1000, weights=None, seed=1)
    model = build_model("resnet18", num_classes=7, weights=source.state_dict(), seed=2)
    assert fingerprint(model) == fingerprint(source)
    assert model.fc.out_features == 7


def test_weights_of_another_network_are_named():
    with pytest.raises(FlowersError, match="another network"):
        build_model("resnet18", num_classes=7, weights={"conv9.weight": torch.zeros(1)})


def test_unknown_backbone_is_named():
    with pytest.raises(FlowersError, match="resnet19"):
        build_model("resnet19", num_classes=7, weights=None)


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_what_the_classifier_sees(name):
    model = blank(name, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone_features(model, images)
        logits = classifier_of(model)(features)
        assert torch.allclose(logits, model(images), atol=1e-5)
    assert features.shape == (2, head_of(model).in_features)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v2"])
def test_folding_batchnorm_keeps_the_features(name):
    torch.manual_seed(0)
    model = blank(name, num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = backbone_features(model.eval(), images)
        folded = frozen_trunk(model)(images)
    assert torch.allclose(folded, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_folding_batchnorm_leaves_the_model_alone():
    model = blank().train()
    before = fingerprint(model, backbone_only=False)
    frozen_trunk(model)
    assert fingerprint(model, backbone_only=False) == before and model.training


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
    assert shape_in_words(shapes["layer2"]) == "8x8x128"


def test_without_skip_connections_the_gradient_fades_on_its_way_to_the_first_block():
    plain, skipping = (gradient_at_each_block(skip=skip) for skip in (False, True))
    assert all(0 < early < late < 1 for early, late in pairwise(plain))
    assert min(skipping) > 1 and plain[0] < 1e-6
