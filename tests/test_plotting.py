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
from flowers_utils import insight, plotting
from flowers_utils.data import FlowerData, Split
from flowers_utils.evaluation import compute_metrics, wilson
from flowers_utils.insight.comparison import ComparisonRow
from flowers_utils.insight.inside import Explanation
from flowers_utils.plotting import text

LONG = "a very long name of a flower that nobody reads to the end"
NAMES = ("$Rosa$ 5$", "玫瑰", "Fleur à pétales", f"{LONG} 1", f"{LONG} 2")
TITLE = "own flowers '5$ or $6'"


def split(count: int, size: int = 32) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return Split("val", images, torch.arange(count) % len(NAMES))


def metrics(classes: int = 5, *, mistakes: int = 4):
    labels = torch.arange(4 * classes) % classes
    logits = 5.0 * torch.nn.functional.one_hot(labels, classes)
    logits[:mistakes] = logits[:mistakes].roll(1, dims=1)
    names = NAMES if classes == 5 else [f"flower {i}" for i in range(classes)]
    return compute_metrics(logits, labels, class_names=names)


def seen(*, blank: bool = False) -> Explanation:
    heat = torch.zeros(32, 32) if blank else torch.rand(32, 32)
    return Explanation(heat, target=1, probabilities=torch.full((5,), 0.2), stage="layer3")


def history(phase1: int = 2, phase2: int = 3) -> list[dict]:
    rows = []
    for phase, epochs, start in ((1, phase1, 0.5), (2, phase2, 0.4)):
        rates = {"fc": 1e-3} if phase == 1 else {"stem": 1e-4, "fc": 1e-3}
        for epoch in range(1, epochs + 1):
            values = {"train_loss": 1.0, "val_loss": 1.0, "train_accuracy": start + epoch / 20}
            values |= {"val_accuracy": start + epoch / 20, "learning_rates": rates}
            rows.append({"phase": phase, "epoch": epoch, **values})
    return rows


def row(name: str, accuracy: float | None) -> ComparisonRow:
    top1 = None if accuracy is None else wilson(round(100 * accuracy), 100)
    return ComparisonRow(name, 224, 11_000_000, 1_800_000_000, 20.0, val=top1)


DATA = FlowerData("folder", TITLE, NAMES, split(10), split(5), split(5), 32, 32)
HEAD = {"$rate$": [{"epoch": e, "train_loss": 1 / e, "val_accuracy": 0.5} for e in (1, 2)]}
SCORES = {"phase1": wilson(70, 100), "phase2": None}
PHOTO, PHOTOS = split(1).images[0], split(20).images
MAPS = {"layer1": torch.rand(9, 4, 4), "layer4": torch.rand(9, 1, 1), "flat": torch.ones(3, 4, 4)}
FOUND = torch.tensor([[0, 3], [1, 2]]), torch.rand(2, 2)
GUESSES = [(name, 0.2, number) for number, name in enumerate(NAMES)]
PLAIN = {
    "samples": lambda: plotting.samples(DATA),
    "architecture": lambda: plotting.architecture([("image", (3, 8, 8)), ("fc", (5,))], title="A"),
    "gradient_sizes": lambda: plotting.gradient_sizes([1.0, 0.9], [1e-6, 0.9]),
    "closing of practice": lambda: plotting.closing(
        config.EXPECTED, val=SCORES, test=SCORES, title=TITLE, why_not="these are practice flowers"
    ),
}
TITLED = {  # name of a figure, maybe with a case: the arguments before its title
    "pictures": (split(5).images, NAMES, "Six"),
    "augmentations": (PHOTO, split(8).images),
    "curves": (history(),),
    "curves of one epoch": (history(1, 1),),
    "movement": ({"stem": 0.01, "layer1": 0.02},),
    "three_numbers": ({"from scratch": wilson(3, 10)}, {"guessing": 0.2}),
    "experiment": (HEAD,),
    "training_size": ([(10, wilson(3, 10)), (20, wilson(6, 10))],),
    "time_parts": ({"textbook": {"decode": 2.0}},),
    "predictions": (split(10), torch.rand(10, 5), NAMES),
    "predictions all right": (split(5), torch.eye(5), NAMES),
    "confusion": (metrics(),),
    "confusion of many": (metrics(30),),
    "confusion without mistakes": (metrics(30, mistakes=0),),
    "confused_pairs": (insight.most_confused_pairs(metrics()), PHOTOS, NAMES),
    "confused_pairs of none": ([], PHOTOS, NAMES),
    "class_bars": (metrics(),),
    "class_bars of many": (metrics(30),),
    "mistakes": (metrics(), [0, 1], PHOTOS),
    "mistakes of none": (metrics(), [], PHOTOS),
    "reliability": (metrics(), metrics(), {"temperature": 1}),
    "closing": (config.EXPECTED, {"val": SCORES, "test": {}}),
    "comparison": ([row("a", 0.7), row("b", 0.8)],),
    "comparison of one": ([row("a", 0.7), row("b", None)],),
    "filters": (torch.rand(20, 3, 7, 7),),
    "feature_maps": (MAPS, PHOTO),
    "grad_cam": (split(2), [seen(), seen(blank=True)], NAMES),
    "phase_change": (PHOTO, [seen(), seen()], NAMES),
    "neighbours": (split(2), split(9), FOUND, NAMES),
    "own_photo": (PHOTO, seen(), GUESSES),
    "rate_finder": ([(10 ** (i / 10 - 5), 2 + i % 3) for i in range(30)], {"chosen": 0.001}),
    "ablation": ([{"name": n, "seed": s, "val": 0.5 + s / 9} for s in (0, 1) for n in "abc"],),
    "courses": ([{"name": n, "course": [(30, 0.4), (60, 0.7)]} for n in "ab"] + [{"name": "c"}],),
    "recipes": ([{"name": n, "seconds": 60, "val": 0.7, "test": 0.6} for n in "abb"],),
}
FIGURES = [*PLAIN, *TITLED]


def draw(name: str):
    """The figure of this name."""
    if name in PLAIN:
        return PLAIN[name]()
    function, arguments, keywords = name.split()[0], TITLED[name], {}
    if function in ("three_numbers", "reliability", "closing", "rate_finder"):
        *arguments, keywords = arguments
    return getattr(plotting, function)(*arguments, title=TITLE, **keywords)


def words(figure) -> list[str]:
    """All that is written in a figure, as it is seen."""
    return [t.get_text().replace(r"\$", "$") for t in figure.findobj(Text) if t.get_text().strip()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_names_the_data_and_has_its_text_in_words(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is one
        figure = draw(name)
        figure.savefig(io.BytesIO(), format="png")
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()) >= 9
    assert figure.get_figwidth() * 72 < 700  # fits a window of 800 pixels, beside the prompts
    assert len(figure.alt) > 20 and "\\$" not in figure.alt
    assert TITLE in figure.alt or name in ("architecture", "gradient_sizes")


def test_every_public_figure_function_is_drawn_here():
    public = {name for name, value in vars(plotting).items() if callable(value)}
    assert public - {"numbered_classes"} <= set(FIGURES)


def test_a_notebook_gets_a_picture_and_its_text_whatever_the_backend():
    data, about = draw("movement")._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert "stem: 1.0%" in data["text/plain"] == about["image/png"]["alt"]


def test_figures_leave_settings_and_open_figures_as_they_were():
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "black"}):
        figure = draw("movement")
        assert mpl.rcParams["font.size"] == 30
    assert figure.get_facecolor() == (1, 1, 1, 1) and plt.get_fignums() == []


REASONS = {
    "confused_pairs of none": "no mistake to show",
    "confusion without mistakes": "no mistake to show",
    "comparison of one": "Only a has pretrained weights",
    "predictions all right": "All are right",
    "feature_maps": "no pattern",
    "grad_cam": "no place",
}


def test_what_is_empty_says_why():
    silent = [n for n, why in REASONS.items() if why not in " ".join(words(draw(n)))]
    assert silent == []


def test_the_fall_at_the_start_of_phase_2_is_explained():
    assert any("falls by up to 15.0 points" in text for text in words(draw("curves")))


def test_accuracies_of_few_photographs_are_hollow_bars():
    few, many = metrics(2, mistakes=2), metrics(30)
    ax = plotting.reliability(few, many, temperature=1, title=TITLE).axes
    hollow = [[bar.get_height() for bar in a.patches if bar.get_facecolor()[3] == 0] for a in ax]
    assert max(hollow[0]) > 0 and max(hollow[1], default=0) == 0


def test_boxes_of_the_architecture_are_as_high_as_their_maps():
    shapes = [("image", (3, 64, 64)), ("layer1", (64, 16, 16)), ("fc", (5,))]
    image, layer, _ = plotting.architecture(shapes, title="A").axes[0].patches
    assert layer.get_height() / image.get_height() == pytest.approx((16 / 64) ** 0.5)
    assert layer.get_width() > image.get_width()


def test_names_stay_different_and_short():
    short = text.labels([*NAMES, f"{LONG} 1 {LONG}"])
    assert len(set(short)) == 6 and max(map(len, short)) <= 23
    assert text.labels(["Rose\u0301e"]) == ["Rosée"]
    assert text.label("5$ or $6") == r"5\$ or \$6"  # not a formula


def test_a_name_that_no_font_can_draw_is_a_number_with_its_meaning_in_text(monkeypatch):
    latin = frozenset(range(32, 384))
    monkeypatch.setattr(text, "_drawable_characters", lambda: latin)
    assert text.labels(NAMES)[1] == "class 1"
    assert "class 1 is 玫瑰" in plotting.numbered_classes(NAMES)
    assert plotting.numbered_classes(["rose"]) == ""
