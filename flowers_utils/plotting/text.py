"""Every text that comes from a student (names, titles) passes through here before it is drawn."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from matplotlib import font_manager

# The first that has a glyph draws it: the others hold scripts that it lacks, on Linux, Windows and
# macOS.
WANTED_FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Devanagari"),
    *("Microsoft YaHei", "SimHei", "Malgun Gothic", "Nirmala UI"),
    *("PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
)


@lru_cache(maxsize=1)
def fonts_here() -> list[str]:
    """Those of WANTED_FONTS that this machine has."""
    installed = set(font_manager.get_font_names())
    return [name for name in WANTED_FONTS if name in installed]


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    """Code points that one of `fonts_here` has a glyph for."""
    files = [font_manager.findfont(name, fallback_to_default=False) for name in fonts_here()]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def _plain(text: str) -> str:
    """One line, its accents composed (matplotlib draws loose ones beside their letter)."""
    return " ".join(unicodedata.normalize("NFC", str(text)).split())


def can_be_drawn(text: str) -> bool:
    """Whether a font that is here has a sign for each character."""
    return all(ord(character) in _drawable_characters() for character in _plain(text))


def _shorten(text: str, limit: int, end: str = "…") -> str:
    """At most `limit` columns; Chinese, Japanese and Korean characters are two wide."""
    widths = [1 + (unicodedata.east_asian_width(c) in "WF") for c in text]
    if sum(widths) <= limit and end == "…":
        return text
    while sum(widths[: len(text)]) > limit - len(end):
        text = text[:-1]
    return text.rstrip() + end


def label(text: str, *, limit: int = 60) -> str:
    """One text made ready for a figure: shortened, and a `$` is a dollar, not a formula.

    What no font here can draw becomes a question mark.
    """
    drawn = "".join(c if can_be_drawn(c) else "?" for c in _plain(text))
    return _shorten(drawn, limit).replace("$", r"\$")


def labels(names: Sequence[str], *, limit: int = 20) -> list[str]:
    """All class names of a data set made ready for a figure; different names stay different.

    A name in a script that no font here has becomes "class 17": see `numbered_classes`.
    """
    plain = [_plain(name) for name in names]
    plain = [n if can_be_drawn(n) else f"class {i}" for i, n in enumerate(plain)]
    often = Counter(_shorten(name, limit) for name in plain)
    short = [
        _shorten(name, limit, "…" if often[_shorten(name, limit)] == 1 else f"… ({i})")
        for i, name in enumerate(plain)
    ]
    return [name.replace("$", r"\$") for name in short]


def numbered_classes(names: Sequence[str]) -> str:
    """Which names stand as numbers in the figures, as one line to print; "" if none does."""
    listed = [f"class {i} is {n}" for i, n in enumerate(names) if not can_be_drawn(_plain(n))]
    why = "No font here can draw these names, so figures show numbers: "
    return f"{why}{', '.join(listed)}." if listed else ""
