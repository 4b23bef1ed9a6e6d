"""What lies in a student's folder: splits, classes, photographs, and what cannot be used."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from flowers_utils.datasets.photos import BROKEN, PHOTO, kind_of
from flowers_utils.errors import FlowersError

SHOWN = 10  # so many names stand in a message; the rest is counted
# "Train", "training_set", "valid", "seg_test": any usual spelling of a split.
SPLIT_NAME = re.compile(
    r"(?:.*[ _.-])?(train|val|test)(?:ing|id|idation)?(?:[ _.-]?(?:set|data|split|images|photos))?",
    re.IGNORECASE,
)
# What computers put beside photographs. Names that begin with a dot or with @ are hidden as well.
HIDDEN = {"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"}
NO_TEXT = re.compile("[\ud800-\udfff]")  # so Python keeps bytes of a name that are no UTF-8


def first_few(names: Iterable[object]) -> str:
    """Names as a list for a message: the first ten, and how many more there are."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - SHOWN} more" if len(quoted) > SHOWN else ""
    return ", ".join(quoted[:SHOWN]) + more


def look_into(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in `folder`, in alphabetical order, without hidden ones.

    Raises FlowersError if it cannot be read, or for names that could not be shown and saved later.
    """
    try:
        found = [p for p in folder.iterdir() if p.name[0] not in ".@" and p.name not in HIDDEN]
        folders = sorted(path for path in found if path.is_dir())
    except OSError as error:
        why = "no permission" if isinstance(error, PermissionError) else error.strerror
        advice = "Change that, or copy the photographs to a folder of your own."
        raise FlowersError(f"The folder '{folder}' cannot be read ({why}). {advice}") from error
    if odd := [ascii(str(path)) for path in found if NO_TEXT.search(str(path))]:
        raise FlowersError(f"Names that cannot be read as text, so give others: {first_few(odd)}.")
    return folders, sorted(set(found) - set(folders))


def enter(folder: Path) -> Path:
    """`folder`, or what lies inside if single folders only wrap the classes or splits."""
    for _ in range(5):  # no endless descent where a link leads back
        inside, _ = look_into(folder)
        if len(inside) != 1 or not look_into(inside[0])[0]:
            break
        folder = inside[0]
    return folder


def split_folders(folder: Path) -> tuple[dict[str, Path], str]:
    """The folder of each split, and what is left out beside them. Without any, all of it is train."""
    folders, beside = look_into(folder)
    splits: dict[str, Path] = {}
    for place in folders:
        match = SPLIT_NAME.fullmatch(place.name)
        if match and match[1].lower() not in splits and look_into(place)[0]:
            splits[match[1].lower()] = enter(place)
        else:
            beside.append(place)
    if not splits:
        return {"train": folder}, ""
    if "train" not in splits:
        raise FlowersError(
            f"'{folder}' has {first_few(splits)} but no 'train' folder with class folders in it. "
            "Add one, or give DATA a folder of class folders only."
        )
    names = first_few(path.name for path in beside)
    return splits, f"{names} (beside the split folders)" if beside else ""


def list_classes(folder: Path) -> tuple[dict[str, list[Path]], Counter[str]]:
    """The photographs in each class folder, broken ones too, and how many files of what kind are
    left out. Class names are compared as people see them (NFC)."""
    folders, files = look_into(folder)
    photos: dict[str, list[Path]] = {}
    left = Counter("file outside the class folders" for _ in files)
    for place in folders:
        inner, files = look_into(place)
        if inner:
            raise FlowersError(
                f"Class folder '{place}' has folders of its own ({first_few(p.name for p in inner)}). "
                "If these are the classes, put them beside the other classes; if not, put their "
                f"photographs directly into '{place.name}'."
            )
        kinds = {file: kind_of(file) for file in files}
        usable = [file for file in files if kinds[file] in (PHOTO, BROKEN)]
        photos.setdefault(normalize("NFC", place.name), []).extend(usable)
        left.update(kind for kind in kinds.values() if kind not in (PHOTO, BROKEN))
    if len(photos) < 2 or all(SPLIT_NAME.fullmatch(name) for name in photos):
        raise FlowersError(
            f"Class folders in '{folder}': {first_few(photos) or 'none'}. Make one sub-folder for "
            "each class, at least two, and put its photographs there (inside each split folder, if "
            "there are any)."
        )
    return photos, left
