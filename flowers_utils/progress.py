"""One progress bar for all long work, and one line of plain text that stays when it is done.

In a run that nobody watches (papermill, a test) a line now and then stands for the bar.
"""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import PurePath

import psutil
from tqdm.auto import tqdm

HEADLESS = {"papermill", "nbconvert", "nbclient", "pytest", "jupyter-nbconvert", "jupyter-execute"}
BETWEEN_LINES = 15.0  # seconds


def say(text: str) -> None:
    """Print a line at once; a character that the console lacks becomes a code like `\\u4e2d`."""
    if text:
        encoding = sys.stdout.encoding or "utf-8"  # Windows: often cp1252
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def clock(seconds: float) -> str:
    """Seconds in words that are quick to read: `8 s`, `3 min 05 s`, `1 h 12 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def is_watched() -> bool:
    """Whether somebody may see a bar: not in papermill, pytest and their like, not in a log file."""
    with contextlib.suppress(psutil.Error):  # processes of other users may not be read
        for process in (psutil.Process(), *psutil.Process().parents()):
            # `papermill a.ipynb`, `python -m papermill`, `C:\venv\Scripts\papermill.exe`
            if any(PurePath(word).stem in HEADLESS for word in process.cmdline()[:3]):
                return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()


class Progress(contextlib.AbstractContextManager):
    """A progress bar as a context manager; `total` is a count of `unit`s ("B": bytes), or unknown."""

    def __init__(self, total: int | None, title: str, *, unit: str = "step"):
        self.title, self.unit, self.text = title, unit, ""
        self.done, self.total, self.first = 0, total, 0
        self.started = self.printed = time.monotonic()
        # `leave=False`: a closed widget would not be saved in a notebook.
        style = {"unit": unit, "unit_scale": unit == "B", "leave": False}
        self.bar = tqdm(total=total, desc=title, disable=not is_watched(), **style)

    def skip(self, count: int) -> None:
        """Start at `count`: work that an earlier run did and that costs no time now."""
        self.done = self.first = self.bar.initial = self.bar.n = count

    def update(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self.done += count
        self.bar.update(count)
        if self.bar.disable and time.monotonic() - self.printed >= BETWEEN_LINES:
            self.printed = time.monotonic()
            self._say()

    def follow(self, batches: Iterable[tuple]) -> Iterator[tuple]:
        """Hand on (images, labels) as `tqdm(batches)` does, and advance by the images of each."""
        for batch in batches:
            yield batch
            self.update(len(batch[1]))

    def note(self, text: str) -> None:
        """Show `text` beside the bar from now on, and in the line that stays."""
        self.text = text
        self.bar.set_postfix_str(text)

    def _say(self, how: str = "") -> None:
        """What is done (`1,020 images`, `12 of 64 steps`, `345 MB`), the note, the time or what is left."""
        total = f" of {self.total:,}" if self.total and self.done < self.total else ""
        amount = f"{self.done:,}{total} {self.unit}s"
        if self.unit == "B":
            amount = f"{self.done / 1e6:,.0f} MB"
        seconds = time.monotonic() - self.started
        told = clock(seconds)
        if total and not how:
            left = seconds * (self.total - self.done) / max(self.done - self.first, 1)
            told = f"{clock(left)} left"
        say("   ".join(filter(None, [f"{self.title}: {how}{amount}", self.text, told])))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.close()
        self._say("stopped after " if kind else "")
