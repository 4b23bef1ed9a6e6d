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

HEADLESS = {"papermill", "nbconvert", "nbclient", "pytest", "jupyter-nbconvert", "jupyter-execute"}


def say(text: str) -> None:
    """Print one line that must be seen before long work begins.

    A console that lacks a character (Windows: cp1252) shows its code instead; nothing fails.
    """
    if not text:
        return
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
        self.started = self.drawn = time.monotonic()
        kinds = {"widget": _Widget, "terminal": _TextBar, "lines": _Lines}
        self.bar = kinds[style or progress_style()]()

    def skip(self, count: int) -> None:
        """Start at `count`: work that an earlier run already did and that costs no time now."""
        self.done = self.first = count

    def update(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self.done += count
        if time.monotonic() - self.drawn > self.bar.seconds_between:
            self.drawn = time.monotonic()
            share = min(1.0, self.done / self.total) if self.total else 0.0
            self.bar.draw(share, self.status())

    def follow(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Hand on (images, labels) batch by batch, and advance by the images of each that is done."""
        for images, labels in batches:
            yield images, labels
            self.update(len(labels))

    def seconds_left(self) -> float:
        """Time left in seconds, if the rest goes as fast as what is done."""
        done_now = max(1, self.done - self.first)
        return (time.monotonic() - self.started) / done_now * max(0, self.total - self.done)

    def status(self) -> str:
        """How far the work is: `Phase 1: 50 %   best val 71 %   3 min 05 s left`."""
        how_far, left = self.amount(), ""
        if self.total:
            how_far = f"{100 * self.done / self.total:.0f} %"
            left = f"{clock(self.seconds_left())} left"
        return "   ".join(filter(None, [f"{self.title}: {how_far}", self.text, left]))

    def amount(self) -> str:
        """What is done: `1,020 images`, `345 MB`, or `12 of 64 steps` if it is not all."""
        if self.unit == "B":
            return f"{self.done / 1e6:,.0f} MB"
        of_all = f" of {self.total:,}" if self.done < self.total else ""
        return f"{self.done:,}{of_all} {self.unit}{'' if self.done == 1 and not of_all else 's'}"

    def note(self, text: str) -> None:
        """Show `text` behind the bar, from the next update on."""
        self.text = text

    def line(self, text: str) -> None:
        """Print one full line (only where there is no bar to read it from)."""
        if isinstance(self.bar, _Lines):
            self.drawn = time.monotonic()
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
        done = f"{self.title}: {'stopped after ' if kind else ''}{self.amount()}"
        took = clock(time.monotonic() - self.started)
        self.bar.close("   ".join(filter(None, [done, self.text, took])))


class _Lines:
    """No bar: a line now and then."""

    seconds_between = 15.0

    def draw(self, share: float, status: str) -> None:
        say(status)

    def close(self, last: str) -> None:
        say(last)


class _TextBar:
    """A bar of text that is drawn over itself; tqdm knows how wide and how rich a console is."""

    seconds_between = 0.2

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

    seconds_between = 0.2  # more often would only load the browser

    def __init__(self):
        # Not at the top: a shell needs neither, and `progress_style` has looked for them.
        from IPython.display import display
        from ipywidgets import HTML, FloatProgress, VBox

        self.words = HTML()
        self.bar = FloatProgress(max=1.0, layout={"width": "99%"})
        self.box = VBox([self.words, self.bar])
        self.place = display(self.box, display_id=True)

    def draw(self, share: float, status: str) -> None:
        self.words.value, self.bar.value = html.escape(status), share

    def close(self, last: str) -> None:
        self.place.update({"text/plain": last}, raw=True)
        self.box.close()
