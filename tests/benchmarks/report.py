"""What `speed.py` measured, projected to the whole lesson and as tables."""

import argparse
from collections.abc import Callable

SIDES = ("textbook", "lesson")
FULL = {"train": 1020, "val": 1020, "test": 6149}  # photographs in Flowers102
EPOCHS = {"phase1": 20, "phase2": 30}


def at_least(smallest: int) -> Callable[[str], int]:
    """A `type` for argparse: a whole number that is not below `smallest`."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {smallest} up")
        return int(text)

    return number


def projected(side: dict[str, float]) -> dict[str, float]:
    """Seconds on the whole of Flowers102 for an epoch of each phase and for the lesson."""
    seconds, whole = {}, 0.0
    for phase, epochs in EPOCHS.items():
        seconds[phase] = (
            side[f"{phase} train"] * FULL["train"]
            + side[f"{phase} val"] * FULL["val"]
            + side.get(f"{phase} save", 0.0)
        )
        whole += epochs * seconds[phase] + side.get(f"{phase} setup", 0.0) * FULL["val"]
    seconds["evaluation"] = side["evaluation"] * FULL["test"]
    seconds["lesson"] = whole
    cache = side.get("cache", 0.0) * sum(FULL.values())
    seconds["lesson, test and cache"] = whole + seconds["evaluation"] + cache
    return seconds


def table(report: dict) -> str:
    """The figures of both sides and their ratios, as text."""
    sides = [report[side] for side in SIDES]
    times = [projected(side) for side in sides]
    lines = [f"{'':44s}{'textbook':>17s}{'this lesson':>17s}{'ratio':>9s}"]

    def row(title: str, values: list[float], form: str, *, ratio: bool = True) -> None:
        old, new = (f"{form.format(value):>17s}" for value in values)
        faster = values[1] / values[0] if "images/s" in form else values[0] / values[1]
        lines.append(f"{title:44s}{old}{new}" + (f"{faster:8.2f}x" if ratio else ""))

    row("data to augmented batch", [1 / side["data"] for side in sides], "{:.1f} images/s")
    for phase, title in (("phase1", "Phase 1"), ("phase2", "Phase 2")):
        row(f"{title}, training", [1 / side[f"{phase} train"] for side in sides], "{:.1f} images/s")
        row(f"{title}, whole epoch with val *", [time[phase] for time in times], "{:.1f} s")
    row("evaluation", [1 / side["evaluation"] for side in sides], "{:.1f} images/s")
    row("20 + 30 epochs *", [time["lesson"] / 60 for time in times], "{:.1f} min")
    all_in = [time["lesson, test and cache"] / 60 for time in times]
    row("the same, test, and cache from nothing *", all_in, "{:.1f} min")
    for phase, title in (("phase1", "Phase 1"), ("phase2", "Phase 2")):
        shares = [100 * side[f"{phase} compute"] / side[f"{phase} train"] for side in sides]
        row(f"{title}, share of the step in the network", shares, "{:.0f} %", ratio=False)
    row("peak memory", [side["peak"] / 1e6 for side in sides], "{:.0f} MB", ratio=False)
    lines.append(
        "* projected to the 1,020 + 1,020 + 6,149 photographs of Flowers102. Peak memory of a"
    )
    lines.append(
        "  process counts what it has mapped of the cache, which the system takes back at will."
    )
    return "\n".join(lines)
