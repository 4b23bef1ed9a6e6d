"""ImageNet weights: taken from torch's cache if they fit, else one message says what to do."""

import urllib.error
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from flowers_utils.datasets.weights import imagenet_weights, weights_file
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model, fingerprint

NAME = "mobilenet_v2"  # the smallest file of those the lesson knows


@pytest.fixture(scope="module")
def tensors():
    """A substitute as a teacher may hand it out: float16, without BatchNorm's step counters."""
    state = mobilenet_v2(weights=None).state_dict()
    return {key: v.half() for key, v in state.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The place of the weights file in an empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    path.parent.mkdir(parents=True)
    return path


def test_the_file_lies_where_torch_looks_for_it(cached):
    assert weights_file(NAME) == cached


def test_a_float16_substitute_in_the_cache_is_taken(cached, tensors):
    torch.save(tensors, cached)
    found = imagenet_weights(NAME)
    torch.testing.assert_close(found["features.0.0.weight"].half(), tensors["features.0.0.weight"])
    model = build_model(NAME, num_classes=5)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert fingerprint(model) == fingerprint(build_model(NAME, num_classes=5, weights=found))


@pytest.mark.parametrize("damage", ["cut", "a web page", "another network", "code"])
def test_a_damaged_or_foreign_file_is_named_and_not_opened_blindly(cached, tensors, damage):
    marker = cached.with_name("harm")

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save(
        {"code": {"a": Evil()}, "another network": {"conv1.weight": torch.zeros(2)}}.get(
            damage, tensors
        ),
        cached,
    )
    if damage == "cut":
        cached.write_bytes(cached.read_bytes()[:100_000])
    elif damage == "a web page":
        cached.write_text("<!DOCTYPE html><html>Log in</html>", encoding="utf-8")
    with pytest.raises(FlowersError, match="damaged or of another network") as caught:
        imagenet_weights(NAME)
    assert str(cached) in str(caught.value) and "Delete it" in str(caught.value)
    assert not marker.exists()


def test_without_network_and_file_one_message_says_what_goes_where(cached):
    with pytest.raises(FlowersError) as caught:
        imagenet_weights(NAME)
    message = str(caught.value)
    assert cached.name in message and str(cached.parent) in message
    assert "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth" in message
