"""Flowers102 on the disk: whatever state the folder is in, it ends whole or the student is told."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faulty_server import FaultyServer
from PIL import Image
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.datasets import flowers102, load
from flowers_utils.datasets.flowers102 import ensure_flowers102
from flowers_utils.datasets.load import data_root, load_data, split_table
from flowers_utils.errors import FlowersError
from flowers_utils.transforms import eval_batch, training_batches
from tests.benchmarks.textbook import eval_transform


def archive_of(members: dict[str, bytes]) -> bytes:
    """A `.tgz` of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PHOTOS = {f"jpg/image_{number:05d}.jpg": b"photo %d" % number for number in range(1, 7)}
SMALL_SET = {"labels.mat": b"labels", "setid.mat": b"splits", "flowers.tgz": archive_of(PHOTOS)}


@pytest.fixture
def server(monkeypatch):
    """Serves a set of six photographs, and describes it in the config."""
    with FaultyServer(dict(SMALL_SET)) as running:
        monkeypatch.setitem(config.DATASET, "base_urls", (running.url(""),))
        monkeypatch.setitem(config.DATASET, "splits", {"train": 2, "val": 2, "test": 2})
        for key, name in zip(("labels", "setid", "archive"), SMALL_SET, strict=True):
            describe(monkeypatch, key, name, SMALL_SET[name])
        yield running


def describe(monkeypatch, key: str, name: str, content: bytes) -> None:
    file = {"name": name, "md5": hashlib.md5(content).hexdigest()}
    monkeypatch.setitem(config.DATASET, key, file)


@pytest.fixture
def base(tmp_path):
    return tmp_path / "a" / "flowers-102"


def unpacked(base: Path) -> dict[str, bytes]:
    return {f"jpg/{photo.name}": photo.read_bytes() for photo in (base / "jpg").iterdir()}


def test_flowers102_is_fetched_unpacked_and_then_left_alone(server, base, monkeypatch):
    ensure_flowers102(base.parent)
    assert unpacked(base) == PHOTOS
    assert {name: (base / name).read_bytes() for name in SMALL_SET} == SMALL_SET
    server.requests.clear()
    monkeypatch.setattr(flowers102, "check_writable", pytest.fail)  # it may be read-only
    ensure_flowers102(base.parent)
    assert server.requests == []


def test_a_file_that_cannot_be_fetched_is_told_with_the_way_out(server, base):
    base.mkdir(parents=True)
    by_hand = base / "flowers.tgz"
    by_hand.write_bytes(SMALL_SET["flowers.tgz"][:100])
    server.misbehave("flowers.tgz", "login page")
    with pytest.raises(FlowersError, match=r"as '.*flowers\.tgz' \(the file there is damaged\)"):
        ensure_flowers102(base.parent)
    assert by_hand.exists()


def test_auto_takes_flowers102_that_is_there_as_torchvision_would(mini_flowers102, monkeypatch):
    for name in ("train", "val", "test"):
        files, labels = flowers102.read_split(mini_flowers102, name)
        theirs = Flowers102(mini_flowers102, split=name)
        assert [label for _, label in theirs] == labels
        assert theirs[-1][0].tobytes() == Image.open(files[-1]).tobytes()
    monkeypatch.setitem(config.DATASET, "base_urls", ())
    data = load_data("auto", profile="smoke")
    assert data.source == "flowers102" and data.note == ""
    assert data.title == "Oxford Flowers102 (copies, 40 pixels)" and data.photo_side == 40
    assert data.train.images.shape == (32, 3, 256, 256)
    assert data.val.images.shape[1:] == data.test.images.shape[1:] == (3, 224, 224)
    picture, _ = Flowers102(mini_flowers102, split="val")[0]
    ours = eval_batch(torch.from_numpy(data.val.images[:1].copy()), 224)[0]
    assert torch.allclose(ours, eval_transform(224)(picture), atol=1e-6)
    table = split_table(data)
    assert "| train | 32 | 32 | 0 (" in table
    assert "70 photographs, since this profile is short" in table


def test_a_recipe_has_its_own_sizes_and_trains_at_that_of_the_crop(mini_flowers102, cpu):
    data = load_data("flowers102", profile="smoke", recipe="fast")
    assert {split.images.shape[-1] for split in (data.train, data.val, data.test)} == {288}
    images, _ = next(training_batches(data, cpu, torch.Generator()))
    assert (data.resize_size, data.image_size, images.shape[-1]) == (256, 288, 224)


def test_the_set_is_found_wherever_one_points_into_it(mini_flowers102, tmp_path, monkeypatch):
    (mini_flowers102 / "roses").mkdir()
    for place in ("flowers-102", "flowers-102/jpg", "."):
        given = str(mini_flowers102 / place)
        data = load_data(given, profile="smoke")
        assert data.source == "flowers102" and ("'roses'" in data.note) == (place == ".")
        monkeypatch.setenv("FLOWERS_DATA_DIR", given)
        assert data_root() == mini_flowers102
    jpg = mini_flowers102 / "flowers-102" / "jpg"
    jpg.rename(mini_flowers102 / "away")  # then the two other files say what it is
    assert data_root() == mini_flowers102
    (mini_flowers102 / "away").rename(jpg)
    other = (mini_flowers102 / "flowers-102").rename(mini_flowers102 / "oxford")
    with pytest.raises(FlowersError, match=r"oxford' holds Flowers102.*Rename it"):
        load_data(str(other))
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "flowers-102"))  # not complete
    assert data_root() == tmp_path


def test_the_data_folder_does_not_move(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", "somewhere")
    before = data_root()
    monkeypatch.chdir(tmp_path)
    assert data_root() == before and before.is_absolute()


def test_what_is_damaged_or_missing_is_unpacked_from_an_archive_put_there(
    mini_flowers102, monkeypatch
):
    base = mini_flowers102 / "flowers-102"
    photos = unpacked(base)
    archive = archive_of(photos)
    describe(monkeypatch, "archive", "flowers.tgz", archive)
    monkeypatch.setitem(config.DATASET, "base_urls", ())
    first, second = (base / "jpg" / f"image_0000{number}.jpg" for number in (1, 2))
    first.write_bytes(first.read_bytes()[:300])
    with pytest.raises(FlowersError, match=f"'{first}' cannot be opened.* delete it, and run"):
        load_data("flowers102", profile="smoke")
    first.unlink()
    second.write_bytes(b"")
    assert not flowers102.flowers102_is_available(mini_flowers102)
    (base / "flowers.tgz").write_bytes(archive)
    assert flowers102.flowers102_is_available(mini_flowers102)
    load_data("flowers102", profile="smoke")
    assert unpacked(base) == photos


def test_auto_falls_back_to_practice_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    monkeypatch.setitem(config.DATASET, "base_urls", ("http://127.0.0.1:9/",))
    data = load_data("auto", profile="smoke")
    assert data.is_practice and "practice" in data.title and "PRACTICE FLOWERS" in data.note


def test_the_backbone_starts_from_weights_that_fit_the_data(tiny_data, cpu, monkeypatch):
    monkeypatch.setattr(load, "imagenet_weights", lambda name: f"ImageNet {name}")
    monkeypatch.setattr(load.practice, "pretrain_backbone", lambda *_, **__: "practice")
    assert load.starting_weights(tiny_data, cpu, backbone="resnet50") == "ImageNet resnet50"
    data = replace(tiny_data, source="practice")
    assert load.starting_weights(data, cpu, backbone="resnet18") == "practice"
    with pytest.raises(FlowersError, match="ResNet18 only"):
        load.starting_weights(data, cpu, backbone="resnet50")
