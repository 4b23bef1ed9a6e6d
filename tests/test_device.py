"""The device: chosen by what the hardware can do; the same seed draws the same numbers."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowers_utils.device import (
    Device,
    choose_device,
    cpu_has_bfloat16,
    peak_memory_bytes,
    seed_everything,
    send,
)
from flowers_utils.errors import FlowersError

CPU = torch.device("cpu")


def test_a_device_that_is_not_available_or_unknown_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FlowersError, match=r"'cuda' is not available.*: cpu"):
        choose_device("cuda")
    with pytest.raises(FlowersError, match="'tpu' is not available"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_cuda_is_taken_first_in_the_sixteen_bits_that_it_has_then_mps(
    monkeypatch, capability, precision
):
    for name, answer in (("is_available", True), ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    for name, answer in (("name", "a card"), ("capability", capability)):
        monkeypatch.setattr(torch.cuda, f"get_device_{name}", lambda _, answer=answer: answer)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device, plain = choose_device(), choose_device("cuda", fast=False)
    assert (device.torch_device.type, device.channels_last) == ("cuda", True)
    assert (device.precision, plain.precision) == (precision, torch.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (choose_device().torch_device.type, choose_device().channels_last) == ("mps", False)


@pytest.mark.parametrize(
    ("can", "cap", "precision"),
    [
        ({"amx_bf16": True}, "", torch.bfloat16),
        ({"avx512_bf16": True}, "avx512_core_amx", torch.bfloat16),
        ({"avx512_bf16": True}, "AVX512_CORE", torch.float32),
        ({"amx_bf16": True}, "AVX2", torch.float32),
        ({"avx2": True}, "", torch.float32),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_can_and_torch_may(monkeypatch, can, cap, precision):
    """Its instructions decide, never a stopwatch: a busy moment must not change a result."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    for clock in ("time", "monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(f"time.{clock}", None)
    device = choose_device("cpu")
    assert (device.precision, device.channels_last) == (precision, True)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", cap)  # its older name
    assert cpu_has_bfloat16() is (precision is torch.bfloat16)


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


def test_an_autocast_that_was_never_closed_keeps_no_old_weights():
    device, layer = Device(CPU, "test", torch.bfloat16), torch.nn.Linear(4, 4)
    lost = device.autocast()
    lost.__enter__()
    try:
        before = layer(torch.ones(1, 4))
        with torch.no_grad():
            layer.weight.add_(1.0)
        with device.autocast():
            assert torch.allclose(layer(torch.ones(1, 4)), before + 4, atol=0.1)
    finally:
        lost.__exit__(None, None, None)


def test_peak_memory_is_counted_in_bytes():
    assert 50e6 < peak_memory_bytes(CPU) < 1e12
