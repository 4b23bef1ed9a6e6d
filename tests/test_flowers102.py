"""Flowers102 on the disk: whatever state the folder is in, it ends whole or the student is told."""

import hashlib
import io
import shutil
import tarfile
import threading
import time
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
from flowers_utils.datasets.disk import one_at_a_time
from flowers_utils.datasets.download import Patience
from flowers_utils.datasets.load import load_data, split_table
from flowers_utils.errors import FlowersError
from flowers_utils.transforms import eval_batch, eval_transform

FAST = Patience(attempts=3, pause=0.01, timeout=0.3)


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (10 * number, 100, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive_of(members: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    """A `.tgz` of plain files, and of symbolic links `name -> target`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
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
            for key, (name, content) in zip(
                ("archive", "labels", "setid"), files.items(), strict=True
            ):
                md5 = hashlib.md5(content).hexdigest()
                monkeypatch.setitem(config.DATASET, key, {"name": name, "md5": md5})

        running.serve = serve
        serve(SMALL_SET)
        yield running


@pytest.fixture
def base(tmp_path):
    return tmp_path / "flowers-102"


def ensure(base: Path) -> Path:
    return flowers102.ensure_flowers102(base.parent, patience=FAST)


def unpacked(base: Path) -> dict[str, bytes]:
    return {f"jpg/{photo.name}": photo.read_bytes() for photo in (base / "jpg").iterdir()}


def test_flowers102_is_downloaded_and_unpacked_in_torchvisions_layout(server, base):
    assert ensure(base) == base and unpacked(base) == PHOTOS
    assert (base / "setid.mat").read_bytes() == b"splits"
    assert flowers102.flowers102_is_whole(base.parent)


def test_a_whole_set_is_neither_fetched_nor_written_to(server, base, monkeypatch):
    ensure(base)
    server.requests.clear()
    for writing in ("check_writable", "one_at_a_time"):
        monkeypatch.setattr(flowers102, writing, pytest.fail)
    ensure(base)
    assert server.requests == []


def test_a_half_extracted_set_is_completed_from_the_kept_archive(server, base):
    ensure(base)
    (base / "jpg" / "image_00003.jpg").unlink()
    (base / "jpg" / "image_00005.jpg").write_bytes(b"")
    (base / "jpg.unpacking").mkdir()  # of a run that was killed
    (base / "jpg.unpacking" / "image_00001.jpg").write_bytes(b"half")
    assert flowers102.missing_images(base.parent) == ["image_00003.jpg", "image_00005.jpg"]
    server.requests.clear()
    ensure(base)
    assert unpacked(base) == PHOTOS and server.requests == []
    seen = sorted(file.name for file in base.iterdir() if not file.name.startswith("."))
    assert seen == sorted([*SMALL_SET, "jpg"])


def test_two_notebooks_do_not_unpack_into_one_folder_at_once(server, base):
    base.mkdir()
    second = threading.Thread(target=ensure, args=(base,))
    with one_at_a_time(base):
        second.start()
        time.sleep(0.3)
        assert list(base.iterdir()) == []
    second.join(10)
    assert unpacked(base) == PHOTOS


@pytest.mark.parametrize("folder", [".", "flowers-102"])
def test_files_put_there_by_hand_are_used_without_a_network(server, base, folder):
    (base.parent / folder).mkdir(exist_ok=True)
    for name, content in SMALL_SET.items():
        (base.parent / folder / name).write_bytes(content)
    assert flowers102.flowers102_lies_ready(base.parent)
    ensure(base)
    assert unpacked(base) == PHOTOS and server.requests == []


def test_what_is_there_but_damaged_is_named_and_kept(server, base):
    by_hand = base.parent / "flowers.tgz"
    by_hand.write_bytes(SMALL_SET["flowers.tgz"][:100])
    (base / "jpg").mkdir(parents=True)
    (base / "jpg" / "image_00001.jpg").write_bytes(b"x")
    server.misbehave("flowers.tgz", "404")
    with pytest.raises(FlowersError, match=r"flowers\.tgz \(100 bytes\) is damaged") as raised:
        ensure(base)
    assert "lacks 5 photographs (image_00002.jpg" in str(raised.value)
    assert server.url("flowers.tgz") in str(raised.value) and by_hand.exists()


def test_without_a_network_one_message_names_all_files_and_the_way_out(base, server, monkeypatch):
    monkeypatch.setitem(config.DATASET, "base_urls", ("http://127.0.0.1:9",))
    with pytest.raises(FlowersError) as raised:
        ensure(base)
    for words in (*SMALL_SET, str(base), 'DATA = "practice"'):
        assert words in str(raised.value)


def test_an_archive_writes_nothing_but_photographs(server, tmp_path):
    evil = {"../../evil.jpg": b"x", "jpg/../../evil.jpg": b"x", "jpg/readme.txt": b"x"}
    inner = archive_of({**evil, **PHOTOS}, links={"jpg/image_00099.jpg": "/etc/hosts"})
    server.serve({**SMALL_SET, "flowers.tgz": inner})
    assert unpacked(ensure(tmp_path / "a" / "flowers-102")) == PHOTOS
    assert list(tmp_path.rglob("evil*")) == []


def test_an_archive_that_lacks_photographs_leaves_the_old_folder_alone(server, base):
    few = dict(list(PHOTOS.items())[:4])
    inner = archive_of(few, links={"jpg/image_00005.jpg": "image_00001.jpg"})
    server.serve({**SMALL_SET, "flowers.tgz": inner})
    kept = base / "jpg" / "image_00006.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"kept")
    with pytest.raises(FlowersError, match=r"holds 4 photographs instead of 6"):
        ensure(base)
    assert kept.exists()


def test_an_incomplete_set_in_a_read_only_folder_says_where_to_go(server, base):
    base.write_text("a file where the folder should be")
    with pytest.raises(FlowersError, match="Set FLOWERS_DATA_DIR to a folder of your own"):
        ensure(base)


def test_the_splits_are_those_of_torchvision(mini_flowers102):
    for name in ("train", "val", "test"):
        files, labels = flowers102.read_split(mini_flowers102, name)
        theirs = Flowers102(mini_flowers102, split=name)
        assert len(theirs) == len(files)
        for i in (0, 1, len(files) - 1):
            picture, label = theirs[i]
            assert label == labels[i]
            assert np.array_equal(np.asarray(picture), np.asarray(Image.open(files[i])))


def test_class_names_are_torchvisions():
    names = getattr(Flowers102, "classes", None)
    if names is None:
        pytest.skip("this torchvision does not know the names")
    assert list(flowers102.FLOWERS102_NAMES) == names


def test_small_copies_are_named_in_the_title_and_full_size_is_not(mini_flowers102, monkeypatch):
    data = load_data("flowers102", profile="smoke")
    assert data.photo_side == 40 and data.title == "Oxford Flowers102 (copies, 40 pixels)"
    assert flowers102.title_for(500) == "Oxford Flowers102"
    monkeypatch.setitem(config.AUGMENTATION, "crop", 32)  # says nothing about the photographs
    assert "copies, 40 pixels" in load_data("flowers102", profile="smoke").title


def test_what_a_short_profile_leaves_out_stands_in_the_table(mini_flowers102):
    table = split_table(load_data("flowers102", profile="smoke"))
    assert (
        "| train | 32 | 32 | 0 (" in table
        and "70 photographs, since this profile is short" in table
    )


def test_flowers102_is_loaded_with_its_splits_and_sizes(mini_flowers102):
    data = load_data("flowers102")
    assert (len(data.train), len(data.val), len(data.test)) == (102, 102, 204)
    assert data.train.images.shape[1:] == (3, 256, 256)
    assert data.val.images.shape[1:] == data.test.images.shape[1:] == (3, 224, 224)
    assert sorted(data.train.labels.tolist()) == list(range(102))
    assert not any(data.left_out.values())


def test_a_short_run_leaves_the_cache_of_the_full_one(mini_flowers102):
    cache = Path(config.PATHS["cache"])
    load_data("flowers102", profile="full")
    full = set(cache.glob("*.npy"))
    load_data("flowers102", profile="smoke")
    assert len(full) == 3 and full < set(cache.glob("*.npy"))


def test_the_cache_holds_what_torchvisions_pipeline_gives(mini_flowers102):
    data = load_data("flowers102", profile="smoke")
    picture, _ = Flowers102(mini_flowers102, split="val")[0]
    ours = eval_batch(torch.from_numpy(data.val.images[:1].copy()), 224)[0]
    assert torch.allclose(ours, eval_transform(size=224)(picture), atol=1e-6)


def test_wrong_split_sizes_are_told(mini_flowers102, monkeypatch):
    splits = {"train": 102, "val": 101, "test": 205}
    monkeypatch.setitem(config.DATASET, "splits", splits)
    with pytest.raises(FlowersError, match="val split of Flowers102 has 102 photographs"):
        load_data("flowers102")


def test_auto_takes_flowers102_where_it_lies_even_packed(mini_flowers102, monkeypatch):
    base = mini_flowers102 / "flowers-102"
    photos = {f"jpg/{photo.name}": photo.read_bytes() for photo in (base / "jpg").iterdir()}
    packed = archive_of(photos)
    (base / "102flowers.tgz").write_bytes(packed)
    shutil.rmtree(base / "jpg")
    md5 = hashlib.md5(packed).hexdigest()
    monkeypatch.setitem(config.DATASET, "archive", {"name": "102flowers.tgz", "md5": md5})
    monkeypatch.setitem(config.DATASET, "base_urls", ("http://127.0.0.1:9/",))
    data = load_data("auto", profile="smoke")
    assert data.source == "flowers102" and data.note == "" and len(data.train) == 32


def test_auto_falls_back_to_practice_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    monkeypatch.setitem(config.DATASET, "base_urls", ("http://127.0.0.1:9/",))
    data = load_data("auto", profile="smoke")
    assert data.is_practice and "practice" in data.title
    assert "PRACTICE FLOWERS" in data.note and "127.0.0.1" not in data.note


@pytest.mark.parametrize(("source", "weights"), [("folder", "ImageNet"), ("practice", "practice")])
def test_the_backbone_starts_from_weights_that_fit_the_data(
    tiny_data, cpu, monkeypatch, source, weights
):
    monkeypatch.setattr(load, "imagenet_weights", lambda name: f"ImageNet {name}")
    monkeypatch.setattr(load.practice, "pretrain_backbone", lambda *_, **__: "practice resnet18")
    data = replace(tiny_data, source=source)
    assert load.starting_weights(data, cpu, backbone="resnet18") == f"{weights} resnet18"
    if source == "practice":
        with pytest.raises(FlowersError, match="ResNet18 only"):
            load.starting_weights(data, cpu, backbone="resnet50")
