"""What the lesson says when it cannot go on, and when you stop it.

Under an error a notebook shows 30 to 50 lines of traceback. That helps where the cause is unknown.
These two say themselves what happened and what to do next, so Jupyter shows their sentence alone.
All other errors keep their traceback.
"""

import contextlib
import gc
import traceback
from collections.abc import Iterator

import torch

import transfer_learning_config as config


class _SentenceOnly:
    """Jupyter and IPython ask an error for this method before they print its traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class FlowersError(_SentenceOnly, RuntimeError):
    """Something that you can act on: what happened, why, and what to do next."""


class Stopped(_SentenceOnly, KeyboardInterrupt):
    """You pressed stop: what is saved, and how to go on.

    Still a KeyboardInterrupt, so that `except Exception` does not swallow it and Run All ends here.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the computer had no memory left; only CUDA has an error class for it."""
    words = ("out of memory", "allocate memory", "not enough memory", "status_alloc_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        not isinstance(error, FlowersError) and any(w in str(error).lower() for w in words)
    )


@contextlib.contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """A decorator: errors for lack of memory become a sentence, and what the function held is freed."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
    else:
        return
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without CUDA
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    batch_size = config.TRAINING_CONFIG["batch_size"]
    smaller = f", run config.TRAINING_CONFIG['batch_size'] = {batch_size // 2} in a new cell"
    raise FlowersError(
        f"The device ran out of memory at batch size {batch_size}. Close other programs that use "
        f"it{smaller if batch_size > 3 else ''}, then run this cell again. "
        "If that does not help, take a smaller BACKBONE."
    )
