"""Every text that comes from a student (names, titles) passes through here before it is drawn."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from matplotlib import font_manager

# The first that has a glyph draws it. The others hold the scripts that the first lacks, on Linux,
# Windows and macOS.
WANTED_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Arial Unicode MS",
)


@lru_cache(maxsize=1)
def fonts_here() -> tuple[str, ...]:
    """Those of WANTED_FONTS that this machine has."""
    return tuple(sorted(set(WANTED_FONTS) & _installed(), key=WANTED_FONTS.index))


def _installed() -> set[str]:
    return set(font_manager.get_font_names())


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    """Code points that one of `fonts_here` has a glyph for."""
    files = [font_manager.findfont(name, fallback_to_default=False) for name in fonts_here()]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def _plain(text: str) -> str:
    """One line, its accents composed (matplotlib draws loose ones beside their letter)."""
    return " ".join(unicodedata.normalize("NFC", str(text)).split())


def can_be_drawn(text: str) -> bool:
    """Whether the fonts here have a glyph for each character."""
    return all(ord(character) in _drawable_characters() for character in text)


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
    short = [_shorten(name, limit) for name in plain]
    for shorten in (_keep_the_end, _keep_the_number):
        often = Counter(short)
        short = [
            shorten(name, limit, number) if often[cut] > 1 else cut
            for number, (name, cut) in enumerate(zip(plain, short, strict=True))
        ]
    return [name.replace("$", r"\$") for name in short]


def numbered_classes(names: Sequence[str]) -> str:
    """Which names stand as numbers in the figures, as one line to print; "" if none does."""
    listed = [f"class {i} is {n}" for i, n in enumerate(names) if not can_be_drawn(_plain(n))]
    if not listed:
        return ""
    return f"No font here can draw these names, so figures show numbers: {', '.join(listed)}."


def _width(text: str) -> int:
    """In columns: Chinese, Japanese and Korean characters are two wide."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _head(text: str, width: int) -> str:
    while _width(text) > width:
        text = text[:-1]
    return text.rstrip()


def _shorten(text: str, limit: int) -> str:
    return text if _width(text) <= limit else _head(text, limit - 1) + "…"


def _keep_the_end(text: str, limit: int, _number: int) -> str:
    half = limit // 2
    return f"{_head(text, half - 1)}…{_head(text[::-1], limit - half)[::-1]}"


def _keep_the_number(text: str, limit: int, number: int) -> str:
    return f"{_head(text, limit - 6)}… ({number})"
