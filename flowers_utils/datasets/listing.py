"""What lies in a student's folder: splits, classes, photographs, and what cannot be used."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import transfer_learning_config as config
from flowers_utils.config_check import check
from flowers_utils.datasets.photos import why_no_photo
from flowers_utils.errors import FlowersError

SHOWN = 10  # so many names stand in a message; the rest is counted
# "Train", "training_set", "valid", "seg_test": any usual spelling of a split.
SPLIT_NAME = re.compile(
    r"(?:.*[ _.-])?(train|val|test)(?:ing|id|idation)?(?:[ _.-]?(?:set|data|split|images|photos))?",
    re.IGNORECASE,
)
# What computers put beside photographs, and nobody misses.
SYSTEM = re.compile(
    r"\._.*|\.DS_Store|\.git|\.ipynb_checkpoints|@eaDir|__MACOSX|Thumbs\.db|desktop\.ini"
    r"|\$RECYCLE\.BIN|System Volume Information"
)
NO_TEXT = re.compile("[\ud800-\udfff]")  # so Python keeps bytes of a name that are no UTF-8
SEPARATORS = re.compile(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)")  # "red_lily" is "red lily", "1_1" not "11"


class Photo(NamedTuple):
    """Where a photograph is; copies of it have the same `picture`."""

    split: str
    name: str  # of its class
    path: Path
    picture: int = 0


def first_few(names: Iterable[object]) -> str:
    """Names as a list for a message: the first ten, and how many more there are."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - SHOWN} more" if len(quoted) > SHOWN else ""
    return ", ".join(quoted[:SHOWN]) + more


def list_photos(folder: Path) -> tuple[list[Photo], list[str], str]:
    """The photographs in `folder`, broken ones too; all classes; and what is left out, in words.

    A class is a folder without folders of its own. Its split is the nearest folder around it with
    the name of one; if no folder has such a name, everything is train.
    """
    left_out: dict[str, list[Path]] = defaultdict(list)
    files, photos, names = _innermost_folders(folder, left_out), [], set()
    for split, places in _by_split(folder, list(files)).items():
        for place in places:
            names.add(name := normalize("NFC", place.name))  # macOS writes é as two characters
            for file in files.pop(place):
                if why := why_no_photo(file):
                    left_out[f"{why} (save photographs as JPEG)"].append(file)
                else:
                    photos.append(Photo(split, name, file))
    left_out["outside the class folders"] += [file for rest in files.values() for file in rest]
    told = "; ".join(
        f"{len(paths)} {why}: {first_few(path.relative_to(folder).as_posix() for path in paths)}"
        for why, paths in left_out.items()
        if paths
    )
    _check_names(sorted(names), folder, told)
    return photos, sorted(names), told


def _innermost_folders(folder: Path, left_out: dict[str, list[Path]]) -> dict[Path, list[Path]]:
    """The folders in `folder` that have no folders of their own, each with its files."""
    cache, models = (Path(config.PATHS[key]) for key in ("cache", "models"))
    outputs = {models, cache, cache / "flowers-102", *cache.glob("practice*")}
    folders, files = [], []
    try:
        for path in sorted(folder.iterdir()):
            if SYSTEM.fullmatch(path.name):
                continue
            told = f"The name of {str(path)!a} cannot be read as text, nor saved later. Rename it."
            check(not NO_TEXT.search(path.name), told)
            if path.name[0] in ".@" or path in outputs:
                left_out["hidden by their names, or made by this lesson"].append(path)
            else:
                (folders if path.is_dir() else files).append(path)
    except OSError as error:
        advice = "Change that, or copy the photographs to a folder of your own."
        raise FlowersError(f"'{folder}' cannot be read ({error.strerror}). {advice}") from error
    if not folders:
        return {folder: files}
    left_out["outside the class folders"] += files
    return {k: v for inner in folders for k, v in _innermost_folders(inner, left_out).items()}


def _by_split(folder: Path, places: list[Path]) -> dict[str, list[Path]]:
    """The class folders of each split; those of `places` that are none are left out."""
    found = defaultdict(list)
    for place in places:
        parts = place.relative_to(folder).parts
        splits = [match[1].lower() for match in map(SPLIT_NAME.fullmatch, parts) if match]
        if parts and not SPLIT_NAME.fullmatch(place.name):  # else its photographs have no class
            found[splits[-1] if splits else ""].append(place)
    without_split = found.pop("", [])
    found = found or {"train": without_split}
    told = f"'{folder}' has {first_few(found)} but no 'train' folder with class folders in it."
    check("train" in found, f"{told} Add one, or give DATA a folder of class folders only.")
    for split, group in found.items():
        homes = {place.parent: place for place in group}
        two = [place.relative_to(folder).as_posix() for place in homes.values()][:2]
        told = f"The classes for {split} in '{folder}' are not beside each other (see {first_few(two)})."
        check(len(homes) < 2, f"{told} Put them into one folder, and no folder into a class.")
    return found


def _check_names(names: list[str], folder: Path, left_out: str) -> None:
    """Raise FlowersError for fewer than two classes, or names so alike that one was meant."""
    told = (
        f"Classes in '{folder}': {first_few(names) or 'none'}. Left out: {left_out or 'nothing'}."
    )
    advice = "Make one sub-folder for each class, at least two (inside each split folder, if any)."
    check(len(names) > 1, f"{told} {advice}")
    alike = defaultdict(list)
    for name in names:
        alike[SEPARATORS.sub("", name.casefold())].append(name)
    twins = "; ".join(" and ".join(map(repr, same)) for same in alike.values() if len(same) > 1)
    told = f"Names of classes that differ only in case, spaces or underscores: {twins}."
    check(
        not twins, f"{told} Make one folder of one class; give two classes names unlike each other."
    )
