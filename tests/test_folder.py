"""A student's own folder: read in any usual layout, and what was done about it is said."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import transfer_learning_config as config
from flowers_utils.datasets.folder import SPLITS, read_folder
from flowers_utils.datasets.load import load_data, split_table
from flowers_utils.errors import FlowersError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    monkeypatch.setitem(config.AUGMENTATION, "resize", 36)
    monkeypatch.setitem(config.AUGMENTATION, "crop", 32)
    return tmp_path / "flowers"


def photo(path: Path, kind: str = "JPEG") -> Path:
    """A photograph that equals no other, with large forms as real ones have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blots = np.frombuffer(os.urandom(6 * 8 * 3), np.uint8).reshape(6, 8, 3)
    Image.fromarray(blots).resize((80, 60), Image.Resampling.BICUBIC).save(path, kind)
    return path


def fill(folder: Path, *classes: str, count: int = 5) -> None:
    for name in classes:
        for number in range(count):
            photo(folder / name / f"{number}.jpg")


def counts(own) -> list[int]:
    return [len(own.files[split][0]) for split in SPLITS]


def told(folder: Path) -> str:
    with pytest.raises(FlowersError) as caught:
        load_data(str(folder))
    return str(caught.value)


# Layouts


@pytest.mark.parametrize("names", ["Training VALID test_set", "a/train b/val c/test"])
def test_split_folders_of_any_usual_spelling_are_taken_as_they_are(folder, names):
    for name, count in zip(names.split(), (4, 3, 2), strict=True):
        fill(folder / name, "rose", "tulip", count=count)
    own = read_folder(folder, seed=0)
    assert own.class_names == ("rose", "tulip") and counts(own) == [8, 6, 4]
    assert own.note == own.left_out == ""


@pytest.mark.parametrize(("given", "expected"), [("train test", [16, 4, 20]), (".", [12, 4, 4])])
def test_a_missing_split_is_cut_from_train_alike_for_a_seed_and_told(folder, given, expected):
    for name in given.split():
        fill(folder / name, "rose", "tulip", count=10)
    own = read_folder(folder, seed=3)
    assert counts(own) == expected
    assert "Cut from train: val (4)" in own.note and "seed 3" in own.note
    assert all(labels.count(0) == labels.count(1) for _, labels in own.files.values())
    assert read_folder(folder, seed=3).files == own.files != read_folder(folder, seed=4).files
    paths = [path for photos, _ in own.files.values() for path in photos]
    assert len(set(paths)) == len(paths)


def test_folders_around_the_classes_are_entered_and_what_is_not_read_is_told(folder, monkeypatch):
    fill(folder / "flowers" / "train", "rose", "tulip")
    photo(folder / "flowers/test/1.jpg")  # test without labels, as competitions give it
    outside = ("flowers/a.jpg", "flowers/train/b.jpg", "drafts/lily/1.jpg")
    hidden = ("@lily/1.jpg", "flowers/train/rose/.hidden.jpg", "flowers/train/rose/@y.jpg")
    for name in (*outside, *hidden, "__MACOSX/1.jpg", "$RECYCLE.BIN/1.jpg", "flowers/.git/1.jpg"):
        photo(folder / name)
    for name, output in (("models", "card.png"), ("cache", "practice/train/x/1.png")):
        monkeypatch.setitem(config.PATHS, name, str(folder / name))
        photo(folder / name / output)
    own = read_folder(folder, seed=0)
    assert own.class_names == ("rose", "tulip") and counts(own) == [6, 2, 2]
    assert "4 outside the class folders: 'flowers/a.jpg', 'flowers/train/b.jpg'," in own.left_out
    assert "5 hidden by their names, or made by this lesson: '@lily', 'cache'," in own.left_out
    assert all(name in own.left_out for name in ("'flowers/test/1.jpg'", "train/rose/@y.jpg'"))
    assert not any(name in own.left_out for name in ("MACOSX", "RECYCLE", ".git"))


@pytest.mark.parametrize(
    ("photographs", "words"),
    [
        ("1.jpg", "one sub-folder for each class"),
        ("train/1.jpg, test/1.jpg", "inside each split folder"),
        ("val/rose/1.jpg, test/rose/1.jpg", "no 'train' folder"),
        ("rose/1.jpg, tulip/1.jpg", "'rose' has 1 different photographs, but needs 3"),
        ("train/rose/1.jpg, train/lily/1.jpg, val/rose/1.jpg, val/a/1.jpg", "for train of 'a'"),
        ("Rose/1.jpg, rose/1.jpg, a/1.jpg, a /1.jpg", "at most: 'Rose', 'a', 'a ', 'rose'."),
        ("a\u2013b/1.jpg, a-b./1.jpg, a_b\u200b/1.jpg", r"'a-b.', 'a_b\u200b', "),
        ("red/rose/1.jpg, pink/rose/1.jpg, red/a/1.jpg", "at most: 'rose', 'rose'"),
        ("train/a_b/1.jpg, train/c/1.jpg, val/a b/1.jpg, val/c/1.jpg", "'a b', 'a_b'"),
    ],
)
def test_a_folder_that_cannot_work_is_told(folder, photographs, words):
    for name in photographs.split(", "):
        photo(folder / name)
    assert words in told(folder)


def test_names_of_classes_are_compared_as_people_see_them(folder):
    for split, rose in (("train", "Ros\u00e9"), ("val", "Rose\u0301"), ("test", "Ros\u00e9")):
        fill(folder / split, rose, "tulip", count=1)
    assert read_folder(folder, seed=0).class_names == ("Ros\u00e9", "tulip")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf_8_are_read_and_told_in_characters_that_can_be_shown(folder):
    fill(folder, "ros\udce9", "tulip")
    (folder / "tulip" / "\udce9.heic").write_bytes(b"\0\0\0\x18ftyp")
    data = load_data(str(folder))
    assert data.class_names == ("ros\ufffd", "tulip")
    assert rb"\udce9.heic" in split_table(data).encode()


# Files


def test_photographs_are_known_by_their_content_and_the_rest_is_counted(folder):
    fill(folder, "rose", "tulip", count=3)
    for name, kind in (("a.jfif", "JPEG"), ("b.dat", "PNG"), ("noending", "WEBP")):
        photo(folder / "rose" / name, kind)
    photo(folder / "rose" / "c.dng", "TIFF")  # a raw file, of which Pillow opens the thumbnail
    for name in ("1.heic", "2.heic", "clip.mov"):
        (folder / "tulip" / name).write_bytes(b"\0\0\0\x18ftyp")
    (folder / "lily").mkdir()
    assert "No photographs for train of 'lily'" in told(folder) and "2 .heic" in told(folder)
    (folder / "lily").rmdir()
    (folder / "rose" / "moved.jpg").symlink_to(folder / "nowhere.jpg")
    own = read_folder(folder, seed=0)
    assert sum(counts(own)) == 9
    for words in ("2 .heic (save photographs as JPEG): 'tulip/1", "1 .dng", "1 .mov", "1 links"):
        assert words in own.left_out
    assert own.left_out in split_table(load_data(str(folder)))


def test_broken_photographs_of_all_splits_are_listed_in_one_go(folder):
    fill(folder, "rose", "tulip", count=8)
    broken = [folder / "rose" / f"{i}.jpg" for i in range(8)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:700] if path.stem in "0123" else b"")
    message = told(folder)
    assert all(f"'{path}'" in message for path in broken) and "tulip" not in message


# Copies of photographs


def copies_of(source: Path) -> Iterator[Path]:
    """As people and tools make them: saved anew, mirrored, turned, cut, in other colours."""
    with Image.open(source) as image:
        part = image.crop((10, 10, 50, 50)).rotate(20)  # so different that only its name can tell
        edited = {
            "grey": image.convert("L"),
            "bright": image.point(lambda value: min(255, value * 5 // 4)),
            **dict.fromkeys(("horizontal_flip", "crop3", "flip_aug1", "aug"), part),
            "edges gone": image.crop((4, 3, 76, 57)),
            "again": image.copy(),
            "other way round": ImageOps.mirror(image),
            "upright": image.transpose(Image.Transpose.ROTATE_90),
            "small": image.resize((40, 30)),
            "rot5": image.rotate(5),
        }
    for name, picture in edited.items():
        stem = "aug_{}" if name == "aug" else "{}_" + name
        path = source.with_name(f"{stem.format(source.stem)}.jpg")
        picture.save(path, comment=b"saved again", quality=90)
        yield path


def test_copies_of_a_photograph_stay_in_one_split(folder):
    sources = [photo(folder / ("rose", "tulip")[i % 2] / f"IMG_{i}.jpg") for i in range(10)]
    families = [{source, *copies_of(source)} for source in sources]
    own = read_folder(folder, seed=0)
    assert counts(own) == [78, 26, 26] and "(120 of 130 files are copies)" in own.note
    for split in SPLITS:
        paths = set(own.files[split][0])
        assert all(family <= paths or not family & paths for family in families)
    assert "mirrored" in own.note and "IMG_3_rot5" in own.note  # what was compared


def test_copies_in_given_splits_are_warned_about(folder):
    for split in SPLITS:
        fill(folder / split, "rose", "tulip", count=3)
    for copy in copies_of(photo(folder / "train/rose/IMG_7.jpg")):
        shutil.move(copy, folder / "test" / "rose")
    shutil.copy(folder / "val/rose/0.jpg", folder / "test" / "rose" / "of_val.jpg")
    note = load_data(str(folder)).note
    assert "train or val has copies of 13 of the 19 photographs of test ('IMG_7_again.jpg'," in note
    assert "of val" not in note.replace("of_val", "") and "Compared were" in note


def test_a_number_that_each_split_uses_makes_no_copies(folder):
    for split in SPLITS:
        for name in ("rose/1.jpg", "rose/1_flip.jpg", "tulip/1.jpg"):
            photo(folder / split / name)
    assert read_folder(folder, seed=0).note == ""


def test_names_of_annotation_tools_are_copies_and_plain_pictures_are_not(folder):
    for name in ("IMG_0_jpg.rf.a1", "IMG_0_jpg.rf.b2", "IMG_1.rf.c3", "IMG_2", "IMG_2_flip"):
        photo(folder / "rose" / f"{name}.jpg")
    (folder / "tulip").mkdir()
    names = (*range(10), "2026-aug-10", "2026-aug-11")  # dates, not augmentations
    for number, name in enumerate(names):
        picture = Image.new("RGB", (64, 64), (100 + number, 100, 50))
        picture.save(folder / "tulip" / f"{name}.png")
    assert "(2 of 17 files are copies)" in read_folder(folder, seed=0).note


def test_one_photograph_in_two_classes_is_named_and_left_out(folder):
    fill(folder, "rose", "tulip")
    shutil.copy(folder / "rose" / "1.jpg", folder / "tulip" / "copy.jpg")
    own = read_folder(folder, seed=0)
    assert "2 files, each photograph in two classes: 'rose/1.jpg', 'tulip/cop" in own.left_out
    assert sum(counts(own)) == 9


def test_the_table_shows_each_split_with_its_smallest_and_largest_class(folder):
    for split, (roses, tulips) in {"train": (4, 7), "val": (2, 3), "test": (3, 2)}.items():
        fill(folder / split, "$R$ 5$", count=roses)
        fill(folder / split, "tulip|", count=tulips)
    table = split_table(data := load_data(str(folder))).splitlines()
    assert table[2] == r"| train | 11 | 2 | 4 (\$R\$ 5\$) | 7 (tulip\|) | nothing |"
    assert data.photo_side == 60


def test_a_short_profile_takes_the_same_classes_in_each_split(folder, monkeypatch):
    monkeypatch.setitem(config.PROFILES, "smoke", {"epochs": 1, "images": 6})
    for split, count in (("train", 4), ("val", 1), ("test", 2)):
        fill(folder / split, *(f"class {i}" for i in range(10)), count=count)
    data = load_data(str(folder), profile="smoke")
    classes = [split.labels.tolist() for split in (data.train, data.val, data.test)]
    assert classes == [[0, 1, 2, 3, 4, 5]] * 3
    assert data.left_out["train"] == "34 photographs, since this profile is short"
