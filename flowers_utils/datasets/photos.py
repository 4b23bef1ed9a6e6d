"""Opening a photograph of any kind: upright, 8 bits, sRGB; or why it cannot be opened."""

import contextlib
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch.utils.data import Dataset

from flowers_utils.errors import FlowersError

SRGB = ImageCms.createProfile("sRGB")


class PhotoFiles(Dataset):
    """Files as a dataset: `dataset[i]` is a picture (an upright PIL image, `transform`ed) and a label."""

    def __init__(self, paths: list[Path], labels: list[int], transform: Callable | None = None):
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        picture = open_photo(self.paths[i])
        return (self.transform(picture) if self.transform else picture), self.labels[i]


def why_no_photo(path: Path) -> str:
    """The ending of a file that is no photograph; "" for a photograph, be it broken."""
    ending = path.suffix.lower() or "without an ending"
    usual = Image.registered_extensions().get(ending)
    try:
        with Image.open(path) as image:  # it looks at the first bytes: names lie
            # A camera's raw file is a TIFF whose first picture is a thumbnail.
            raw = image.format == "TIFF" and usual != "TIFF" and path.suffix
            return ending if raw else ""
    except FileNotFoundError:
        return "links to nothing"
    except UnidentifiedImageError:
        return "" if usual else ending
    except Exception:  # no permission, too large, cut in its header: `open_photo` says it in words
        return ""


def open_photo(path: str | os.PathLike) -> Image.Image:
    """Open one photograph as upright RGB; or FlowersError."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except Exception as error:  # a damaged photograph makes Pillow raise almost anything
        why = str(error) or type(error).__name__
        advice = "If a viewer shows it, save it as JPEG; else delete it, and run this again."
        raise FlowersError(f"'{path}' cannot be opened ({why}). {advice}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as upright 8-bit sRGB: EXIF turned, profile applied, alpha on white."""
    image.load()
    with contextlib.suppress(Exception):  # a damaged EXIF block; the pixels may be sound
        image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise ValueError("its pixels are decimal numbers, of an unknown scale")
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    if profile:  # Display P3 of phones, Adobe RGB: networks expect sRGB
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):  # damaged, or for CMYK
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            if not ImageCms.getProfileDescription(source).startswith("sRGB"):  # as most are
                image = ImageCms.profileToProfile(image, source, SRGB, outputMode=mode)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
