"""Flowers102 on the disk: whatever state the folder is in, it ends whole or the student is told."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_server import FaultyServer
from PIL import Image
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.datasets import flowers102, load
from flowers_utils.datasets.folder import describe_folder
from flowers_utils.datasets.load import data_root, load_data, split_table
from flowers_utils.errors import FlowersError
from flowers_utils.transforms import eval_batch, eval_transform


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (10 * number, 100, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive_of(members: dict[str, bytes | str]) -> bytes:
    """A `.tgz` of plain files (bytes) and of symbolic links (a text: the target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PHOTOS = {f"jpg/image_{number:05d}.jpg": jpeg(number) for number in range(1, 7)}
SMALL_SET = {"flowers.tgz": archive_of(PHOTOS), "labels.mat": b"labels", "setid.mat": b"splits"}


@pytest.fixture
def server(monkeypatch):
    """Serves a set of six photographs, and describes it in the config."""
    with FaultyServer({}) as running:
        monkeypatch.setitem(config.DATASET, "base_urls", (running.base,))
        monkeypatch.setitem(config.DATASET, "splits", {"train": 2, "val": 2, "test": 2})

        def serve(files):
            running.files = dict(files)
            keys = ("archive", "labels", "setid")
            for key, (name, content) in zip(keys, files.items(), strict=True):
                md5 = hashlib.md5(content).hexdigest()
                monkeypatch.setitem(config.DATASET, key, {"name": name, "md5": md5})

        running.serve = serve
        serve(SMALL_SET)
        yield running


@pytest.fixture
def base(tmp_path):
    return tmp_path / "flowers-102"


def ensure(base: Path) -> Path:
    return flowers102.ensure_flowers102(base.parent)


def unpacked(base: Path) -> dict[str, bytes]:
    return {f"jpg/{photo.name}": photo.read_bytes() for photo in (base / "jpg").iterdir()}


def test_flowers102_is_fetched_unpacked_and_then_left_alone(server, base, monkeypatch):
    assert ensure(base) == base and unpacked(base) == PHOTOS
    assert (base / "setid.mat").read_bytes() == b"splits"
    seen = sorted(file.name for file in base.iterdir() if not file.name.startswith("."))
    assert seen == sorted([*SMALL_SET, "jpg"])
    server.requests.clear()
    monkeypatch.setattr(flowers102, "check_writable", pytest.fail)  # it may be read-only
    ensure(base)
    assert server.requests == []


def test_a_half_extracted_set_is_completed_from_the_kept_archive(server, base):
    ensure(base)
    (base / "jpg" / "image_00003.jpg").unlink()
    (base / "jpg" / "image_00005.jpg").write_bytes(b"")
    assert flowers102.missing_images(base.parent) == ["image_00003.jpg", "image_00005.jpg"]
    server.requests.clear()
    ensure(base)
    assert unpacked(base) == PHOTOS and server.requests == []


@pytest.mark.parametrize("folder", [".", "flowers-102"])
def test_files_put_there_by_hand_are_used_without_a_network(server, base, folder):
    (base.parent / folder).mkdir(exist_ok=True)
    for name, content in SMALL_SET.items():
        (base.parent / folder / name).write_bytes(content)
    assert flowers102.flowers102_lies_ready(base.parent)
    ensure(base)
    assert unpacked(base) == PHOTOS and server.requests == []


def test_what_cannot_be_fetched_is_told_with_all_that_is_needed(server, base):
    by_hand = base.parent / "flowers.tgz"
    by_hand.write_bytes(SMALL_SET["flowers.tgz"][:100])
    server.misbehave("flowers.tgz", "404")
    with pytest.raises(FlowersError) as raised:
        ensure(base)
    for words in (*SMALL_SET, str(base), 'DATA = "practice"', f"'{by_hand}' is damaged"):
        assert words in str(raised.value)
    assert by_hand.exists()


def test_an_archive_writes_nothing_but_photographs_and_must_hold_all(server, tmp_path):
    base = tmp_path / "a" / "flowers-102"
    others = {"jpg/../../evil.jpg": b"x", "jpg/image_00005.jpg": "image_00001.jpg"}
    few = dict(list(PHOTOS.items())[:4])
    server.serve({**SMALL_SET, "flowers.tgz": archive_of({**others, **few})})
    with pytest.raises(FlowersError, match=r"lacks image_00005\.jpg and more"):
        ensure(base)
    assert unpacked(base) == few and list(tmp_path.rglob("evil*")) == []


def test_splits_are_those_of_torchvision(mini_flowers102):
    for name in ("train", "val", "test"):
        files, labels = flowers102.read_split(mini_flowers102, name)
        theirs = Flowers102(mini_flowers102, split=name)
        assert len(theirs) == len(files)
        for i in (0, len(files) - 1):
            picture, label = theirs[i]
            assert label == labels[i]
            assert np.array_equal(np.asarray(picture), np.asarray(Image.open(files[i])))


def test_auto_takes_flowers102_that_is_there_as_torchvision_would(mini_flowers102, monkeypatch):
    monkeypatch.setitem(config.DATASET, "base_urls", ())
    data = load_data("auto", profile="smoke")
    assert data.source == "flowers102" and data.note == ""
    assert data.title == "Oxford Flowers102 (copies, 40 pixels)" and data.photo_side == 40
    assert data.train.images.shape == (32, 3, 256, 256)
    assert data.val.images.shape[1:] == data.test.images.shape[1:] == (3, 224, 224)
    picture, _ = Flowers102(mini_flowers102, split="val")[0]
    ours = eval_batch(torch.from_numpy(data.val.images[:1].copy()), 224)[0]
    assert torch.allclose(ours, eval_transform(size=224)(picture), atol=1e-6)
    table = split_table(data)
    assert "| train | 32 | 32 | 0 (" in table
    assert "70 photographs, since this profile is short" in table


def test_the_set_is_found_wherever_one_points_into_it(mini_flowers102, monkeypatch):
    for place in ("flowers-102", "flowers-102/jpg", "."):
        given = str(mini_flowers102 / place)
        assert load_data(given, profile="smoke").source == "flowers102"
        assert "Oxford Flowers102, found in" in describe_folder(given)
        monkeypatch.setenv("FLOWERS_DATA_DIR", given)
        assert data_root() == mini_flowers102
    other = (mini_flowers102 / "flowers-102").rename(mini_flowers102 / "oxford")
    with pytest.raises(FlowersError, match=r"oxford' holds Flowers102.*Rename it"):
        load_data(str(other))


def test_an_incomplete_set_is_completed_where_it_is(base, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(base))
    assert data_root() == base.parent


def test_a_relative_data_folder_does_not_move_with_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", "somewhere")
    before = data_root()
    monkeypatch.chdir(tmp_path)
    assert data_root() == before and before.is_absolute()


def test_a_home_folder_that_nobody_knows_is_told_and_not_made(monkeypatch):
    monkeypatch.setattr("pathlib.os.path.expanduser", lambda path: path)  # as where nobody knows it
    monkeypatch.setenv("FLOWERS_DATA_DIR", "~/data")
    with pytest.raises(FlowersError, match="write the complete path"):
        data_root()


def test_a_damaged_photograph_is_unpacked_again(mini_flowers102, monkeypatch, capsys):
    base = mini_flowers102 / "flowers-102"
    members = {f"jpg/{photo.name}": photo.read_bytes() for photo in (base / "jpg").iterdir()}
    archive = archive_of(members)
    file = {"name": "flowers.tgz", "md5": hashlib.md5(archive).hexdigest()}
    monkeypatch.setitem(config.DATASET, "archive", file)
    monkeypatch.setitem(config.DATASET, "base_urls", ())
    damaged = base / "jpg" / "image_00001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(FlowersError, match=r"flowers\.tgz could not be downloaded"):
        load_data("flowers102", profile="smoke")
    assert f"'{damaged}' cannot be opened" in capsys.readouterr().out
    (base / "flowers.tgz").write_bytes(archive)
    load_data("flowers102", profile="smoke")
    assert damaged.read_bytes() == members["jpg/image_00001.jpg"]


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
