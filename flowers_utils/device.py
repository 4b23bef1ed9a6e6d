"""Where the lesson computes, and in which precision: CUDA, then MPS, then CPU."""

import ctypes
import os
import platform
import random
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from flowers_utils.errors import FlowersError

# Clusters cap the instructions that oneDNN, torch's library for CPUs, may use. These allow bfloat16:
# https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
ISA_WITH_BFLOAT16 = ("DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


@dataclass(frozen=True)
class Device:
    """A device, with the precision and the memory layout that suit it."""

    torch_device: torch.device
    name: str
    precision: torch.dtype = torch.float32
    channels_last: bool = False

    def autocast(self) -> torch.autocast:
        """For the forward pass: convolutions and linear layers compute in `precision`.

        The weights and their gradients stay float32.
        """
        if self.precision is torch.float32:
            return torch.autocast(self.torch_device.type, enabled=False)
        # No cache of rounded weights: after an interrupted pass it would still hold old ones.
        return torch.autocast(self.torch_device.type, self.precision, cache_enabled=False)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling. float16 needs it, or small gradients become 0; otherwise it does nothing."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.precision is torch.float16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move the model onto the device, in its memory layout."""
        return model.to(self.torch_device, memory_format=self._layout())

    def place_batch(self, images: torch.Tensor) -> torch.Tensor:
        """Move images `(B, 3, H, W)` onto the device, in its memory layout."""
        return images.to(self.torch_device).contiguous(memory_format=self._layout())

    def _layout(self) -> torch.memory_format:
        # channels_last: the colours of a pixel are neighbours, as fast convolutions need them.
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def synchronize(self) -> None:
        """Wait until the device has finished: GPUs work on after the call, so clocks need this."""
        if self.torch_device.type != "cpu":
            torch.accelerator.synchronize()

    def describe(self) -> str:
        """One line for the student, such as `CPU (x86_64, 2 threads), float32, channels_last`."""
        layout = "channels_last" if self.channels_last else "contiguous"
        precision = str(self.precision).removeprefix("torch.")
        return f"{self.torch_device.type.upper()} ({self.name}), {precision}, {layout}"


def send(tensor: torch.Tensor, target: torch.device) -> torch.Tensor:
    """The tensor on `target`. From pinned memory, the program does not wait for a copy to CUDA."""
    # On MPS such a copy may read memory that was freed meanwhile (pytorch's issue 189690).
    return tensor.to(target, non_blocking=target.type == "cuda")


def choose_device(name: str | None = None, *, fast: bool = True) -> Device:
    """The best device here, or the one named (`"cuda"`, `"mps"`, `"cpu"`).

    `fast=False` switches reduced precision and channels_last off. Both follow from the hardware, never
    from a measurement: a busy moment must not change the result of a run.
    """
    cuda, mps = torch.cuda.is_available() and card_works(), torch.backends.mps.is_available()
    here = [kind for kind, usable in {"cuda": cuda, "mps": mps, "cpu": True}.items() if usable]
    name = name or here[0]
    if name not in here:
        raise FlowersError(
            f"Device {name!r} is not available on this machine; available: {', '.join(here)}. "
            "Call choose_device() to take the best one."
        )
    title, precision = f"Apple {platform.machine()}", torch.float32  # of MPS
    if name == "cuda":
        title = torch.cuda.get_device_name()
        # float16 from 7.0 on (not GTX 16, which gives nan: pytorch #77955), bfloat16 from 8.0 on.
        capability, odd = torch.cuda.get_device_capability(), "GTX 16" in title
        half = torch.float16 if capability >= (7, 0) and not odd else torch.float32
        precision = torch.bfloat16 if capability >= (8, 0) else half
    elif name == "cpu":
        title = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
        precision = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    fast = fast and name != "mps"  # channels_last is many times slower there
    return Device(torch.device(name), title, precision if fast else torch.float32, fast)


def card_works() -> bool:
    """Whether torch can compute on the NVIDIA card here; its newer releases leave out old cards."""
    try:
        torch.ones(1, device="cuda").item()
    except RuntimeError as error:
        said = f"{torch.cuda.get_device_name()} is not used: {str(error).partition(chr(10))[0]}."
        warnings.warn(f"{said} (An old card needs an older release of torch.)", stacklevel=3)
        return False
    return True


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 itself (AVX512-BF16 or AMX), and torch may."""
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    # Releases of torch before 2.10 have no public way to ask, so there it is float32.
    can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    able = can.get("avx512_bf16") or can.get("amx_bf16")
    return bool(able) and cap.upper().startswith(ISA_WITH_BFLOAT16)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of returning it to the system.

    Otherwise each training step on a CPU asks the system for hundreds of megabytes again, page by
    page: 13 % of a step of Phase 2, measured on one thread. Linux with glibc; see `man mallopt`.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX of malloc.h: no block of its own for a large tensor
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing goes back to the system


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, numpy and torch (every device); returns a CPU generator of the same seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)
