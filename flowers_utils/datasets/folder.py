"""A student's own flowers: one sub-folder a class, with or without split folders around them.

Nothing happens silently: what is left out, cut off or doubtful is said in `OwnFolder`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

import transfer_learning_config as config
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.copies import COMPARED, LOOK_SIDE, number_pictures
from flowers_utils.datasets.flowers102 import root_of
from flowers_utils.datasets.listing import check_names, first_few, list_classes, split_folders
from flowers_utils.errors import FlowersError

SPLITS = ("train", "val", "test")
Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels


class Photo(NamedTuple):
    """Where a photograph stands; copies of it have the same `picture`."""

    split: str
    name: str  # of its class
    path: Path
    picture: int


@dataclass(frozen=True)
class OwnFolder:
    """A student's folder, ready to be decoded; `note` and `left_out` as in FlowerData."""

    class_names: tuple[str, ...]
    files: Files
    note: str
    left_out: dict[str, str]


def read_folder(folder: Path, *, seed: int) -> OwnFolder:
    """List the photographs of train, val and test, and find copies among them.

    Split folders are taken as they are. A missing val or test is cut from train: a fifth of each
    class, always alike for the same `seed`, with copies of a photograph in one split.
    Raises FlowersError for a folder that no classifier can be trained on.
    """
    if not folder.is_dir():
        raise FlowersError(f"There is no folder '{folder}'; set DATA to that of your classes.")
    places, beside = split_folders(folder.resolve())
    found, left_out, names = [], {"": beside}, set()
    for split, place in places.items():
        classes, left_out[split] = list_classes(place)
        names |= classes.keys()
        found += [(split, name, path) for name, paths in classes.items() for path in paths]
    check_names(names)
    cache, title = Path(config.PATHS["cache"]), cache_name("folder-copies", folder)
    looks = decoded([path for *_, path in found], size=LOOK_SIDE, cache=cache, name=title)
    pictures = number_pictures(found, looks)
    photos = [Photo(*where, picture) for where, picture in zip(found, pictures, strict=True)]
    photos, wrong = _without_contradictions(photos)
    left_out[""] = "; ".join(filter(None, (beside, wrong)))
    for split in places:
        _check_complete(split, names - {p.name for p in photos if p.split == split}, left_out)
    notes = _overlaps(photos)
    if missing := [split for split in SPLITS if split not in places]:
        photos, cut = _cut(photos, missing, seed)
        notes.insert(0, cut)
    return OwnFolder(
        class_names=tuple(sorted(names)),
        files=in_order(photos, sorted(names)),
        note="\n".join([*notes, COMPARED] if notes else []),
        left_out={split: text for split, text in left_out.items() if text},
    )


def describe_folder(path: str | Path) -> str:
    """What is in a student's own folder, in one line, as `load_data` will use it.

    Raises FlowersError for a folder that cannot be used.
    """
    if root := root_of(Path(path)):
        return f"{config.DATASET['name']}, found in {root}"
    own = read_folder(Path(path), seed=0)
    counts = {split: len(own.files[split][1]) for split in SPLITS}
    splits = ", ".join(f"{split} {count}" for split, count in counts.items())
    text = f"{sum(counts.values())} photographs of {len(own.class_names)} classes ({splits})"
    for split, left in own.left_out.items():
        text += f"; left out{f' of {split}' if split else ''}: {left}"
    return f"{text}. {' '.join(own.note.splitlines())}".strip()


def cache_name(title: str, folder: Path) -> str:
    """A name for what is decoded of a folder: of its own, so that two folders keep both."""
    return f"{title}-{sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def in_order(photos: Iterable[Photo], names: Sequence[str]) -> Files:
    """Photographs and labels of each split, in the order of the class `names`."""
    files: Files = {split: ([], []) for split in SPLITS}
    for photo in sorted(photos, key=lambda photo: names.index(photo.name)):
        paths, labels = files[photo.split]
        paths.append(photo.path)
        labels.append(names.index(photo.name))
    return files


def _without_contradictions(photos: list[Photo]) -> tuple[list[Photo], str]:
    """Leave out photographs that stand in two classes, because one of the labels must be wrong."""
    classes = defaultdict(set)
    for photo in photos:
        classes[photo.picture].add(photo.name)
    kept = [photo for photo in photos if len(classes[photo.picture]) == 1]
    wrong = [f"{p.name}/{p.path.name}" for p in photos if len(classes[p.picture]) > 1]
    told = f"{len(wrong)} files, each photograph in two classes ({first_few(wrong)})"
    return kept, told if wrong else ""


def _check_complete(split: str, empty: set[str], left_out: dict[str, str]) -> None:
    """Raise FlowersError if classes have no photographs in a split."""
    if empty:
        found = "; ".join(filter(None, left_out.values())) or "nothing"
        raise FlowersError(
            f"No photographs for {split} of {first_few(sorted(empty))}. Each class needs some, best "
            f"as JPEG, in each split. Left out: {found}."
        )


def _overlaps(photos: list[Photo]) -> list[str]:
    """A warning for val and test, where they are given and share photographs with train."""
    train, warnings = {photo.picture for photo in photos if photo.split == "train"}, []
    for split in SPLITS[1:]:
        given = [photo for photo in photos if photo.split == split]
        if shared := [photo.path.name for photo in given if photo.picture in train]:
            warnings.append(
                f"Warning: train holds copies of {len(shared)} of the {len(given)} photographs of "
                f"{split} ({first_few(shared)}), so the accuracy on {split} will be too high. Take "
                "them out of one of the two."
            )
    return warnings


def _cut(photos: list[Photo], missing: list[str], seed: int) -> tuple[list[Photo], str]:
    """Move a fifth of each class in train, at least one, into each `missing` split; and say so.

    Copies count as one photograph, so that none lands in train and another in test.
    """
    rng, pictures, moved = np.random.default_rng(seed), defaultdict(dict), {}
    train = [photo for photo in photos if photo.split == "train"]
    for photo in train:
        pictures[photo.name][photo.picture] = None  # a dict, because its order is always alike
    for name in sorted(pictures):
        count = len(pictures[name])
        if count <= len(missing):
            raise FlowersError(
                f"Class '{name}' has {count} different photographs, but needs {len(missing) + 1} or "
                "more: one for each split. Copies of a photograph count as one."
            )
        mixed, held = rng.permutation(list(pictures[name])).tolist(), max(1, count // 5)
        for split in missing:
            moved |= dict.fromkeys(mixed[:held], split)
            mixed = mixed[held:]
    cut = [photo._replace(split=moved.get(photo.picture, "train")) for photo in train]
    sizes = " and ".join(f"{split} ({sum(p.split == split for p in cut)})" for split in missing)
    copies = len(cut) - len({photo.picture for photo in cut})
    return [*cut, *(photo for photo in photos if photo.split != "train")], (
        f"Cut from train: {sizes}, a fifth of each class, with seed {seed}. Copies of a photograph "
        f"stay in one split ({copies} of {len(cut)} files are copies)."
    )
