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

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(80)


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


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "VALID", "test_set"),
        ("seg_train", "dev-val", "Testing"),
    ],
)
def test_split_folders_of_any_usual_spelling_are_taken_as_they_are(folder, names):
    for name, count in zip(names, (4, 3, 2), strict=True):
        fill(folder / name, "rose", "tulip", count=count)
    own = read_folder(folder, seed=0)
    assert own.class_names == ("rose", "tulip") and counts(own) == [8, 6, 4]
    assert (own.note, own.left_out) == ("", {})


@pytest.mark.parametrize(
    ("given", "expected", "cut"),
    [
        (("train", "test"), [16, 4, 20], "val (4 photographs) was cut from train"),
        (("Train", "valid"), [16, 20, 4], "test (4 photographs) was cut from train"),
        (("train",), [12, 4, 4], "val (4 photographs) and test (4 photographs) were cut from"),
        (("",), [12, 4, 4], "val (4 photographs) and test (4 photographs) were cut from"),
    ],
)
def test_a_missing_split_is_cut_from_train_alike_for_a_seed_and_told(folder, given, expected, cut):
    for name in given:
        fill(folder / name, "rose", "tulip", count=10)
    own = read_folder(folder, seed=3)
    assert counts(own) == expected and cut in own.note and "seed 3" in own.note
    for split in SPLITS:
        labels = own.files[split][1]
        assert labels.count(0) == labels.count(1) == len(labels) // 2
    assert read_folder(folder, seed=3).files == own.files != read_folder(folder, seed=4).files
    paths = [path for split in SPLITS for path in own.files[split][0]]
    assert len(set(paths)) == len(paths)


def test_single_folders_around_the_set_or_a_split_are_entered(folder):
    fill(folder / "flowers" / "flowers", "rose", "tulip")
    assert counts(read_folder(folder, seed=0)) == [6, 2, 2]
    shutil.rmtree(folder)
    for split in SPLITS:
        fill(folder / split / split, "rose", "tulip")
    assert counts(read_folder(folder, seed=0)) == [10, 10, 10]


def test_hidden_folders_and_files_are_passed_over(folder):
    fill(folder, "rose", "tulip")
    for hidden in (".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir"):
        photo(folder / hidden / "1.jpg")
        photo(folder / "rose" / hidden / "1.jpg")
    (folder / "rose" / "._1.jpg").write_bytes(b"x")
    (folder / "rose" / "Thumbs.db").write_bytes(b"x")
    own = read_folder(folder, seed=0)
    assert own.class_names == ("rose", "tulip") and sum(counts(own)) == 10 and own.left_out == {}


def test_folders_beside_the_splits_are_named_as_left_out(folder):
    fill(folder / "train", "rose", "tulip")
    photo(folder / "test" / "1.jpg")  # without labels, as competitions give it
    own = read_folder(folder, seed=0)
    assert counts(own) == [6, 2, 2] and "the folder 'test'" in own.left_out[""]


@pytest.mark.parametrize(
    ("photographs", "words"),
    [
        ([], "Class folders in '{}': 0"),
        (["1.jpg"], "one sub-folder for each class"),
        (["rose/1.jpg"], "Class folders in '{}': 1"),
        (["train/1.jpg", "test/1.jpg"], "are names of splits"),
        (["val/rose/1.jpg", "test/rose/1.jpg"], "no 'train' folder"),
        (["train/rose/1.jpg", "Training/rose/1.jpg"], "both look like the train split"),
        (["rose/1.jpg", "tulip/old/1.jpg"], "has folders of its own ('old')"),
        (["rose/1.jpg", "tulip/1.jpg"], "'rose' has 1, 'tulip' has 1"),
        (
            ["train/rose/1.jpg", "train/lily/1.jpg", "val/rose/1.jpg", "val/fern/1.jpg"],
            "'fern', 'lily'",
        ),
    ],
)
def test_a_folder_that_cannot_work_is_told(folder, photographs, words):
    folder.mkdir()
    for name in photographs:
        photo(folder / name)
    assert words.format(folder) in told(folder)


def test_a_missing_folder_or_a_file_in_its_place_is_told(folder):
    for path in (folder, photo(folder.with_name("flowers.zip"))):
        with pytest.raises(FlowersError, match=f"There is no folder '{path}'"):
            describe_folder(path)
        with pytest.raises(FlowersError, match="folder that is there"):
            load_data(str(path))


# Files


def test_photographs_are_known_by_their_content_and_the_rest_is_counted(folder):
    fill(folder, "rose", "tulip", count=3)
    for name, kind in (("a.jfif", "JPEG"), ("b.dat", "PNG"), ("noending", "WEBP")):
        photo(folder / "rose" / name, kind)
    photo(folder / "rose" / "c.dng", "TIFF")  # what Pillow sees of it is a thumbnail
    photo(folder / "loose.jpg")
    for name in ("1.heic", "2.heic", "3.jpg"):
        (folder / "tulip" / name).write_bytes(HEIC)
    (folder / "tulip" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "labels.csv").write_text("a,b")
    own = read_folder(folder, seed=0)
    assert sum(counts(own)) == 9
    left = own.left_out[""]
    assert "3 HEIC" in left and "1 camera RAW" in left and "save as JPEG" in left
    assert "1 .mov" in left and "1 .csv" in left and "1 outside the class folders" in left
    assert left in split_table(load_data(str(folder)))
    assert left in describe_folder(folder)


def test_a_class_with_nothing_to_use_is_named_with_what_was_left_out(folder):
    fill(folder, "rose", "tulip")
    (folder / "lily").mkdir()
    (folder / "lily" / "1.heic").write_bytes(HEIC)
    message = told(folder)
    assert f"'{folder / 'lily'}'" in message and "1 HEIC" in message and "remove" not in message


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
    message = told(folder)
    assert f"'{folder / 'tulip'}' cannot be read (no permission)" in message


# Equal photographs


def test_copies_of_a_photograph_stay_in_one_split(folder):
    fill(folder, "rose", "tulip", count=6)
    for number in range(6):
        for copy in range(3):
            shutil.copy(
                folder / "rose" / f"{number}.jpg", folder / "rose" / f"{number} ({copy}).jpg"
            )
    own = read_folder(folder, seed=0)
    assert "there are 18" in own.note
    contents = [{path.read_bytes() for path in own.files[split][0]} for split in SPLITS]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 12


def test_one_photograph_in_two_classes_is_named_and_left_out(folder):
    fill(folder, "rose", "tulip")
    shutil.copy(folder / "rose" / "1.jpg", folder / "tulip" / "copy.jpg")
    own = read_folder(folder, seed=0)
    assert "2 files" in own.left_out[""] and "'rose/1.jpg' = 'tulip/copy.jpg'" in own.left_out[""]
    assert sum(counts(own)) == 9 - 1 + 1  # the other nine photographs less the one of them


def test_a_given_test_split_that_shares_photographs_with_train_is_warned_about(folder):
    for split in SPLITS:
        fill(folder / split, "rose", "tulip", count=3)
    for number in range(2):
        source = folder / "train" / "rose" / f"{number}.jpg"
        shutil.copy(source, folder / "test" / "rose" / f"again {number}.jpg")
    data = load_data(str(folder))
    assert "Warning: train holds 2 of the 8 photographs of test too" in data.note
    assert "val too" not in data.note


# Names


def test_names_are_compared_as_people_see_them(folder):
    for split, form in (("train", "NFC"), ("val", "NFD"), ("test", "NFC")):
        fill(folder / split, unicodedata.normalize(form, "Ros\u00e9"), "tulip")
    assert read_folder(folder, seed=0).class_names == ("Ros\u00e9", "tulip")


@pytest.mark.parametrize("place", [b"tulip/\xff.jpg", b"\xe9glantine/1.jpg"])
def test_a_name_that_cannot_be_decoded_is_refused_by_name(folder, place):
    fill(folder, "rose", "tulip")
    try:
        photo(folder / os.fsdecode(place))
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names itself")
    message = told(folder)
    assert "cannot be read as text" in message and "\\udc" in message
    message.encode()  # so that it can be shown and saved


def test_a_set_in_a_folder_whose_name_cannot_be_decoded_is_refused(folder):
    place = folder / os.fsdecode(b"gar\xe7on") / "flowers"
    try:
        fill(place, "rose", "tulip")
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names itself")
    with pytest.raises(FlowersError, match="cannot be read as text") as caught:
        describe_folder(place)
    str(caught.value).encode()


# What is shown


def test_the_table_shows_each_split_with_its_smallest_and_largest_class(folder):
    for split, (roses, tulips) in {"train": (4, 7), "val": (2, 3), "test": (3, 2)}.items():
        fill(folder / split, "rose", count=roses)
        fill(folder / split, "tulip", count=tulips)
    (folder / "val" / "rose" / "notes.txt").write_text("x")
    table = split_table(load_data(str(folder))).splitlines()
    assert table[0].startswith("| split | photographs | classes | smallest class | largest class |")
    assert table[2] == "| train | 11 | 2 | 4 (rose) | 7 (tulip) | nothing |"
    assert table[3] == "| val | 5 | 2 | 2 (rose) | 3 (tulip) | 1 .txt |"
    assert table[4] == "| test | 5 | 2 | 2 (tulip) | 3 (rose) | nothing |"
    assert "21 photographs of 2 classes (train 11, val 5, test 5)" in describe_folder(folder)


def test_a_class_name_is_no_formula_and_no_column_of_the_table(folder):
    fill(folder, "$Rosa$ 5$", "a|b*c*", count=3)
    row = split_table(load_data(str(folder))).splitlines()[2]
    assert row == r"| train | 2 | 2 | 1 (\$Rosa\$ 5\$) | 1 (a\|b\*c\*) | nothing |"


def test_the_size_of_the_photographs_is_known(folder):
    fill(folder, "rose", "tulip")
    assert load_data(str(folder)).photo_side == 8


@pytest.mark.parametrize("place", ["~nobody-of-this-name/data", "~/data"])
def test_a_home_folder_that_nobody_knows_is_told_and_not_made(monkeypatch, place):
    for name in ("HOME", "USERPROFILE", "HOMEPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.os.path.expanduser", lambda path: path)  # as where nobody knows it
    monkeypatch.setenv("FLOWERS_DATA_DIR", place)
    for find in (data_root, lambda: describe_folder(place)):
        with pytest.raises(FlowersError, match="write the whole path instead"):
            find()
