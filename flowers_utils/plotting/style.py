"""What all figures share: size, colours, fonts and labels, and how a notebook shows them.

Figures are made without pyplot: nothing stays open, and MPLBACKEND cannot make them vanish.
"""

import functools
import io
import itertools
import math
import textwrap
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from flowers_utils.evaluation import Estimate

# Okabe and Ito's colours, told apart by colour-blind readers too
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
LOOKS = ((BLUE, "o", "-"), (VERMILION, "s", "--"), (GREEN, "^", ":"), (ORANGE, "D", "-."))
WIDTH, DPI = 8.8, 72  # inches and pixels an inch: a window of 800 pixels shows it unshrunk
HEADING = 88  # characters of a line
STYLE = {  # what differs from matplotlib's own defaults (white, 10 points)
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.8,
}
# The first that has a glyph draws it; the others hold more scripts, on Linux, Windows and macOS.
WANTED_FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Devanagari"),
    *("Microsoft YaHei", "SimHei", "Malgun Gothic", "Nirmala UI"),
    *("PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
)


class Picture(Figure):
    """A figure that shows itself in a notebook, whatever the backend, with its text in words."""

    facts = ""

    @property
    def alt(self) -> str:
        """Its heading, the facts that it shows and its captions: for readers who cannot see it."""
        captions = [ax.get_title() for ax in self.axes if ax.get_title()]
        words = [self.get_suptitle(), self.facts, *captions]
        return "; ".join(" ".join(w.split()) for w in words if w).replace(r"\$", "$") + "."

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=DPI)
        data = {"image/png": file.getvalue(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def figure_function(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: the function draws in the lesson's style, whatever the student has set."""

    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update({**STYLE, "font.family": fonts_here()})
            return draw(*args, **kwargs)

    return styled


def new_figure(
    heading: str, title: str, *, height: float, facts: Mapping[str, Any] | None = None
) -> Picture:
    """An empty figure headed by a sentence and the data's title; `facts` are what it shows."""
    figure = Picture(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    data = f"({label(title)})" if title else ""
    # a long heading keeps its line, and the data's title stands below
    gap = " " if len(heading) + len(data) < HEADING else "\n"
    figure.suptitle(f"{textwrap.fill(heading, HEADING)}{gap}{data}".strip())
    figure.facts = ", ".join(f"{name}: {value}" for name, value in (facts or {}).items())
    return figure


Tile = tuple[Any, str, str]  # a picture (None: an empty place), its caption, the caption's colour
EMPTY = (None, "", "black")


def gallery(
    heading: str, title: str, tiles: Sequence[Tile], columns: int = 6, *, if_none: str = ""
) -> Picture:
    """Small pictures `(3, H, W)` below their captions, row by row; `if_none`: without any, this."""
    if not tiles:
        figure = new_figure(heading, title, height=1.2, facts={"empty": if_none})
        figure.text(0.5, 0.4, textwrap.fill(if_none, 70), ha="center", va="center")
        return figure
    lines, rows = max(len(t.splitlines()) for _, t, _ in tiles), math.ceil(len(tiles) / columns)
    height = 0.45 + rows * (min(1.75, 0.975 * WIDTH / columns) + 0.1 + 0.165 * lines)
    figure = new_figure(heading, title, height=height)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for ax, tile in itertools.zip_longest(places, tiles, fillvalue=EMPTY):
        image, caption, colour = tile
        ax.set_axis_off()
        if image is not None:
            ax.imshow(np.asarray(image).transpose(1, 2, 0))
        ax.set_title(caption, fontsize=9, color=colour)
    return figure


def percents(estimates: Collection[Estimate]) -> tuple[list[float], np.ndarray]:
    """Values in %, and their 95 % intervals as matplotlib takes them: distances, (2, N)."""
    sides = [[e.value - e.low, e.high - e.value] for e in estimates]
    return [100 * e.value for e in estimates], 100 * np.array(sides).T.clip(0)


def plain_log_axis(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: 0.1, 1, 10, ..."""
    axis.set_major_formatter(lambda tick, _: f"{tick:g}")
    axis.set_minor_locator(NullLocator())


# Every text that comes from a student (class names, titles) passes through what follows.


@functools.lru_cache(maxsize=1)
def fonts_here() -> list[str]:
    """Those of WANTED_FONTS that this machine has."""
    installed = set(font_manager.get_font_names())
    return [name for name in WANTED_FONTS if name in installed]


@functools.lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    """Code points that one of `fonts_here` has a glyph for."""
    files = [font_manager.findfont(name, fallback_to_default=False) for name in fonts_here()]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def label(text: str, *, limit: int = 60) -> str:
    """One text made ready for a figure: shortened, and a `$` is a dollar, not a formula.

    What no font here can draw becomes a question mark.
    """
    # NFC composes accents: matplotlib draws loose ones beside their letter.
    text = " ".join(unicodedata.normalize("NFC", str(text)).split())
    text = "".join(c if ord(c) in _drawable_characters() else "?" for c in text)
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    return text.replace("$", r"\$")


def labels(names: Sequence[str], *, limit: int = 20) -> list[str]:
    """All class names of a data set made ready for a figure; different names stay different.

    A name in a script that no font here has becomes "class 17".
    """
    short, ready = [label(name, limit=limit) for name in names], []
    for i, (name, text) in enumerate(zip(names, short, strict=True)):
        if "?" in text and "?" not in name:
            text = f"class {i}"
        elif short.count(text) > 1:
            text = f"{label(name, limit=limit - 4)} ({i})"
        ready.append(text)
    return ready
