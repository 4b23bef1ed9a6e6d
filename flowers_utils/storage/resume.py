"""What a phase needs in order to go on after an interruption, and when it may be used."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import transfer_learning_config as config
from flowers_utils.device import PRECISION_NAMES
from flowers_utils.errors import FlowersError
from flowers_utils.models import fingerprint
from flowers_utils.storage.checkpoints import versions
from flowers_utils.storage.files import load_tensors, save_tensors

if TYPE_CHECKING:
    from flowers_utils.trainer import PhaseTrainer

UNUSED = ("total_epochs", "learning_rate")  # a phase has its own epochs and rates, named below
STATE_VERSION = 1  # raise it when training or the content of a state changes
KEYS = {
    "epoch": int,
    "model": dict,
    "best": dict,
    "best_epoch": int,
    "best_val_accuracy": float,
    "history": list,
    "optimizer": dict,
    "scheduler": dict,
    "scaler": dict,
}


def identity_of(trainer: "PhaseTrainer") -> dict[str, Any]:
    """What a saved state must share with this run to be used for it."""
    rates = {group["name"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
    sections = {
        "TRAINING_CONFIG": config.TRAINING_CONFIG,
        "AUGMENTATION": config.AUGMENTATION,
        "NORMALIZATION": {key: list(value) for key, value in config.NORMALIZATION.items()},
        "learning rate": rates,
    }
    settings = {
        f"{name}[{key!r}]": section[key]
        for name, section in sections.items()
        for key in sorted(section)
        if key not in UNUSED
    }
    return {
        "network": trainer.model.architecture,
        "phase": trainer.result.phase,
        "epochs": trainer.epochs,
        "seed": trainer.seed,
        "data": trainer.data.fingerprint,
        "starting weights": fingerprint(trainer.model, backbone_only=False),
        "device": f"{trainer.device.torch_device.type} {PRECISION_NAMES[trainer.device.precision]}",
        "torch": versions()["torch"],
        **settings,
    }


def threads_of(trainer: "PhaseTrainer") -> int:
    """How many threads compute (sums round differently with each number); 0 not on a CPU."""
    on_cpu = trainer.device.torch_device.type == "cpu"
    return torch.get_num_threads() if on_cpu else 0


def state_of(trainer: "PhaseTrainer") -> dict[str, Any]:
    """Everything needed to go on after this epoch. Each epoch draws from its own seed, so no
    random state has to be kept; tensors that stand in it twice are stored once."""
    newest = trainer.learned()
    best_is_newest = trainer.result.best_epoch == trainer.epoch
    return {
        "epoch": trainer.epoch,
        "model": newest,
        "best": newest if best_is_newest else trainer.best_state,
        "best_epoch": trainer.result.best_epoch,
        "best_val_accuracy": trainer.result.best_val_accuracy,
        "history": trainer.result.history,
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "threads": threads_of(trainer),
    }


def restore(trainer: "PhaseTrainer", state: dict[str, Any]) -> None:
    """Take `trainer` back to where `state` was taken; raises one of many errors if it does not fit."""
    if not trainer.learned().keys() == state["model"].keys() == state["best"].keys():
        raise KeyError("this state is of other tensors")
    if trainer.scheduler.state_dict().keys() != state["scheduler"].keys():
        raise KeyError("this state is of another scheduler")
    trainer.model.load_state_dict(state["model"], strict=False)
    trainer.optimizer.load_state_dict(state["optimizer"])
    _lay_out_as_parameters(trainer.optimizer)
    trainer.scheduler.load_state_dict(state["scheduler"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.best_state, trainer.epoch = state["best"], state["epoch"]
    trainer.result.history = state["history"]
    trainer.result.best_epoch = state["best_epoch"]
    trainer.result.best_val_accuracy = state["best_val_accuracy"]
    trainer.best_saved = trainer.best_is_on_disk()


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give the averages of AdamW the memory layout of their parameters.

    Loading keeps the layout in which they were saved, and fused AdamW on a CPU walks through memory
    without looking: averages saved as channels_last would meet the wrong weights.
    """
    for parameter, averages in optimizer.state.items():
        for key, value in averages.items():
            if value.shape == parameter.shape:
                averages[key] = torch.empty_like(parameter).copy_(value)


def save_state(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write `state` with the `identity` of the run it belongs to, atomically.

    Without waiting for the disk: a state lost in a power cut costs time, not a result.
    """
    content = {"state_version": STATE_VERSION, "identity": identity, **state}
    save_tensors(path, content, flush=False)


def load_state(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The state at `path` and an empty line, or None and a line on why it is not used.

    It is used only by the run it belongs to: same configuration, data, seed and version.
    """
    if not path.exists():
        return None, ""
    try:
        state = load_tensors(path)
    except FlowersError as error:
        return None, f"Starting anew: {error}"
    theirs = state.get("identity")
    if not isinstance(theirs, dict) or any(
        not isinstance(state.get(key), kind) for key, kind in KEYS.items()
    ):
        return None, f"Starting anew: '{path}' is not a training state of this lesson."
    theirs = {"state version": state.get("state_version"), **theirs}
    ours = {"state version": STATE_VERSION, **identity}
    changes = [
        f"{key} was {theirs.get(key)!r} and is now {ours[key]!r}"
        for key in ours
        if repr(theirs.get(key)) != repr(ours[key])
    ]
    if changes:
        return None, f"Starting anew: the saved state is of another run ({'; '.join(changes)})."
    return state, ""
