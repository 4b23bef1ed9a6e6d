"""Copies of a photograph: known by their look, or by the name that a tool gave them."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from flowers_utils.datasets.listing import Photo

LOOK_SIDE = 8  # pixels of the small versions that are compared
# How far two of them may differ (root of the mean square, of 255): a part of their own contrast, and
# a little for rounding. Measured on 2,673 flowers: saved anew 0.03, cropped by a hand's breadth 0.15,
# the same scene a moment later 0.2, other photographs from 0.29 on.
OF_CONTRAST, ROUNDING = 0.25, 0.5
# IMG_3_flip, IMG_3_rot5, IMG_3_aug1, IMG_3_flip_rot90; IMG_3_jpg.rf.1a2b3c of annotation tools.
EDITED = re.compile(
    r"(?:[ _-](?:jpe?g|png))?\.rf\.\w+$"
    r"|(?:[ _-]+(?:[hv]?flip|mirror|rot|aug)(?:ped|ed|at\w+|mented)?(?:[ _-]*-?\d+)?)+$",
    re.IGNORECASE,
)
COMPARED = (
    "Compared were 8 x 8 pixels of each photograph, also mirrored and in quarter turns, and names such "
    "as IMG_3_flip, IMG_3_rot5 or IMG_3.rf.1a2b beside IMG_3; other changed copies are not found."
)
BLOCK = 500  # photographs compared with all others at a time


def number_pictures(photos: Sequence[Photo], looks: np.ndarray) -> list[int]:
    """A number for each photograph, the same for copies; `looks` are uint8 `(N, 3, 8, 8)`."""
    pairs = np.concatenate([*_alike(looks), _named_alike(photos)])
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(photos), len(photos)))
    return connected_components(graph, directed=False)[1].tolist()


def _alike(looks: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs `(P, 2)` that look the same, one of them perhaps mirrored or turned."""
    small = looks.astype(np.float32) - 128
    turned = [np.rot90(s, turns, (2, 3)) for s in (small, small[..., ::-1]) for turns in range(4)]
    views = [view.reshape(len(small), -1) for view in turned]
    contrast = np.sqrt(small.var(axis=(2, 3)).mean(axis=1))
    allowed = (ROUNDING + OF_CONTRAST * contrast) ** 2 * views[0].shape[1]
    lengths = (views[0] ** 2).sum(axis=1)
    for start in range(0, len(small), BLOCK):  # each block with itself and all after it
        block, rest = slice(start, start + BLOCK), slice(start, None)
        limits = np.minimum.outer(allowed[block], allowed[rest])
        least = (np.add.outer(lengths[block], lengths[rest]) - limits) / 2  # product of two copies
        for view in views:
            yield np.argwhere(view[block] @ views[0][rest].T >= least) + start


def _named_alike(photos: Sequence[Photo]) -> np.ndarray:
    """Pairs `(P, 2)` of an edited copy, by its name, and its original in the same class.

    The original in the copy's own split comes first, since splits may count from 1 each. A copy
    stands for a missing original if a digit makes its name one of a kind.
    """
    originals: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # -> split -> position
    edited, pairs = [], []
    for i, photo in enumerate(photos):
        stem = EDITED.sub("", photo.path.stem)
        if stem == photo.path.stem:
            originals[photo.name, stem][photo.split] = i
        else:
            edited.append((i, photo.split, (photo.name, stem)))
    for i, split, (name, stem) in edited:
        known = originals[name, stem]
        if not known and any(letter.isdigit() for letter in stem):
            known[split] = i
        if known:
            pairs.append((i, known.get(split, min(known.values()))))
    return np.array(pairs, dtype=int).reshape(-1, 2)
