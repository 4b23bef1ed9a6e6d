"""Every figure can be drawn, whatever a student's classes are called, and says what it shows."""

import io
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

import transfer_learning_config as config
from flowers_utils import plotting
from flowers_utils.data import Split
from flowers_utils.evaluation import compute_metrics, wilson
from flowers_utils.insight.inside import Heat
from flowers_utils.plotting import style

LONG = "a very long name of a flower that nobody reads to the end"
NAMES = ("$Rosa$ 5$", "玫瑰", "Fleur à pétales", f"{LONG} 1", f"{LONG} 2")
TITLE = "own flowers '5$ or $6'"
PHOTOS = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)


def metrics(classes: int = 5, *, mistakes: int = 4):
    labels = torch.arange(4 * classes) % classes
    logits = 5.0 * torch.nn.functional.one_hot(labels, classes)
    logits[:mistakes] = logits[:mistakes].roll(1, dims=1)
    names = NAMES if classes == 5 else [f"flower {i}" for i in range(classes)]
    return compute_metrics(logits, labels, class_names=names)


def history(phase1: int = 2, phase2: int = 3) -> list[dict]:
    rows = [{"phase": 1, "learning_rates": {"fc": 1e-3}}] * phase1
    rows += [{"phase": 2, "learning_rates": {"stem": 1e-4, "fc": 1e-3}}] * phase2
    accuracy, losses = (0.55, 0.6, 0.45, 0.5, 0.55), {"train_loss": 1.0, "val_loss": 1.0}
    parts = ({"train_accuracy": value, "val_accuracy": value, **losses} for value in accuracy)
    return [row | part for row, part in zip(rows, parts, strict=False)]


HEAD = {"$rate$": [{"epoch": e, "train_loss": 1 / e, "val_accuracy": 0.5} for e in (1, 2)]}
SCORES = {"phase1": wilson(70, 100), "phase2": wilson(80, 100)}
TESTED = {"phase2": wilson(79, 100)}
HEATS = [Heat(torch.rand(32, 32), 0, "CAM"), Heat(torch.zeros(32, 32), 2, "CAM")]
RUNS = [
    {"name": name, "seed": seed, "val": 0.6 + 0.1 * at + seed / 50, "minutes": 1 + at + seed / 9}
    for at, name in enumerate(("From scratch", "Frozen", "Fine-tuned, $"))
    for seed in (0, 1, 2)
]
GAINS = [("$no hue$", 2.4, -0.5, 0.6), ("head fitted again", 4.5, 2.1, 0.5)]


def titled(name, *given, **more):
    return lambda: getattr(plotting, name)(*given, **more, title=TITLE)


FIGURES = {
    "pictures": titled("pictures", PHOTOS[:8], [*NAMES, *"abc"], "Eight"),
    "pictures, no captions": titled("pictures", torch.rand(20, 3, 7, 7), None, "Filters"),
    "block": plotting.block,
    "gradient_sizes": lambda: plotting.gradient_sizes([9.8, 1.7], [181.0, 16.5]),
    "curves": titled("curves", history()),
    "curves of one epoch": titled("curves", history(1, 1)),
    "bars": titled("bars", RUNS, "What transfer is worth", count=100),
    "experiment": titled("experiment", HEAD),
    "predictions": titled("predictions", metrics(), PHOTOS, [0, 1, 8], "Three"),
    "confused_pairs": titled("confused_pairs", metrics(), PHOTOS),
    "confused_pairs of none": titled("confused_pairs", metrics(mistakes=0), PHOTOS),
    "confusion": titled("confusion", metrics()),
    "confusion of many": titled("confusion", metrics(30)),
    "class_bars": titled("class_bars", metrics()),
    "class_bars of many": titled("class_bars", metrics(30)),
    "reliability": titled("reliability", metrics(2, mistakes=2), metrics(30), temperature=1.2),
    "unknown_classes": titled(
        "unknown_classes", torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0.3, 0.75])
    ),
    "heat": titled("heat", Split("val", PHOTOS[:2], torch.tensor([0, 1])), HEATS, NAMES),
    "closing": titled("closing", config.EXPECTED, val=SCORES, test=TESTED, why_not=None),
    "closing of practice": titled(
        "closing", config.EXPECTED, val=SCORES, test=SCORES, why_not="these are drawings"
    ),
    "tradeoff": titled("tradeoff", RUNS, "Accuracy against time", cost="minutes", accuracy="val"),
    "carried_over": titled("carried_over", GAINS),
}


SAID = {
    "confused_pairs of none": "Every photograph was predicted correctly",
    "heat": "no place",
    "curves": "falls by up to 15.0 points",
    "confusion of many": "the 20 classes with the most mistakes",
    "closing": "measured on photographs (val)",
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_names_the_data_and_has_its_text_in_words(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is one
        figure = FIGURES[name]()
        figure.savefig(io.BytesIO(), format="png")
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    words = " ".join(text.get_text() for text in texts)
    assert min(text.get_fontsize() for text in texts) >= 9
    assert figure.get_figwidth() * 72 < 700  # fits a window of 800 pixels, beside the prompts
    assert len(figure.alt) > 20 and "\\$" not in figure.alt
    assert TITLE in figure.alt or name in ("block", "gradient_sizes")
    assert SAID.get(name, "") in words
    assert name != "closing of practice" or "promised" not in words


def test_every_backend_shows_the_picture_with_its_alternative_text():
    data, about = FIGURES["bars"]()._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and "From scratch: 62.0%" in data["text/plain"]
    assert about == {"image/png": {"alt": data["text/plain"]}}  # where nbconvert looks for it


def test_figures_leave_settings_and_open_figures_as_they_were():
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "black"}):
        figure = FIGURES["bars"]()
        assert mpl.rcParams["font.size"] == 30
    assert figure.get_facecolor() == (1, 1, 1, 1) and plt.get_fignums() == []


def test_confused_pairs_show_photographs_that_were_really_taken_for_the_other():
    axes, scored = FIGURES["confused_pairs"]().axes, metrics()
    red = [ax for ax in axes if ax.title.get_color() == style.VERMILION]
    wrong = {PHOTOS[i].tobytes() for i in np.flatnonzero(scored.labels != scored.predictions)}
    shown = [np.asarray(ax.images[0].get_array()).transpose(2, 0, 1).tobytes() for ax in red]
    assert len(shown) == 4 and set(shown) == wrong


def test_bars_are_means_and_every_seed_is_a_dot():
    (ax,) = FIGURES["bars"]().axes
    assert [round(bar.get_width()) for bar in ax.patches] == [62, 72, 82]
    dots = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    assert [len(each) for each in dots] == [3, 3, 3] and max(dots[2]) == pytest.approx(84)


def test_a_difference_that_may_be_chance_does_not_fill_the_axis():
    rows = [{"name": "a", "minutes": 1, "val": 0.872}, {"name": "b", "minutes": 6, "val": 0.869}]
    (ax,) = plotting.tradeoff(rows, "", cost="minutes", accuracy="val", title=TITLE).axes
    low, high = ax.get_ylim()
    assert low < 86.9 < 87.2 < high and high - low >= 8


def test_names_stay_different_and_short():
    short = style.labels([*NAMES, f"{LONG} 1 {LONG}"])
    assert len(set(short)) == 6 and max(map(len, short)) <= 23
    assert style.labels(["Rose\u0301e"]) == ["Rosée"]
    assert style.label("5$ or $6") == r"5\$ or \$6"  # not a formula


def test_a_name_that_no_font_can_draw_is_a_number_with_its_meaning_in_text(monkeypatch):
    latin = frozenset(range(32, 384))
    monkeypatch.setattr(style, "_drawable_characters", lambda: latin)
    assert style.labels(NAMES)[1] == "class 1"
