import pytest
import torch

from flowers_utils import device as device_module
from flowers_utils.device import Device, choose_device, seed_everything, send
from flowers_utils.errors import FlowersError


def test_cpu_can_always_be_asked_for():
    assert choose_device("cpu").torch_device.type == "cpu"


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(FlowersError, match=f"'{kind}' is not available.*'cpu'"):
        choose_device(kind)


def test_an_unknown_device_is_named():
    with pytest.raises(FlowersError, match="'tpu' is unknown"):
        choose_device("tpu")


def test_one_switch_turns_reduced_precision_and_layout_off():
    device = choose_device("cpu", fast=False)
    assert device.precision is torch.float32 and not device.channels_last
    model = device.place(torch.nn.Conv2d(3, 8, 3))
    assert model.weight.is_contiguous()


def test_batches_get_the_layout_of_the_device():
    device = choose_device("cpu")
    batch = device.place_batch(torch.zeros(2, 3, 8, 8))
    assert batch.is_contiguous(memory_format=torch.channels_last) == device.channels_last


@pytest.mark.parametrize(
    ("has_bfloat16", "seconds", "chosen"),  # seconds: bfloat16, float32 channels_last, contiguous
    [
        (True, (1.0, 2.0, 2.0), (torch.bfloat16, True)),
        (False, (1.0, 2.0, 2.0), (torch.float32, True)),  # emulated, whatever the stopwatch says
        (True, (1.9, 2.0, 2.0), (torch.float32, True)),  # not clearly faster
        (False, (1.0, 2.0, 1.0), (torch.float32, False)),
        (False, (1.0, 2.0, 1.9), (torch.float32, True)),  # a busy moment must not decide
    ],
)
def test_a_stopwatch_confirms_precision_and_layout_of_a_cpu(
    has_bfloat16, seconds, chosen, monkeypatch
):
    cases = [
        (torch.bfloat16, torch.channels_last),
        (torch.float32, torch.channels_last),
        (torch.float32, torch.contiguous_format),
    ]
    took = dict(zip(cases, seconds, strict=True))
    for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: has_bfloat16, raising=False)
    monkeypatch.setattr(device_module, "_conv_seconds", lambda *case: took[case])
    # Without the memory of this process, which other tests share.
    monkeypatch.setattr(device_module, "_fastest_on_cpu", device_module._fastest_on_cpu.__wrapped__)
    device = choose_device("cpu")
    assert (device.precision, device.channels_last) == chosen


def test_the_choice_is_timed_once_a_process(monkeypatch):
    first = choose_device("cpu")
    monkeypatch.setattr(device_module, "_conv_seconds", lambda *case: pytest.fail("timed again"))
    assert choose_device("cpu") == first


@pytest.mark.parametrize("kind", ["cuda", "mps", "cpu"])
def test_only_a_cuda_card_is_not_waited_for(kind):
    class Copied:
        def to(self, target, non_blocking):
            return target.type, non_blocking

    assert send(Copied(), torch.device(kind)) == (kind, kind == "cuda")


def test_the_scaler_is_for_float16_only():
    device = choose_device("cpu")
    assert not device.scaler().is_enabled()


def test_seeding_repeats_every_source_of_chance():
    import random

    import numpy as np

    def draw():
        generator = seed_everything(5)
        return (
            random.random(),
            np.random.rand(),
            torch.rand(1).item(),
            torch.rand(1, generator=generator),
        )

    assert draw() == draw()


def test_an_autocast_whose_end_was_lost_leaves_no_old_weights_in_use():
    device = Device(torch.device("cpu"), "test", torch.bfloat16)
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
