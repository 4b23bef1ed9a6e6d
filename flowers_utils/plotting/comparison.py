"""The figure of the comparison of backbones: accuracy against time, marker area for parameters."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.insight.comparison import ComparisonRow
from flowers_utils.plotting.training import BLUE, GREY, ORANGE

AREA_PER_MILLION = 16  # square points of a marker for a million parameters
PHASES = (("Phase 1", "phase1_top1", ORANGE, "o"), ("Phase 2", "phase2_top1", BLUE, "s"))


def plot_comparison(rows: Sequence[ComparisonRow], *, title: str) -> Figure:
    """Val accuracy (95 % interval) against the time for one image; larger markers, more parameters.

    Backbones without pretrained weights have no accuracy; they stand as ticks on the time axis.
    `title` names the data.
    """
    figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
    for row in rows:
        if row.best is not None:
            _draw_trained(ax, row)
    untrained = sorted((row for row in rows if row.best is None), key=lambda row: -row.latency_ms)
    middle = np.sqrt(min(r.latency_ms for r in rows) * max(r.latency_ms for r in rows))
    for level, row in enumerate(untrained):
        side = "right" if row.latency_ms > middle else "left"
        _draw_untrained(ax, row, level=level, side=side)
    ax.set_xscale("log")
    ax.margins(x=0.2, y=0.12 + 0.12 * len(untrained))
    _plain_ticks(ax, [row.latency_ms for row in rows])
    ax.set(
        xlabel=f"time for one image of {rows[0].image_size} x {rows[0].image_size} (ms, log scale)",
        ylabel="accuracy on val (%)",
        title=f"Which backbone? Accuracy against time ({title})",
    )
    ax.grid(alpha=0.3)
    _legend(ax, rows)
    return figure


def _draw_untrained(ax: Axes, row: ComparisonRow, *, level: int, side: str) -> None:
    """A tick on the time axis; each further one is labelled a line higher, so that none overlap."""
    base = ax.get_xaxis_transform()  # x in data, y as a share of the axis
    height = 0.03 + 0.05 * level
    ax.plot([row.latency_ms] * 2, [0, height], color=GREY, linewidth=2, transform=base)
    text = f"  {row.name}, {row.parameters / 1e6:.1f} M: no pretrained weights  "
    ax.text(row.latency_ms, height, text, color=GREY, fontsize=8, ha=side, va="center",
            transform=base)  # fmt: skip


def _draw_trained(ax: Axes, row: ComparisonRow) -> None:
    """Both phases of a backbone, joined by a dotted line."""
    area = AREA_PER_MILLION * row.parameters / 1e6
    points = [(getattr(row, key), colour, marker) for _, key, colour, marker in PHASES]
    points = [point for point in points if point[0] is not None]
    heights = [100 * estimate.value for estimate, _, _ in points]
    ax.plot([row.latency_ms] * len(points), heights, color=GREY, linewidth=1, linestyle=":")
    for estimate, colour, marker in points:
        spread = 100 * np.array([[estimate.value - estimate.low], [estimate.high - estimate.value]])
        ax.errorbar(row.latency_ms, 100 * estimate.value, spread.clip(0), color=colour, capsize=3)
        ax.scatter(row.latency_ms, 100 * estimate.value, area, color=colour, marker=marker,
                   edgecolor="black", alpha=0.85, zorder=3)  # fmt: skip
    ax.annotate(f"{row.name}\n{row.parameters / 1e6:.1f} M", (row.latency_ms, heights[-1]),
                (6 + np.sqrt(area) / 2, 0), textcoords="offset points", va="center",
                fontsize=9)  # fmt: skip


def _plain_ticks(ax: Axes, times: Sequence[float]) -> None:
    """Ticks of a logarithmic axis written as plain numbers: 1, 2, 5, 10, 20, ..."""
    steps = [m * 10.0**e for e in range(-2, 5) for m in (1, 2, 5)]
    ticks = [s for s in steps if min(times) / 2.1 <= s <= max(times) * 2.1]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def _legend(ax: Axes, rows: Sequence[ComparisonRow]) -> None:
    """Phases by colour and shape; the size is said in words."""
    shown = [p for p in PHASES if any(getattr(row, p[1]) is not None for row in rows)]
    for name, _, colour, marker in shown:
        ax.scatter(
            [], [], 70, color=colour, marker=marker, edgecolor="black", label=f"after {name}"
        )
    if shown:
        ax.legend(title="larger marker: more parameters", loc="best", fontsize=9, title_fontsize=9)
