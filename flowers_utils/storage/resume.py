"""The two files of a phase of training: the best weights, and a state to go on from."""

import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.device import PRECISION_NAMES, Device
from flowers_utils.errors import FlowersError, is_out_of_memory
from flowers_utils.models import fingerprint
from flowers_utils.storage.checkpoints import versions
from flowers_utils.storage.files import keep_earlier, load_tensors, save_tensors

SECONDS_BETWEEN_SAVES = 10.0  # a fast card must not wait for the disk after every short epoch
STATE_VERSION = 3  # raise it when training or the content of a state changes
NOT_OF_A_PHASE = ("total_epochs", "learning_rate")  # a phase has its own epochs and rates


def identity(
    model: nn.Module, data: FlowerData, device: Device, numbers: dict[str, Any]
) -> dict[str, Any]:
    """What a saved state must share with this run to be used for it; `numbers` are the phase's."""
    settings = {**config.TRAINING_CONFIG, **config.AUGMENTATION}
    normalization = {key: list(value) for key, value in config.NORMALIZATION.items()}
    return {
        **{key: value for key, value in settings.items() if key not in NOT_OF_A_PHASE},
        **numbers,  # after the settings, because a recipe may have a hue of its own
        **normalization,
        "network": model.architecture,
        "data": data.fingerprint,
        "starting weights": fingerprint(model, backbone_only=False),
        "device": f"{device.torch_device.type} {PRECISION_NAMES[device.precision]}",
        "torch": versions()["torch"],
        "state version": STATE_VERSION,
    }


class PhaseFiles:
    """Where a phase is kept: `<stem>_best.pth` and `<stem>_resume.pth` in a folder."""

    def __init__(self, folder: Path, stem: str, identity: dict[str, Any]):
        self.checkpoint = folder / f"{stem}_best.pth"
        self.state = folder / f"{stem}_resume.pth"
        self.identity = identity
        self.epochs_saved = 0
        self.saved_at = time.monotonic()
        self.problem = ""  # why the newest content is not on disk

    def restore(self, training: Any) -> str:
        """Take `training` to where it stopped, if this very run is saved; returns what to say.

        `training` has `state_dict()` and `load_state_dict()`, as things in PyTorch have.
        Files of another run are first renamed: nothing trained is ever lost.
        """
        state, why_not = self._load()
        if state is not None:
            try:
                training.load_state_dict(state["training"])
            except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise  # the file is whole
                why_not = f"The training state in '{self.state}' is damaged."
            else:
                self.epochs_saved = len(state["training"]["history"])
                return self._how_it_goes_on()
        kept = [keep_earlier(path) for path in (self.checkpoint, self.state)]
        if not any(kept):
            return ""
        names = " and ".join(f"'{path.name}'" for path in kept if path)
        told = ["Training starts anew.", why_not, f"What was there is kept as {names}."]
        return " ".join(filter(None, told))

    def _load(self) -> tuple[dict[str, Any] | None, str]:
        """The saved state if it is of this very run, else None and a sentence on why not."""
        if not self.state.exists():
            return None, ""
        try:
            state = load_tensors(self.state)
        except FlowersError as error:
            return None, str(error)
        theirs = state.get("identity")
        if not isinstance(theirs, dict):
            return None, f"'{self.state}' is not a training state of this lesson."
        changes = [
            f"{key} was {theirs.get(key)!r} and is now {value!r}"
            for key, value in self.identity.items()
            if repr(theirs.get(key)) != repr(value)
        ]
        if changes:
            return None, f"What is saved is of another run: {'; '.join(changes)}."
        return state, ""

    def _how_it_goes_on(self) -> str:
        epochs = self.identity["epochs"]
        if self.epochs_saved == epochs:
            return (
                "This phase was already trained and is loaded. To train it anew, first delete "
                f"'{self.state}'."
            )
        return f"Going on after epoch {self.epochs_saved} of {epochs}, where training stopped."

    def saving_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= SECONDS_BETWEEN_SAVES

    def save(self, training: Any, checkpoint: dict[str, Any]) -> None:
        """Write both files. A full disk is told but does not stop training: memory holds the best."""
        state = training.state_dict()
        content = {"identity": self.identity, "training": state}
        try:
            save_tensors(self.checkpoint, checkpoint)
            save_tensors(self.state, content)
        except FlowersError as error:
            self.problem = f"Not everything could be saved: {error}"
            warnings.warn(f"Training goes on, but: {error}", stacklevel=2)
            return
        self.problem = ""
        self.epochs_saved, self.saved_at = len(state["history"]), time.monotonic()

    def saved(self) -> str:
        """What a stop leaves behind, in words."""
        if self.epochs_saved < 2:
            return ("Nothing of it is saved yet.", "Epoch 1 is saved.")[self.epochs_saved]
        return f"Epochs 1 to {self.epochs_saved} are saved."


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the averages of AdamW the memory layout of their parameters, after they were loaded.

    Loading keeps the layout in which they were saved, and fused AdamW on a CPU walks through memory
    without looking: averages saved as channels_last would meet the wrong weights.
    """
    for parameter, averages in optimizer.state.items():
        for key, value in averages.items():
            if value.shape == parameter.shape:
                averages[key] = torch.empty_like(parameter).copy_(value)
