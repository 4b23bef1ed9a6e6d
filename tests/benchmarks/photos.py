"""The photographs of the benchmarks: the files of each split, and a folder that both loops read."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

import transfer_learning_config as config
from flowers_utils.datasets.flowers102 import read_split
from flowers_utils.datasets.load import data_root, limited
from flowers_utils.datasets.practice import draw_practice_folder

Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels
SPLITS = ("train", "val", "test")
HELP = "practice, flowers102, or a folder with train/, val/ and test/ (default: practice)"


def files_of(data: str) -> Files:
    """Photographs and labels of each split; `data` as HELP says."""
    if data == "flowers102":
        return {split: read_split(data_root(), split) for split in SPLITS}
    folder = Path(data)
    if data == "practice":
        folder = draw_practice_folder(Path(config.PATHS["cache"]), seed=0, limit=None)
    files = {}
    for split in SPLITS:
        found = ImageFolder(folder / split)
        files[split] = ([Path(path) for path, _ in found.samples], found.targets)
    return files


def write_photographs(
    files: Files, folder: Path, *, limit: int = 0, shorter: int | None = None
) -> dict[str, int]:
    """Write `folder/{train,val,test}/<label>/<number>.jpg`; returns how many of each split.

    `limit`: photographs of each split, 0 for all. `shorter`: pixels of the shorter side.
    """
    for split, (photos, labels) in files.items():
        for number in limited(labels, limit or None):
            target = folder / split / f"{labels[number]:04d}" / f"{number:05d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            if shorter:
                enlarge(photos[number], target, shorter)
            else:
                shutil.copyfile(photos[number], target)
    return {split: min(limit or len(labels), len(labels)) for split, (_, labels) in files.items()}


def enlarge(source: Path, target: Path, shorter: int) -> None:
    """Save as JPEG with grain, so that it takes as long to decode as one from a camera."""
    width, height = shorter * 6 // 5, shorter
    with Image.open(source) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height)), dtype=np.float32)
    grain = np.random.default_rng(0).normal(0, 6, (height // 2, width // 2, 1))
    grain = grain.repeat(2, axis=0).repeat(2, axis=1)  # finer grain would not survive the JPEG
    pixels[: len(grain), : grain.shape[1]] += grain
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=85)
