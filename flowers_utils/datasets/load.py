"""Where the flowers come from: Flowers102, the practice flowers, or a student's own folder."""

import os
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import transfer_learning_config as config
from flowers_utils.config_check import check_knobs
from flowers_utils.data import FlowerData, Split
from flowers_utils.data_check import check_data
from flowers_utils.datasets import flowers102, practice
from flowers_utils.datasets.cache import cached_array, decoded
from flowers_utils.datasets.folder import SPLITS, Files, read_folder
from flowers_utils.datasets.weights import imagenet_weights
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.storage.results import markdown_table, plain

# What a student must see when the lesson does not run on real photographs.
PRACTICE_BANNER = """\
PRACTICE FLOWERS: drawn by a formula, not photographs. Flowers102 is not (whole) in '{root}', and
its server cannot be reached from here. Every figure, table and result below says 'practice'.
Accuracies here say nothing about Flowers102; to use it, see 'Download errors' in README.md."""


def data_root() -> Path:
    """The folder that holds `flowers-102`: FLOWERS_DATA_DIR, else `data`. It may be read-only."""
    text = os.environ.get("FLOWERS_DATA_DIR") or "data"
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # else a folder named "~" would be made
        raise FlowersError(
            f"The home folder in '{text}' is not known here; write the whole path instead of '~'."
        ) from error


def load_data(choice: str = "auto", *, profile: str = "full", seed: int = 0) -> FlowerData:
    """The data set named by `choice`, decoded once, checked, ready for training.

    `choice`: `"auto"` (Flowers102 if it is on disk or can be downloaded, else practice flowers),
    `"flowers102"`, `"practice"`, or a path to a folder of class sub-folders.
    `profile` may limit the number of images. Raises FlowersError that says what to do.
    """
    choice, profile, seed, _ = check_knobs(choice, profile, seed)
    limit, root, note = config.PROFILES[profile]["images"], data_root(), ""
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
    flowers102.ensure_flowers102(root)
    files = {name: flowers102.read_split(root, name) for name in SPLITS}
    data = _decoded("flowers102", flowers102.FLOWERS102_NAMES, files, limit)
    small = data.photo_side < flowers102.FULL_SIDE  # such copies score lower
    copies = f" (copies, {data.photo_side} pixels)" if small else ""
    return replace(data, title=config.DATASET["name"] + copies)


def _load_own_folder(folder: Path, limit: int | None, seed: int) -> FlowerData:
    """A student's own photographs; `read_folder` says what may lie in the folder."""
    own = read_folder(folder, seed=seed)
    data = _decoded("folder", own.class_names, own.files, limit)
    left_out = dict(own.left_out)
    for split, text in data.left_out.items():
        left_out[split] = f"{left_out[split]}; {text}" if split in left_out else text
    title = f"own flowers '{folder.resolve().name}'"
    return replace(data, title=title, note=own.note, left_out=left_out)


def _decoded(source: str, names: tuple[str, ...], files: Files, limit: int | None) -> FlowerData:
    """Photographs as FlowerData, or one FlowersError that names the broken ones of all splits."""
    resize, crop = config.AUGMENTATION["resize"], config.AUGMENTATION["crop"]
    splits, left_out, troubles = {}, {}, []
    for split, (photos, labels) in files.items():
        used = min(limit or len(photos), len(photos))
        chosen = np.linspace(0, len(photos) - 1, used).round().astype(int)  # spread evenly
        left_out |= _short(split, len(photos) - used)
        try:
            images = decoded(
                [photos[i] for i in chosen],
                size=resize if split == "train" else crop,
                cache=Path(config.PATHS["cache"]),
                name=f"{source}-{split}-{limit or 'all'}",
            )
            splits[split] = Split(split, images, torch.tensor(labels)[chosen])
        except FlowersError as error:  # raised below, when the other splits have been tried too
            troubles.append(str(error))
    if troubles:
        raise FlowersError("\n".join(troubles))
    with Image.open(files["train"][0][0]) as image:  # one stands for all: a set is of one making
        side = min(image.size)
    sizes = {"resize_size": resize, "image_size": crop, "photo_side": side}
    return FlowerData(source, "", names, **splits, **sizes, left_out=left_out)


def _short(split: str, left_out: int) -> dict[str, str]:
    text = f"{left_out:,} photographs, since this profile is short"
    return {split: text} if left_out else {}


def load_practice(*, limit: int | None = None, seed: int = 0, note: str = "") -> FlowerData:
    """The built-in practice flowers: the same shapes, splits and labels as Flowers102, smaller.

    Drawn once and cached like decoded photographs.
    """
    resize, crop = practice.PRACTICE_RESIZE, practice.PRACTICE_CROP
    facts = [f"version {practice.PRACTICE_VERSION}", f"seed {seed}"]
    splits, left_out = {}, {}
    for split, whole in practice.SPLIT_SIZES.items():
        labels = torch.from_numpy(practice.practice_labels(split, limit=limit))
        size = resize if split == "train" else crop
        draw = partial(practice.draw_practice_split, split, size=size, seed=seed, limit=limit)
        name, shape = f"practice-{split}-{limit or 'all'}-{size}", (len(labels), 3, size, size)
        images = cached_array(Path(config.PATHS["cache"]), name, facts, shape, draw)
        splits[split] = Split(split, images, labels)
        left_out |= _short(split, whole - len(labels))
    return FlowerData(
        source="practice",
        title="practice flowers",
        class_names=practice.PRACTICE_NAMES,
        **splits,
        resize_size=resize,
        image_size=crop,
        note=note,
        left_out=left_out,
    )


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
    whole = plain(data.left_out.get("", ""))
    table = markdown_table(headers, rows)
    return f"{table}\n\nLeft out of all splits: {whole}." if whole else table


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
