"""Flowers102 on the disk: whatever state the folder is in, it ends whole or the student is told."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from PIL import Image

from flowers_utils.datasets.flowers102 import (
    ensure_flowers102,
    flowers102_is_whole,
    flowers102_lies_ready,
    missing_images,
)
from flowers_utils.errors import FlowersError

FAST = {"attempts": 3, "pause": 0.01, "timeout": 0.3}


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


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


def dataset_of(base_url: str, files: dict[str, bytes] = SMALL_SET) -> dict:
    """A description like DATASET in the config, of a set of six photographs."""
    entries = dict(zip(("archive", "labels", "setid"), files, strict=True))
    described = {key: {"name": n, "md5": md5_of(files[n])} for key, n in entries.items()}
    described["archive"]["size"] = len(files["flowers.tgz"])
    return {**described, "base_urls": (base_url,), "splits": {"train": 2, "val": 2, "test": 2}}


@pytest.fixture
def flower_server():
    with FaultyServer(dict(SMALL_SET)) as running:
        yield running


def unpacked(base: Path) -> dict[str, bytes]:
    return {f"jpg/{photo.name}": photo.read_bytes() for photo in (base / "jpg").iterdir()}


def test_flowers102_is_downloaded_and_unpacked_in_torchvisions_layout(flower_server, tmp_path):
    dataset = dataset_of(flower_server.base)
    base = ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    assert unpacked(base) == PHOTOS
    assert (base / "setid.mat").read_bytes() == b"splits"
    assert flowers102_is_whole(tmp_path, dataset=dataset)


def test_a_whole_set_is_neither_fetched_nor_written_to(flower_server, tmp_path, monkeypatch):
    dataset = dataset_of(flower_server.base)
    ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    flower_server.requests.clear()
    monkeypatch.setattr("flowers_utils.datasets.flowers102.check_writable", pytest.fail)
    ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    assert flower_server.requests == []


def test_a_half_extracted_set_is_completed_from_the_kept_archive(flower_server, tmp_path):
    dataset = dataset_of(flower_server.base)
    base = ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    (base / "jpg" / "image_00003.jpg").unlink()
    (base / "jpg" / "image_00005.jpg").write_bytes(b"")
    missing = ["image_00003.jpg", "image_00005.jpg"]
    assert missing_images(tmp_path, dataset=dataset) == missing
    assert not flowers102_is_whole(tmp_path, dataset=dataset)
    flower_server.requests.clear()
    ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    assert flowers102_is_whole(tmp_path, dataset=dataset)
    assert flower_server.requests == []
    assert sorted(file.name for file in base.iterdir()) == sorted([*SMALL_SET, "jpg"])


def test_leftovers_of_an_interrupted_extraction_do_no_harm(flower_server, tmp_path):
    side = tmp_path / "flowers-102" / "jpg.unpacking"
    side.mkdir(parents=True)
    (side / "image_00001.jpg").write_bytes(b"half")
    base = ensure_flowers102(tmp_path, dataset=dataset_of(flower_server.base), **FAST)
    assert unpacked(base) == PHOTOS


@pytest.mark.parametrize("folder", [".", "flowers-102"])
def test_files_put_there_by_hand_are_used_without_a_network(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, content in SMALL_SET.items():
        (tmp_path / folder / name).write_bytes(content)
    dataset = dataset_of("http://127.0.0.1:9")
    assert flowers102_lies_ready(tmp_path, dataset=dataset)
    ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    assert flowers102_is_whole(tmp_path, dataset=dataset)


def test_a_damaged_archive_put_there_by_hand_is_named_and_kept(flower_server, tmp_path):
    by_hand = tmp_path / "flowers.tgz"
    by_hand.write_bytes(SMALL_SET["flowers.tgz"][:100])
    flower_server.misbehave("flowers.tgz", "404")
    with pytest.raises(FlowersError, match=r"flowers\.tgz \(100 bytes\) is damaged") as raised:
        ensure_flowers102(tmp_path, dataset=dataset_of(flower_server.base), **FAST)
    assert flower_server.url("flowers.tgz") in str(raised.value)
    assert by_hand.exists()


def test_a_half_extracted_set_that_cannot_be_completed_says_what_is_missing(
    flower_server, tmp_path
):
    dataset = dataset_of(flower_server.base)
    base = ensure_flowers102(tmp_path, dataset=dataset, **FAST)
    (base / "jpg" / "image_00003.jpg").unlink()
    (base / "flowers.tgz").unlink()
    flower_server.misbehave("flowers.tgz", "404")
    with pytest.raises(FlowersError, match=r"lacks 1 photographs \(image_00003\.jpg"):
        ensure_flowers102(tmp_path, dataset=dataset, **FAST)


def test_without_a_network_one_message_names_all_files_and_the_way_out(tmp_path):
    with pytest.raises(FlowersError) as raised:
        ensure_flowers102(tmp_path, dataset=dataset_of("http://127.0.0.1:9"), **FAST)
    for words in (*SMALL_SET, str(tmp_path / "flowers-102"), 'DATA = "practice"'):
        assert words in str(raised.value)


def test_an_archive_writes_nothing_but_photographs(flower_server, tmp_path):
    evil = {"../../evil.jpg": b"x", "jpg/../../evil.jpg": b"x", "jpg/readme.txt": b"x"}
    inner = archive_of({**evil, **PHOTOS}, links={"jpg/image_00099.jpg": "/etc/hosts"})
    files = {**SMALL_SET, "flowers.tgz": inner}
    flower_server.files.update(files)
    root = tmp_path / "a" / "root"
    base = ensure_flowers102(root, dataset=dataset_of(flower_server.base, files), **FAST)
    assert unpacked(base) == PHOTOS
    assert list(tmp_path.rglob("evil*")) == []


def test_an_archive_that_lacks_photographs_leaves_the_old_folder_alone(flower_server, tmp_path):
    few = dict(list(PHOTOS.items())[:4])
    link = {"jpg/image_00005.jpg": "image_00001.jpg"}
    files = {**SMALL_SET, "flowers.tgz": archive_of(few, links=link)}
    flower_server.files.update(files)
    kept = tmp_path / "flowers-102" / "jpg" / "image_00006.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(PHOTOS["jpg/image_00006.jpg"])
    with pytest.raises(FlowersError, match=r"lacks 2 photographs \(image_00005\.jpg"):
        ensure_flowers102(tmp_path, dataset=dataset_of(flower_server.base, files), **FAST)
    assert kept.exists()


def test_an_incomplete_set_in_a_read_only_folder_says_where_to_go(tmp_path):
    (tmp_path / "flowers-102").write_text("a file where the folder should be")
    with pytest.raises(FlowersError, match="Set FLOWERS_DATA_DIR to a folder of your own"):
        ensure_flowers102(tmp_path, dataset=dataset_of("http://127.0.0.1:9"), **FAST)
