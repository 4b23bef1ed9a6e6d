"""A whole phase of training: the best weights on val are kept, and an interruption costs little."""

import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import transfer_learning_config as config
from flowers_utils.config_check import check_config, check_numbers
from flowers_utils.data import FlowerData, check_data
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, head_of
from flowers_utils.storage.resume import (
    identity_of,
    load_state,
    restore,
    save_state,
    state_of,
    threads_of,
)
from flowers_utils.trainer import PhaseResult, PhaseTrainer

__all__ = ["PhaseResult", "train_phase"]


def train_phase(
    model: nn.Module,
    data: FlowerData,
    device: Device,
    *,
    phase: int,
    epochs: int,
    head_lr: float,
    backbone_lr: float | None = None,
    seed: int = 0,
    folder: str | Path = "models",
    title: str | None = None,
    fresh: bool = False,
) -> PhaseResult:
    """Train a copy of `model` for one phase, with its own optimizer and schedule.

    `backbone_lr=None` freezes the backbone (Phase 1); else everything learns (Phase 2). The
    result's model holds the weights that were best on val; `model` itself stays as it is. A phase
    that was interrupted goes on after its last saved epoch (`trainer.SAVING_SHARE` says which are),
    and a finished one is loaded, if its saved state is of this very run; `fresh=True` trains anew.
    Writes `<network>_phase<N>_best.pth` and `..._resume.pth` into `folder` (`title` replaces
    "Phase N", also in the file names).
    Raises FlowersError before the first step if something cannot work.
    """
    check_config()
    given = {"number": phase, "epochs": epochs, "head_lr": head_lr, "seed": seed}
    if backbone_lr is not None:
        given["backbone_lr"] = backbone_lr
    check_numbers("train_phase", given)
    check_data(data)
    _check_model(model, data)
    title = title or f"Phase {phase}"
    stem = Path(folder) / f"{model.architecture}_{re.sub(r'[^a-z0-9]+', '', title.lower())}"

    def start() -> PhaseTrainer:
        return PhaseTrainer(
            model, data, device, phase=phase, title=title, epochs=epochs, head_lr=head_lr,
            backbone_lr=backbone_lr, seed=seed, checkpoint=stem.with_name(f"{stem.name}_best.pth")
        )  # fmt: skip

    kind = device.torch_device.type
    gradients, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled(kind)
    try:
        return _train(start, stem.with_name(f"{stem.name}_resume.pth"), fresh=fresh)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:  # Python may lose the end of a `with torch.no_grad()` when a stop falls right on it.
        torch.set_grad_enabled(gradients)
        torch.set_autocast_enabled(kind, autocast)
    # The failed step's tensors were held by the error, which is gone here.
    gc.collect()
    torch.cuda.empty_cache()
    batch_size = config.TRAINING_CONFIG["batch_size"]
    smaller = f"Run config.TRAINING_CONFIG['batch_size'] = {batch_size // 2} in a new cell, close"
    raise FlowersError(
        f"The device ran out of memory at batch size {batch_size}. "
        f"{smaller if batch_size > 2 else 'No smaller one works: take a smaller BACKBONE, close'} "
        "other programs that use the device, and run this cell again."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the computer had no memory left; only CUDA has an error class for it."""
    words = ("out of memory", "allocate memory", "not enough memory", "status_alloc_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        not isinstance(error, FlowersError) and any(w in str(error).lower() for w in words)
    )


def _check_model(model: nn.Module, data: FlowerData) -> None:
    if getattr(model, "architecture", None) not in BACKBONES:
        raise FlowersError("This network is not one of the lesson's; make it with build_model().")
    outputs = head_of(model).out_features
    if outputs != data.num_classes:
        raise FlowersError(
            f"The network's head has {outputs} outputs, but the data has {data.num_classes} "
            "classes; build the network for this data again."
        )


def _train(start: Callable[[], PhaseTrainer], state_file: Path, *, fresh: bool) -> PhaseResult:
    """Run what is left of a phase: all of it, the epochs after an interruption, or nothing."""
    trainer = start()
    identity = identity_of(trainer)
    state, note = (None, "") if fresh else load_state(state_file, identity)
    if state is not None:
        try:
            restore(trainer, state)
            note = _how_it_goes_on(trainer, state.get("threads"))
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError):
            note = f"Starting anew: the training state in '{state_file}' is damaged."
            trainer = start()
    trainer.result.note = note
    if trainer.epoch < trainer.epochs:
        trainer.run(lambda now: save_state(state_file, identity, state_of(now)))
    return trainer.finish()


def _how_it_goes_on(trainer: PhaseTrainer, threads: int | None) -> str:
    """A line for the student; `threads` is how many computed what was saved (None: not known)."""
    title = trainer.result.title
    if trainer.epoch == trainer.epochs:
        return (
            f"{title} was already trained and is loaded as it was; to train it anew, add "
            "fresh=True."
        )
    line = f"{title}: going on after epoch {trainer.epoch} of {trainer.epochs}, where it stopped."
    now = threads_of(trainer)
    if threads is None or threads == now:
        return line
    return (
        f"{line} The last digits may differ from an uninterrupted run, because the number of CPU "
        f"threads was {threads} and is now {now}."
    )
