"""The two files of a phase: the best weights, and in the middle of it a state to go on from."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError, Stopped
from flowers_utils.models import fingerprint
from flowers_utils.progress import say
from flowers_utils.storage.checkpoints import load_checkpoint, versions
from flowers_utils.storage.files import keep_earlier, load_tensors, save_tensors

SECONDS_BETWEEN_SAVES = 10.0  # a fast card must not wait for the disk after every short epoch
STATE_VERSION = 4  # raise it when training changes, so that older phases are trained again
NOT_OF_A_PHASE = ("total_epochs", "learning_rate")  # a phase has its own epochs and rates


def hyperparameters(model: nn.Module, data: FlowerData, numbers: dict[str, Any]) -> dict[str, Any]:
    """What decides the result of a phase; `numbers` are the phase's own."""
    settings = {**config.TRAINING_CONFIG, **config.AUGMENTATION}
    return {
        **{key: value for key, value in settings.items() if key not in NOT_OF_A_PHASE},
        **{key: list(value) for key, value in config.NORMALIZATION.items()},
        **numbers,
        "network": model.architecture,
        "data": data.fingerprint,
        "starting weights": fingerprint(model, backbone_only=False),
        "version of the training": STATE_VERSION,
    }


def place(device: Device) -> dict[str, str]:
    """Where a phase is trained: this changes the last digits only, but an epoch needs them."""
    return {"device": device.describe(), "torch": versions()["torch"]}


class PhaseFiles:
    """Where a phase is kept: `<stem>_best.pth` and, while it is not finished, `<stem>_resume.pth`.

    The first is a checkpoint that also holds the history, so a finished phase needs no second file.
    """

    def __init__(self, folder: Path, stem: str, settings: dict[str, Any], here: dict[str, str]):
        self.checkpoint = folder / f"{stem}_best.pth"
        self.state = folder / f"{stem}_resume.pth"
        self.settings, self.here = settings, here
        self.epochs_saved = 0
        self.saved_at = time.monotonic()
        self.note = ""  # what the student should know: went on, was finished, began anew
        self.problem = ""  # why the newest content is not on disk

    def finished(self) -> dict[str, Any] | None:
        """The checkpoint of this very phase, if it was trained to its end.

        Device and version of torch may differ, which is said: what was learned stays valid.
        """
        try:
            saved = load_checkpoint(self.checkpoint)
        except FlowersError:  # none, or damaged: trained again, and the file is kept aside
            return None
        if not saved.get("finished") or self._differences(saved.get("settings"), self.settings):
            return None
        elsewhere = [f"{k} {v}" for k, v in saved["place"].items() if self.here.get(k) != v]
        self.note = (
            "This phase was already trained, so it is loaded. To train it again, first delete "
            f"'{self.checkpoint}'."
        )
        if elsewhere:
            self.note += f" (It was trained elsewhere: {', '.join(elsewhere)}.)"
        say(self.note)
        return saved

    def restore(self, changing: dict[str, Any]) -> dict[str, Any] | None:
        """Take `changing` to where this very phase stopped; returns its best checkpoint so far.

        `changing` are the things of PyTorch that training changes: each has `state_dict()` and
        `load_state_dict()`. None if there is nothing to go on from. Best weights of another run are
        renamed first, its resume state is removed; the note says so.
        """
        saved, why_not = self._read_state()
        if saved is None:
            kept = keep_earlier(self.checkpoint)
            self.state.unlink(missing_ok=True)
            told = f"What was there is kept as '{kept.name}'." if kept else ""
            self.note = " ".join(filter(None, [why_not, told]))
            say(self.note)
            return None
        try:
            for name, part in changing.items():
                part.load_state_dict(saved["changing"][name])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            # A part may be loaded already, so this run cannot simply start anew.
            raise FlowersError(f"'{self.state}' is damaged. Delete it and try again.") from error
        match_layout(changing["optimizer"])
        self.epochs_saved = len(saved["best"]["history"])
        self.note = f"Going on after epoch {self.epochs_saved}, where training stopped."
        say(self.note)
        return saved["best"]

    def _read_state(self) -> tuple[dict[str, Any] | None, str]:
        """The saved state if it is of this very run, else None and why not ("" if there is none)."""
        if not self.state.exists():
            return None, ""
        try:
            saved = load_tensors(self.state)
        except FlowersError as error:
            return None, f"Training starts anew. {error}"
        changes = self._differences(saved.get("settings"), self.settings)
        changes += self._differences(saved.get("place"), self.here)
        if changes:
            told = f"What is saved is of another run: {'; '.join(changes)}."
            return None, f"Training starts anew. {told}"
        return saved, ""

    @staticmethod
    def _differences(theirs: Any, ours: dict[str, Any]) -> list[str]:
        if not isinstance(theirs, dict):
            return ["it is not of this lesson"]
        return [
            f"{key} was {theirs.get(key)!r} and is now {value!r}"
            for key, value in ours.items()
            if repr(theirs.get(key)) != repr(value)
        ]

    def saving_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= SECONDS_BETWEEN_SAVES

    @contextlib.contextmanager
    def explain_stops(self, name: str) -> Iterator[None]:
        """What a stop or an error leaves behind, and how to go on, in one sentence."""
        try:
            yield
        except KeyboardInterrupt as stop:
            raise Stopped(f"{name} stopped. {self.saved()} Run this cell again to go on.") from stop
        except FlowersError as error:
            raise FlowersError(f"{name}: {error} {self.saved()}") from error

    def save(self, changing: dict[str, Any], best: dict[str, Any], *, finished: bool) -> None:
        """Write both files, at the end only the first. A full disk does not stop training."""
        run = {"settings": self.settings, "place": self.here}
        try:
            save_tensors(self.checkpoint, {**best, **run, "finished": finished})
            if finished:
                self.state.unlink(missing_ok=True)
            else:
                states = {name: part.state_dict() for name, part in changing.items()}
                save_tensors(self.state, {**run, "best": best, "changing": states})
        except FlowersError as error:
            self.problem = f"Not everything could be saved: {error}"
            warnings.warn(f"Training goes on, but: {error}", stacklevel=2)
            return
        self.problem = ""
        self.epochs_saved, self.saved_at = len(best["history"]), time.monotonic()

    def saved(self) -> str:
        """What a stop leaves behind, in words."""
        if self.epochs_saved < 2:
            return ("Nothing of it is saved yet.", "Epoch 1 is saved.")[self.epochs_saved]
        return f"Epochs 1 to {self.epochs_saved} are saved."


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the averages of AdamW the memory layout of their parameters, after they were loaded.

    Loading keeps the layout in which they were saved, and fused AdamW on a CPU walks through memory
    without a check: averages saved as channels_last would meet the wrong weights.
    """
    for parameter, averages in optimizer.state.items():
        for key, value in averages.items():
            if value.shape == parameter.shape:
                averages[key] = torch.empty_like(parameter).copy_(value)
