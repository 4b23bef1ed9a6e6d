"""The photographs of `speed.py` and `accuracy.py`: one folder of JPEGs, which both loops read."""

import shutil
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

import transfer_learning_config as config
from flowers_utils.datasets.flowers102 import flowers102_is_whole, read_split
from flowers_utils.datasets.folder import SPLITS, Files, read_folder
from flowers_utils.datasets.load import data_root
from flowers_utils.datasets.practice import draw_practice_folder
from flowers_utils.progress import Progress


def listed(choice: str) -> Files:
    """Photographs and labels of each split, as the lesson splits them; `choice` as DATA."""
    if choice == "auto":
        choice = "flowers102" if flowers102_is_whole(data_root()) else "practice"
    if choice == "flowers102":
        return {split: read_split(data_root(), split) for split in SPLITS}
    if choice != "practice":
        return read_folder(Path(choice), seed=0).files
    drawn = draw_practice_folder(Path(config.PATHS["cache"]), seed=0, limit=None)
    files = {}
    for split in SPLITS:
        samples = ImageFolder(drawn / split).samples
        files[split] = ([Path(path) for path, _ in samples], [label for _, label in samples])
    return files


def one_of_each(labels: list[int], limit: int) -> list[int]:
    """Positions of `limit` photographs, one of each class in turn: no split may lack a class."""
    seen: Counter[int] = Counter()
    turns = []
    for place, label in enumerate(labels):
        turns.append((seen[label], label, place))
        seen[label] += 1
    return [place for *_, place in sorted(turns)[:limit]]


def write_photographs(
    files: Files, folder: Path, *, limit: int = 0, shorter: int | None = None
) -> str:
    """Write `folder/{train,val,test}/<label>/<number>.jpg` as `ImageFolder` reads it.

    `limit`: photographs of each split, 0 for all. `shorter`: pixels of the shorter side; None copies
    the files as they are. Returns a line that says what was written.
    """
    sizes = []
    with Progress(len(files), "Writing photographs", unit="split") as bar:
        for split, (photos, labels) in files.items():
            for number in one_of_each(labels, limit or len(labels)):
                target = folder / split / f"{labels[number]:04d}" / f"{number:05d}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                if shorter:
                    enlarge(photos[number], target, shorter)
                else:
                    shutil.copyfile(photos[number], target)
                sizes.append(target.stat().st_size)
            bar.update()
    return f"{len(sizes)} photographs of {statistics.mean(sizes) / 1000:.0f} kB on average"


def enlarge(source: Path, target: Path, shorter: int) -> None:
    """Save as JPEG with grain, so that it takes as long to decode as one from a camera."""
    with Image.open(source) as image:
        image = image.convert("RGB").resize((shorter * 6 // 5, shorter), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 6, (shorter // 2, shorter * 3 // 5))
    grain = Image.fromarray(grain.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float32) + np.asarray(grain)[..., None]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=85)
