import pytest
import torch

from flowers_utils.device import choose_device, seed_everything
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress, clock


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


def test_lines_style_prints_what_the_student_should_see(capsys):
    with Progress(10, "Work", unit="image", style="lines") as bar:
        bar.update(5)
        bar.line("epoch 1/2: half done")
    assert capsys.readouterr().out == "epoch 1/2: half done\n"


def test_time_left_counts_only_what_this_run_did(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    bar = Progress(10, "Work", style="lines")
    bar.skip(5)
    now[0] = 102.0
    bar.update(1)
    assert bar.seconds_left() == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(7.6, "8 s"), (185, "3 min 05 s"), (4320, "1 h 12 min")]
)
def test_durations_are_quick_to_read(seconds, words):
    assert clock(seconds) == words
