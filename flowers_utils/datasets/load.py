"""Where the flowers come from: Flowers102, the practice flowers, or a student's own folder."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import transfer_learning_config as config
from flowers_utils.config_check import DATA_WORDS, check_knobs
from flowers_utils.data import FlowerData, Split, check_data
from flowers_utils.datasets import flowers102, practice
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.folder import SPLITS, Files, Photo, cache_name, in_order, read_folder
from flowers_utils.datasets.photos import BrokenPhotos, check_photos
from flowers_utils.datasets.practice_species import PRACTICE_NAMES
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import imagenet_weights
from flowers_utils.progress import say
from flowers_utils.storage.results import markdown_table, plain

# What a student must see when the lesson does not run on real photographs.
PRACTICE_BANNER = """\
PRACTICE FLOWERS: drawn by a formula, not photographs. Flowers102 is not (complete) in '{root}', and
its server cannot be reached from here. Every figure, table and result below says 'practice'.
Accuracies here say nothing about Flowers102; to use it, see 'Download errors' in README.md."""
STARTED_IN = Path.cwd()  # relative paths count from here, even after an `os.chdir` in a cell


def data_root() -> Path:
    """The folder that holds `flowers-102`: FLOWERS_DATA_DIR, else `data`. It may be read-only."""
    text = os.environ.get("FLOWERS_DATA_DIR") or "data"
    try:
        folder = STARTED_IN / Path(text).expanduser()
    except RuntimeError as error:  # else a folder named "~" would be made
        raise FlowersError(
            f"The home folder in '{text}' is not known here; write the complete path without '~'."
        ) from error
    if folder.name == "flowers-102" and not (folder / folder.name).is_dir():
        folder = folder.parent  # the set itself was named, be it complete or not
    return flowers102.root_of(folder) or folder


def load_data(choice: str = "auto", *, profile: str = "full", seed: int = 0) -> FlowerData:
    """The data set named by `choice`, decoded once, checked, ready for training.

    `choice`: `"auto"` (Flowers102 if it is on disk or can be downloaded, else practice flowers),
    `"flowers102"`, `"practice"`, or a path to a folder of class sub-folders.
    `profile` may limit the number of images. Raises FlowersError that says what to do.
    """
    choice, profile, seed, _ = check_knobs(choice, profile, seed)
    limit, root, note = config.PROFILES[profile]["images"], data_root(), ""
    if choice not in DATA_WORDS and (given := flowers102.root_of(Path(choice))):
        choice, root = "flowers102", given
    if choice == "auto":
        choice = "flowers102"
        if not (flowers102.flowers102_lies_ready(root) or flowers102.flowers102_is_reachable()):
            choice, note = "practice", PRACTICE_BANNER.format(root=root)
    if choice == "practice":
        data = load_practice(limit=limit, seed=seed, note=note)
    elif choice == "flowers102":
        data = _load_flowers102(root, limit)
    else:
        data = _load_own_folder(Path(choice), limit, seed)
    check_data(data)
    return data


def _load_flowers102(root: Path, limit: int | None) -> FlowerData:
    """Oxford Flowers102 with its official splits, downloaded if need be."""
    base = flowers102.ensure_flowers102(root)
    files = {name: flowers102.read_split(root, name) for name in SPLITS}
    try:
        data = _decoded("flowers102", base, flowers102.FLOWERS102_NAMES, files, limit)
    except BrokenPhotos as error:
        say(f"{error}\nThey are replaced by those in the archive, which is fetched if need be.")
        flowers102.ensure_flowers102(root, damaged=error.paths)
        data = _decoded("flowers102", base, flowers102.FLOWERS102_NAMES, files, limit)
    small = data.photo_side < flowers102.FULL_SIDE  # such copies score lower
    copies = f" (copies, {data.photo_side} pixels)" if small else ""
    return replace(data, title=config.DATASET["name"] + copies)


def _load_own_folder(folder: Path, limit: int | None, seed: int) -> FlowerData:
    """A student's own photographs; `read_folder` says what may lie in the folder."""
    own = read_folder(folder, seed=seed)
    data = _decoded("folder", folder, own.class_names, own.files, limit)
    texts = {split: (own.left_out.get(split), data.left_out.get(split)) for split in ("", *SPLITS)}
    left_out = {split: "; ".join(filter(None, both)) for split, both in texts.items() if any(both)}
    title = f"own flowers '{folder.resolve().name}'"
    return replace(data, title=title, note=own.note, left_out=left_out)


def load_practice(*, limit: int | None = None, seed: int = 0, note: str = "") -> FlowerData:
    """The built-in practice flowers: classes and splits like those of Flowers102, smaller pictures.

    Drawn once as PNG files in the cache's folder, which are then read as an own folder is.
    """
    folder = practice.draw_practice_folder(Path(config.PATHS["cache"]), seed=seed, limit=limit)
    drawn = sorted(folder.glob("*/*/*.png"))
    photos = (Photo(path.parts[-3], path.parent.name, path, 0) for path in drawn)
    files, left_out = in_order(photos, PRACTICE_NAMES), {}
    for split, complete in practice.SPLIT_SIZES.items():
        left_out |= _short(split, complete - len(files[split][0]))
    data = _decoded("practice", folder, PRACTICE_NAMES, files, limit)
    return replace(data, title="practice flowers", note=note, left_out=left_out, photo_side=None)


def _decoded(
    source: str, folder: Path, names: tuple[str, ...], files: Files, limit: int | None
) -> FlowerData:
    """Photographs as FlowerData, or one BrokenPhotos for the broken ones of all splits."""
    resize, crop = config.AUGMENTATION["resize"], config.AUGMENTATION["crop"]
    if source == "practice":
        resize, crop = practice.PRACTICE_RESIZE, practice.PRACTICE_CROP
    splits, left_out, broken = {}, {}, []
    for split, (photos, labels) in files.items():
        chosen = _limited(labels, limit)
        left_out |= _short(split, len(photos) - len(chosen))
        try:
            images = decoded(
                [photos[i] for i in chosen],
                size=resize if split == "train" else crop,
                cache=Path(config.PATHS["cache"]),
                name=cache_name(f"{source}-{split}-{limit or 'all'}", folder),
            )
            splits[split] = Split(split, images, torch.tensor(labels)[chosen])
        except BrokenPhotos as error:
            broken += error.paths
    check_photos(broken)  # raises; the other splits have been tried too
    with Image.open(files["train"][0][0]) as image:  # one stands for all: a set is of one making
        side = min(image.size)
    sizes = {"resize_size": resize, "image_size": crop, "photo_side": side}
    return FlowerData(source, "", names, **splits, **sizes, left_out=left_out)


def _limited(labels: list[int], limit: int | None) -> list[int]:
    """Positions of `limit` photographs: classes take turns, so each split keeps the same classes."""
    classes, seen, turns = np.unique(labels), Counter(), []
    count = min(limit or len(labels), len(classes))
    spread = classes[np.linspace(0, len(classes) - 1, count).round().astype(int)]
    for place, label in enumerate(labels):
        turns.append((label not in spread, seen[label], label, place))
        seen[label] += 1
    return sorted(place for *_, place in sorted(turns)[:limit])


def _short(split: str, left_out: int) -> dict[str, str]:
    text = f"{left_out:,} photographs, since this profile is short"
    return {split: text} if left_out else {}


def split_table(data: FlowerData) -> str:
    """A Markdown table: what each split holds, and what was left out and why."""
    rows = []
    for split in (data.train, data.val, data.test):
        counts = Counter(split.labels.tolist())
        sizes = [(counts[label], name) for label, name in enumerate(data.class_names)]
        ends = [f"{count} ({plain(name)})" for count, name in (min(sizes), max(sizes))]
        left = plain(data.left_out.get(split.name, "nothing"))
        rows.append([split.name, len(split), len(counts), *ends, left])
    headers = ["split", "photographs", "classes", "smallest class", "largest class", "left out"]
    everywhere = plain(data.left_out.get("", ""))
    table = markdown_table(headers, rows)
    return f"{table}\n\nLeft out of all splits: {everywhere}." if everywhere else table


def starting_weights(
    data: FlowerData, device: Device, *, backbone: str, seed: int = 0
) -> dict[str, torch.Tensor]:
    """The state dict that the backbone starts from, as `build_model` takes it, with its old head.

    ImageNet's for photographs; for practice flowers one pretrained here and now on other species of
    the same formula (some minutes, kept in `models/` for every profile).
    """
    if not data.is_practice:
        return imagenet_weights(backbone)
    if backbone != "resnet18":
        raise FlowersError("Practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18'.")
    path = Path(config.PATHS["models"]) / "practice_backbone.pth"
    return practice.pretrain_backbone(path, device=device, seed=seed)
