"""Where the flowers come from: Flowers102, the practice flowers, or a student's own folder."""

import os
from collections import Counter
from pathlib import Path

import torch

import transfer_learning_config as config
from flowers_utils.config_check import DATA_WORDS, check, check_knobs, image_sizes
from flowers_utils.data import FlowerData, Split, check_data
from flowers_utils.datasets import flowers102, practice
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.folder import SPLITS, Listing, read_folder
from flowers_utils.datasets.listing import first_few
from flowers_utils.datasets.photos import open_photo
from flowers_utils.datasets.practice_species import PRACTICE_NAMES
from flowers_utils.device import Device
from flowers_utils.models import imagenet_weights
from flowers_utils.storage.files import explain_full_disk
from flowers_utils.storage.results import markdown_table, plain

# What a student must see when the lesson does not run on real photographs.
PRACTICE_BANNER = """\
PRACTICE FLOWERS: drawn by a formula, not photographs. Flowers102 is not (complete) in '{root}', and
its server cannot be reached from here. Every figure, table and result below says 'practice'.
Accuracies here say nothing about Flowers102; to use it, see 'Download errors' in README.md."""
STARTED_IN = Path.cwd()  # relative paths count from here, even after an `os.chdir` in a cell


def data_root() -> Path:
    """The folder that holds `flowers-102`: FLOWERS_DATA_DIR, else `data`. It may be read-only."""
    given = Path(os.environ.get("FLOWERS_DATA_DIR") or "data").expanduser()
    folder = (STARTED_IN / given).resolve()  # without links and ".."
    incomplete = folder.name == "flowers-102"  # or `root_of` would find it
    return flowers102.root_of(folder) or (folder.parent if incomplete else folder)


def load_data(
    choice: str = "auto", *, profile: str = "full", seed: int = 0, recipe: str = "lesson"
) -> FlowerData:
    """The data set named by `choice`, decoded once, checked, ready for training; or FlowersError.

    `choice`: `"auto"` (Flowers102 if it is on disk or can be downloaded, else practice flowers),
    `"flowers102"`, `"practice"`, or a folder of class folders. A short `profile` limits the images,
    a `recipe` may have its own sizes in pixels.
    """
    choice, profile, seed, recipe = check_knobs(choice, profile, seed, recipe)
    limit, root, note = config.PROFILES[profile]["images"], data_root(), ""
    if choice not in DATA_WORDS and (given := flowers102.root_of(Path(choice))):
        others = [path.name for path in Path(choice).iterdir() if path.is_dir()]
        if others := [name for name in others if name not in ("flowers-102", "jpg")]:
            note = f"Flowers102 is taken, and not what is beside it: {first_few(others)}."
        choice, root = "flowers102", given
    if choice == "auto":
        choice = "flowers102"
        if not flowers102.flowers102_is_available(root):
            choice, note = "practice", PRACTICE_BANNER.format(root=root)
    if choice == "flowers102":
        with explain_full_disk(root):
            flowers102.ensure_flowers102(root)
        files = {name: flowers102.read_split(root, name) for name in SPLITS}
        listing = Listing(config.DATASET["name"], flowers102.FLOWERS102_NAMES, files, note)
    elif choice == "practice":
        listing = _practice_listing(seed, limit, note)
    else:
        listing = read_folder(Path(choice), seed=seed)
    source = choice if choice in DATA_WORDS else "folder"
    data = _decoded(source, listing, limit, recipe)
    check_data(data)
    return data


def _practice_listing(seed: int, limit: int | None, note: str) -> Listing:
    """The practice flowers, drawn as PNG files in the cache's folder if they are not there yet."""
    cache = Path(config.PATHS["cache"])
    with explain_full_disk(cache):
        folder = practice.draw_practice_folder(cache, seed=seed, limit=limit)
    files = {}
    for split in SPLITS:
        found = [(PRACTICE_NAMES.index(p.parent.name), p) for p in folder.glob(f"{split}/*/*.png")]
        files[split] = [path for _, path in sorted(found)], [label for label, _ in sorted(found)]
    return Listing("practice flowers", PRACTICE_NAMES, files, note)


def _decoded(source: str, listing: Listing, limit: int | None, recipe: str) -> FlowerData:
    """Photographs as FlowerData."""
    resize, crop, use = image_sizes(recipe)
    if source == "practice":  # drawn at these sizes, for all recipes
        resize, crop, use = practice.PRACTICE_RESIZE, *[practice.PRACTICE_CROP] * 2
    splits, left_out = {}, {"": listing.left_out}
    for split, (photos, labels) in listing.files.items():
        chosen, size = limited(labels, limit), max(resize, use) if split == "train" else use
        if more := len(photos) - len(chosen):
            left_out[split] = f"{more:,} photographs, since this profile is short"
        name = f"{source}-{split}-{limit or 'all'}"
        images = decoded([photos[i] for i in chosen], size=size, name=name)
        splits[split] = Split(split, images, torch.tensor(labels)[chosen])
    title = listing.title
    side = min(open_photo(listing.files["train"][0][0]).size)  # a set is of one making
    if source == "flowers102" and side < flowers102.FULL_SIDE:  # such copies score lower
        title += f" (copies, {side} pixels)"
    about = {"resize_size": resize, "crop_size": crop, "image_size": use, "photo_side": side}
    about |= {"note": listing.note, "left_out": left_out, "files": listing.files}
    return FlowerData(source, title, listing.class_names, **splits, **about)


def limited(labels: list[int], limit: int | None) -> list[int]:
    """Positions of `limit` photographs: classes take turns, so each split keeps the same classes."""
    if limit is None:
        return list(range(len(labels)))
    # The first photograph of each class, then the second of each, and so on.
    turns = sorted(range(len(labels)), key=lambda i: (labels[:i].count(labels[i]), labels[i]))
    return sorted(turns[:limit])


def split_table(data: FlowerData) -> str:
    """A Markdown table: what each split holds, and what was left out and why."""
    rows = []
    for split in (data.train, data.val, data.test):
        counts = Counter(split.labels.tolist())
        sizes = [(counts[label], plain(name)) for label, name in enumerate(data.class_names)]
        ends = ["{} ({})".format(*end) for end in (min(sizes), max(sizes))]
        left = plain(data.left_out.get(split.name, "nothing"))
        rows.append([split.name, len(split), len(counts), *ends, left])
    headers = ["split", "photographs", "classes", "smallest class", "largest class", "left out"]
    everywhere = data.left_out.get("")
    told = f"\n\nLeft out of all splits: {plain(everywhere)}." if everywhere else ""
    return markdown_table(headers, rows) + told


def starting_weights(
    data: FlowerData, device: Device, *, backbone: str, seed: int = 0
) -> dict[str, torch.Tensor]:
    """State dict with its old head: ImageNet's, or for practice flowers one pretrained here, once."""
    if not data.is_practice:
        return imagenet_weights(backbone)
    check(backbone == "resnet18", "Practice flowers: ResNet18 only; set BACKBONE = 'resnet18'.")
    path = Path(config.PATHS["models"]) / "practice_backbone.pth"
    return practice.pretrain_backbone(path, device=device, seed=seed)
