"""A student's own flowers. Nothing happens silently: `Listing` says what is left out, cut or doubtful."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from flowers_utils.config_check import check
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.listing import Photo, first_few, list_photos

SPLITS = ("train", "val", "test")
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


@dataclass(frozen=True)
class Listing:
    """A data set's photographs, before they are decoded; title and note as in FlowerData."""

    title: str
    class_names: tuple[str, ...]
    files: dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels
    note: str = ""
    left_out: str = ""


def read_folder(folder: Path, *, seed: int) -> Listing:
    """The photographs of a folder of classes, or of split folders with classes; or FlowersError.

    A missing val or test is cut from train, always alike for the same `seed`.
    """
    photos, names, left_out = list_photos(folder.resolve())
    _check_complete(photos, names, left_out)
    looks = decoded([p.path for p in photos], size=LOOK_SIDE, name="copies")
    photos, classes = _number_pictures(photos, looks), defaultdict(set)
    for photo in photos:
        classes[photo.picture].add(photo.name)
    if wrong := [f"{p.name}/{p.path.name}" for p in photos if len(classes[p.picture]) > 1]:
        photos = [photo for photo in photos if len(classes[photo.picture]) == 1]
        in_two = f"{len(wrong)} files, each photograph in two classes: {first_few(wrong)}"
        left_out = f"{left_out}; {in_two}".strip("; ")
        _check_complete(photos, names, left_out)
    notes = [_overlap(photos, split) for split in ("val", "test")]
    if missing := [split for split in SPLITS if split not in {photo.split for photo in photos}]:
        photos, cut = _cut(photos, missing, seed)
        notes.insert(0, cut)
    files = {}
    for split in SPLITS:
        chosen = sorted(photo for photo in photos if photo.split == split)
        files[split] = [p.path for p in chosen], [names.index(p.name) for p in chosen]
    note = "\n".join([*filter(None, notes), COMPARED]) if any(notes) else ""
    title = f"own flowers '{folder.resolve().name}'"
    return Listing(title, tuple(names), files, note, left_out)


def _check_complete(photos: list[Photo], names: list[str], left_out: str) -> None:
    """Raise FlowersError if classes have no photographs in a split."""
    for split in SPLITS:
        found = {photo.name for photo in photos if photo.split == split}
        empty = [name for name in names if name not in found and (found or split == "train")]
        told = f"No photographs for {split} of {first_few(empty)}. Each class needs some, best as JPEG,"
        check(not empty, f"{told} in each split. Left out: {left_out or 'nothing'}.")


def _overlap(photos: list[Photo], split: str) -> str:
    """A warning if train holds copies of photographs of another `split`, else ""."""
    train = {photo.picture for photo in photos if photo.split == "train"}
    given = [photo for photo in photos if photo.split == split]
    shared = [photo.path.name for photo in given if photo.picture in train]
    told = f"Warning: train has copies of {len(shared)} of the {len(given)} photographs of {split}"
    advice = f"so the accuracy on {split} will be too high. Take them out of one of the two."
    return f"{told} ({first_few(shared)}), {advice}" if shared else ""


def _cut(photos: list[Photo], missing: list[str], seed: int) -> tuple[list[Photo], str]:
    """Move a fifth of each class in train, at least one, into each `missing` split; and say so."""
    rng, pictures, moved = np.random.default_rng(seed), defaultdict(set), {}
    train = [photo for photo in photos if photo.split == "train"]
    for photo in train:
        pictures[photo.name].add(photo.picture)
    for name in sorted(pictures):
        mixed = rng.permutation(sorted(pictures[name])).tolist()
        told = f"'{name}' has {len(mixed)} different photographs, but needs {len(missing) + 1}"
        check(len(mixed) > len(missing), f"{told}: one for each split. Copies count as one.")
        held = max(1, len(mixed) // 5)
        for number, split in enumerate(missing):
            moved |= dict.fromkeys(mixed[number * held : (number + 1) * held], split)
    cut = [photo._replace(split=moved.get(photo.picture, "train")) for photo in train]
    sizes = " and ".join(f"{split} ({sum(p.split == split for p in cut)})" for split in missing)
    copies = len(cut) - len({photo.picture for photo in cut})
    return [*cut, *(photo for photo in photos if photo.split != "train")], (
        f"Cut from train: {sizes}, a fifth of each class, with seed {seed}. Copies of a photograph "
        f"stay in one split ({copies} of {len(cut)} files are copies)."
    )


def _number_pictures(photos: Sequence[Photo], looks: np.ndarray) -> list[Photo]:
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
    looks, lengths = views[:, 0].copy(), (views[:, 0] ** 2).sum(axis=1)
    contrast = np.sqrt(small.var(axis=(2, 3)).mean(axis=1))
    allowed = (ROUNDING + OF_CONTRAST * contrast) ** 2 * looks.shape[1]
    for i in range(len(looks)):
        product = (views[i] @ looks[i:].T).max(axis=0)  # largest for the nearest of the 8 views
        distance = lengths[i] + lengths[i:] - 2 * product  # squared
        for j in np.flatnonzero(distance <= np.minimum(allowed[i], allowed[i:])):
            yield i, i + j


def _named_alike(photos: Sequence[Photo]) -> Iterator[tuple[int, int]]:
    """Positions of an edited copy, by its name, and of its original in the same class.

    The original in the copy's own split comes first, since splits may count from 1 each.
    """
    families = defaultdict(list)  # class and name of the original -> positions
    for i, photo in enumerate(photos):
        families[photo.name, EDITED.sub("", photo.path.stem)].append(i)
    for (_, stem), family in families.items():
        originals = {photos[i].split: i for i in family if photos[i].path.stem == stem}
        if not originals and ".rf." in photos[family[0]].path.stem:  # copies that a tool made
            originals = {photos[family[0]].split: family[0]}
        for i in family:
            if originals and photos[i].path.stem != stem:
                yield i, originals.get(photos[i].split, min(originals.values()))
