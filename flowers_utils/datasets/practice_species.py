"""What makes a species of practice flowers: seven traits in words, and the 102 species themselves.

Whoever adds a word must raise PRACTICE_VERSION in practice.py: other species need other
pictures and another backbone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Each trait: its words, and the numbers or the formula that practice_drawing.py draws from.
CHOICES = {
    "petals": {"three": 3, "five": 5, "eight": 8},
    # The power of the petal's curve (low is pointed), the fraction of the radius where neighbours
    # meet, how deep the notch at the tip is, and how deep the fringe is.
    "outline": {
        "pointed": (1.0, 0.22, 0.0, 0.0),
        "round": (2.4, 0.40, 0.0, 0.0),
        "heart": (2.6, 0.45, 0.40, 0.0),
        "narrow": (0.75, 0.10, 0.0, 0.0),
        "fringed": (2.2, 0.45, 0.0, 0.09),
        "square": (6.0, 0.48, 0.10, 0.0),
    },
    # Where a petal has its accent colour, from 0 to 1. `u` runs from -1 to 1 across the petal, `d`
    # from 0 in the flower's middle to 1 at the reach of its petals; the petal ends where d is `edge`.
    "pattern": {
        "eye": lambda u, d, edge: torch.sigmoid((0.52 - d) * 22),
        "stripe": lambda u, d, edge: torch.sigmoid((0.24 - u.abs()) * 16),
        "margin": lambda u, d, edge: torch.sigmoid((d - edge + 0.15) * 30),
        "spots": lambda u, d, edge: torch.sigmoid((u * 5.5).cos() * (d * 13).sin() * 9 - 2),
        "tips": lambda u, d, edge: torch.sigmoid((d - 0.72) * 22),
        "ring": lambda u, d, edge: torch.sigmoid((0.11 - (d - 0.62).abs()) * 30),
    },
    "accent": {  # hue relative to the petal's, saturation, value
        "white": (0.0, 0.08, 1.0),
        "dark": (0.0, 0.90, 0.30),
        "contrasting": (0.40, 0.85, 1.0),
    },
    "centre": {  # radius as a fraction of the flower's, hue, saturation, value
        "small yellow": (0.15, 0.14, 0.9, 0.95),
        "large yellow": (0.32, 0.13, 0.9, 0.90),
        "brown": (0.30, 0.06, 0.8, 0.30),
        "green": (0.20, 0.27, 0.7, 0.55),
    },
    "layers": {"single": 0, "double": 1},
    "twist": {"straight": 0.0, "twisted": 1.2},  # radians from the middle to the tips
}
WORDS = {trait: tuple(table) for trait, table in CHOICES.items()}
MOST_WORDS = max(map(len, WORDS.values()))

NUM_SPECIES, RELATIVES = 102, 6  # species, and how many of them make a genus
# ImageNet contains few flowers; in the same way the backbone's training contains none of these.
UNSEEN = {"outline": ("fringed", "square"), "pattern": ("margin", "ring")}
_FIRST_NAMES = ("common", "alpine", "marsh", "dwarf", "silver", "wandering")
_GENERA = (
    *("belora", "camithe", "dovanel", "elphira", "fenwisk", "galumey", "hessaly", "ilvane"),
    *("jorabel", "kestrine", "lumerry", "mivolet", "norrily", "orsenna", "pelliwy", "quillane"),
    "rovanda",
)
PRACTICE_NAMES = tuple(f"{first} {genus}" for genus in _GENERA for first in _FIRST_NAMES)


def species_table(
    count: int, *, seed: int, avoid: frozenset = frozenset(), unseen: dict | None = None
) -> list[tuple]:
    """Rows of `count` different species in genera of six, none of them in `avoid`.

    A row holds a position in WORDS for each trait; words in `unseen` do not occur. The species of a
    genus differ from its first one in one or two traits, so that they are easily confused.
    """
    rng = np.random.default_rng(seed)
    known = [
        [i for i, word in enumerate(words) if word not in (unseen or {}).get(trait, ())]
        for trait, words in WORDS.items()
    ]
    rows: list[tuple] = []
    while len(rows) < count:
        place = len(rows) % RELATIVES
        row = [rng.choice(words) for words in known] if place == 0 else list(rows[-place])
        if place:
            for trait in rng.choice(len(known), size=rng.integers(1, 3), replace=False):
                row[trait] = rng.choice(known[trait])
        key = tuple(int(value) for value in row)
        if key not in avoid and key not in rows:
            rows.append(key)
    return rows


PRACTICE_SPECIES = tuple(species_table(NUM_SPECIES, seed=102))


def source_species(count: int) -> list[tuple]:
    """Rows of the species for pretraining; none of them is among the 102 practice species."""
    return species_table(count, seed=2012, avoid=frozenset(PRACTICE_SPECIES), unseen=UNSEEN)


def read_traits(logits: Tensor, names: Sequence[str]) -> list[dict[str, tuple[str, str]]]:
    """For each flower `{trait: (predicted word, true word)}`, from the pretrained network's logits.

    `logits` is (N, MOST_WORDS * 7), and `names` holds the species of each flower. A trait whose
    true word is in UNSEEN is left out, because no example of it was in the pretraining.
    """
    flowers = []
    for name, table in zip(names, logits.reshape(-1, MOST_WORDS, len(WORDS)), strict=True):
        flowers.append({})
        species = PRACTICE_SPECIES[PRACTICE_NAMES.index(name)]
        for (trait, words), true, column in zip(WORDS.items(), species, table.T, strict=True):
            if words[true] not in UNSEEN.get(trait, ()):
                flowers[-1][trait] = (words[column[: len(words)].argmax()], words[true])
    return flowers


def traits_in_words(logits: Tensor, names: Sequence[str]) -> list[str]:
    """`read_traits` as a line for each flower: `petals five ✓, outline round ✗ (pointed)`."""

    def marked(trait: str, predicted: str, true: str) -> str:
        return f"{trait} {predicted} " + ("✓" if predicted == true else f"✗ ({true})")

    flowers = read_traits(logits, names)
    return [", ".join(marked(trait, *pair) for trait, pair in row.items()) for row in flowers]
