"""The device: chosen by what the hardware can do; the same seed draws the same numbers."""

import random

import numpy as np
import pytest
import torch

from flowers_utils.device import Device, choose_device, seed_everything, send
from flowers_utils.errors import FlowersError
from flowers_utils.memory import peak_memory_bytes

CPU = torch.device("cpu")


@pytest.fixture
def card(monkeypatch):
    """Let there be a CUDA card; its compute capability is in the list that comes back."""
    capability = [(8, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])
    return capability


def test_a_device_that_is_not_there_or_unknown_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FlowersError, match=r"'cuda' is not available.*'cpu'"):
        choose_device("cuda")
    with pytest.raises(FlowersError, match="'tpu' is unknown"):
        choose_device("tpu")


def test_cuda_is_taken_before_mps_and_mps_before_the_cpu(monkeypatch, card):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().torch_device.type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().torch_device.type == "mps"


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_a_card_computes_in_the_sixteen_bits_that_it_has(card, capability, precision):
    card[0] = capability
    device = choose_device("cuda")
    assert (device.precision, device.channels_last) == (precision, True)
    assert choose_device("cuda", fast=False).precision is torch.float32


@pytest.mark.parametrize(
    ("can", "precision"),
    [({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_it(monkeypatch, can, precision):
    """What it has decides, never a stopwatch: a busy moment must not change what a run is."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    for clock in ("time", "monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(f"time.{clock}", None)
    device = choose_device("cpu")
    assert (device.precision, device.channels_last) == (precision, True)


def test_one_switch_turns_reduced_precision_and_layout_off():
    device = choose_device("cpu", fast=False)
    assert device.precision is torch.float32 and not device.channels_last
    with device.autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype is torch.float32


def test_models_and_batches_get_the_layout_of_the_device():
    device = Device(CPU, "test", channels_last=True)
    model = device.place(torch.nn.Conv2d(3, 8, 3))
    for tensor in (model.weight, device.place_batch(torch.ones(2, 3, 8, 8))):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_only_copies_to_cuda_are_asynchronous():
    class Copied:
        def to(self, target, non_blocking):
            return target.type, non_blocking

    for kind in ("cuda", "mps", "cpu"):
        assert send(Copied(), torch.device(kind)) == (kind, kind == "cuda")


def test_loss_scaling_is_for_float16_only():
    precisions = (torch.float16, torch.bfloat16, torch.float32)
    enabled = [Device(CPU, "test", precision).scaler().is_enabled() for precision in precisions]
    assert enabled == [True, False, False]


def test_seeding_repeats_every_source_of_chance():
    def draw():
        generator = seed_everything(5)
        numbers = torch.rand(1).item(), torch.rand(1, generator=generator).item()
        return random.random(), np.random.rand(), *numbers

    assert draw() == draw()


def test_peak_memory_is_counted_in_bytes():
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 1e12


def test_an_autocast_whose_end_was_lost_leaves_no_old_weights_in_use():
    device = Device(CPU, "test", torch.bfloat16)
    layer, ones = torch.nn.Linear(4, 4, bias=False), torch.ones(1, 4)

    def output():
        with device.autocast():
            return layer(ones)

    lost = device.autocast()
    lost.__enter__()
    try:
        before = output()
        with torch.no_grad():
            layer.weight.add_(1.0)
        assert torch.allclose(output(), before + 4, atol=0.1)
    finally:
        lost.__exit__(None, None, None)
