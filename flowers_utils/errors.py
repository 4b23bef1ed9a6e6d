"""What the lesson says when it cannot go on, and when you stop it.

A notebook shows the sentence of these two errors alone; all others keep their traceback.
"""

import contextlib
import gc
import traceback
from collections.abc import Iterator

import torch

import transfer_learning_config as config

# What PyTorch's errors for lack of memory say: only CUDA has a class of its own for them.
WORDS = ("out of memory", "allocate memory", "not enough memory", "status_alloc_failed")


class FlowersError(RuntimeError):
    """Something that you can act on."""

    def _render_traceback_(self) -> list[str]:  # Jupyter asks for it before it prints a traceback
        return [str(self)]


class Stopped(KeyboardInterrupt):
    """You pressed stop. Still a KeyboardInterrupt, so that Run All ends here."""

    _render_traceback_ = FlowersError._render_traceback_


@contextlib.contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """A decorator: errors for lack of memory become a sentence, and what the function held is freed."""
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or any(w in str(error).lower() for w in WORDS)):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without CUDA
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    size = config.TRAINING_CONFIG["batch_size"]
    raise FlowersError(
        f"The device ran out of memory at batch size {size}. Close other programs that use it, run "
        f"config.TRAINING_CONFIG['batch_size'] = {max(2, size // 2)} in a new cell, then this cell "
        "again. If that does not help, take a smaller BACKBONE."
    )
