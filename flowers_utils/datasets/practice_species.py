"""What makes a species of practice flowers: seven traits in words, and the 102 species themselves.

A change here needs a higher PRACTICE_VERSION in practice.py.
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
    # Hue relative to the petal's, saturation, value.
    "accent": {"white": (0, 0.08, 1), "dark": (0, 0.9, 0.3), "contrasting": (0.4, 0.85, 1)},
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
# ImageNet contains few flowers; in the same way the backbone's training contains none of these.
UNSEEN = {"outline": ("fringed", "square"), "pattern": ("margin", "ring")}

NUM_SPECIES, RELATIVES = 102, 6  # species, and how many of them make a genus
_FIRST_NAMES = ("common", "alpine", "marsh", "dwarf", "silver", "wandering")
_GENERA = (
    *("belora", "camithe", "dovanel", "elphira", "fenwisk", "galumey", "hessaly", "ilvane"),
    *("jorabel", "kestrine", "lumerry", "mivolet", "norrily", "orsenna", "pelliwy", "quillane"),
    "rovanda",
)
PRACTICE_NAMES = tuple(f"{first} {genus}" for genus in _GENERA for first in _FIRST_NAMES)


def species_table(count: int, *, seed: int, avoid: Sequence, unseen: dict) -> tuple[tuple, ...]:
    """`count` species in genera of six, not in `avoid` and without words in `unseen`.

    For each trait the position of its word in WORDS. Species of a genus are easily confused.
    """
    rng = np.random.default_rng(seed)
    known = [
        [i for i, word in enumerate(words) if word not in unseen.get(trait, ())]
        for trait, words in WORDS.items()
    ]
    rows: list[tuple] = []
    while len(rows) < count:
        place = len(rows) % RELATIVES
        row = list(rows[-place]) if place else [int(rng.choice(words)) for words in known]
        if place:
            for trait in rng.choice(len(known), size=rng.integers(1, 3), replace=False):
                row[trait] = int(rng.choice(known[trait]))
        if tuple(row) not in avoid and tuple(row) not in rows:
            rows.append(tuple(row))
    return tuple(rows)


PRACTICE_SPECIES = species_table(NUM_SPECIES, seed=102, avoid=(), unseen={})


def traits_in_words(logits: Tensor, names: Sequence[str]) -> list[str]:
    """A line for each flower, such as `petals five ✓, outline round ✗ (pointed)`.

    `logits` (N, MOST_WORDS * 7) are the pretrained network's. Traits with an UNSEEN word are left out.
    """
    lines = []
    for name, table in zip(names, logits.reshape(-1, MOST_WORDS, len(WORDS)), strict=True):
        species, parts = PRACTICE_SPECIES[PRACTICE_NAMES.index(name)], []
        for (trait, words), true, column in zip(WORDS.items(), species, table.T, strict=True):
            predicted = words[column[: len(words)].argmax()]
            mark = "✓" if predicted == words[true] else f"✗ ({words[true]})"
            if words[true] not in UNSEEN.get(trait, ()):
                parts.append(f"{trait} {predicted} {mark}")
        lines.append(", ".join(parts))
    return lines
