"""A student's own flowers: one sub-folder a class, with or without split folders around them.

Nothing happens in silence: what is left out, cut off or doubtful is said in `OwnFolder`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowers_utils.datasets.disk import as_path, file_md5
from flowers_utils.datasets.listing import (
    Listing,
    enter,
    first_few,
    list_classes,
    refuse_odd_names,
    split_folders,
)
from flowers_utils.datasets.photos import UNREADABLE, broken_in_words, open_photo
from flowers_utils.errors import FlowersError

SPLITS = ("train", "val", "test")
Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels


@dataclass(frozen=True)
class OwnFolder:
    """A student's folder, ready to be decoded."""

    class_names: tuple[str, ...]
    files: Files
    note: str  # what was decided for the student, and what is doubtful
    left_out: dict[str, str]  # split ("" for the whole folder) -> what is not used, and why
    broken: list[Path]  # they are among `files`: decoding says what is wrong with each


def read_folder(folder: Path, *, seed: int) -> OwnFolder:
    """List the photographs of train, val and test; opens no more than their first bytes.

    Split folders are taken as they are. A missing val or test is cut from train: a fifth of each
    class, always alike for the same `seed`. Copies of a photograph (equal bytes) stay in one split.
    Raises FlowersError for a folder that no classifier can be trained on.
    """
    if not folder.is_dir():
        raise FlowersError(
            f"There is no folder '{folder}'; set DATA to the folder of your classes."
        )
    refuse_odd_names(folder, folder.resolve().parts)
    folder = enter(folder.resolve())
    places, beside = split_folders(folder)
    listed = {split: list_classes(place) for split, place in places.items()}
    names = _common_classes(listed, places)
    keys = _keys_by_content(listed)
    left_out = {split: _left_in_words(listing.left) for split, listing in listed.items()}
    if len(places) == 1:  # what is left out of it is left out of all three splits
        left_out = {"": left_out["train"]}
    whole = [left_out.get("", ""), _take_out_contradictions(listed, keys, folder), *beside]
    left_out[""] = "; ".join(filter(None, whole))
    _refuse_empty_classes(listed, places, left_out)
    notes = [_overlap_in_words(listed, keys)]
    photos = {split: listing.photos for split, listing in listed.items()}
    if missing := [split for split in SPLITS if split not in photos]:
        contents = [keys[photo] for _, photo in listed["train"].pairs()]
        photos |= _cut(photos["train"], missing, keys, seed)
        copies = len(contents) - len(set(contents))
        notes.insert(0, _cut_in_words(photos, missing, copies, seed))
    return OwnFolder(
        class_names=names,
        files={split: _in_class_order(photos[split], names) for split in SPLITS},
        note="\n".join(filter(None, notes)),
        left_out={split: text for split, text in left_out.items() if text},
        broken=[path for listing in listed.values() for path in listing.broken],
    )


def _in_class_order(
    photos: dict[str, list[Path]], names: tuple[str, ...]
) -> tuple[list[Path], list[int]]:
    labels = [label for label, name in enumerate(names) for _ in photos[name]]
    return [photo for name in names for photo in photos[name]], labels


def describe_folder(path: str | Path) -> str:
    """What is in a student's own folder, in one line, without decoding every photograph.

    Raises FlowersError for a folder that cannot be used.
    """
    own = read_folder(as_path(path), seed=0)
    _refuse_broken(own.broken)
    counts = Counter(own.class_names[i] for _, labels in own.files.values() for i in labels)
    (largest, most), (smallest, fewest) = counts.most_common()[0], counts.most_common()[-1]
    splits = ", ".join(f"{split} {len(own.files[split][1])}" for split in SPLITS)
    text = f"{sum(counts.values())} photographs of {len(counts)} classes ({splits}); "
    text += f"smallest class '{smallest}' {fewest}, largest '{largest}' {most}"
    for split, left in own.left_out.items():
        text += f"; left out{f' of {split}' if split else ''}: {left}"
    return f"{text}. {' '.join(own.note.splitlines())}".strip()


def _refuse_broken(photos: Iterable[Path]) -> None:
    reasons = []
    for photo in photos:
        try:
            open_photo(photo)
        except FlowersError as error:
            reasons.append(str(error))
    if reasons:
        raise FlowersError(broken_in_words(reasons))


def _left_in_words(left: Counter[str]) -> str:
    """`3 HEIC (cannot be opened here: save as JPEG), 2 .txt`."""
    photos = [f"{count} {kind}" for kind, count in left.items() if kind in UNREADABLE]
    others = [f"{count} {kind}" for kind, count in left.items() if kind not in UNREADABLE]
    advice = " (cannot be opened here: save as JPEG)" if photos else ""
    return ", ".join([*filter(None, [" and ".join(photos) + advice]), *others])


def _common_classes(listed: dict[str, Listing], places: dict[str, Path]) -> tuple[str, ...]:
    """The class names, the same in every split."""
    names = sorted(listed["train"].photos)
    for split, listing in listed.items():
        if odd := sorted(listing.photos.keys() ^ set(names)):
            raise FlowersError(
                f"These classes are not in both '{places['train']}' and '{places[split]}': "
                f"{first_few([repr(name) for name in odd])}. Every split needs the same class folders."
            )
    return tuple(names)


def _keys_by_content(listed: dict[str, Listing]) -> dict[Path, str]:
    """A key for each photograph; equal keys mean equal bytes. Few files are read to the end:
    those of equal size."""
    keys, by_size = {}, defaultdict(list)
    for listing in listed.values():
        broken = set(listing.broken)  # many of these are alike: empty, or the same error page
        for _, photo in listing.pairs():
            keys[photo] = str(photo)
            if photo not in broken:
                by_size[photo.stat().st_size].append(photo)
    for photos in by_size.values():
        if len(photos) > 1:
            keys |= {photo: file_md5(photo) for photo in photos}
    return keys


def _take_out_contradictions(
    listed: dict[str, Listing], keys: dict[Path, str], folder: Path
) -> str:
    """Take out photographs that stand in two classes: nobody knows which is right."""
    classes, copies = defaultdict(set), defaultdict(list)
    for listing in listed.values():
        for name, photo in listing.pairs():
            classes[keys[photo]].add(name)
            copies[keys[photo]].append(f"'{photo.relative_to(folder).as_posix()}'")
    wrong = {key for key, names in classes.items() if len(names) > 1}
    for listing in listed.values():
        for name, photos in listing.photos.items():
            listing.photos[name] = [photo for photo in photos if keys[photo] not in wrong]
    if not wrong:
        return ""
    named = first_few([" = ".join(copies[key]) for key in sorted(wrong)])
    files = sum(len(copies[key]) for key in wrong)
    return f"{files} files with one photograph in two classes ({named}): keep the right one of each"


def _refuse_empty_classes(listed: dict[str, Listing], places: dict[str, Path], left: dict) -> None:
    classes = [(split, name) for split, listing in listed.items() for name in listing.photos]
    empty = [
        f"'{places[split] / name}'" for split, name in classes if not listed[split].photos[name]
    ]
    if empty:
        found = "; ".join(text for text in left.values() if text)
        why = f" (left out: {found})" if found else ""
        raise FlowersError(
            f"There is nothing to use in {first_few(empty)}{why}. Each class folder needs "
            "photographs, best as JPEG."
        )


def _overlap_in_words(listed: dict[str, Listing], keys: dict[Path, str]) -> str:
    """A warning for each pair of given splits that share photographs."""
    contents = {
        split: [keys[photo] for _, photo in listing.pairs()] for split, listing in listed.items()
    }
    told = []
    for earlier, later in (("train", "val"), ("train", "test"), ("val", "test")):
        seen = set(contents.get(earlier, ()))
        count = sum(key in seen for key in contents.get(later, ()))
        if count:
            told.append(
                f"Warning: {earlier} holds {count} of the {len(contents[later])} photographs of {later} "
                f"too, so the accuracy on {later} will be too high. Take them out of one of the two."
            )
    return "\n".join(told)


def _cut(
    photos: dict[str, list[Path]], missing: list[str], keys: dict[Path, str], seed: int
) -> dict[str, dict[str, list[Path]]]:
    """train and the `missing` splits, cut from `photos`: a fifth of each class, at least one.

    Equal photographs count as one, so that none lands in train and another in test.
    """
    rng = np.random.default_rng(seed)
    parts = {split: {} for split in ("train", *missing)}
    few = []
    for name in sorted(photos):
        groups = defaultdict(list)
        for photo in photos[name]:
            groups[keys[photo]].append(photo)
        if len(groups) <= len(missing):
            few.append(f"'{name}' has {len(groups)}")
            continue
        order = [list(groups.values())[i] for i in rng.permutation(len(groups))]
        held = max(1, len(order) // 5)
        for split in missing:
            parts[split][name] = [photo for group in order[:held] for photo in group]
            order = order[held:]
        parts["train"][name] = [photo for group in order for photo in group]
    if few:
        raise FlowersError(
            f"Each class needs {len(missing) + 1} different photographs or more, one to train on and "
            f"one for {' and one for '.join(missing)}, but {first_few(few)}."
        )
    return parts


def _cut_in_words(parts: dict, missing: list[str], copies: int, seed: int) -> str:
    counts = {split: sum(map(len, parts[split].values())) for split in missing}
    cut = " and ".join(f"{split} ({count} photographs)" for split, count in counts.items())
    cut += " were" if len(missing) > 1 else " was"
    told = f" Copies of a photograph stay in its split (there are {copies})." if copies else ""
    return f"{cut} cut from train: a fifth of each class, chosen with seed {seed}.{told}"
