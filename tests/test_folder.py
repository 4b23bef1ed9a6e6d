"""A student's own folder: read in any usual layout, and what was done about it is said."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transfer_learning_config as config
from flowers_utils.datasets.folder import SPLITS, describe_folder, read_folder
from flowers_utils.datasets.load import data_root, load_data, split_table
from flowers_utils.errors import FlowersError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    monkeypatch.setitem(config.AUGMENTATION, "resize", 36)
    monkeypatch.setitem(config.AUGMENTATION, "crop", 32)
    return tmp_path / "flowers"


def photo(path: Path, kind: str = "JPEG") -> Path:
    """A photograph that equals no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.frombuffer(os.urandom(8 * 10 * 3), np.uint8).reshape(8, 10, 3)
    Image.fromarray(pixels).save(path, kind)
    return path


def fill(folder: Path, *classes: str, count: int = 5) -> None:
    for name in classes:
        for number in range(count):
            photo(folder / name / f"{number}.jpg")


def counts(own) -> list[int]:
    return [len(own.files[split][0]) for split in SPLITS]


def told(folder: Path) -> str:
    """The one error of loading, which the preflight tells too."""
    with pytest.raises(FlowersError) as caught:
        load_data(str(folder))
    with pytest.raises(FlowersError):
        describe_folder(folder)
    return str(caught.value)


# Layouts


@pytest.mark.parametrize("names", ["train val test", "Training VALID test_set"])
def test_split_folders_of_any_usual_spelling_are_taken_as_they_are(folder, names):
    for name, count in zip(names.split(), (4, 3, 2), strict=True):
        fill(folder / name, "rose", "tulip", count=count)
    own = read_folder(folder, seed=0)
    assert own.class_names == ("rose", "tulip") and counts(own) == [8, 6, 4]
    assert (own.note, own.left_out) == ("", {})


@pytest.mark.parametrize(
    ("given", "expected", "cut"),
    [
        ("train test", [16, 4, 20], "Cut from train: val (4), a fifth"),
        ("Train valid", [16, 20, 4], "Cut from train: test (4), a fifth"),
        ("train", [12, 4, 4], "Cut from train: val (4) and test (4), a fifth"),
        (".", [12, 4, 4], "Cut from train: val (4) and test (4), a fifth"),
    ],
)
def test_a_missing_split_is_cut_from_train_alike_for_a_seed_and_told(folder, given, expected, cut):
    for name in given.split():
        fill(folder / name, "rose", "tulip", count=10)
    own = read_folder(folder, seed=3)
    assert counts(own) == expected and cut in own.note and "seed 3" in own.note
    for split in SPLITS:
        labels = own.files[split][1]
        assert labels.count(0) == labels.count(1) == len(labels) // 2
    assert read_folder(folder, seed=3).files == own.files != read_folder(folder, seed=4).files
    paths = [path for split in SPLITS for path in own.files[split][0]]
    assert len(set(paths)) == len(paths)


def test_a_folder_around_the_set_is_entered_and_what_is_no_split_is_named(folder):
    fill(folder / "flowers" / "train", "rose", "tulip")
    photo(folder / "flowers" / "test" / "1.jpg")  # without labels, as competitions give it
    own = read_folder(folder, seed=0)
    assert counts(own) == [6, 2, 2] and "'test' (beside" in own.left_out[""]


def test_hidden_folders_and_files_are_passed_over(folder):
    fill(folder, "rose", "tulip")
    for hidden in (".git", "__MACOSX", "@eaDir"):
        photo(folder / hidden / "1.jpg")
        photo(folder / "rose" / hidden / "1.jpg")
    (folder / "rose" / "._1.jpg").write_bytes(b"x")
    own = read_folder(folder, seed=0)
    assert own.class_names == ("rose", "tulip") and sum(counts(own)) == 10 and own.left_out == {}


@pytest.mark.parametrize(
    ("photographs", "words"),
    [
        ("1.jpg", "one sub-folder for each class"),
        ("train/1.jpg test/1.jpg", "inside each split folder"),
        ("val/rose/1.jpg test/rose/1.jpg", "no 'train' folder"),
        ("rose/1.jpg tulip/old/1.jpg", "has folders of its own ('old')"),
        ("rose/1.jpg tulip/1.jpg", "'rose' has 1 different photographs, but needs 3"),
        ("train/rose/1.jpg train/lily/1.jpg val/rose/1.jpg val/a/1.jpg", "for train of 'a'"),
    ],
)
def test_a_folder_that_cannot_work_is_told(folder, photographs, words):
    for name in photographs.split():
        photo(folder / name)
    assert words in told(folder)


# Files


def test_photographs_are_known_by_their_content_and_the_rest_is_counted(folder):
    fill(folder, "rose", "tulip", count=3)
    for name, kind in (("a.jfif", "JPEG"), ("b.dat", "PNG"), ("noending", "WEBP")):
        photo(folder / "rose" / name, kind)
    photo(folder / "rose" / "c.dng", "TIFF")  # what Pillow sees of it is a thumbnail
    photo(folder / "loose.jpg")
    for name in ("1.heic", "2.heic", "clip.mov"):
        (folder / "tulip" / name).write_bytes(b"\0\0\0\x18ftyp")
    (folder / "lily").mkdir()
    assert "No photographs for train of 'lily'" in told(folder) and "2 .heic" in told(folder)
    (folder / "lily").rmdir()
    own = read_folder(folder, seed=0)
    assert sum(counts(own)) == 9
    left = own.left_out["train"]
    for words in ("2 .heic", "1 .dng", "save as JPEG", "1 .mov", "1 file outside the class"):
        assert words in left
    assert left in split_table(load_data(str(folder))) and left in describe_folder(folder)


def test_broken_photographs_of_all_splits_are_listed_in_one_go(folder):
    fill(folder, "rose", "tulip", count=8)
    broken = [folder / "rose" / f"{i}.jpg" for i in range(8)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:300] if path.stem in "0123" else b"")
    message = told(folder)
    assert all(f"'{path}'" in message for path in broken) and "tulip" not in message


def test_a_folder_without_permission_is_not_called_empty(folder, monkeypatch):
    fill(folder, "rose", "tulip")
    listing = Path.iterdir

    def denied(self):
        if self.name == "tulip":
            raise PermissionError(13, "Permission denied")
        return listing(self)

    monkeypatch.setattr(Path, "iterdir", denied)
    assert f"'{folder / 'tulip'}' cannot be read (no permission)" in told(folder)


# Equal photographs


def test_copies_of_a_photograph_stay_in_one_split(folder):
    fill(folder, "rose", "tulip", count=6)
    for number in range(6):
        shutil.copy(folder / "rose" / f"{number}.jpg", folder / "rose" / f"{number} (1).jpg")
    own = read_folder(folder, seed=0)
    contents = [{path.read_bytes() for path in own.files[split][0]} for split in SPLITS]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 12 and sum(counts(own)) == 18


def test_one_photograph_in_two_classes_is_named_and_left_out(folder):
    fill(folder, "rose", "tulip")
    shutil.copy(folder / "rose" / "1.jpg", folder / "tulip" / "copy.jpg")
    own = read_folder(folder, seed=0)
    assert "2 files, each photograph in two classes" in own.left_out[""]
    assert "'rose/1.jpg', 'tulip/copy.jpg'" in own.left_out[""] and sum(counts(own)) == 9


def test_a_given_test_split_that_shares_photographs_with_train_is_warned_about(folder):
    for split in SPLITS:
        fill(folder / split, "rose", "tulip", count=3)
    for number in range(2):
        source = folder / "train" / "rose" / f"{number}.jpg"
        shutil.copy(source, folder / "test" / "rose" / f"again {number}.jpg")
    note = load_data(str(folder)).note
    assert "train holds 2 of the 8 photographs of test too" in note and "of val" not in note


# Names, and what is shown


def test_names_are_compared_as_people_see_them(folder):
    for split, form in (("train", "NFC"), ("val", "NFD"), ("test", "NFC")):
        fill(folder / split, unicodedata.normalize(form, "Ros\u00e9"), "tulip", count=1)
    assert read_folder(folder, seed=0).class_names == ("Ros\u00e9", "tulip")


def test_a_name_that_cannot_be_decoded_is_refused_by_name(folder):
    fill(folder, "rose", "tulip")
    try:
        photo(folder / os.fsdecode(b"\xe9glantine/1.jpg"))
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names itself")
    message = told(folder)
    assert "cannot be read as text" in message and "\\udc" in message
    message.encode()  # so that it can be shown and saved


def test_the_table_shows_each_split_with_its_smallest_and_largest_class(folder):
    for split, (roses, tulips) in {"train": (4, 7), "val": (2, 3), "test": (3, 2)}.items():
        fill(folder / split, "$R$ 5$", count=roses)
        fill(folder / split, "tulip|", count=tulips)
    (folder / "val" / "tulip|" / "notes.txt").write_text("x")
    data = load_data(str(folder))
    table = split_table(data).splitlines()
    assert table[0].startswith("| split | photographs | classes | smallest class | largest class |")
    assert table[2] == r"| train | 11 | 2 | 4 (\$R\$ 5\$) | 7 (tulip\|) | nothing |"
    assert table[3].startswith(r"| val | 5 | 2 | 2 (\$R\$ 5\$) | 3 (tulip\|) | 1 .txt (")
    assert "21 photographs of 2 classes (train 11, val 5, test 5)" in describe_folder(folder)
    assert data.photo_side == 8


def test_a_home_folder_that_nobody_knows_is_told_and_not_made(monkeypatch):
    monkeypatch.setattr("pathlib.os.path.expanduser", lambda path: path)  # as where nobody knows it
    monkeypatch.setenv("FLOWERS_DATA_DIR", "~/data")
    with pytest.raises(FlowersError, match="write the whole path instead"):
        data_root()
