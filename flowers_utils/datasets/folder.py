"""A student's own flowers: one sub-folder a class, with or without split folders around them.

Nothing happens in silence: what is left out, cut off or doubtful is said in `OwnFolder`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowers_utils.datasets.disk import file_md5
from flowers_utils.datasets.listing import enter, first_few, list_classes, split_folders
from flowers_utils.datasets.photos import BROKEN, check_photos, kind_of
from flowers_utils.errors import FlowersError

SPLITS = ("train", "val", "test")
Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels
Listed = dict[str, dict[str, list[Path]]]  # split -> class -> photographs


@dataclass(frozen=True)
class OwnFolder:
    """A student's folder, ready to be decoded; `note` and `left_out` as in FlowerData."""

    class_names: tuple[str, ...]
    files: Files
    note: str
    left_out: dict[str, str]


def read_folder(folder: Path, *, seed: int) -> OwnFolder:
    """List the photographs of train, val and test; opens no more than their first bytes.

    Split folders are taken as they are. A missing val or test is cut from train: a fifth of each
    class, always alike for the same `seed`. Copies of a photograph (equal bytes) stay in one split.
    Raises FlowersError for a folder that no classifier can be trained on.
    """
    if not folder.is_dir():
        raise FlowersError(f"There is no folder '{folder}'; set DATA to that of your classes.")
    places, beside = split_folders(enter(folder.resolve()))
    listed: Listed = {}
    left_out = {}
    for split, place in places.items():
        listed[split], left = list_classes(place)
        left_out[split] = _left_in_words(left)
    contents = _contents(listed)
    left_out[""] = "; ".join(filter(None, (beside, _take_out_contradictions(listed, contents))))
    names = _common_classes(listed, left_out)
    notes = _overlaps(listed, contents)
    if missing := [split for split in SPLITS if split not in listed]:
        listed |= _cut(listed["train"], missing, contents, seed)
        counts = (f"{name} ({sum(map(len, listed[name].values()))})" for name in missing)
        cut = f"Cut from train: {' and '.join(counts)}, a fifth of each class, with seed {seed}."
        notes.insert(0, f"{cut} Copies of a photograph stay in one split.")
    return OwnFolder(
        class_names=names,
        files={split: _in_order(listed[split], names) for split in SPLITS},
        note="\n".join(notes),
        left_out={split: text for split, text in left_out.items() if text},
    )


def describe_folder(path: str | Path) -> str:
    """What is in a student's own folder, in one line, without decoding every photograph.

    Raises FlowersError for a folder that cannot be used.
    """
    own = read_folder(Path(path), seed=0)
    photos = [photo for split in SPLITS for photo in own.files[split][0]]
    check_photos([photo for photo in photos if kind_of(photo) == BROKEN])
    counts = Counter(own.class_names[i] for _, labels in own.files.values() for i in labels)
    (largest, most), (smallest, fewest) = counts.most_common()[0], counts.most_common()[-1]
    splits = ", ".join(f"{split} {len(own.files[split][1])}" for split in SPLITS)
    text = f"{len(photos)} photographs of {len(counts)} classes ({splits}); "
    text += f"smallest class '{smallest}' {fewest}, largest '{largest}' {most}"
    for split, left in own.left_out.items():
        text += f"; left out{f' of {split}' if split else ''}: {left}"
    return f"{text}. {' '.join(own.note.splitlines())}".strip()


def _left_in_words(left: Counter[str]) -> str:
    counted = ", ".join(f"{count} {kind}" for kind, count in left.items())
    return f"{counted} (what is a photograph among them: save as JPEG)" if counted else ""


def _in_order(photos: dict[str, list[Path]], names: tuple[str, ...]) -> tuple[list, list[int]]:
    labels = [label for label, name in enumerate(names) for _ in photos[name]]
    return [photo for name in names for photo in photos[name]], labels


def _each(listed: Listed) -> Iterator[tuple[str, str, Path]]:
    """(split, class, photograph) of all photographs."""
    for split, classes in listed.items():
        for name, photos in classes.items():
            for photo in photos:
                yield split, name, photo


def _contents(listed: Listed) -> dict[Path, str]:
    """A key for each photograph, equal for equal bytes; only files of equal size are read."""
    by_size = defaultdict(list)
    for *_, photo in _each(listed):
        by_size[photo.stat().st_size].append(photo)
    return {
        photo: file_md5(photo) if size and len(alike) > 1 else str(photo)  # empty: no copy, broken
        for size, alike in by_size.items()
        for photo in alike
    }


def _take_out_contradictions(listed: Listed, contents: dict[Path, str]) -> str:
    """Take out photographs that stand in two classes: nobody knows which is right."""
    classes = defaultdict(set)
    for _, name, photo in _each(listed):
        classes[contents[photo]].add(name)
    wrong = [photo for *_, photo in _each(listed) if len(classes[contents[photo]]) > 1]
    for photos in listed.values():
        for name in photos:
            photos[name] = [photo for photo in photos[name] if len(classes[contents[photo]]) == 1]
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


def _overlaps(listed: Listed, contents: dict[Path, str]) -> list[str]:
    """A warning for val and test, where they are given and share photographs with train."""
    seen = defaultdict(list)
    for split, _, photo in _each(listed):
        seen[split].append(contents[photo])
    train = set(seen["train"])
    counts = {split: sum(key in train for key in seen[split]) for split in ("val", "test")}
    return [
        f"Warning: train holds {count} of the {len(seen[split])} photographs of {split} too, so the "
        f"accuracy on {split} will be too high. Take them out of one of the two."
        for split, count in counts.items()
        if count
    ]


def _cut(
    photos: dict[str, list[Path]], missing: list[str], contents: dict[Path, str], seed: int
) -> Listed:
    """train and the `missing` splits, cut from `photos`: a fifth of each class, at least one.

    Equal photographs count as one, so that none lands in train and another in test.
    """
    rng = np.random.default_rng(seed)
    parts: Listed = {split: {} for split in ("train", *missing)}
    for name in sorted(photos):
        copies = defaultdict(list)
        for photo in photos[name]:
            copies[contents[photo]].append(photo)
        count = len(copies)
        if count <= len(missing):
            raise FlowersError(
                f"Class '{name}' has {count} different photographs, but needs {len(missing) + 1} or "
                "more: one for each split."
            )
        held = max(1, count // 5)
        ends = [held * (i + 1) for i in range(len(missing))]
        groups = np.split(rng.permutation(count), ends)
        alike = list(copies.values())
        for split, group in zip((*missing, "train"), groups, strict=True):
            parts[split][name] = [photo for i in group for photo in alike[i]]
    return parts
