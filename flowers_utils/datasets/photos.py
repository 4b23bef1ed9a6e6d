"""Opening photographs of any kind, and decoding many of them once into a memory-mapped cache."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from torchvision.transforms.v2 import functional as TF

from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import atomic_write

CACHE_VERSION = 1  # part of every cache's name: raise it when decoding changes
TURNS = {  # how a photograph is to be turned, by the orientation that its EXIF block states
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as upright 8-bit RGB: EXIF turned, alpha on white, 16 bits scaled to 8."""
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        highest = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
        image = Image.fromarray((values / highest * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF block says. A damaged block is passed over: the pixels may be sound."""
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a damaged block makes Pillow raise almost anything
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    # Without its EXIF block, so that it is not turned again.
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return turned


def open_photo(path: str | os.PathLike) -> Image.Image:
    """Open one photograph as upright RGB; raises FlowersError that names the file."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except Exception as error:  # a damaged photograph makes Pillow raise almost anything
        raise FlowersError(_why_not_opened(path, error)) from error


def _why_not_opened(path: str | os.PathLike, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no photograph at '{path}'; check the path."
    if isinstance(error, OSError) and Path(path).is_dir():  # on Windows a PermissionError
        return f"'{path}' is a folder, not a photograph; give the path of one photograph in it."
    if isinstance(error, PermissionError):
        return f"'{path}' cannot be read: no permission. Change that, or copy the photograph."
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"'{path}' is too large to be opened safely: more than {2 * Image.MAX_IMAGE_PIXELS:,} "
            "pixels. Save it smaller, or remove it if that is not what it should be."
        )
    return (
        f"'{path}' cannot be opened as a photograph ({error or type(error).__name__}). Open it in "
        "an image viewer; if it is damaged there too, remove it or fetch it again."
    )


def decode(path: str | os.PathLike, size: int) -> np.ndarray:
    """One photograph, squashed to `size` x `size` like torchvision's `Resize`: uint8 `(3, S, S)`."""
    resized = TF.resize(open_photo(path), [size, size])
    return np.asarray(resized).transpose(2, 0, 1)


def decoded(files: Sequence[Path], *, size: int, cache: Path, name: str) -> np.ndarray:
    """All `files` decoded once: memory-mapped uint8 `(N, 3, size, size)`, read-only.

    The cache is named after what it holds, so it is rebuilt when a file, the size or the way of
    decoding changes. Raises FlowersError naming a damaged photograph.
    """
    facts = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
    shape = (len(files), 3, size, size)

    def fill(images: np.ndarray, bar: Progress) -> None:
        threads = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            for i, image in enumerate(pool.map(lambda file: decode(file, size), files)):
                images[i] = image
                bar.update()

    return cached_array(cache, f"{name}-{size}", facts, shape, fill)


def cached_array(
    cache: Path,
    name: str,
    facts: Sequence[str],
    shape: tuple[int, ...],
    fill: Callable[[np.ndarray, Progress], None],
) -> np.ndarray:
    """A uint8 array of `shape`, memory-mapped from `cache`; filled by `fill` if it is not there.

    `facts` is everything the content depends on. Older arrays of the same name are removed.
    """
    digest = hashlib.sha256("\n".join([str(CACHE_VERSION), str(shape), *facts]).encode())
    path = cache / f"{name}-{digest.hexdigest()[:12]}.npy"
    if _load(path, shape) is None:

        def write(part: Path) -> None:
            images = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            with Progress(shape[0], f"Preparing {name}", unit="image") as bar:
                fill(images, bar)
            images.flush()

        atomic_write(path, write, needed_bytes=int(np.prod(shape)))
        for other in cache.glob(f"{name}-????????????.npy"):
            if other != path:
                _remove_if_unused(other)
    return _load(path, shape)


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array at `path`, or None if it is not there or not whole."""
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # a damaged header makes numpy raise almost anything; it is made anew
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _remove_if_unused(path: Path) -> None:
    try:
        path.unlink()
    except PermissionError:
        return  # Windows: another notebook still reads it
