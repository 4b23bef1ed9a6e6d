"""One progress bar for all long work: a widget, a text bar, or plain lines, as the place allows.

Bars are for those who watch. In a headless run (papermill, a test) widgets stand still and text bars flood
the log (papermill issues 617 and 765), so there one plain line is printed now and then. And a widget is not
saved in a notebook: so each piece of work ends with one line of plain text, which stays.
"""

import html
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, TextIO

from tqdm import tqdm

HEADLESS = {"papermill", "nbconvert", "nbclient", "pytest", "jupyter-nbconvert", "jupyter-execute"}


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line at once; what a console lacks (Windows: cp1252) becomes a code like `\\u4e2d`."""
    if not text:
        return
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def clock(seconds: float) -> str:
    """Seconds in words that are quick to read: `8 s`, `3 min 05 s`, `1 h 12 min`."""
    minutes, whole = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{whole} s"
    if minutes < 60:
        return f"{minutes} min {whole:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def is_headless() -> bool:
    """Whether this notebook's kernel was started by a program that nobody watches."""
    import psutil  # comes with ipykernel, so it is there wherever a kernel runs

    try:
        commands = [process.cmdline() for process in psutil.Process().parents()]
    except psutil.Error:
        return False  # processes of other users may not be looked at
    # `papermill a.ipynb`, `python -m papermill`, `C:\venv\Scripts\papermill.exe`
    return any(PurePath(word).stem in HEADLESS for command in commands for word in command[:3])


def progress_style() -> str:
    """`"widget"` in a live notebook, `"terminal"` where only text is drawn, else `"lines"`."""
    kernel = sys.modules.get("ipykernel.kernelapp")  # others may have imported it, too
    if kernel is None or not kernel.IPKernelApp.initialized():
        return "terminal" if sys.stderr.isatty() else "lines"
    if is_headless():
        return "lines"
    return "widget" if find_spec("ipywidgets") else "terminal"


class Progress:
    """A progress bar as a context manager; shows how far the work is and the time left.

    `total` counts in `unit`s ("B" for bytes), None or 0 if unknown; `style`: see `progress_style`.
    """

    def __init__(self, total: int | None, title: str, *, unit: str = "step", style: str = ""):
        self.total, self.title, self.unit = total or 0, title, unit
        self.done = self.first = 0
        self.text = ""
        self.started = self.drawn = time.monotonic()
        kind = {"widget": _Widget, "terminal": _TextBar}.get(style or progress_style())
        self.bar = kind() if kind else None  # None: a plain line now and then

    def skip(self, count: int) -> None:
        """Start at `count`: work that an earlier run already did and that costs no time now."""
        self.done = self.first = count

    def update(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self.done += count
        if time.monotonic() - self.drawn > (0.2 if self.bar else 15.0):  # seconds
            self.drawn = time.monotonic()
            share = min(1.0, self.done / self.total) if self.total else 0.0
            self.bar.draw(share, self.status()) if self.bar else say(self.status())

    def follow(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Hand on (images, labels) batch by batch, and advance by the images of each that is done."""
        for images, labels in batches:
            yield images, labels
            self.update(len(labels))

    def status(self) -> str:
        """How far the work is: `Phase 1: 50 %   best val 71 %   3 min 05 s left`."""
        if not self.total:
            return self._line(self.amount())
        spent = time.monotonic() - self.started  # the rest will go as fast as what this run did
        left = spent / max(1, self.done - self.first) * max(0, self.total - self.done)
        return self._line(f"{100 * self.done / self.total:.0f} %", f"{clock(left)} left")

    def _line(self, how_far: str, end: str = "") -> str:
        return "   ".join(filter(None, [f"{self.title}: {how_far}", self.text, end]))

    def amount(self) -> str:
        """What is done: `1,020 images`, `345 MB`, or `12 of 64 steps` if it is not all."""
        if self.unit == "B":
            return f"{self.done / 1e6:,.0f} MB"
        return (
            f"{self.done:,}{f' of {self.total:,}' if self.done < self.total else ''} {self.unit}s"
        )

    def note(self, text: str) -> None:
        """Show `text` behind the bar from the next update on, and in the line that stays."""
        self.text = text

    def line(self, text: str) -> None:
        """Print one full line (only where there is no bar to read it from)."""
        if self.bar is None:
            self.drawn = time.monotonic()
            say(text)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Replace the bar by one line of text, which is saved with the notebook."""
        how_far = f"{'stopped after ' if kind else ''}{self.amount()}"
        last = self._line(how_far, clock(time.monotonic() - self.started))
        self.bar.close(last) if self.bar else say(last)


class _TextBar:
    """A bar of text that is drawn over itself; tqdm knows how wide and how rich a console is."""

    def __init__(self):
        self.bar = tqdm(total=1.0, bar_format="|{bar:20}| {desc}", leave=False)

    def draw(self, share: float, status: str) -> None:
        self.bar.n = share
        self.bar.set_description_str(status)

    def close(self, last: str) -> None:
        self.bar.close()
        say(last)


class _Widget:
    """A bar as wide as the notebook, its text on a line above."""

    def __init__(self):
        # Not at the top: a shell needs neither, and `progress_style` has looked for them.
        from IPython.display import display
        from ipywidgets import HTML, FloatProgress, VBox

        self.words = HTML()
        self.bar = FloatProgress(max=1.0, layout={"width": "99%"})
        self.box = VBox([self.words, self.bar])
        self.place = display(self.box, display_id=True)

    def draw(self, share: float, status: str) -> None:
        # pre-wrap: the spaces between the parts of the text are meant
        self.words.value = f'<span style="white-space: pre-wrap">{html.escape(status)}</span>'
        self.bar.value = share

    def close(self, last: str) -> None:
        self.place.update({"text/plain": last}, raw=True)
        self.box.close()
