"""The device: chosen by what the hardware can do; the same seed draws the same numbers."""

import random
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from flowers_utils.device import Device, choose_device, seed_everything, send
from flowers_utils.errors import FlowersError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "tpu"])
def test_a_device_that_is_not_available_or_unknown_is_named(monkeypatch, name):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(FlowersError, match=rf"'{name}' is not available.*: cpu"):
        choose_device(name)


@pytest.mark.parametrize(
    ("card", "capability", "precision"),
    [
        ("Tesla T4", (7, 5), torch.float16),
        ("A100", (8, 0), torch.bfloat16),
        ("GeForce GTX 1650", (7, 5), torch.float32),
        ("P100", (6, 0), torch.float32),
    ],
)
def test_cuda_comes_first_in_its_sixteen_bits_then_mps(monkeypatch, card, capability, precision):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: card)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    monkeypatch.setattr("torch.ones", Mock())
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    device, plain = choose_device(), choose_device("cuda", fast=False)
    assert (device.torch_device.type, device.channels_last) == ("cuda", True)
    assert (device.precision, plain.precision) == (precision, torch.float32)
    monkeypatch.setattr("torch.ones", Mock(side_effect=RuntimeError("no kernel image\nlong")))
    with pytest.warns(UserWarning, match=f"{card} is not used: no kernel image. .An old"):
        assert choose_device().torch_device.type == "mps"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (choose_device().torch_device.type, choose_device().channels_last) == ("mps", False)


@pytest.mark.parametrize(
    ("can", "caps", "precision"),
    [
        ({"amx_bf16": True}, {}, torch.bfloat16),
        ({"avx512_bf16": True}, {"ONEDNN_MAX_CPU_ISA": "avx512_core_amx"}, torch.bfloat16),
        ({"avx512_bf16": True}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, torch.float32),
        ({"amx_bf16": True}, {"DNNL_MAX_CPU_ISA": "AVX2"}, torch.float32),  # its older name
        ({"avx2": True}, {}, torch.float32),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_can_and_torch_may(monkeypatch, can, caps, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.setenv(name, caps.get(name, ""))
    device = choose_device("cpu")
    assert (device.precision, device.channels_last) == (precision, True)


def test_one_switch_turns_reduced_precision_and_layout_off():
    device = choose_device("cpu", fast=False)
    assert device.precision is torch.float32 and not device.channels_last
    with device.autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype is torch.float32
    images = Device(CPU, "test", channels_last=True).place_batch(torch.ones(2, 3, 8, 8))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_copies_are_asynchronous_on_cuda_only_and_losses_scaled_in_float16_only():
    copied = SimpleNamespace(to=lambda target, non_blocking: non_blocking)
    for kind in ("cuda", "mps", "cpu"):
        assert send(copied, torch.device(kind)) is (kind == "cuda")
    for precision in (torch.float16, torch.bfloat16, torch.float32):
        enabled = Device(CPU, "test", precision).scaler().is_enabled()
        assert enabled is (precision is torch.float16)


def test_seeding_repeats_every_source_of_chance():
    def draw():
        generator = seed_everything(5)
        numbers = torch.rand(1).item(), torch.rand(1, generator=generator).item()
        return random.random(), np.random.rand(), *numbers

    assert draw() == draw()


def test_an_autocast_that_an_interrupt_left_open_keeps_no_old_weights():
    device, layer = Device(CPU, "test", torch.bfloat16), torch.nn.Linear(4, 4)
    with device.autocast():
        before = layer(torch.ones(1, 4))
        with torch.no_grad():
            layer.weight.add_(1.0)
        with device.autocast():
            assert torch.allclose(layer(torch.ones(1, 4)), before + 4, atol=0.1)
