"""A student's own flowers. Nothing happens silently: `Listing` says what is left out, cut or doubtful."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torchvision.transforms.v2 import functional as TF

from flowers_utils.config_check import check
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.listing import Photo, first_few, list_photos

SPLITS = ("train", "val", "test")
LOOK_SIDE = 16  # pixels of the small versions that are compared
LUMA = np.array([[[0.299]], [[0.587]], [[0.114]]])  # what red, green and blue add to grey (BT.601)
FLAT = 800.0  # a contrast of 2 of 255, squared and summed over 192 numbers: less is noise
# Two with a higher correlation are copies. On 2,673 flowers the most alike that are none, two orchids
# on black, have 0.980. A copy cropped by a twentieth at each side may have less, and is not found.
ALIKE = 0.983
# Where the name of an original may end in that of a copy, IMG_3-crop2 or rose_rot5, or begin: aug_IMG_3.
EDITED = r"[hv]?(?:flip|mirror|rot|aug|crop)"
ENDING = re.compile(rf"(?i)(?<=\d)[\W_]+(?=[a-z])|[\W_]+(?={EDITED})")
BEGINNING = re.compile(rf"(?i){EDITED}[a-z]*\d*[\W_]+")
COMPARED = """\
Compared were 8 x 8 pixels of each photograph, also mirrored, in quarter turns, without a border
and against grey ones, and names such as IMG_3_rot5, aug_IMG_3 or IMG_3.rf.1a2b beside IMG_3;
other changed copies are not found."""


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
    """A warning if train, or val for test, holds copies of photographs of this `split`, else ""."""
    others = SPLITS[: SPLITS.index(split)]
    before = {photo.picture for photo in photos if photo.split in others}
    given, others = [photo for photo in photos if photo.split == split], " or ".join(others)
    same = [photo.path.name for photo in given if photo.picture in before]
    told = f"Warning: {others} has copies of {len(same)} of the {len(given)} photographs of {split}"
    advice = f"so the accuracy on {split} will be too high. Take them out of one of the two."
    return f"{told} ({first_few(same)}), {advice}" if same else ""


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
    """The photographs with a number of `picture` that copies share; `looks` are uint8 `(N, 3, S, S)`."""
    grey = np.flatnonzero(np.ptp(looks, axis=1).max(axis=(1, 2)) < 8)  # of rounding at most
    pairs = [(0, 0), *_alike(looks, range(len(looks))), *_named_alike(photos)]
    pairs += _alike((looks * LUMA).sum(axis=1, keepdims=True), grey)
    graph = coo_array((np.ones(len(pairs)), np.transpose(pairs)), shape=(len(photos), len(photos)))
    numbers = connected_components(graph, directed=False)[1].tolist()
    return [photo._replace(picture=n) for photo, n in zip(photos, numbers, strict=True)]


def _alike(looks: np.ndarray, asked: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Positions of those `asked`, each with what it is when mirrored, turned or without its edges."""
    whole, inner = _patterns(looks), _patterns(looks[..., 1:-1, 1:-1])
    sides = [side for look in (whole, inner) for side in (look, look[..., ::-1])]
    turned = [np.rot90(side, turns, (2, 3)) for side in sides for turns in range(4)]
    views = np.stack(turned, axis=1).reshape(len(looks), len(turned), -1)
    for i in asked:
        correlations = (views[i] @ views[:, 0].T).max(axis=0)
        for j in np.flatnonzero(correlations > ALIKE):
            yield i, j


def _patterns(looks: np.ndarray) -> np.ndarray:
    """Float32 `(N, C, 8, 8)` of length 1, in which brightness and contrast no longer count."""
    small = TF.resize(torch.from_numpy(looks.astype(np.float32)), [8, 8]).numpy()
    small -= small.mean(axis=(2, 3), keepdims=True)
    return small / np.sqrt(np.maximum((small**2).sum(axis=(1, 2, 3), keepdims=True), FLAT))


def _named_alike(photos: Sequence[Photo]) -> Iterator[tuple[int, int]]:
    """Positions of an edited copy, by its name, and of its original in the same class.

    The original in the copy's own split comes first, since splits may count from 1 each.
    """
    originals = {(p.name, p.path.stem, p.split): i for i, p in enumerate(photos)}
    for i, photo in enumerate(photos):
        stem = photo.path.stem
        if ".rf." in stem:  # copies that an annotation tool made; it leaves no original
            yield i, originals.setdefault((photo.name, stem.split(".rf.")[0]), i)
        stems = [stem[: end.start()] for end in ENDING.finditer(stem)]
        stems += [stem[begin.end() :] for begin in [BEGINNING.match(stem)] if begin]
        for original in stems:
            keys = [(photo.name, original, split) for split in (photo.split, *SPLITS)]
            if found := [originals[key] for key in keys if key in originals]:
                yield i, found[0]
