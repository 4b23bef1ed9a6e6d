"""Files that are read may be cut, damaged, foreign or hostile: each is used whole or told in words."""

import io
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from small_training import NAME, small_data

import transfer_learning_config as config
from flowers_utils.datasets.load import load_data
from flowers_utils.datasets.photos import decode, decoded, open_photo, to_rgb
from flowers_utils.deploy.predictor import Predictor, as_photo
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    make_checkpoint,
    model_from_checkpoint,
)
from flowers_utils.storage.files import load_tensors

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 200)
HUGE = 10**400  # more than any float can hold
SEED = int(os.environ.get("FUZZ_SEED") or 0)


@pytest.fixture
def checkpoint(small_net):
    """A whole checkpoint of a network so small that reading it takes a millisecond."""
    model = build_model(NAME, num_classes=4, weights=None)
    return make_checkpoint(model, small_data(), epoch=3, metrics={"val_accuracy": 0.5})


def saved(content, *, zipped=True) -> bytes:
    """What `torch.save` writes, in its present or its old format."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def written(folder: Path, content: bytes, name: str = "model.pth") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def told(function, *args, **kwargs) -> str:
    """The FlowersError that a call raises: at most two sentences and no traceback in them."""
    with pytest.raises(FlowersError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "Traceback" not in message
    assert 20 < len(message) < 600
    return message


def told_by_checkpoint(path: Path, **kwargs) -> str:
    return told(lambda: model_from_checkpoint(load_checkpoint(path), **kwargs))


# Checkpoints


def test_a_whole_checkpoint_gives_a_working_network(checkpoint, tmp_path):
    path = written(tmp_path, saved(checkpoint))
    assert works(load_checkpoint(path), checkpoint)


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"hello, a text\n"],
    ids=["empty", "cut", "text"],
)
def test_a_damaged_checkpoint_is_named(checkpoint, tmp_path, damage):
    path = written(tmp_path, damage(saved(checkpoint)))
    for read in (load_tensors, load_checkpoint):
        message = told(read, path)
        assert "model.pth" in message and "damaged" in message


def test_one_flipped_bit_in_the_weights_is_noticed(checkpoint, tmp_path):
    whole = bytearray(saved(checkpoint))
    weight = checkpoint["state_dict"]["conv1.weight"].numpy().tobytes()
    whole[whole.index(weight)] ^= 1
    assert "damaged" in told(load_checkpoint, written(tmp_path, bytes(whole)))


def test_a_missing_file_or_a_folder_is_told_as_such(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path, tmp_path / ("n" * 300)):
        assert f"There is no file '{path}'" in told(load_checkpoint, path)


def test_a_checkpoint_without_permission_is_told(checkpoint, tmp_path, monkeypatch):
    path = written(tmp_path, saved(checkpoint))
    monkeypatch.setattr(torch, "load", denied)
    assert "no permission" in told(load_checkpoint, path)


def denied(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        ([1, 2, 3], "something else"),
        ({"conv1.weight": torch.zeros(3)}, "lacks 'format_version'"),
        ({"epoch": 3, "model_state_dict": {}, "loss": 0.1}, "lacks 'format_version'"),
    ],
)
def test_a_checkpoint_of_another_program_is_told_and_not_to_be_deleted(tmp_path, foreign, said):
    message = told(load_checkpoint, written(tmp_path, saved(foreign)))
    assert "model.pth" in message and said in message and "elete" not in message


class Hostile:
    """Unpickling this makes a file: harmless, but seen."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def hostile_files(checkpoint: dict, marker: Path) -> dict[str, bytes]:
    """The same attack in each dress that `torch.load` knows."""
    inside = {**checkpoint, "config": {"epochs": Hostile(marker)}}
    return {
        "zip": saved(inside),
        "old format": saved(inside, zipped=False),
        "pickle": pickle.dumps(inside),
        "alone": pickle.dumps(Hostile(marker), protocol=2),
        "eval": b"cbuiltins\neval\n(S'open(%r, \"w\")'\ntR." % str(marker).encode(),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("dress", ["zip", "old format", "pickle", "alone", "eval"])
def test_a_hostile_file_runs_nothing(checkpoint, tmp_path, dress):
    marker = tmp_path / "harm"
    path = written(tmp_path, hostile_files(checkpoint, marker)[dress])
    for read in (load_tensors, load_checkpoint):
        message = told(read, path)
        assert "model.pth" in message
        assert "could run code" in message
    assert not marker.exists()


def test_the_hostile_file_would_do_harm_if_it_could(tmp_path):
    marker = tmp_path / "harm"
    torch.load(io.BytesIO(saved(Hostile(marker))), weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("architecture", ["resnet18", "vgg99"])
def test_another_architecture_is_told(checkpoint, tmp_path, architecture):
    message = told_by_checkpoint(
        written(tmp_path, saved({**checkpoint, "architecture": architecture}))
    )
    assert architecture in message
    assert "do not fit" in message or "does not know" in message


def test_another_number_of_classes_than_the_data_is_told(checkpoint, tmp_path):
    message = told_by_checkpoint(written(tmp_path, saved(checkpoint)), num_classes=102)
    assert "knows 4 classes, but the data has 102" in message


@pytest.mark.parametrize("classes", [3, 5000])
def test_a_head_of_another_size_than_it_says_is_told(checkpoint, tmp_path, classes):
    names = [f"flower {i}" for i in range(classes)]
    content = {**checkpoint, "num_classes": classes, "class_names": names}
    message = told_by_checkpoint(written(tmp_path, saved(content)))
    assert f"do not fit a {NAME} with {classes} classes" in message


def test_names_that_do_not_number_the_classes_are_told(checkpoint, tmp_path):
    path = written(tmp_path, saved({**checkpoint, "num_classes": 5}))
    assert "names 4 classes, not the 5" in told_by_checkpoint(path)


WRONG_TENSORS = {
    "nan": lambda t: torch.full_like(t, float("nan")),
    "beyond float32": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "endless": lambda t: torch.zeros(1).expand(2**50),
    "a list": lambda t: t.tolist(),
    "turned": lambda t: t.unsqueeze(0),
}


@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:TypedStorage")
@pytest.mark.parametrize("kind", WRONG_TENSORS)
def test_a_tensor_that_is_none_of_this_network_is_told(checkpoint, tmp_path, kind):
    tensors, key = checkpoint["state_dict"], "conv1.weight"
    content = {**checkpoint, "state_dict": {**tensors, key: WRONG_TENSORS[kind](tensors[key])}}
    message = told_by_checkpoint(written(tmp_path, saved(content)))
    assert "'state_dict'" in message or "do not fit" in message or "damaged" in message


def test_a_variance_below_zero_is_told(checkpoint, tmp_path):
    """It would make every probability nan."""
    checkpoint["state_dict"]["bn1.running_var"].neg_()
    message = told_by_checkpoint(written(tmp_path, saved(checkpoint)))
    assert "'state_dict'" in message


@pytest.mark.parametrize("value", [None, HUGE, float("nan")])
@pytest.mark.parametrize(
    "key", ["num_classes", "normalization", "image_size", "data", "class_names"]
)
def test_a_key_of_another_kind_is_named(checkpoint, tmp_path, key, value):
    message = told_by_checkpoint(written(tmp_path, saved({**checkpoint, key: value})))
    assert key in message or "classes" in message


@pytest.mark.parametrize("value", [HUGE, 0, "1"])
def test_a_temperature_or_a_mean_that_is_no_number_is_named(checkpoint, tmp_path, value):
    path = written(tmp_path, saved({**checkpoint, "temperature": value}))
    assert "'temperature'" in told(load_checkpoint, path)
    normalization = {**checkpoint["normalization"], "std": [0.2, value, 0.2]}
    path = written(tmp_path, saved({**checkpoint, "normalization": normalization}))
    assert "'normalization'" in told(load_checkpoint, path)


# Fuzzed checkpoints


def mutated_bytes(whole: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, inserted, doubled or zeroed at random places."""
    content = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(content) + 1)
        length = rng.choice((1, 4, 64, 512))
        how = rng.choice(("flip", "flip", "cut", "end", "insert", "double", "zero"))
        if how == "flip" and start < len(content):
            content[start] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del content[start : start + length]
        elif how == "end":
            del content[max(start, 1) :]
        elif how == "insert":
            content[start:start] = rng.randbytes(length)
        elif how == "double":
            content[start:start] = content[start : start + length]
        elif how == "zero":
            content[start : start + length] = bytes(len(content[start : start + length]))
    return bytes(content)


def mutated_inside(whole: bytes, rng: random.Random) -> bytes:
    """One member of the archive mutated, with a checksum that fits what it is now."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        pickled = next(name for name in names if name.endswith("data.pkl"))
        chosen = rng.choice((pickled, pickled, rng.choice(names)))
        for name in names:
            content = old.read(name)
            new.writestr(name, mutated_bytes(content, rng) if name == chosen else content)
    return out.getvalue()


ODD_VALUES = (
    lambda: None,
    lambda: HUGE,
    lambda: -1,
    lambda: 0,
    lambda: "text",
    lambda: float("nan"),
    lambda: True,
    lambda: [],
    lambda: {},
    lambda: {1: 2, "a": None},
    lambda: torch.empty(0),
    lambda: torch.zeros(8, 3, 3, 3, dtype=torch.complex64),
    lambda: torch.zeros(8).to_sparse(),
    lambda: torch.zeros(4, requires_grad=True),
    lambda: torch.full((8,), float("nan")),
    lambda: torch.zeros(8).to(torch.float8_e4m3fn),
    lambda: torch.tensor(0),
)


def mutated_structure(value, rng: random.Random):
    """`value` with something in it replaced, left out or renamed, at any depth."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return rng.choice(ODD_VALUES)()
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [mutated_structure(v, rng) if i == place else v for i, v in enumerate(value)]
    chosen = rng.choice(list(value))
    how = rng.random()
    if how < 0.1:
        return {key: v for key, v in value.items() if key != chosen}
    if how < 0.2:
        return {(rng.choice((f"{k}_", 7)) if k == chosen else k): v for k, v in value.items()}
    return {key: mutated_structure(v, rng) if key == chosen else v for key, v in value.items()}


def fuzzed(checkpoint: dict, hostile: list[bytes], rng: random.Random) -> tuple[str, bytes]:
    """The kind of mutation and a file that has suffered it."""
    kind = rng.choice(("bytes", "inside", "old format", "hostile", "structure", "structure"))
    if kind == "structure":
        return kind, saved(mutated_structure(checkpoint, rng), zipped=rng.random() < 0.8)
    if kind == "bytes":
        return kind, mutated_bytes(saved(checkpoint), rng)
    if kind == "inside":
        return kind, mutated_inside(saved(checkpoint), rng)
    if kind == "old format":
        return kind, mutated_bytes(saved(checkpoint, zipped=False), rng)
    attack = rng.choice(hostile)  # half of the time left whole, so that it could still strike
    return kind, rng.choice((mutated_bytes(attack, rng), attack + rng.randbytes(8)))


def works(loaded: dict, whole: dict) -> bool:
    """Whether `loaded` has all that `whole` has, and its network gives probabilities."""
    pixels = np.full((20, 30, 3), 99, np.uint8)
    predictor = Predictor(loaded)
    assert loaded.keys() >= whole.keys()
    assert loaded["state_dict"].keys() == whole["state_dict"].keys()
    for key, tensor in whole["state_dict"].items():
        assert loaded["state_dict"][key].shape == tensor.shape
    probabilities = predictor.probabilities([pixels])
    assert probabilities.shape == (1, loaded["num_classes"])
    assert torch.isfinite(probabilities).all()
    return len(predictor(pixels)) == min(5, loaded["num_classes"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:Detected pickle protocol")
def test_a_fuzzed_checkpoint_works_or_is_told(checkpoint, tmp_path):
    rng = random.Random(SEED)
    marker = tmp_path / "harm"
    hostile = list(hostile_files(checkpoint, marker).values())
    outcomes = Counter()
    for number in range(EXAMPLES):
        kind, content = fuzzed(checkpoint, hostile, rng)
        path = written(tmp_path, content)
        try:
            assert works(load_checkpoint(path), checkpoint)
            outcomes[kind, "loaded"] += 1
        except FlowersError as error:
            assert len(str(error)) > 20
            outcomes[kind, "told"] += 1
        except Exception as error:
            raise AssertionError(f"{kind} mutation {number} of seed {SEED}") from error
        assert not marker.exists()
    assert sum(count for (_, what), count in outcomes.items() if what == "told") > EXAMPLES / 3


# Photographs

FORMATS = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def two_colours(width: int = 24, height: int = 16) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "a camera"
    return exif


def near(pixel: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 3


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_fuzzed_photograph_is_rgb_or_told(tmp_path, kind):
    rng = random.Random(f"{SEED} {kind}")
    options = {} if kind in ("BMP", "GIF") else {"exif": exif_turned(6)}
    compressed = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    wholes = [
        encoded(two_colours(), kind, **options),
        encoded(two_colours().convert("L"), kind, **options, **compressed),
    ]
    outcomes = Counter()
    for number in range(EXAMPLES):
        path = written(tmp_path, mutated_bytes(rng.choice(wholes), rng), "photo.jpg")
        try:
            assert open_photo(path).mode == "RGB"
            assert decode(path, 8).shape == (3, 8, 8)
            outcomes["opened"] += 1
        except FlowersError as error:
            assert "photo.jpg" in str(error)
            outcomes["told"] += 1
        except Exception as error:
            raise AssertionError(f"{kind} mutation {number} of seed {SEED}") from error
    print(f"{kind}, seed {SEED}: {sorted(outcomes.items())}")
    assert outcomes["told"] > 0


@pytest.mark.parametrize(
    "error",
    [OSError, ValueError, SyntaxError, struct.error, EOFError, IndexError, KeyError, TypeError,
     AttributeError, zlib.error, OverflowError, MemoryError, ZeroDivisionError],
)  # fmt: skip
def test_whatever_pillow_raises_names_the_photograph(tmp_path, monkeypatch, error):
    def broken(self):
        raise error("broken")

    path = written(tmp_path, encoded(two_colours(), "BMP"), "photo.bmp")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    assert "photo.bmp" in told(open_photo, path)


def huge_png(width: int, height: int) -> bytes:
    """A few bytes that say they are a picture of any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def test_a_decompression_bomb_is_told_and_not_decoded(tmp_path, monkeypatch):
    def decoding(self):
        raise AssertionError("the bomb was decoded")

    path = written(tmp_path, huge_png(30_000, 30_000), "bomb.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoding)
    message = told(open_photo, path)
    assert "bomb.png" in message
    assert "too large" in message


def test_a_folder_in_the_place_of_a_photograph_is_told(tmp_path):
    assert "is a folder" in told(open_photo, tmp_path)


def test_a_missing_photograph_is_told(tmp_path):
    assert "There is no photograph" in told(open_photo, tmp_path / "none.jpg")


def test_a_photograph_without_permission_is_told(tmp_path, monkeypatch):
    path = written(tmp_path, encoded(two_colours(), "PNG"), "photo.png")
    monkeypatch.setattr(Image, "open", denied)
    message = told(open_photo, path)
    assert "photo.png" in message
    assert "no permission" in message


@pytest.mark.parametrize("content", [b"", b"a text", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF"])
def test_an_empty_or_foreign_file_is_no_photograph(tmp_path, content):
    message = told(open_photo, written(tmp_path, content, "photo.jpg"))
    assert "'" in message
    assert "photo.jpg" in message


def palette_with_transparency() -> bytes:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*GREEN, *RED, *([0] * 762)])
    image.paste(1, (2, 0, 4, 4))
    return encoded(image, "PNG", transparency=0)


def half_transparent() -> bytes:
    image = Image.new("RGBA", (4, 4), (*GREEN, 0))
    image.paste((*RED, 255), (2, 0, 4, 4))
    return encoded(image, "PNG")


def transparent_colour() -> bytes:
    image = Image.new("RGB", (4, 4), GREEN)
    image.paste(RED, (2, 0, 4, 4))
    return encoded(image, "PNG", transparency=GREEN)


def animated() -> bytes:
    second = Image.new("RGB", (4, 4), BLUE)
    first = Image.new("RGB", (4, 4), RED)
    return encoded(first, "GIF", save_all=True, append_images=[second])


def sixteen_bits(level: int) -> bytes:
    return encoded(Image.fromarray(np.full((4, 4), level, np.uint16)), "PNG")


ODD_PHOTOGRAPHS = {
    "one pixel": (lambda: encoded(Image.new("RGB", (1, 1), RED), "PNG"), RED, RED),
    "16 bits": (lambda: sixteen_bits(32_896), (128,) * 3, (128,) * 3),
    "16 bits, dark": (lambda: sixteen_bits(255), (0,) * 3, (0,) * 3),
    "grey": (lambda: encoded(Image.new("L", (4, 4), 70), "JPEG"), (70,) * 3, (70,) * 3),
    "CMYK": (lambda: encoded(two_colours().convert("CMYK"), "JPEG", quality=100), RED, BLUE),
    "palette": (palette_with_transparency, WHITE, RED),
    "RGBA": (half_transparent, WHITE, RED),
    "one colour transparent": (transparent_colour, WHITE, RED),
    "black and white": (lambda: encoded(Image.new("1", (4, 4), 1), "PNG"), WHITE, WHITE),
    "animated": (animated, RED, RED),
    "mirrored by EXIF": (
        lambda: encoded(two_colours(), "PNG", exif=exif_turned(2)), BLUE, RED
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_PHOTOGRAPHS)
def test_an_odd_photograph_is_upright_rgb(tmp_path, name):
    content, left, right = ODD_PHOTOGRAPHS[name]
    image = open_photo(written(tmp_path, content(), "photo.png"))
    assert image.mode == "RGB"
    assert near(image.getpixel((0, 0)), left)
    assert near(image.getpixel((image.width - 1, 0)), right)


@pytest.mark.parametrize(
    ("orientation", "first", "last"),
    [(1, RED, BLUE), (2, BLUE, RED), (3, BLUE, RED), (4, RED, BLUE),
     (5, RED, BLUE), (6, RED, BLUE), (7, BLUE, RED), (8, BLUE, RED)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_each_exif_orientation_is_turned_upright_once(tmp_path, kind, orientation, first, last):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    content = encoded(two_colours(), kind, exif=exif_turned(orientation), **options)
    image = to_rgb(open_photo(written(tmp_path, content, "photo.jpg")))
    assert image.size == ((24, 16) if orientation < 5 else (16, 24))
    assert near(image.getpixel((0, 0)), first)
    assert near(image.getpixel((image.width - 1, image.height - 1)), last)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(12),
        b"Exif\0\0xx*\0\x08\0\0\0\x01\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x08\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04six\0\0\0\0\0",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_exif_block_leaves_the_photograph_as_it_is(tmp_path, kind, exif):
    quality = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    image = open_photo(written(tmp_path, encoded(two_colours(), kind, exif=exif, **quality), "p"))
    assert image.size == (24, 16)
    assert near(image.getpixel((0, 0)), RED)


def test_exif_that_cannot_be_written_again_still_turns_the_photograph(monkeypatch):
    def unwritable(self, offset=8):
        raise struct.error("a damaged tag beside the orientation")

    image = Image.open(io.BytesIO(encoded(two_colours(), "JPEG", exif=exif_turned(6))))
    monkeypatch.setattr(Image.Exif, "tobytes", unwritable)
    assert to_rgb(image).size == (16, 24)


def test_a_cut_pil_image_is_told():
    whole = encoded(two_colours(200, 200), "PNG")
    assert "PIL image" in told(as_photo, Image.open(io.BytesIO(whole[:-80])))


@pytest.mark.fuzz
def test_a_damaged_cache_is_made_anew(tmp_path):
    photo = written(tmp_path, encoded(two_colours(), "PNG"), "photo.png")
    make = partial(decoded, [photo], size=8, cache=tmp_path / "cache", name="photos")
    expected = np.array(make())
    (file,) = (tmp_path / "cache").iterdir()
    whole, rng = file.read_bytes(), random.Random(SEED)
    foreign = [b"", b"PK\x05\x06" + bytes(18), saved({}), pickle.dumps([1]), whole[:100]]
    headers = [mutated_bytes(whole[:128], rng) + whole[128:] for _ in range(EXAMPLES // 3)]
    for content in foreign + headers:
        file.write_bytes(content)
        images = make()
        assert images.shape == expected.shape
        assert images.dtype == np.uint8


# A student's own folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    monkeypatch.setitem(config.AUGMENTATION, "resize", 36)
    monkeypatch.setitem(config.AUGMENTATION, "crop", 32)
    return tmp_path / "flowers"


def fill(folder: Path, *classes: str, count: int = 5) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            written(folder / name, encoded(two_colours(), "PNG"), f"{number}.png")


load_own = partial(load_data, profile="smoke", seed=0)


def test_odd_photographs_of_a_students_folder_are_all_used(folder):
    fill(folder, "rose", count=3)
    (folder / "odd").mkdir()
    for number, (content, _, _) in enumerate(ODD_PHOTOGRAPHS.values()):
        written(folder / "odd", content(), f"{number}.png")
    data = load_own(str(folder))
    assert data.class_names == ("odd", "rose")
    count = sum(len(split) for split in (data.train, data.val, data.test))
    assert count == 3 + len(ODD_PHOTOGRAPHS)


@pytest.mark.parametrize("content", [b"", b"a text", encoded(two_colours(), "PNG")[:60]])
def test_a_corrupt_photograph_of_a_students_folder_is_named(folder, content):
    fill(folder, "rose", "tulip")
    path = written(folder / "tulip", content, "3.png")
    assert str(path) in told(load_own, str(folder))
    path.write_bytes(encoded(two_colours(), "PNG"))
    assert load_own(str(folder)).num_classes == 2


def test_a_missing_folder_is_told(folder):
    assert f"There is no folder '{folder}'" in told(load_own, str(folder))


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    path = written(tmp_path, b"", "flowers.zip")
    assert "There is no folder" in told(load_own, str(path))


def test_a_folder_without_permission_is_told(folder, monkeypatch):
    fill(folder, "rose", "tulip")
    monkeypatch.setattr(Path, "iterdir", denied)
    message = told(load_own, str(folder))
    assert str(folder) in message
    assert "no permission" in message


@pytest.mark.parametrize("classes", [(), ("rose",)])
def test_fewer_than_two_classes_are_told(folder, classes):
    folder.mkdir()
    fill(folder, *classes)
    message = told(load_own, str(folder))
    assert f"has {len(classes)} class folder" in message


def test_photographs_beside_no_class_folders_are_told(folder):
    folder.mkdir()
    written(folder, encoded(two_colours(), "PNG"), "rose.png")
    assert "one sub-folder for each kind" in told(load_own, str(folder))


def test_an_empty_class_is_named(folder):
    fill(folder, "rose", "tulip")
    (folder / "lily").mkdir()
    written(folder / "lily", b"notes", "read me.txt")
    message = told(load_own, str(folder))
    assert "lily" in message
    assert "holds no photographs" in message


def test_no_photographs_at_all_are_told(folder):
    fill(folder, "rose", "tulip", count=0)
    assert "holds no photographs" in told(load_own, str(folder))


def test_too_few_photographs_of_a_class_are_told(folder):
    fill(folder, "rose", count=2)
    fill(folder, "tulip")
    assert "'rose' has 2 photographs" in told(load_own, str(folder))


def test_three_split_folders_are_taken_as_they_are(folder):
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        fill(folder / split, "rose", "tulip", count=count)
    data = load_own(str(folder))
    assert data.class_names == ("rose", "tulip")
    assert [len(s) for s in (data.train, data.val, data.test)] == [8, 6, 4]


@pytest.mark.parametrize(
    ("present", "missing"),
    [(("train", "val"), "'test'"), (("train", "test"), "'val'"), (("val", "test"), "'train'"),
     (("train",), "'val' and 'test'"), (("Train", "Val"), "'test'"),
     (("train", "valid", "test"), "'val'")],
)  # fmt: skip
def test_a_missing_split_folder_is_named(folder, present, missing):
    for split in present:
        fill(folder / split, "rose", "tulip")
    assert f"lacks {missing}" in told(load_own, str(folder))


def test_class_folders_that_differ_between_the_splits_are_named(folder):
    for split in ("train", "val", "test"):
        fill(folder / split, "rose", "tulip")
    (folder / "val" / "tulip").rename(folder / "val" / "lily")
    message = told(load_own, str(folder))
    assert "'lily'" in message
    assert "same class folders" in message


def test_an_empty_class_of_one_split_is_named(folder):
    for split in ("train", "val", "test"):
        fill(folder / split, "rose", "tulip", count=0 if split == "test" else 3)
    message = told(load_own, str(folder))
    assert str(folder / "test" / "rose") in message
