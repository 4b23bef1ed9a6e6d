"""Speed and size of a model."""

import pytest
import torch
from torch import nn

from flowers_utils.machine.profiling import count_flops, measure_latency, profile_model, time_calls
from flowers_utils.models import build_model


class Small(nn.Module):
    """One convolution, one BatchNorm and one linear layer, whose work can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).mean(dim=(2, 3)))


def test_flops_count_convolution_and_head_with_a_multiply_add_as_two():
    convolution, head = 2 * 8 * 8 * 3 * 3 * 3 * 4, 2 * 4 * 2
    assert count_flops(Small(), image_size=8) == convolution + head


def test_resnet18_has_the_published_amount_of_work():
    model = build_model("resnet18", num_classes=5, weights=None)
    # 1.814 billion multiply-adds with 1,000 classes (torchvision's model page); the head has five
    expected = 2 * (1.814e9 - 512 * 995)
    assert count_flops(model, image_size=224) == pytest.approx(expected, rel=0.01)


def test_measuring_leaves_mode_and_weights_as_they_were(cpu):
    model = Small().train()
    model.bn.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure_latency(model, cpu, image_size=32, repeats=3, seconds=0.1)
    count_flops(model, image_size=32)
    assert model.training and not model.bn.training and model.conv.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_latency_is_ordered_and_positive(cpu):
    latency = measure_latency(Small(), cpu, image_size=8, repeats=20, seconds=0.2)
    assert 0 < latency.median_ms <= latency.p95_ms
    assert latency.images_per_second > 0


def test_the_warm_up_is_not_timed():
    calls = []
    times = time_calls(lambda: calls.append(1), repeats=4, warmup=2)
    assert (len(calls), len(times)) == (6, 4)


def test_a_slow_call_is_timed_three_times_and_no_more(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("flowers_utils.machine.profiling.time.perf_counter", lambda: next(clock))
    assert time_calls(lambda: None, repeats=50, seconds=1) == [10, 10, 10]


def test_profile_is_plain_values_with_the_size_of_the_file(cpu, tmp_path):
    file = tmp_path / "model.pth"
    file.write_bytes(b"x" * 1234)
    profile = profile_model(Small(), cpu, image_size=8, checkpoint=file, seconds=0.1)
    values = profile.as_dict()
    assert values["disk_bytes"] == 1234
    assert values["parameters"] == 3 * 4 * 9 + 4 + 4 + 4 * 2 + 2
    assert values["peak_memory_of"] == "process"
    assert values["peak_memory_bytes"] > 1e8  # torch alone takes more than 100 MB
    assert all(isinstance(value, (str, int, float)) for value in values.values())


def test_the_table_names_device_precision_and_image_size(cpu):
    table = profile_model(Small(), cpu, image_size=8, seconds=0.1).table()
    assert "test, float32, 8 x 8" in table and "not saved yet" in table
