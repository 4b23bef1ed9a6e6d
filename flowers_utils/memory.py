"""Memory of this process: kept for the next step, and how much there was at most."""

import ctypes
import os
import platform
import sys

import torch


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of returning it to the system.

    Otherwise each training step on a CPU asks the system for hundreds of megabytes again, page by
    page: 13 % of a step of Phase 2, measured on one thread. Linux with glibc; see `man mallopt`.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    for option in (mmap_threshold, trim_threshold):
        if not libc.mallopt(option, 2**31 - 1):
            libc.mallopt(option, 2**25)  # all that an older glibc takes


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this run in bytes: of the card on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if os.name == "nt":
        import psutil  # comes with ipykernel

        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
