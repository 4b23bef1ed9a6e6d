"""Opening a photograph of any kind: upright, 8 bits, three colours; or why it cannot be opened."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flowers_utils.errors import FlowersError

# Pillow says what a file is, by its first bytes: names lie.
PHOTO, BROKEN = "photograph", "broken photograph"
NO_PHOTOS = {"EPS", "GRIB", "HDF5", "MPEG", "PSD", "WMF", "FITS", "ICO", "PDF"}  # Pillow opens them
PHOTO_ENDINGS = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp"}
RAW_ENDINGS = {".dng", ".cr2", ".nef", ".arw", ".pef"}  # all that Pillow sees of it is a thumbnail


def kind_of(path: Path) -> str:
    """PHOTO if it can be used; BROKEN if `open_photo` will say why not; else the name's ending.

    Reads the first bytes only.
    """
    ending = path.suffix.lower()
    if not path.is_file():
        return "no file"  # a pipe or a device: reading it could wait for ever
    try:
        with Image.open(path) as image:
            if image.format not in NO_PHOTOS and ending not in RAW_ENDINGS:
                return PHOTO
    except UnidentifiedImageError:
        pass
    except Exception:  # no permission, too large, cut in its header: `open_photo` says it in words
        return BROKEN
    return BROKEN if ending in PHOTO_ENDINGS else ending or "without an ending"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as upright 8-bit RGB: EXIF turned, alpha on white, other numbers scaled."""
    image.load()
    with contextlib.suppress(Exception):  # a damaged EXIF block; the pixels may be sound
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of any range as 0 to 255. What white is, the file does not say: we guess."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    highest = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
    if image.mode == "F" and values.max() <= 1:  # floats run from 0 to 1 by custom
        highest = 1.0
    return Image.fromarray((values / highest * 255).clip(0, 255).astype(np.uint8))


def open_photo(path: str | os.PathLike) -> Image.Image:
    """Open one photograph as upright RGB; raises FlowersError that names the file."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except Exception as error:  # a damaged photograph makes Pillow raise almost anything
        why = getattr(error, "strerror", None) or error or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its own words repeat the path
            why = "no image format that is known here"
        raise FlowersError(
            f"'{path}' cannot be opened as a photograph ({why}). If a viewer shows it, save it as "
            "JPEG; else fetch it again."
        ) from error


def check_photos(paths: Sequence[Path]) -> None:
    """Raise one FlowersError that names each of `paths` that cannot be opened, and why."""
    reasons = []
    for path in paths:
        try:
            open_photo(path)
        except FlowersError as error:
            reasons.append(str(error))
    if reasons:
        raise FlowersError("\n".join(reasons))
