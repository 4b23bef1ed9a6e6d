"""What lies in a student's folder: splits, classes, photographs, and what cannot be used."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

import transfer_learning_config as config
from flowers_utils.datasets.photos import BROKEN, PHOTO, kind_of
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


def first_few(names: Iterable[object]) -> str:
    """Names as a list for a message: the first ten, and how many more there are."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - SHOWN} more" if len(quoted) > SHOWN else ""
    return ", ".join(quoted[:SHOWN]) + more


def look_into(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Folders, files, and what is passed over: hidden by its name, or the lesson's own output.

    Raises FlowersError if it cannot be read, or for names that could not be shown and saved later.
    """
    folders, files, passed = [], [], []
    try:
        paths = [path for path in sorted(folder.iterdir()) if not SYSTEM.fullmatch(path.name)]
        for path in paths:
            if path.name[0] in ".@" or (path.is_dir() and _is_output(path)):
                passed.append(path)
            else:
                (folders if path.is_dir() else files).append(path)
    except OSError as error:
        why = "no permission" if isinstance(error, PermissionError) else error.strerror
        advice = "Change that, or copy the photographs to a folder of your own."
        raise FlowersError(f"The folder '{folder}' cannot be read ({why}). {advice}") from error
    if odd := [ascii(str(path)) for path in paths if NO_TEXT.search(str(path))]:
        raise FlowersError(f"Names that cannot be read as text, so give others: {first_few(odd)}.")
    return folders, files, passed


def _is_output(folder: Path) -> bool:
    """Whether the lesson itself writes into this folder, so that it cannot be a class."""
    cache, models = (Path(config.PATHS[key]).resolve() for key in ("cache", "models"))
    ours = folder.name.startswith(("practice", "flowers-102"))
    return folder.resolve() in (cache, models) or (ours and folder.resolve().parent == cache)


def split_folders(folder: Path) -> tuple[dict[str, Path], str]:
    """The folder of each split, and what is left out beside them. Without any, all of it is train.

    A single folder that only wraps the classes or splits is entered.
    """
    beside: list[Path] = []
    top, folder = folder, _enter(folder, beside)
    (folders, files, passed), splits = look_into(folder), {}
    others = [*files, *passed]
    for place in folders:
        match = SPLIT_NAME.fullmatch(place.name)
        if match and match[1].lower() not in splits and look_into(place)[0]:
            splits[match[1].lower()] = _enter(place, beside)
        else:
            others.append(place)
    if splits and "train" not in splits:
        raise FlowersError(
            f"'{folder}' has {first_few(splits)} but no 'train' folder with class folders in it. "
            "Add one, or give DATA a folder of class folders only."
        )
    beside += others if splits else []  # else `list_classes` tells them
    names = first_few(sorted(path.relative_to(top).as_posix() for path in beside))
    return splits or {"train": folder}, f"{names} (beside the folders that are read)" * bool(beside)


def _enter(folder: Path, beside: list[Path]) -> Path:
    """The innermost folder around classes or splits; what lies around it goes into `beside`."""
    for _ in range(5):  # no endless descent where a link leads back
        inside, files, passed = look_into(folder)
        if len(inside) != 1 or not look_into(inside[0])[0]:
            break
        beside += files + passed
        folder = inside[0]
    return folder


def list_classes(folder: Path) -> tuple[dict[str, list[Path]], str]:
    """The photographs in each class folder, broken ones too, and what is left out, in words.

    Class names are compared as people see them (NFC).
    """
    folders, files, passed = look_into(folder)
    photos: dict[str, list[Path]] = {}
    left = Counter("file outside the class folders" for _ in files)
    for place in folders:
        inner, files, hidden = look_into(place)
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
        passed = passed + hidden
    counted = ", ".join(f"{count} {kind}" for kind, count in left.items())
    advice = f"{counted} (what is a photograph among them: save as JPEG)" if counted else ""
    names = first_few(path.relative_to(folder).as_posix() for path in passed)
    hidden = f"{len(passed)} hidden by their names, or made by this lesson ({names})"
    told = "; ".join(filter(None, (advice, hidden if passed else "")))
    if len(photos) < 2 or all(SPLIT_NAME.fullmatch(name) for name in photos):
        raise FlowersError(
            f"Class folders in '{folder}': {first_few(photos) or 'none'}. Make one sub-folder for "
            "each class, at least two, and put its photographs there (inside each split folder, if "
            f"there are any).{f' Left out: {told}.' if told else ''}"
        )
    return photos, told


def check_names(names: Iterable[str]) -> None:
    """Raise FlowersError for class names so alike that one class was meant, or none could tell."""
    alike = defaultdict(list)
    for name in sorted(names):
        alike[SEPARATORS.sub("", name.casefold())].append(name)
    if twins := [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]:
        raise FlowersError(
            f"Class folders whose names differ only in case, spaces or underscores: "
            f"{'; '.join(twins)}. If they are one class, put all its photographs into one folder (of "
            "the same name in each split); if not, give them names that differ in more."
        )
