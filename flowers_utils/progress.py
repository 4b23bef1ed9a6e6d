"""One progress bar for all long work: a widget, a text bar, or plain lines, as the place allows.

Widget bars stand still in a headless papermill run and text bars flood its log
(papermill issues 617 and 765), so there one plain line is printed now and then instead.
"""

import os
import sys
import time
from types import TracebackType

from tqdm import tqdm
from tqdm.notebook import tqdm as tqdm_widget

SECONDS_BETWEEN_LINES = 15.0


def _runs_in_notebook_kernel() -> bool:
    return "ipykernel" in sys.modules and "IPython" in sys.modules


def _is_headless() -> bool:
    """Whether the program that started this kernel is papermill or nbconvert."""
    import psutil  # comes with ipykernel, so it is there wherever a kernel runs

    try:
        command = " ".join(psutil.Process(os.getppid()).cmdline())
    except psutil.Error:
        return False
    return any(word in command for word in ("papermill", "nbconvert", "nbclient", "pytest"))


def progress_style() -> str:
    """`"widget"` in a live notebook, `"terminal"` in a shell, `"lines"` in logs and headless runs."""
    if _runs_in_notebook_kernel():
        return "lines" if _is_headless() else "widget"
    return "terminal" if sys.stderr.isatty() else "lines"


def clock(seconds: float) -> str:
    """Seconds in words that are quick to read: `8 s`, `3 min 05 s`, `1 h 12 min`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say(text: str) -> None:
    """Print one line that must be seen before long work."""
    print(text, flush=True)


class Progress:
    """A progress bar as a context manager; shows how far the work is and the time left.

    `total` counts in `unit`s; `style` overrides what `progress_style()` finds.
    """

    def __init__(self, total: int, title: str, *, unit: str = "step", style: str | None = None):
        self.total, self.title, self.unit = total, title, unit
        self.style = style or progress_style()
        self.done = self.first = 0
        self.text = ""
        self.started = self.last_line = time.monotonic()
        self.bar = None
        if self.style != "lines":
            make = tqdm_widget if self.style == "widget" else tqdm
            scale = unit == "B"
            self.bar = make(total=total, desc=title, unit=unit, unit_scale=scale, leave=True)

    def skip(self, count: int) -> None:
        """Start at `count`: work that an earlier run already did and that costs no time now."""
        self.done = self.first = count
        if self.bar is not None:
            self.bar.initial = self.bar.n = count
            self.bar.refresh()

    def update(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            share = 100 * self.done / max(1, self.total)
            text = f"   {self.text}" if self.text else ""
            self.line(f"{self.title}: {share:.0f} %{text}   {clock(self.seconds_left())} left")

    def seconds_left(self) -> float:
        """Time left in seconds, if the rest goes as fast as what is done."""
        done_now = max(1, self.done - self.first)
        return (time.monotonic() - self.started) / done_now * (self.total - self.done)

    def note(self, text: str) -> None:
        """Show `text` behind the bar."""
        self.text = text
        if self.bar is not None:
            self.bar.set_postfix_str(text)

    def line(self, text: str) -> None:
        """Print one full line (only where there is no bar to read it from)."""
        self.last_line = time.monotonic()
        if self.bar is None:
            print(text, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()
