"""How fast and how large a model is.

The stopwatch is `torch.utils.benchmark.Timer`: it warms up, repeats a call until the median can be
trusted, and waits for CUDA, whose calls return before the work is done.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flowers_utils.device import PRECISION_NAMES, Device, peak_memory_bytes
from flowers_utils.models import count_parameters, eval_mode

if TYPE_CHECKING:
    from torch.utils.benchmark import Measurement

THROUGHPUT_BATCH = 32
ROUNDS = 15  # of calls that are timed in turn


def measure(call: Callable[[], object], device: Device, *, seconds: float) -> "Measurement":
    """Time `call` for at least about `seconds`; the result has `.median` and `.times` in seconds."""
    # Importing the Timer loads torch's tools for compiling extensions, which warn (with a path) of a
    # CUDA toolkit without a card. Nothing is compiled here.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    def and_wait() -> None:
        call()
        device.synchronize()  # the Timer waits for CUDA, but not for MPS

    threads = torch.get_num_threads()  # else the Timer measures on one
    timer = Timer("call()", globals={"call": and_wait}, num_threads=threads)
    return timer.blocked_autorange(min_run_time=seconds)


def latency_in_turn(
    calls: Mapping[str, Callable[[], object]], device: Device, *, rounds: int = ROUNDS
) -> dict[str, float]:
    """Median milliseconds of each call, timed in turn: a busy minute falls on all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(measure(call, device, seconds=0.02).median)
    return {name: 1000 * float(np.median(each)) for name, each in times.items()}


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


def profile_model(
    model: nn.Module,
    device: Device,
    *,
    image_size: int,
    checkpoint: str | Path | None = None,
    seconds: float = 3.0,
) -> ModelProfile:
    """Measure a model at the device's precision; `checkpoint` is the file whose size is given.

    The images are black: a convolutional network does the same work for every image. The model
    stays on the device, in its mode. On CUDA the peak is that of this model and these forward
    passes alone; the counter is reset, so read the peak of a training run before.
    """
    device.place(model)
    on_cuda, others = device.torch_device.type == "cuda", 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device.torch_device)
        own = sum(tensor.nbytes for tensor in model.state_dict().values())
        others = torch.cuda.memory_allocated(device.torch_device) - own

    def timed(count: int) -> "Measurement":
        images = device.place_batch(torch.zeros(count, 3, image_size, image_size))
        with eval_mode(model), torch.inference_mode(), device.autocast():
            return measure(lambda: model(images), device, seconds=seconds)

    single, batch = timed(1), timed(THROUGHPUT_BATCH)
    return ModelProfile(
        device=device.name,
        precision=PRECISION_NAMES[device.precision],
        image_size=image_size,
        parameters=count_parameters(model)[0],
        flops=count_flops(model, image_size=image_size),
        median_ms=1000 * single.median,
        p95_ms=1000 * float(np.percentile(single.times, 95)),
        images_per_second=THROUGHPUT_BATCH / batch.median,
        peak_memory_bytes=peak_memory_bytes(device) - others,
        peak_memory_of="device" if on_cuda else "process",
        disk_bytes=None if checkpoint is None else Path(checkpoint).stat().st_size,
    )


def count_flops(model: nn.Module, *, image_size: int) -> int:
    """Floating-point operations for one image; a multiply-add counts as two."""
    like = next(model.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)
    # Not `inference_mode`: in it the counter does not see linear layers.
    with eval_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()
