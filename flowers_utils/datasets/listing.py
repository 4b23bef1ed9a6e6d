"""What lies in a student's folder: splits, classes, photographs, and what cannot be used."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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


@dataclass
class Listing:
    """What one split folder holds."""

    photos: dict[str, list[Path]]  # class -> photographs
    left: Counter[str] = field(default_factory=Counter)  # kind of file -> how many are left out
    broken: list[Path] = field(default_factory=list)

    def pairs(self) -> list[tuple[str, Path]]:
        """(class, photograph) of all photographs."""
        return [(name, photo) for name, photos in self.photos.items() for photo in photos]


def first_few(names: Sequence[str]) -> str:
    """Names as a list for a message: the first ten, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# Which folders there are.


def _visible(folder: Path) -> list[Path]:
    """What lies in `folder`, in alphabetical order, without hidden things."""
    try:
        found = [p for p in folder.iterdir() if p.name[0] not in ".@" and p.name not in HIDDEN]
        if found:
            found[0].lstat()  # names may be readable where the files are not
    except OSError as error:
        why = "no permission" if isinstance(error, PermissionError) else error.strerror
        raise FlowersError(
            f"The folder '{folder}' cannot be read ({why}). Change that, or copy the photographs to "
            "a folder of your own."
        ) from error
    refuse_odd_names(folder, [p.name for p in found])
    return sorted(found, key=lambda p: normalize("NFC", p.name))


def refuse_odd_names(folder: Path, names: Iterable[str]) -> None:
    """Raise FlowersError for names that are no text: they could be neither shown nor saved later."""
    odd = [ascii(name) for name in names if not _is_text(name)]
    if odd:
        place = str(folder).encode(errors="backslashreplace").decode()
        raise FlowersError(
            f"These names cannot be read as text: {first_few(odd)} (in '{place}'). Give these files or "
            "folders new names."
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, as Python keeps them
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    return [p for p in _visible(folder) if _is_folder(p)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link to a place that may not be seen: told when it is opened
        return False


def enter(folder: Path) -> Path:
    """`folder`, or what lies inside if single folders only wrap the classes or splits."""
    seen = set()
    while len(inside := _folders(folder)) == 1 and _folders(inside[0]) and folder not in seen:
        seen.add(folder)  # a link may lead back
        folder = inside[0].resolve()
    return folder


def split_folders(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, and what lies beside them. Without any, all of it is train."""
    found: dict[str, Path] = {}
    beside = []
    if files := sum(not _is_folder(place) for place in _visible(folder)):
        beside.append(f"files beside the split folders: {files}")
    for place in _folders(folder):
        match = SPLIT_NAME.fullmatch(place.name)
        if not match or not _folders(place):
            beside.append(f"the folder '{place.name}' (no class folders of a split in it)")
            continue
        split = match[1].lower()
        if split in found:
            raise FlowersError(
                f"'{found[split].name}' and '{place.name}' in '{folder}' both look like the {split} "
                "split. Keep one of them there."
            )
        found[split] = enter(place)
    if found and "train" not in found:
        raise FlowersError(
            f"'{folder}' has {first_few([repr(p.name) for p in found.values()])} but no 'train' folder "
            "with class folders in it. Add one, or give DATA a folder of class folders only."
        )
    return (found, beside) if found else ({"train": folder}, [])


# Which photographs there are.


def list_classes(folder: Path) -> Listing:
    """The photographs in each class folder. Names are compared as people see them (NFC)."""
    listing = Listing({})
    for entry in _visible(folder):
        if _is_folder(entry):
            name = normalize("NFC", entry.name)
            listing.photos.setdefault(name, []).extend(_photos_in(entry, listing))
        else:
            kind = kind_of(entry)
            listing.left["outside the class folders" if kind == PHOTO else kind] += 1
    if len(listing.photos) < 2:
        raise FlowersError(
            f"Class folders in '{folder}': {len(listing.photos)}. Telling flowers apart takes at least "
            "two: make one sub-folder for each class and put its photographs there."
        )
    if all(SPLIT_NAME.fullmatch(name) for name in listing.photos):
        raise FlowersError(
            f"{first_few([repr(name) for name in listing.photos])} in '{folder}' are names of splits, "
            "but hold no class folders. Inside each, make one sub-folder for each class."
        )
    return listing


def _photos_in(folder: Path, listing: Listing) -> list[Path]:
    """The photographs of one class; what is left out goes to `listing`."""
    if inner := _folders(folder):
        raise FlowersError(
            f"Class folder '{folder}' has folders of its own ({first_few([repr(p.name) for p in inner])}). "
            "If these are the classes, put them beside the other classes; if not, put their "
            f"photographs directly into '{folder.name}' and remove them."
        )
    photos = []
    for file in _visible(folder):
        kind = kind_of(file)
        if kind == BROKEN:
            listing.broken.append(file)
        if kind in (PHOTO, BROKEN):
            photos.append(file)
        else:
            listing.left[kind] += 1
    return photos
