"""Copies of a photograph: known by their look, or by the name that a tool gave them."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

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
    f"Compared were small versions of the photographs ({LOOK_SIDE} x {LOOK_SIDE} pixels), also "
    "mirrored and in quarter turns, and names such as IMG_3_flip, IMG_3_rot5, IMG_3_aug1 or "
    "IMG_3.rf.1a2b beside IMG_3; copies that were changed in other ways are not found."
)
Place = tuple[str, str, Path]  # split, class, photograph


def number_pictures(places: Sequence[Place], looks: np.ndarray) -> list[int]:
    """A number for each photograph, the same for copies; `looks` are uint8 `(N, 3, 8, 8)`."""
    pairs = np.array([*_alike(looks), *_named_alike(places)]).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(places), len(places)))
    return connected_components(graph, directed=False)[1].tolist()


def _alike(looks: np.ndarray) -> list[tuple[int, int]]:
    """Pairs that look the same, one of them perhaps mirrored or turned."""
    small, first, which = np.unique(looks, axis=0, return_index=True, return_inverse=True)
    small, pairs = small.astype(np.float32), [*enumerate(first[which.ravel()])]
    views = [np.rot90(s, k, (2, 3)) for s in (small, small[..., ::-1]) for k in range(4)]
    allowed = ROUNDING + OF_CONTRAST * np.sqrt(small.var(axis=(2, 3)).mean(axis=1))
    # The mean of all views is the same for a picture and its mirror image, and lies no farther from
    # that of another one than the pictures themselves: so a search tree of it finds the candidates.
    half = LOOK_SIDE // 2
    means = 2 * np.mean(views, axis=0)[:, :, :half, :half].reshape(len(small), -1)
    reach = allowed.max() * np.sqrt(small[0].size)
    near = cKDTree(means).query_pairs(reach, output_type="ndarray")
    for a, b in (part.T for part in np.array_split(near, len(near) // 10_000 + 1)):
        gaps = [np.sqrt(((small[a] - view[b]) ** 2).mean(axis=(1, 2, 3))) for view in views]
        same = np.min(gaps, axis=0) <= np.minimum(allowed[a], allowed[b])
        pairs += zip(first[a[same]], first[b[same]], strict=True)
    return pairs


def _named_alike(places: Sequence[Place]) -> list[tuple[int, int]]:
    """Pairs of an edited copy, by its name, and its original in the same class.

    The original is looked for in the copy's own split first, since splits may count from 1 each.
    Without any, copies of one original belong together if a digit makes its name one of a kind.
    """
    originals: dict[tuple, int] = {}
    edited: dict[tuple, list] = defaultdict(list)
    for i, (split, name, photo) in enumerate(places):
        stem = EDITED.sub("", photo.stem)
        if stem == photo.stem:
            originals[split, name, stem] = originals[name, stem] = i
        else:
            edited[name, stem].append((split, i))
    pairs = []
    for (name, stem), copies in edited.items():
        sibling = copies[0][1] if any(c.isdigit() for c in stem) else None
        for split, i in copies:
            original = originals.get((split, name, stem), originals.get((name, stem), sibling))
            pairs += [] if original is None else [(i, original)]
    return pairs
