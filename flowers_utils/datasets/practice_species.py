"""What makes a species of practice flowers: its traits in words, and the 102 species themselves.

To invent a flower, ask `draw_species` for a new mix of words, or add a word to one of the tables
(then raise PRACTICE_VERSION in practice.py: other species need other pictures and a new backbone).
"""

import numpy as np
import torch
from torch import Tensor

from flowers_utils.errors import FlowersError

# Each: the power of the petal's curve (low is pointed), the share of the radius where neighbours
# meet, how deep the notch at the tip is, and how deep the fringe.
OUTLINES = {
    "pointed": (1.0, 0.22, 0.0, 0.0),
    "round": (2.4, 0.40, 0.0, 0.0),
    "heart": (2.6, 0.45, 0.40, 0.0),
    "narrow": (0.75, 0.10, 0.0, 0.0),
    "fringed": (2.2, 0.45, 0.0, 0.09),
    "square": (6.0, 0.48, 0.10, 0.0),
}
# Where a petal wears its accent colour, 0 to 1; u runs from -1 to 1 across the petal, depth from 0
# in the flower's middle to 1 at the reach of its petals, and edge is the depth at which it ends.
PATTERNS = {
    "eye": lambda u, depth, edge: torch.sigmoid((0.52 - depth) * 22),
    "stripe": lambda u, depth, edge: torch.sigmoid((0.24 - u.abs()) * 16),
    "margin": lambda u, depth, edge: torch.sigmoid((depth - edge + 0.15) * 30),
    "spots": lambda u, depth, edge: torch.sigmoid((u * 5.5).cos() * (depth * 13).sin() * 9 - 2),
    "tips": lambda u, depth, edge: torch.sigmoid((depth - 0.72) * 22),
    "ring": lambda u, depth, edge: torch.sigmoid((0.11 - (depth - 0.62).abs()) * 30),
}
ACCENTS = {  # each: hue against the petal's, saturation, value
    "white": (0.0, 0.08, 1.0),
    "dark": (0.0, 0.90, 0.30),
    "contrasting": (0.40, 0.85, 1.0),
}
CENTRES = {  # each: radius as a share of the flower, hue, saturation, value
    "small yellow": (0.15, 0.14, 0.9, 0.95),
    "large yellow": (0.32, 0.13, 0.9, 0.90),
    "brown": (0.30, 0.06, 0.8, 0.30),
    "green": (0.20, 0.27, 0.7, 0.55),
}
CHOICES = {  # what makes a species: for each trait its words, and what they mean to the pencil
    "petals": {"three": 3, "five": 5, "eight": 8},
    "outline": OUTLINES,
    "pattern": PATTERNS,
    "accent": ACCENTS,
    "centre": CENTRES,
    "layers": {"single": 0, "double": 1},
    "twist": {"straight": 0.0, "twisted": 1.2},  # radians from the middle to the tips
}
WORDS = {trait: tuple(table) for trait, table in CHOICES.items()}


NUM_SPECIES, RELATIVES = 102, 6  # species, and how many of them make a genus
# As ImageNet has seen few flowers, the backbone has never seen these words of a species.
UNSEEN = {"outline": ("fringed", "square"), "pattern": ("margin", "ring")}
_KINDS = ("common", "alpine", "marsh", "dwarf", "silver", "wandering")
_GENERA = (
    *("belora", "camithe", "dovanel", "elphira", "fenwisk", "galumey", "hessaly", "ilvane"),
    *("jorabel", "kestrine", "lumerry", "mivolet", "norrily", "orsenna", "pelliwy", "quillane"),
    "rovanda",
)
PRACTICE_NAMES = tuple(f"{kind} {genus}" for genus in _GENERA for kind in _KINDS)


def species_table(
    count: int, *, seed: int, avoid: frozenset = frozenset(), unseen: dict | None = None
) -> list[tuple]:
    """Trait rows of `count` different species in genera of six, none of them in `avoid`.

    A row holds a position in WORDS for each trait; words in `unseen` are left out. The species of a
    genus differ from its first one in a single trait or two.
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
    """Trait rows of the pretraining species: disjoint from the 102 practice species."""
    return species_table(count, seed=2012, avoid=frozenset(PRACTICE_SPECIES), unseen=UNSEEN)


def traits_in_words(logits: Tensor) -> list[str]:
    """What the pretrained network says to each picture: logits (N, words of all traits) in words."""
    answers = logits.split([len(words) for words in WORDS.values()], dim=1)
    return [
        ", ".join(
            f"{trait} {words[answer[row].argmax()]}"
            for (trait, words), answer in zip(WORDS.items(), answers, strict=True)
        )
        for row in range(len(logits))
    ]


def species_row(traits: dict[str, str]) -> tuple[int, ...]:
    """The trait row for words such as {"petals": "five"}; unnamed traits take their first word.

    Raises FlowersError for a word that is not there.
    """
    for trait, word in traits.items():
        if word not in WORDS.get(trait, ()):
            known = WORDS.get(trait, tuple(WORDS))
            raise FlowersError(
                f"No flower can be drawn with {trait}={word!r}: "
                f"{trait if trait in WORDS else 'the traits'} can be {', '.join(known)}."
            )
    return tuple(words.index(traits.get(trait, words[0])) for trait, words in WORDS.items())
