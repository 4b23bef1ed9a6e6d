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
    r"([ _-](jpe?g|png))?\.rf\.\w+$"
    r"|([ _-]+([hv]?flip|mirror|rot|aug)(ped|ed|at\w+|mented)?([ _-]*-?\d+)?)+$",
    re.IGNORECASE,
)
COMPARED = """\
Compared were 8 x 8 pixels of each photograph, also mirrored and in quarter turns, and names such
as IMG_3_rot5 or IMG_3.rf.1a2b beside IMG_3; other changed copies are not found."""


def number_pictures(photos: Sequence[Photo], looks: np.ndarray) -> list[Photo]:
    """The photographs with a number of `picture` that copies share; `looks` are uint8 `(N, 3, 8, 8)`."""
    first, second = zip(*_alike(looks), *_named_alike(photos), strict=True)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(photos), len(photos)))
    numbers = connected_components(graph, directed=False)[1].tolist()
    return [photo._replace(picture=n) for photo, n in zip(photos, numbers, strict=True)]


def _alike(looks: np.ndarray) -> Iterator[tuple[int, int]]:
    """Positions of two that look the same, one of them perhaps mirrored or turned; also of each itself."""
    small = looks.astype(np.float32) - 128
    turned = [np.rot90(s, turns, (2, 3)) for s in (small, small[..., ::-1]) for turns in range(4)]
    views = np.stack(turned, axis=1).reshape(len(small), 8, -1)  # (N, 8, 192)
    looks, lengths = views[:, 0], (views[:, 0] ** 2).sum(axis=1)
    contrast = np.sqrt(small.var(axis=(2, 3)).mean(axis=1))
    allowed = (ROUNDING + OF_CONTRAST * contrast) ** 2 * looks.shape[1]
    for i in range(len(looks)):
        product = (views[i] @ looks[i:].T).max(axis=0)  # largest for the nearest of the 8 views
        distance = lengths[i] + lengths[i:] - 2 * product  # squared
        for j in np.flatnonzero(distance <= np.minimum(allowed[i], allowed[i:])):
            yield i, i + j


def _named_alike(photos: Sequence[Photo]) -> Iterator[tuple[int, int]]:
    """Positions of an edited copy, by its name, and of its original in the same class.

    The original in the copy's own split comes first, since splits may count from 1 each. A copy
    stands for a missing original if a digit makes its name one of a kind.
    """
    families = defaultdict(list)  # class and name of the original -> positions
    for i, photo in enumerate(photos):
        families[photo.name, EDITED.sub("", photo.path.stem)].append(i)
    for (_, stem), family in families.items():
        originals = {photos[i].split: i for i in family if photos[i].path.stem == stem}
        if not originals and re.search(r"\d", stem):
            originals = {photos[family[0]].split: family[0]}
        for i in family:
            if originals and photos[i].path.stem != stem:
                yield i, originals.get(photos[i].split, min(originals.values()))
