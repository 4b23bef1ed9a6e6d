"""One progress bar for all long work: a widget, a text bar, or plain lines, as the place allows.

Bars are for those who watch. In a headless run (papermill, a test) widgets stand still and text bars flood
the log (papermill issues 617 and 765), so there one plain line is printed now and then. And a widget is not
saved in a notebook: so each piece of work ends with one line of plain text, which stays.
"""

import html
import re
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import PurePath
from types import TracebackType
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0
SECONDS_BETWEEN_DRAWINGS = 0.2  # of the widget: more often would only load the browser
HEADLESS = {"papermill", "nbconvert", "nbclient", "pytest", "jupyter-nbconvert", "jupyter-execute"}


def say(text: str) -> None:
    """Print one line that must be seen before long work begins.

    A console that lacks a character (Windows: cp1252) shows its code instead; nothing fails.
    """
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def clock(seconds: float) -> str:
    """Seconds in words that are quick to read: `8 s`, `3 min 05 s`, `1 h 12 min`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def program_name(command: list[str]) -> str:
    """What a command line runs: "papermill" for `python -m papermill a.ipynb`, "" for `python -c ...`.

    Only the program counts: the paths that it is given may contain any word.
    """
    names = [re.sub(r"(-script)?\.(exe|pyw?)$", "", PurePath(word).name) for word in command]
    if not names or not names[0].startswith("python"):
        return names[0] if names else ""
    for place, word in enumerate(command[1:], start=1):
        if word in ("-m", "-c"):
            return "".join(command[place + 1 : place + 2]) if word == "-m" else ""
        if not word.startswith("-"):
            return names[place]
    return ""


def is_headless() -> bool:
    """Whether this notebook's kernel was started by a program that nobody watches."""
    import psutil  # comes with ipykernel, so it is there wherever a kernel runs

    try:
        for process in psutil.Process().parents():
            name = program_name(process.cmdline())
            # Not yet an answer: Windows puts a second python between; pytest-xdist a `python -c`.
            if name not in ("", "ipykernel_launcher"):
                return name in HEADLESS
    except psutil.Error:
        pass  # processes of other users may not be looked at
    return False


def progress_style() -> str:
    """`"widget"` in a live notebook, `"terminal"` where only text is drawn, else `"lines"`."""
    if "ipykernel" in sys.modules and "IPython" in sys.modules:
        if is_headless():
            return "lines"
        return "widget" if find_spec("ipywidgets") else "terminal"
    return "terminal" if sys.stderr.isatty() else "lines"


class Progress:
    """A progress bar as a context manager; shows how far the work is and the time left.

    `total` counts in `unit`s ("B" for bytes) and is None or 0 if unknown; `style` overrides what
    `progress_style()` finds. The last note stands in the line that stays.
    """

    def __init__(
        self, total: int | None, title: str, *, unit: str = "step", style: str | None = None
    ):
        self.total, self.title, self.unit = total or 0, title, unit
        self.done = self.first = 0
        self.text = ""
        self.started = self.last_line = time.monotonic()
        style = style or progress_style()
        self.bar: Any = None
        if style == "widget":
            self.bar = _WidgetBar(self.total)
        elif style == "terminal":
            scale = unit == "B"
            self.bar = tqdm(
                total=total or None, desc=title, unit=unit, unit_scale=scale, leave=False
            )

    def skip(self, count: int) -> None:
        """Start at `count`: work that an earlier run already did and that costs no time now."""
        self.first = count
        if isinstance(self.bar, tqdm):
            self.bar.initial = count  # so that its pace counts only what this run does
        self._advance(count - self.done)

    def update(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self._advance(count)
        if self.bar is None and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.line(self.status())

    def follow(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Hand on (images, labels) batch by batch, and advance by the images of each that is done."""
        for images, labels in batches:
            yield images, labels
            self.update(len(labels))

    def _advance(self, count: int) -> None:
        self.done += count
        if isinstance(self.bar, tqdm):
            self.bar.update(count)
        elif self.bar is not None:
            self.bar.draw(self.done, self.status())

    def seconds_left(self) -> float:
        """Time left in seconds, if the rest goes as fast as what is done."""
        done_now = max(1, self.done - self.first)
        return (time.monotonic() - self.started) / done_now * max(0, self.total - self.done)

    def status(self) -> str:
        """How far the work is: `Phase 1: 50 %   best val 71 %   3 min 05 s left`."""
        parts = [f"{self.title}: {self.amount()}", self.text]
        if self.total:
            parts[0] = f"{self.title}: {100 * self.done / self.total:.0f} %"
            parts.append(f"{clock(self.seconds_left())} left")
        return "   ".join(filter(None, parts))

    def amount(self) -> str:
        """What is done: `1,020 images`, `345 MB`, or `12 of 64 steps` if it is not all."""
        if self.unit == "B":
            return f"{self.done / 1e6:,.0f} MB"
        of_all = f" of {self.total:,}" if self.done < self.total else ""
        return f"{self.done:,}{of_all} {self.unit}{'' if self.done == 1 and not of_all else 's'}"

    def note(self, text: str) -> None:
        """Show `text` behind the bar."""
        self.text = text
        if isinstance(self.bar, tqdm):
            self.bar.set_postfix_str(text)
        elif self.bar is not None:
            self.bar.draw(self.done, self.status())

    def line(self, text: str) -> None:
        """Print one full line (only where there is no bar to read it from)."""
        self.last_line = time.monotonic()
        if self.bar is None:
            say(text)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Replace the bar by one line of text, which is saved with the notebook."""
        ended = "stopped after " if kind else ""
        took = clock(time.monotonic() - self.started)
        last = "   ".join(filter(None, [f"{self.title}: {ended}{self.amount()}", self.text, took]))
        if isinstance(self.bar, _WidgetBar):
            self.bar.close(last)
            return
        if self.bar is not None:
            self.bar.close()
        say(last)


class _WidgetBar:
    """A bar as wide as the notebook, its text on a line above."""

    def __init__(self, total: int):
        # Not at the top: a shell needs neither, and `progress_style` has looked for them.
        from IPython.display import display
        from ipywidgets import HTML, IntProgress, VBox

        self.words = HTML()
        self.bar = IntProgress(max=max(1, total), layout={"width": "99%"})
        self.box = VBox([self.words, self.bar] if total else [self.words])
        self.drawn = 0.0
        self.place = display(self.box, display_id=True)

    def draw(self, done: int, status: str) -> None:
        if time.monotonic() - self.drawn > SECONDS_BETWEEN_DRAWINGS:
            self.drawn = time.monotonic()
            self.words.value = html.escape(status)
            self.bar.value = min(done, self.bar.max)

    def close(self, last: str) -> None:
        self.place.update({"text/plain": last}, raw=True)
        self.box.close()
