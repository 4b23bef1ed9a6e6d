"""Where the lesson computes, and in which precision: CUDA, then MPS, then CPU."""

import contextlib
import ctypes
import os
import platform
import random
import sys
import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from flowers_utils.errors import FlowersError

CLEARLY_FASTER = 0.8  # so that a busy moment does not decide; a saved phase knows its precision
PRECISION_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Device:
    """A device with the precision and memory layout that suit it."""

    torch_device: torch.device
    name: str
    precision: torch.dtype = torch.float32
    channels_last: bool = False

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision for the forward pass; does nothing in float32.

        Without autocast's cache of rounded weights: a pass uses each weight once, and were a
        forward pass interrupted, old weights might stay in it.
        """
        if self.precision is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.precision, cache_enabled=False)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which float16 needs (small gradients would become 0) and others do not."""
        enabled = self.precision is torch.float16
        return torch.amp.GradScaler(self.torch_device.type, enabled=enabled)

    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, model: nn.Module) -> nn.Module:
        """Move the model onto the device, in its memory layout."""
        return model.to(self.torch_device, memory_format=self._layout())

    def place_batch(self, images: torch.Tensor) -> torch.Tensor:
        """Move images `(B, 3, H, W)` onto the device, in its memory layout."""
        return send(images, self.torch_device).contiguous(memory_format=self._layout())

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked to (needed before reading a clock)."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)
        elif self.torch_device.type == "mps":
            torch.mps.synchronize()

    def describe(self) -> str:
        """One line for the student."""
        layout = "channels_last" if self.channels_last else "contiguous"
        kind = self.torch_device.type.upper()
        return f"{kind} ({self.name}), {PRECISION_NAMES[self.precision]}, {layout}"


def send(tensor: torch.Tensor, target: torch.device) -> torch.Tensor:
    """The tensor on `target`; a CUDA card is not waited for.

    Elsewhere the copy is waited for: on MPS the source may be freed before it has been read
    (https://github.com/pytorch/pytorch/issues/189690).
    """
    return tensor.to(target, non_blocking=target.type == "cuda")


def choose_device(override: str | None = None, *, fast: bool = True) -> Device:
    """The best device here, or the one named by `override` (`"cuda"`, `"mps"`, `"cpu"`).

    `fast=False` switches reduced precision and channels_last off (on CUDA, convolutions may still
    round to TF32, as PyTorch does by default).
    Raises FlowersError if the device asked for is unknown or not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if override is not None and override not in available:
        raise FlowersError(f"Device '{override}' is unknown; use 'cuda', 'mps', 'cpu' or None.")
    if override is not None and not available[override]:
        there = ", ".join(f"'{name}'" for name, here in available.items() if here)
        raise FlowersError(
            f"Device '{override}' is not available on this machine; available: {there}. "
            "Call choose_device() to take the best one."
        )
    kind = override or next(name for name, here in available.items() if here)
    builders = {"cuda": _cuda_device, "mps": _mps_device, "cpu": _cpu_device}
    return builders[kind](fast)


def _cuda_device(fast: bool) -> Device:
    device = torch.device("cuda", torch.cuda.current_device())
    name = torch.cuda.get_device_name(device)
    if not fast:
        return Device(device, name)
    modern = torch.cuda.get_device_capability(device) >= (8, 0)
    return Device(device, name, torch.bfloat16 if modern else torch.float16, channels_last=True)


def _mps_device(fast: bool) -> Device:
    # float32 and contiguous whatever is asked: channels_last is many times slower on MPS.
    return Device(torch.device("mps"), f"Apple {platform.machine()}")


def _cpu_device(fast: bool) -> Device:
    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    device = torch.device("cpu")
    if not fast:
        return Device(device, name)
    keep_freed_memory()
    return Device(device, name, *_fastest_on_cpu())


@lru_cache(maxsize=1)
def _fastest_on_cpu() -> tuple[torch.dtype, bool]:
    """Precision, and whether channels_last: what the processor has, then what a stopwatch says."""
    can = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    can = can or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    usual = _conv_seconds(torch.float32, torch.channels_last)
    if can and _conv_seconds(torch.bfloat16, torch.channels_last) < CLEARLY_FASTER * usual:
        return torch.bfloat16, True
    contiguous = _conv_seconds(torch.float32, torch.contiguous_format)
    return torch.float32, contiguous >= CLEARLY_FASTER * usual


def _conv_seconds(precision: torch.dtype, layout: torch.memory_format, repeats: int = 5) -> float:
    """Processor time in seconds of `repeats` forward and backward passes through a typical
    convolution. Of one thread: on a busy machine threads wait for one another and a clock on the
    wall tells more about the others than about the processor.
    """
    conv = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=layout)
    images = torch.zeros(8, 64, 56, 56).to(memory_format=layout).requires_grad_()
    threads, start = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    try:
        for turn in range(1 + repeats):
            if turn == 1:  # the one before warmed up
                start = time.thread_time()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
                loss = conv(images).float().sum()
            loss.backward()
        return time.thread_time() - start
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step instead of returning it to the system.

    Otherwise every training step on a CPU fetches hundreds of megabytes anew, page by page.
    See `man mallopt`. Does nothing where the C library is not glibc; returns whether it acted.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    largest = 2**31 - 1
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, largest) == 1 for option in (mmap_threshold, trim_threshold))


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, numpy and torch (every device); returns a CPU generator of the same seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def peak_memory_bytes(device: Device) -> int:
    """Peak memory of this run in bytes: of the card on CUDA, else of this process."""
    if device.torch_device.type == "cuda":
        return torch.cuda.max_memory_allocated(device.torch_device)
    if os.name == "nt":
        import psutil  # comes with ipykernel

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
