"""What lies in a student's folder: splits, classes, photographs, and what cannot be used."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, normalize

import transfer_learning_config as config
from flowers_utils.config_check import check
from flowers_utils.datasets.photos import why_no_photo

# "Train", "training_set", "valid", "seg_test": any usual spelling of a split.
SPLIT_NAME = re.compile(
    r"(?:.*[ _.-])?(train|val|test)(?:ing|id|idation)?(?:[ _.-]?(?:set|data|split|images|photos))?",
    re.IGNORECASE,
)
# What computers put beside photographs, and nobody misses.
SYSTEM = r"\._.*|\.DS_Store|\.git|\.ipynb_checkpoints|@eaDir|__MACOSX|lost\+found|#recycle"
SYSTEM = re.compile(SYSTEM + r"|\$RECYCLE\.BIN|System Volume Information")
GAPS = re.compile(r"(?<!\d) +| +(?!\d)")  # "red_lily" is "redlily", but "1_1" is not "11"


class Photo(NamedTuple):
    """Where a photograph is; copies of it have the same `picture`."""

    split: str
    name: str  # of its class
    path: Path
    picture: int = 0


def first_few(names: Iterable[object]) -> str:
    """Names as a list for a message: the first ten, and how many more there are."""
    quoted = [repr(str(name)) for name in names]  # with codes for invisible characters
    more = f" and {len(quoted) - 10} more" if len(quoted) > 10 else ""
    return ", ".join(quoted[:10]) + more


def list_photos(folder: Path) -> tuple[list[Photo], list[str], str]:
    """The photographs in `folder`, broken ones too; all classes; and what is left out, in words."""
    left_out: dict[str, list[Path]] = defaultdict(list)
    places, photos, classes = _innermost_folders(folder, left_out), [], Counter()
    splits = _split_of_each(folder, list(places))
    for place, files in places.items():
        if not splits.get(place):
            left_out["outside the class folders"] += files
            continue
        name = normalize("NFC", os.fsencode(place.name).decode(errors="replace"))  # é as one letter
        classes[splits[place], name] += 1
        for file in files:
            if why := why_no_photo(file):
                left_out[f"{why} (save photographs as JPEG)"].append(file)
            else:
                photos.append(Photo(splits[place], name, file))
    told = "; ".join(
        f"{len(paths)} {why}: {first_few(path.relative_to(folder).as_posix() for path in paths)}"
        for why, paths in left_out.items()
        if paths
    )
    names = sorted({name for _, name in classes})
    namesakes = [name for (_, name), folders in classes.items() if folders > 1]
    _check_names([*names, *namesakes], folder, told)
    return photos, names, told


def _innermost_folders(folder: Path, left_out: dict[str, list[Path]]) -> dict[Path, list[Path]]:
    """The folders in `folder` that have no folders of their own, each with its files."""
    cache, models = (Path(config.PATHS[key]) for key in ("cache", "models"))
    outputs = {models, cache, cache / "flowers-102", *cache.glob("practice*")}
    folders, files = [], []
    for path in sorted(folder.iterdir()):
        if SYSTEM.fullmatch(path.name):
            continue
        if path.name[0] in ".@" or path in outputs:
            left_out["hidden by their names, or made by this lesson"].append(path)
        else:
            (folders if path.is_dir() else files).append(path)
    if not folders:
        return {folder: files}
    left_out["outside the class folders"] += files
    return {k: v for inner in folders for k, v in _innermost_folders(inner, left_out).items()}


def _split_of_each(folder: Path, places: list[Path]) -> dict[Path, str]:
    """The split of each class folder: that of the nearest folder around it with such a name.

    If no folder has such a name, everything is train; else a folder in no split has "".
    """
    splits = {}
    for place in places:
        parts = place.relative_to(folder).parts
        found = [match[1].lower() for match in map(SPLIT_NAME.fullmatch, parts) if match]
        if parts and not SPLIT_NAME.fullmatch(parts[-1]):  # else its photographs have no class
            splits[place] = found[-1] if found else ""
    if not any(splits.values()):
        return dict.fromkeys(splits, "train")
    told = f"'{folder}' has a 'val' or 'test' folder, but no 'train' folder with class folders."
    check("train" in splits.values(), f"{told} Add one, or give DATA a folder of class folders.")
    return splits


def _check_names(names: list[str], folder: Path, left_out: str) -> None:
    """Raise FlowersError for fewer than two classes, or names so alike that one class was meant."""
    told = f"Classes in '{folder}': {first_few(names) or 'none'}."
    advice = "Make one sub-folder for each class, at least two (inside each split folder, if any)."
    check(len(names) > 1, f"{told} Left out: {left_out or 'nothing'}. {advice}")
    plain = [_as_seen(name) for name in names]
    twins = [name for name, same in zip(names, plain, strict=True) if plain.count(same) > 1]
    told = f"Class names that differ in case, spaces or punctuation at most: {first_few(twins)}."
    check(not twins, f"{told} Make one folder of one class, or give two classes other names.")


def _as_seen(name: str) -> str:
    """A name without case, spaces, punctuation and invisible characters (categories Z, P, C)."""
    letters = normalize("NFKC", name).casefold()
    return GAPS.sub("", "".join(" " if category(c)[0] in "ZPC" else c for c in letters))
