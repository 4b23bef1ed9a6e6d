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
from flowers_utils.storage.files import keep_earlier, load_tensors, rename, save_tensors

SECONDS_BETWEEN_SAVES = 10.0  # a fast card must not wait for the disk after every short epoch
STATE_VERSION = 5  # raise it when training changes, so that older phases are trained again


def settings_of(model: nn.Module, data: FlowerData, phase: Phase) -> dict[str, Any]:
    """All that decides the result of a phase, as plain values."""
    common = {**config.TRAINING_CONFIG, **config.AUGMENTATION}
    crop = data.crop_size or data.image_size
    common |= {"resize": data.resize_size, "crop": crop}  # a recipe may have its own
    del common["total_epochs"], common["learning_rate"]  # a phase has its own
    return {
        **common,
        **{key: list(value) for key, value in config.NORMALIZATION.items()},
        **phase.numbers(),
        "network": model.architecture,
        "data": data.fingerprint,
        "starting weights": fingerprint(model),
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
        self._earlier = folder / f"{stem}_best.earlier.pth"
        # Another place changes the last digits only: a finished phase stays valid there.
        self.place = {"device": device.describe(), "torch": versions()["torch"]}
        self.settings = settings_of(model, data, phase)
        self.epochs_saved, self.saved_at = 0, time.monotonic()
        self.note = ""  # what the student should know: went on, was finished, began anew
        self.problem = ""  # why the newest content is not on disk

    def finished(self) -> dict[str, Any] | None:
        """The checkpoint of this very phase, if it was trained to its end on whatever device."""
        saved = self._read(self.checkpoint, self.settings)
        if saved is None and self._earlier.exists():  # of two runs in turn, none is trained again
            note, saved = self.note, self._read(self._earlier, self.settings)
            if saved and saved.get("finished"):
                other = rename(self._earlier, self.checkpoint.with_suffix(".swap"))
                keep_earlier(self.checkpoint)
                rename(other, self.checkpoint)
            self.note = note
        if saved is None or not saved.get("finished"):
            return None
        where = f"on {saved['place']['device']} with torch {saved['place']['torch']}"
        again = f"To train it again, first delete '{self.checkpoint.name}'."
        self.note = f"This phase was already trained, {where}, so it is loaded. {again}"
        say(self.note)
        return saved

    def restore(self, changing: dict[str, Any]) -> dict[str, Any] | None:
        """Take `changing` to where this very phase stopped; returns its best checkpoint so far.

        `changing` holds things with `state_dict()` and `load_state_dict()`. Where there is nothing
        to go on from: None, and what is there is renamed (the weights) or removed (the state).
        """
        saved = self._read(self.state, self.settings | self.place)
        if saved is None:
            self.state.unlink(missing_ok=True)
            if kept := keep_earlier(self.checkpoint):
                self.note = f"{self.note} The earlier weights are now '{kept.name}'.".strip()
            say(self.note)
            return None
        for name, part in changing.items():
            part.load_state_dict(saved["changing"][name])
        if self._read(self.checkpoint, self.settings) is None:  # that of a run in between
            keep_earlier(self.checkpoint)
        self.epochs_saved = len(saved["best"]["history"])
        self.note = f"Going on after epoch {self.epochs_saved}, where training stopped."
        say(self.note)
        return saved["best"]

    def _read(self, path: Path, run: dict[str, Any]) -> dict[str, Any] | None:
        """A file of this very run; else None, and the note says what is different."""
        if not path.exists():
            return None
        try:
            saved = load_tensors(path)
        except FlowersError as error:
            self.note = f"Training starts anew. {error}"
            return None
        before = saved.get("settings", {}) | saved.get("place", {})
        changes = [
            f"{key} was {before.get(key)!r} and is now {value!r}"
            for key, value in run.items()
            if repr(before.get(key)) != repr(value)
        ]
        if not changes:
            return saved
        self.note = f"'{path.name}' is of another run: {'; '.join(changes)}."
        return None

    @contextlib.contextmanager
    def explain_stops(self) -> Iterator[None]:
        """What a stop leaves behind, and how to go on, in one sentence."""
        try:
            yield
        except KeyboardInterrupt as error:
            told = f"{self.name} stopped. {self.epochs_saved} epochs are saved."
            raise Stopped(f"{told} Run this cell again to go on.") from error

    def save(self, changing: dict[str, Any], best: dict[str, Any], *, finished: bool) -> None:
        """Write both files now and then, at the end the first alone. A full disk stops nothing."""
        if not finished and time.monotonic() - self.saved_at < SECONDS_BETWEEN_SAVES:
            return
        run = {"settings": self.settings, "place": self.place}
        try:
            save_tensors(self.checkpoint, {**best, **run, "finished": finished})
            if finished:
                self.state.unlink(missing_ok=True)
            else:
                states = {name: part.state_dict() for name, part in changing.items()}
                save_tensors(self.state, {**run, "best": best, "changing": states})
            self.problem, self.epochs_saved = "", len(best["history"])
            self.saved_at = time.monotonic()
        except FlowersError as error:
            self.problem = f"Not everything could be saved: {error}"
            warnings.warn(f"Training goes on, but: {error}", stacklevel=2)
