"""Opening a photograph of any kind: upright, 8 bits, sRGB; or why it cannot be opened."""

import contextlib
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from flowers_utils.errors import FlowersError

# Pillow says what a file is, by its first bytes: names lie.
PHOTO, BROKEN = "photograph", "broken photograph"
FORMATS = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
SRGB = ImageCms.createProfile("sRGB")


class BrokenPhotos(FlowersError):
    """Photographs that cannot be opened; `paths` are theirs."""

    def __init__(self, reasons: dict[Path, str]):
        super().__init__("\n".join(reasons.values()))
        self.paths = list(reasons)


def kind_of(path: Path) -> str:
    """PHOTO if it can be used; BROKEN if `open_photo` will say why not; else the name's ending.

    Reads the first bytes only.
    """
    ending = path.suffix.lower()
    if not path.is_file():
        return "no file"  # a pipe or a device: reading it could wait for ever
    usual = Image.registered_extensions().get(ending)
    try:
        with Image.open(path) as image:
            # A camera's raw file is a TIFF whose first picture is a thumbnail.
            raw = image.format == "TIFF" and usual != "TIFF" and ending
            if image.format in FORMATS and not raw:
                return PHOTO
    except UnidentifiedImageError:
        if usual in FORMATS:
            return BROKEN
    except Exception:  # no permission, too large, cut in its header: `open_photo` says it in words
        return BROKEN
    return ending or "without an ending"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as upright 8-bit sRGB: EXIF turned, profile applied, alpha on white."""
    image.load()
    with contextlib.suppress(Exception):  # a damaged EXIF block; the pixels may be sound
        image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        white = 65535 if image.mode.startswith("I") else max(values.max(), 1e-6)
        image = Image.fromarray((values / white * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    if profile:
        image = _in_srgb(image, profile)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours of another profile (Display P3 of phones, Adobe RGB) as sRGB, which networks expect."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image  # as most are: no need to compute
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, source, SRGB, outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # the profile is damaged, or for other channels than the picture's


def open_photo(path: str | os.PathLike, *, at_least: int | None = None) -> Image.Image:
    """Open one photograph as upright RGB; raises FlowersError that names the file.

    `at_least` (pixels) allows a smaller version, which a JPEG gives in a fraction of the time.
    """
    try:
        with Image.open(path) as image:
            if at_least:
                image.draft(None, (at_least, at_least))
            return to_rgb(image)
    except Exception as error:  # a damaged photograph makes Pillow raise almost anything
        why = getattr(error, "strerror", None) or error or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its own words repeat the path
            why = "no image format that is known here"
        raise FlowersError(
            f"'{path}' cannot be opened as a photograph ({why}). If a viewer shows it, save it as "
            "JPEG; else fetch it again."
        ) from error


def check_photos(paths: Iterable[Path]) -> None:
    """Raise one BrokenPhotos that names each of `paths` that cannot be opened, and why."""
    reasons = {}
    for path in paths:
        try:
            open_photo(path)
        except FlowersError as error:
            reasons[path] = str(error)
    if reasons:
        raise BrokenPhotos(reasons)
