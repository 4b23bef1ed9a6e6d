"""Photographs from everywhere: each is opened upright in sRGB, or told by name; decoded once."""

import contextlib
import errno
import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

import transfer_learning_config as config
from flowers_utils.datasets import cache
from flowers_utils.datasets.cache import decoded
from flowers_utils.datasets.photos import PhotoFiles, open_photo, why_no_photo
from flowers_utils.errors import FlowersError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
BLACK, GREY = (0, 0, 0), (128, 128, 128)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged EXIF blocks


def two_colours(left: tuple = RED, right: tuple = BLUE, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (24, 16), left)
    image.paste(right, (12, 0, 24, 16))
    return image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def written(folder: Path, content: bytes, name: str = "photo.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def near(pixel: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 3


# Opening


@pytest.mark.parametrize(
    ("content", "left", "right"),
    [
        (encoded(two_colours().convert("CMYK"), "JPEG", quality=100), RED, BLUE),
        (encoded(two_colours().quantize(2), "PNG"), RED, BLUE),
        (encoded(two_colours((*GREEN, 0), (*RED, 255), "RGBA"), "PNG"), WHITE, RED),
        (encoded(two_colours(255, 32_896, "I;16"), "TIFF"), (1, 1, 1), GREY),
        (encoded(two_colours(0, 1, "1"), "TIFF"), BLACK, WHITE),
        (encoded(two_colours(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff", quality=100), RED, BLUE),
    ],
    ids=["CMYK", "palette", "RGBA", "16 bits", "boolean", "damaged EXIF"],
)
def test_an_odd_photograph_is_rgb(tmp_path, content, left, right):
    path = written(tmp_path, content, "photo")
    image = open_photo(path)
    assert why_no_photo(path) == "" and image.mode == "RGB"
    assert near(image.getpixel((0, 0)), left)
    assert near(image.getpixel((image.width - 1, 0)), right)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_photograph_is_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(two_colours(), "JPEG", exif=exif, quality=100)
    files = PhotoFiles([written(tmp_path, content)], [7])
    image, label = files[0]
    assert len(files) == 1 and label == 7
    assert image.size == ((24, 16) if orientation < 5 else (16, 24))
    assert near(image.getpixel((0, 0)), BLUE if orientation == 3 else RED)


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged, and without its name: no eye could overlook it."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red], data[green] = data[green], data[red]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize(
    ("mode", "kind", "profile", "expected"),
    [
        ("RGB", "JPEG", swapped_profile(), GREEN),
        ("RGBA", "PNG", swapped_profile(), GREEN),
        ("L", "PNG", swapped_profile(), (76,) * 3),  # grey has no place in such a profile
        ("RGB", "PNG", b"damaged", RED),
    ],
)
def test_colours_become_srgb(tmp_path, mode, kind, profile, expected):
    picture = Image.new("RGB", (8, 8), RED).convert(mode)
    content = encoded(picture, kind, icc_profile=profile)
    assert near(open_photo(written(tmp_path, content)).getpixel((0, 0)), expected)


FLOATS = encoded(two_colours(0.0, 1.0, "F"), "TIFF")


@pytest.mark.parametrize("content", [b"", encoded(two_colours(), "PNG")[:60], FLOATS])
def test_a_file_that_cannot_be_opened_is_named_with_what_to_do(tmp_path, content):
    path = written(tmp_path, content)
    with pytest.raises(FlowersError, match=f"'{path}' cannot be opened .* save it as JPEG"):
        open_photo(path)


# Decoding once


@pytest.fixture
def files(tmp_path):
    pictures = [encoded(two_colours((i, 0, 0)), "JPEG") for i in (0, 100, 200)]
    return [written(tmp_path, picture, f"{i}.jpg") for i, picture in enumerate(pictures)]


@pytest.fixture
def make(tmp_path, files, monkeypatch):
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    return partial(decoded, files, size=32, name="x")


def cache_files(tmp_path):
    return sorted((tmp_path / "cache").glob("*.npy"))


def test_the_cache_is_reused_until_a_photograph_changes(make, files, tmp_path, monkeypatch):
    first = make()
    assert first.dtype == np.uint8 and first.shape == (3, 3, 32, 32)
    expected = Image.open(files[1]).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(first[1].transpose(1, 2, 0), expected)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "open_photo", None)  # decoding again would fail
        second = make()
    assert isinstance(second, np.memmap) and not second.flags.writeable
    assert np.array_equal(first, second)
    Image.new("RGB", (30, 30), "green").save(files[0])
    assert not np.array_equal(first, make()) and len(cache_files(tmp_path)) == 1


def test_older_arrays_are_removed_only_while_no_other_notebook_works(
    make, files, tmp_path, monkeypatch
):
    make()

    @contextlib.contextmanager
    def lock(path):
        yield
        assert len(cache_files(tmp_path)) == 1
        path.with_name(f"{path.name}-next.npy").touch()  # the next notebook writes its own

    monkeypatch.setattr(cache, "one_at_a_time", lock)
    Image.new("RGB", (30, 30), "green").save(files[0])
    assert make() is not None and len(cache_files(tmp_path)) == 2


def test_two_folders_in_turn_keep_what_was_decoded(make, files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copies = [written(tmp_path / "elsewhere", file.read_bytes(), file.name) for file in files]
    for each in (files, copies, files):
        decoded(each, size=32, name="x")
    assert len(cache_files(tmp_path)) == 2


def test_a_damaged_cache_is_made_anew(make, tmp_path):
    first = np.array(make())
    (path,) = cache_files(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    assert np.array_equal(make(), first)


def test_where_a_drive_cannot_map_files_they_are_read(make, monkeypatch):
    expected, load = np.array(make()), np.load

    def load_without_mapping(path, mmap_mode=None):
        if mmap_mode:
            raise OSError(errno.ENODEV, "No such device")
        return load(path)

    monkeypatch.setattr(np, "load", load_without_mapping)
    assert np.array_equal(make(), expected)
