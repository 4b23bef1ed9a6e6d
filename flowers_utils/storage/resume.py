"""The two files of a phase: the best weights, and in the middle of it a state to go on from."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError, Stopped
from flowers_utils.models import fingerprint
from flowers_utils.phases import Phase
from flowers_utils.progress import say
from flowers_utils.storage.checkpoints import versions
from flowers_utils.storage.files import keep_earlier, load_tensors, save_tensors

SECONDS_BETWEEN_SAVES = 10.0  # a fast card must not wait for the disk after every short epoch
STATE_VERSION = 4  # raise it when training changes, so that older phases are trained again
NOT_OF_A_PHASE = ("total_epochs", "learning_rate")  # a phase has its own epochs and rates


def settings_of(model: nn.Module, data: FlowerData, phase: Phase) -> dict[str, Any]:
    """All that decides the result of a phase, as plain values."""
    common = {**config.TRAINING_CONFIG, **config.AUGMENTATION}
    return {
        **{key: value for key, value in common.items() if key not in NOT_OF_A_PHASE},
        **{key: list(value) for key, value in config.NORMALIZATION.items()},
        **phase.numbers(),
        "network": model.architecture,
        "data": data.fingerprint,
        "starting weights": fingerprint(model, backbone_only=False),
        "version of the training": STATE_VERSION,
    }


class PhaseFiles:
    """Where a phase is kept: `<stem>_best.pth` and, while it is not finished, `<stem>_resume.pth`.

    The first is a checkpoint that also holds the history, so a finished phase needs no second file.
    """

    def __init__(
        self, folder: Path, model: nn.Module, data: FlowerData, device: Device, phase: Phase
    ):
        self.name, stem = phase.name, f"{model.architecture}_{phase.stem}"
        self.checkpoint, self.state = folder / f"{stem}_best.pth", folder / f"{stem}_resume.pth"
        # Another place changes the last digits only: a finished phase stays valid there.
        place = {"device": device.describe(), "torch": versions()["torch"]}
        self.run = {"settings": settings_of(model, data, phase), "place": place}
        self.own = False  # whether the best weights on the disk are of this very phase
        self.epochs_saved, self.saved_at = 0, time.monotonic()
        self.note = ""  # what the student should know: went on, was finished, began anew
        self.problem = ""  # why the newest content is not on disk

    def finished(self) -> dict[str, Any] | None:
        """The checkpoint of this very phase, if it was trained to its end on whatever device."""
        saved, self.note = self._read(self.checkpoint, "settings")
        self.own = saved is not None
        if saved is None or not saved.get("finished"):
            return None
        self.state.unlink(missing_ok=True)  # of a run that was killed at its very end
        self.note = (
            "This phase was already trained, so it is loaded. To train it again, first delete "
            f"'{self.checkpoint.name}'."
        )
        there, here = saved["place"], self.run["place"]
        if there != here:
            self.note += f" (It was trained on {there['device']} with torch {there['torch']}.)"
        say(self.note)
        return saved

    def restore(self, changing: dict[str, Any]) -> dict[str, Any] | None:
        """Take `changing` to where this very phase stopped; returns its best checkpoint so far.

        `changing` are the things of PyTorch that training changes: each has `state_dict()` and
        `load_state_dict()`. None if there is nothing to go on from. Best weights of another run are
        renamed first, its resume state is removed; the note says so.
        """
        saved, why_not = self._read(self.state, "settings", "place")
        if saved is None:
            kept = None if self.own else keep_earlier(self.checkpoint)
            self.state.unlink(missing_ok=True)
            told = f"It is kept as '{kept.name}'." if kept else ""
            self.note = " ".join(filter(None, [why_not or self.note, told]))
            say(self.note)
            return None
        for name, part in changing.items():
            part.load_state_dict(saved["changing"][name])
        self.epochs_saved = len(saved["best"]["history"])
        self.note = f"Going on after epoch {self.epochs_saved}, where training stopped."
        say(self.note)
        return saved["best"]

    def _read(self, path: Path, *parts: str) -> tuple[dict[str, Any] | None, str]:
        """A file of this very run, else None and why not ("" if there is no file)."""
        if not path.exists():
            return None, ""
        try:
            saved = load_tensors(path)
        except FlowersError as error:
            return None, f"Training starts anew. {error}"
        changes = [
            f"{key} was {saved.get(part, {}).get(key)!r} and is now {value!r}"
            for part in parts
            for key, value in self.run[part].items()
            if repr(saved.get(part, {}).get(key)) != repr(value)
        ]
        if changes:
            return None, f"'{path.name}' is of another run: {'; '.join(changes)}."
        return saved, ""

    @contextlib.contextmanager
    def explain_stops(self) -> Iterator[None]:
        """What a stop or an error leaves behind, and how to go on, in one sentence."""
        try:
            yield
        except KeyboardInterrupt as stop:
            told = f"{self.name} stopped. {self._saved()} Run this cell again to go on."
            raise Stopped(told) from stop
        except FlowersError as error:
            raise FlowersError(f"{self.name}: {error} {self._saved()}") from error

    def _saved(self) -> str:
        count = self.epochs_saved
        return f"The first {count} epochs are saved." if count else "No epoch is saved yet."

    def save(self, changing: dict[str, Any], best: dict[str, Any], *, finished: bool) -> None:
        """Write both files now and then, at the end the first alone. A full disk stops nothing."""
        if not finished and time.monotonic() - self.saved_at < SECONDS_BETWEEN_SAVES:
            return
        try:
            save_tensors(self.checkpoint, {**best, **self.run, "finished": finished})
            if finished:
                self.state.unlink(missing_ok=True)
            else:
                states = {name: part.state_dict() for name, part in changing.items()}
                save_tensors(self.state, {**self.run, "best": best, "changing": states})
        except FlowersError as error:
            self.problem = f"Not everything could be saved: {error}"
            warnings.warn(f"Training goes on, but: {error}", stacklevel=2)
            return
        self.problem = ""
        self.epochs_saved, self.saved_at = len(best["history"]), time.monotonic()
