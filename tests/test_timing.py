import numpy as np
import pytest
import torch

from flowers_utils.machine import timing
from flowers_utils.machine.timing import PARTS, as_jpeg, open_jpeg, where_time_goes
from flowers_utils.models import build_model, fingerprint, freeze_backbone


@pytest.fixture
def model():
    network = build_model(num_classes=4, weights=None)
    freeze_backbone(network)
    return network.eval()


def test_both_loops_have_the_same_parts_in_the_same_order(model, tiny_data, cpu):
    seconds = where_time_goes(model, tiny_data, cpu)
    assert list(seconds) == ["textbook", "this lesson"]
    assert all(tuple(parts) == PARTS for parts in seconds.values())
    assert all(value > 0 for parts in seconds.values() for value in parts.values())


def test_model_and_random_state_stay_as_they_were(model, tiny_data, cpu):
    before, random_state = fingerprint(model, backbone_only=False), torch.get_rng_state()
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    where_time_goes(model, tiny_data, cpu)
    assert fingerprint(model, backbone_only=False) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_seconds_are_for_a_whole_epoch(model, tiny_data, cpu, monkeypatch):
    monkeypatch.setitem(timing.config.TRAINING_CONFIG, "batch_size", 8)
    monkeypatch.setattr(timing, "_seconds", lambda device, call: (call(), 8.0)[1])
    seconds = where_time_goes(model, tiny_data, cpu)["this lesson"]
    assert seconds["decode"] == pytest.approx(len(tiny_data.train))
    assert seconds["evaluation"] == pytest.approx(len(tiny_data.val))


def test_jpeg_in_memory_shows_the_same_photograph(tiny_data):
    image = tiny_data.train.images[0]
    photo = open_jpeg(as_jpeg(image, 72))
    assert photo.size == (72, 72) and photo.mode == "RGB"
    assert np.asarray(photo).mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(1, 2)), abs=5)
