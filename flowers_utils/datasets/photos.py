"""Opening a photograph of any kind: upright, 8 bits, three colours; or why it cannot be opened."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from torchvision.transforms.v2 import functional as TF

from flowers_utils.errors import FlowersError

SHOWN = 20  # so many broken photographs stand in a message; the rest is counted
TURNS = {  # how a photograph is to be turned, by the orientation that its EXIF block states
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What a file is, by its first bytes: names lie (phones write HEIC under ".jpg").
PHOTO, BROKEN = "photograph", "broken photograph"
PHOTO_FORMATS = {
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "PSD", "TIFF", "WEBP")
}
PHOTO_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif")
}
RAW_ENDINGS = {".dng", ".cr2", ".nef", ".nrw", ".arw", ".pef", ".srw", ".rw2", ".orf", ".3fr"}
UNREADABLE = {  # photographs in formats that Pillow may not open here
    "HEIC": rb".{4}ftyp(?:hei|hev|mif1|msf1)",
    "AVIF": rb".{4}ftypavi[fs]",
    "JPEG XL": rb"\xff\x0a|.{4}JXL ",
    "camera RAW": rb".{4}ftypcrx|FUJIFILMCCD-RAW|IIR[OS]|IIU\0",
    "TIFF of a rare kind": rb"II\*\0|MM\0\*",  # floats in three colours, for example
    "EPS": rb"%!PS",
}


def kind_of(path: Path) -> str:
    """PHOTO if it can be used; BROKEN if `open_photo` will say why not; else the kind in a word.

    Reads the first bytes only. The word is a key of UNREADABLE, or the name's ending.
    """
    try:
        if not path.is_file() and not path.is_symlink():
            return "no file"  # a pipe or a device: reading it could wait for ever
        with Image.open(path) as image:
            kind = image.format
        # Camera RAW passes for TIFF, but all that Pillow finds in it is a thumbnail.
        if kind == "TIFF" and path.suffix.lower() in RAW_ENDINGS:
            return "camera RAW"
        if kind in PHOTO_FORMATS:
            return PHOTO
    except UnidentifiedImageError:
        pass
    except Exception:  # no permission, too large, cut in its header: `open_photo` says it in words
        return BROKEN
    if kind := _unreadable(path):
        return kind
    ending = path.suffix.lower()
    return BROKEN if ending in PHOTO_ENDINGS else ending or "without an ending"


def _unreadable(path: str | os.PathLike) -> str:
    with Path(path).open("rb") as file:
        start = file.read(16)
    kinds = (kind for kind, pattern in UNREADABLE.items() if re.match(pattern, start, re.DOTALL))
    return next(kinds, "")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as upright 8-bit RGB: EXIF turned, alpha on white, other numbers scaled."""
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of any range as 0 to 255. What white is, the file does not say: we guess."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    highest = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
    if image.mode == "F" and values.max() <= 1:  # floats run from 0 to 1 by custom
        highest = 1.0
    return Image.fromarray((values / highest * 255).clip(0, 255).astype(np.uint8))


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
        raise FlowersError(f"'{path}' {_why_not_opened(path, error)}") from error


def _why_not_opened(path: str | os.PathLike, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there: check the path."
    if isinstance(error, OSError) and Path(path).is_dir():  # on Windows a PermissionError
        return "is a folder, not a photograph; give the path of one photograph in it."
    if isinstance(error, PermissionError):
        return "cannot be read: no permission. Change that, or copy the photograph."
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"is too large to be opened safely: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels. "
            "Save it smaller."
        )
    if isinstance(error, UnidentifiedImageError) and (kind := _unreadable(path)):
        return f"is {kind}, a format that cannot be opened here: save it as JPEG."
    unknown = isinstance(error, UnidentifiedImageError)  # its own words repeat the path
    why = "no image format that is known here" if unknown else error or type(error).__name__
    return f"cannot be opened ({why}): if a viewer shows it, save it as JPEG; else fetch it again."


def broken_in_words(reasons: Sequence[str]) -> str:
    """One line for each photograph that cannot be used, so that all can be mended in one go."""
    if len(reasons) == 1:
        return reasons[0]
    more = [f"... and {len(reasons) - SHOWN} more."] if len(reasons) > SHOWN else []
    first = f"{len(reasons)} photographs cannot be used:"
    return "\n".join([first, *sorted(reasons)[:SHOWN], *more])


def decode(path: str | os.PathLike, size: int) -> np.ndarray:
    """One photograph, squashed to `size` x `size` like torchvision's `Resize`: uint8 `(3, S, S)`."""
    resized = TF.resize(open_photo(path), [size, size])
    return np.asarray(resized).transpose(2, 0, 1)
