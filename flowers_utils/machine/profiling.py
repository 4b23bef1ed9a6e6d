"""How fast and how large a model is: latency, throughput, parameters, FLOPs, memory, size on disk.

Timings are taken at the precision and memory layout that the device uses for the lesson, after a
warm-up, with the device synchronised before the clock is read: a GPU works on after the call has
returned, and an unsynchronised clock would time only the queueing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flowers_utils.device import PRECISION_NAMES, Device, peak_memory_bytes
from flowers_utils.models import count_parameters
from flowers_utils.predictions import eval_mode

THROUGHPUT_BATCH = 32


@dataclass(frozen=True)
class Latency:
    """Time for one image (milliseconds) and images per second in batches of 32."""

    median_ms: float
    p95_ms: float
    images_per_second: float


@dataclass(frozen=True)
class ModelProfile:
    """Speed and size of one model on one device.

    `flops` is for one image, a multiply-add counted as two. `peak_memory_of` says what was measured:
    "device" (memory allocated on the GPU) or "process" (the most that the whole Python process held).
    """

    device: str
    precision: str
    image_size: int
    parameters: int
    flops: int
    median_ms: float
    p95_ms: float
    images_per_second: float
    peak_memory_bytes: int
    peak_memory_of: str
    disk_bytes: int | None

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values, ready for `results.json`."""
        return asdict(self)

    def table(self) -> str:
        """A text table with one line per quantity, for the notebook to print."""
        disk = "not saved yet" if self.disk_bytes is None else f"{self.disk_bytes / 1e6:.1f} MB"
        rows = {
            "measured on": f"{self.device}, {self.precision}, {self.image_size} x {self.image_size}",
            "parameters": f"{self.parameters / 1e6:.2f} million",
            "work per image": f"{self.flops / 1e9:.2f} GFLOPs",
            "latency, one image": f"{self.median_ms:.1f} ms (95 % within {self.p95_ms:.1f} ms)",
            f"throughput, batch {THROUGHPUT_BATCH}": f"{self.images_per_second:.0f} images/s",
            "size on disk": disk,
            f"peak memory ({self.peak_memory_of})": f"{self.peak_memory_bytes / 1e6:.0f} MB",
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def time_calls(
    call: Callable[[], object], *, repeats: int, warmup: int = 3, seconds: float = 3.0
) -> list[float]:
    """Seconds that each call took, at most `repeats` of them, fewer once `seconds` are used up.

    At least three calls are timed, so that a slow machine still gets a median.
    """
    for _ in range(warmup):
        call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < seconds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def measure_latency(
    model: nn.Module, device: Device, *, image_size: int, repeats: int = 50, seconds: float = 3.0
) -> Latency:
    """Median and 95th percentile for one image, and throughput in batches of 32.

    The images are random: a convolutional network does the same work for every image. Each of the
    two measurements stops after about `seconds`. The model is left on the device, in its mode.
    """
    device.place(model)

    def timed(batch_size: int, most: int, warmup: int) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(batch_size, 3, image_size, image_size, generator=generator)
        images = device.place_batch(images)

        def call() -> None:
            with device.autocast():
                model(images)
            device.synchronize()

        return time_calls(call, repeats=most, warmup=warmup, seconds=seconds)

    with eval_mode(model), torch.inference_mode():
        single = np.asarray(timed(1, repeats, 5)) * 1000
        batch = np.median(timed(THROUGHPUT_BATCH, max(3, repeats // 5), 1))
    return Latency(
        float(np.median(single)), float(np.percentile(single, 95)), float(THROUGHPUT_BATCH / batch)
    )


def count_flops(model: nn.Module, *, image_size: int) -> int:
    """Floating-point operations for one image; a multiply-add counts as two.

    `no_grad`, not `inference_mode`: the counter sees linear layers only in the former.
    """
    like = next(model.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)
    with eval_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()


def profile_model(
    model: nn.Module,
    device: Device,
    *,
    image_size: int,
    checkpoint: str | Path | None = None,
    seconds: float = 3.0,
) -> ModelProfile:
    """Everything above for one model; `checkpoint` is the file whose size is given.

    On CUDA the peak is that of this model and these forward passes alone, whatever else lies on the
    card; the counter is reset, so read the peak of a training run before.
    """
    device.place(model)
    on_cuda, others = device.torch_device.type == "cuda", 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device.torch_device)
        own = sum(tensor.nbytes for tensor in model.state_dict().values())
        others = torch.cuda.memory_allocated(device.torch_device) - own
    latency = measure_latency(model, device, image_size=image_size, seconds=seconds)
    memory = peak_memory_bytes(device) - others
    return ModelProfile(
        device=device.name,
        precision=PRECISION_NAMES[device.precision],
        image_size=image_size,
        parameters=count_parameters(model)[0],
        flops=count_flops(model, image_size=image_size),
        **asdict(latency),
        peak_memory_bytes=memory,
        peak_memory_of="device" if on_cuda else "process",
        disk_bytes=None if checkpoint is None else Path(checkpoint).stat().st_size,
    )
