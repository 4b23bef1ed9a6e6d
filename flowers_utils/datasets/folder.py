"""A student's own flowers: one sub-folder a class, with or without split folders around them.

Nothing happens silently: what is left out, cut off or doubtful is said in `OwnFolder`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

import transfer_learning_config as config
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.copies import COMPARED, LOOK_SIDE, number_pictures
from flowers_utils.datasets.flowers102 import root_of
from flowers_utils.datasets.listing import check_names, first_few, list_classes, split_folders
from flowers_utils.errors import FlowersError

SPLITS = ("train", "val", "test")
Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels
Listed = dict[str, dict[str, list[Path]]]  # split -> class -> photographs
Pictures = dict[Path, int]  # photograph -> a number, the same for its copies


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
    listed: Listed = {}
    left_out = {}
    for split, place in places.items():
        listed[split], left_out[split] = list_classes(place)
    check_names({name for photos in listed.values() for name in photos})
    each = list(_each(listed))
    name, photos = cache_name("folder-copies", folder), [photo for *_, photo in each]
    looks = decoded(photos, size=LOOK_SIDE, cache=Path(config.PATHS["cache"]), name=name)
    pictures = number_pictures(each, looks)
    left_out[""] = "; ".join(filter(None, (beside, _take_out_contradictions(listed, pictures))))
    names = _common_classes(listed, left_out)
    notes = _overlaps(listed, pictures)
    if missing := [split for split in SPLITS if split not in listed]:
        listed |= _cut(listed["train"], missing, pictures, seed)
        notes.insert(0, _cut_in_words(listed, missing, pictures, seed))
    return OwnFolder(
        class_names=names,
        files={split: in_order(listed[split], names) for split in SPLITS},
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


def in_order(photos: dict[str, list[Path]], names: tuple[str, ...]) -> tuple[list, list[int]]:
    """The photographs of all classes in the order of `names`, and their labels."""
    labels = [label for label, name in enumerate(names) for _ in photos[name]]
    return [photo for name in names for photo in photos[name]], labels


def _each(listed: Listed) -> Iterator[tuple[str, str, Path]]:
    """(split, class, photograph) of all photographs."""
    for split, classes in listed.items():
        for name, photos in classes.items():
            for photo in photos:
                yield split, name, photo


def _take_out_contradictions(listed: Listed, pictures: Pictures) -> str:
    """Take out photographs that stand in two classes, because one of the labels must be wrong."""
    classes = defaultdict(set)
    for _, name, photo in _each(listed):
        classes[pictures[photo]].add(name)
    wrong = [photo for *_, photo in _each(listed) if len(classes[pictures[photo]]) > 1]
    for photos in listed.values():
        for name in photos:
            photos[name] = [photo for photo in photos[name] if len(classes[pictures[photo]]) == 1]
    files = first_few(f"{photo.parent.name}/{photo.name}" for photo in wrong)
    return f"{len(wrong)} files, each photograph in two classes ({files})" if wrong else ""


def _common_classes(listed: Listed, left_out: dict[str, str]) -> tuple[str, ...]:
    """The class names; each class must have photographs in each split."""
    names = {name for photos in listed.values() for name in photos}
    for split, photos in listed.items():
        if empty := [name for name in sorted(names) if not photos.get(name)]:
            found = "; ".join(filter(None, left_out.values())) or "nothing"
            raise FlowersError(
                f"No photographs for {split} of {first_few(empty)}. Each class needs some, best as "
                f"JPEG, in each split. Left out: {found}."
            )
    return tuple(sorted(names))


def _overlaps(listed: Listed, pictures: Pictures) -> list[str]:
    """A warning for val and test, where they are given and share photographs with train."""
    seen = defaultdict(list)
    for split, _, photo in _each(listed):
        seen[split].append(pictures[photo])
    train = set(seen["train"])
    counts = {split: sum(number in train for number in seen[split]) for split in SPLITS[1:]}
    return [
        f"Warning: train holds copies of {count} of the {len(seen[split])} photographs of {split}, "
        f"so the accuracy on {split} will be too high. Take them out of one of the two."
        for split, count in counts.items()
        if count
    ]


def _cut(
    photos: dict[str, list[Path]], missing: list[str], pictures: Pictures, seed: int
) -> Listed:
    """train and the `missing` splits, cut from `photos`: a fifth of each class, at least one.

    Copies count as one photograph, so that none lands in train and another in test.
    """
    rng = np.random.default_rng(seed)
    parts: Listed = {split: {} for split in ("train", *missing)}
    for name in sorted(photos):
        copies = defaultdict(list)
        for photo in photos[name]:
            copies[pictures[photo]].append(photo)
        count = len(copies)
        if count <= len(missing):
            raise FlowersError(
                f"Class '{name}' has {count} different photographs, but needs {len(missing) + 1} or "
                "more: one for each split. Copies of a photograph count as one."
            )
        held = max(1, count // 5)
        ends = [held * (i + 1) for i in range(len(missing))]
        groups = np.split(rng.permutation(count), ends)
        alike = list(copies.values())
        for split, group in zip((*missing, "train"), groups, strict=True):
            parts[split][name] = [photo for i in group for photo in alike[i]]
    return parts


def _cut_in_words(listed: Listed, missing: list[str], pictures: Pictures, seed: int) -> str:
    counts = (f"{name} ({sum(map(len, listed[name].values()))})" for name in missing)
    cut = [photo for split, _, photo in _each(listed) if split in ("train", *missing)]
    copies = len(cut) - len({pictures[photo] for photo in cut})
    return (
        f"Cut from train: {' and '.join(counts)}, a fifth of each class, with seed {seed}. Copies "
        f"of a photograph stay in one split ({copies} of {len(cut)} files are copies)."
    )
