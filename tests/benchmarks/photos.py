"""Photographs for `speed.py`: a small Flowers102 of realistic JPEGs, for both sides."""

import hashlib
import io
import statistics
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102

from flowers_utils.datasets.flowers102 import flowers102_is_whole
from flowers_utils.datasets.load import data_root, load_practice
from flowers_utils.datasets.photos import open_photo
from flowers_utils.progress import Progress

SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def photographs(split: str, limit: int | None) -> tuple[list, list[int]]:
    """Photographs of a split (paths, or arrays of practice flowers) and labels, spread evenly."""
    if flowers102_is_whole(data_root()):
        data = Flowers102(data_root(), split)
        count = len(data)
        chosen = np.linspace(0, count - 1, min(count, limit or count)).round().astype(int)
        return [data._image_files[i] for i in chosen], [data._labels[i] for i in chosen]
    part = getattr(load_practice(limit=limit), split)
    return list(part.images), part.labels.tolist()


def realistic_jpeg(source: Path | np.ndarray, shorter: int | None, seed: int) -> bytes:
    """The photograph as JPEG; enlarged, with grain, so that it decodes like one from a camera."""
    if isinstance(source, Path) and not shorter:
        return source.read_bytes()
    image = (
        open_photo(source)
        if isinstance(source, Path)
        else Image.fromarray(source.transpose(1, 2, 0))
    )
    if shorter:  # Flowers102 has a shorter side of 500 pixels and about 42 kB a photograph
        image = image.resize((shorter * 6 // 5, shorter), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(seed).normal(0, 6, (shorter // 2, shorter * 3 // 5))
        grain = Image.fromarray(grain.astype(np.float32)).resize(
            image.size, Image.Resampling.BICUBIC
        )
        pixels = np.asarray(image, dtype=np.float32) + np.asarray(grain)[..., None]
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def write_flowers102(folder: Path, limit: int | None, shorter: int | None) -> str:
    """A Flowers102 layout of its own that holds `limit` photographs of each split."""
    base = folder / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    found = {split: photographs(split, limit) for split in SPLITS}
    labels, ids, sizes = [], {}, []
    with Progress(sum(len(f) for f, _ in found.values()), "Writing JPEGs", unit="image") as bar:
        for split, (sources, targets) in found.items():
            ids[SPLITS[split]] = [list(range(len(labels) + 1, len(labels) + len(targets) + 1))]
            for source, label in zip(sources, targets, strict=True):
                labels.append(label + 1)
                content = realistic_jpeg(source, shorter, len(labels))
                (base / "jpg" / f"image_{len(labels):05d}.jpg").write_bytes(content)
                sizes.append(len(content))
                bar.update()
    savemat(base / "imagelabels.mat", {"labels": [labels]})
    savemat(base / "setid.mat", ids)
    return f"{len(sizes)} JPEGs of {statistics.mean(sizes) / 1000:.0f} kB on average"


def accept(folder: Path) -> None:
    """Let torchvision take the two `.mat` files written above, which have checksums of their own."""
    for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        content = (folder / "flowers-102" / name).read_bytes()
        Flowers102._file_dict[key] = (name, hashlib.md5(content).hexdigest())
