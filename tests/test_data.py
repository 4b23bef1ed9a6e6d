import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transfer_learning_config as config
from flowers_utils.data import Split, batches, check_split, on_card
from flowers_utils.datasets.class_names import FLOWERS102_NAMES
from flowers_utils.datasets.load import load_data
from flowers_utils.datasets.photos import decoded
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.transforms import eval_batch, eval_transform


def test_flowers102_has_its_splits_labels_and_names(mini_flowers102):
    data = load_data("flowers102")
    assert (len(data.train), len(data.val), len(data.test)) == (102, 102, 204)
    assert data.train.images.shape == (102, 3, 256, 256)
    assert data.val.images.shape == (102, 3, 224, 224)
    assert data.train.labels.dtype == torch.int64
    assert sorted(data.train.labels.tolist()) == list(range(102))
    assert data.class_names[0] == "pink primrose" and data.class_names[101] == "blackberry lily"


def test_class_names_are_torchvisions():
    from torchvision.datasets import Flowers102

    names = getattr(Flowers102, "classes", None)
    if names is None:
        pytest.skip("this torchvision does not know the names")
    assert list(FLOWERS102_NAMES) == names


def test_wrong_split_sizes_are_told(mini_flowers102, monkeypatch):
    monkeypatch.setitem(config.DATASET["splits"], "val", 101)
    monkeypatch.setitem(config.DATASET["splits"], "test", 205)
    with pytest.raises(FlowersError, match="val split of Flowers102 has 102 images"):
        load_data("flowers102")


def test_auto_takes_flowers102_when_it_is_on_disk(mini_flowers102):
    data = load_data("auto", profile="smoke")
    assert data.source == "flowers102" and data.note == ""
    assert len(data.train) == config.PROFILES["smoke"]["images"]


def test_auto_falls_back_to_practice_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    monkeypatch.setitem(config.DATASET, "base_urls", ("http://127.0.0.1:9/",))
    data = load_data("auto", profile="smoke")
    assert data.is_practice and "practice" in data.title
    assert "PRACTICE FLOWERS" in data.note and "127.0.0.1" not in data.note


def test_an_unknown_profile_is_named():
    with pytest.raises(FlowersError, match="'smoke', but it is 'fast'"):
        load_data("practice", profile="fast")


def jpegs(folder, count=3, size=(50, 40)):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        pixels = rng.integers(0, 256, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / f"{i}.jpg")
    return sorted(folder.glob("*.jpg"))


def test_decoding_equals_torchvisions_pipeline(tmp_path):
    files = jpegs(tmp_path / "jpg")
    images = decoded(files, size=32, cache=tmp_path / "cache", name="x")
    ours = eval_batch(torch.from_numpy(images.copy()), 32)
    for file, image in zip(files, ours, strict=True):
        assert torch.allclose(image, eval_transform(size=32)(Image.open(file)), atol=1e-6)


def test_the_cache_is_reused_memory_mapped_and_read_only(tmp_path, monkeypatch):
    files = jpegs(tmp_path / "jpg")
    first = decoded(files, size=32, cache=tmp_path / "cache", name="x")
    monkeypatch.setattr("flowers_utils.datasets.photos.decode", None)  # decoding again would fail
    second = decoded(files, size=32, cache=tmp_path / "cache", name="x")
    assert isinstance(second, np.memmap) and not second.flags.writeable
    assert np.array_equal(first, second)


def test_the_cache_is_rebuilt_when_a_photograph_or_the_size_changes(tmp_path):
    files, cache = jpegs(tmp_path / "jpg"), tmp_path / "cache"
    first = np.array(decoded(files, size=32, cache=cache, name="x"))
    Image.new("RGB", (30, 30), "red").save(files[0])
    second = decoded(files, size=32, cache=cache, name="x")
    assert not np.array_equal(first, second)
    assert decoded(files, size=16, cache=cache, name="x").shape == (3, 3, 16, 16)


def test_a_cut_short_cache_is_rebuilt(tmp_path):
    files, cache = jpegs(tmp_path / "jpg"), tmp_path / "cache"
    first = np.array(decoded(files, size=32, cache=cache, name="x"))
    path = next(cache.glob("*.npy"))
    path.write_bytes(path.read_bytes()[:500])
    assert np.array_equal(decoded(files, size=32, cache=cache, name="x"), first)


def test_an_interrupted_cache_leaves_no_file(tmp_path, monkeypatch):
    files, cache = jpegs(tmp_path / "jpg"), tmp_path / "cache"

    def stop(path, size):
        raise KeyboardInterrupt

    monkeypatch.setattr("flowers_utils.datasets.photos.decode", stop)
    with pytest.raises(KeyboardInterrupt):
        decoded(files, size=32, cache=cache, name="x")
    assert list(cache.iterdir()) == []


def test_a_damaged_photograph_names_itself(tmp_path):
    files = jpegs(tmp_path / "jpg")
    files[1].write_bytes(files[1].read_bytes()[:200])
    with pytest.raises(FlowersError, match=r"1\.jpg"):
        decoded(files, size=32, cache=tmp_path / "cache", name="x")


def test_batches_cover_the_split_once_in_order(tiny_data, cpu):
    seen = list(batches(tiny_data.val, batch_size=5, device=cpu))
    assert [len(labels) for _, labels in seen] == [5, 5, 5, 1]
    assert torch.equal(torch.cat([labels for _, labels in seen]), tiny_data.val.labels)
    assert np.array_equal(torch.cat([images for images, _ in seen]), tiny_data.val.images)


def test_shuffled_batches_cover_the_split_in_another_order_by_seed(tiny_data, cpu):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = batches(
            tiny_data.train, batch_size=8, device=cpu, shuffle=True, generator=generator
        )
        return torch.cat([images.flatten(1).sum(1) for images, _ in loader]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


def test_a_lonely_last_image_is_left_out_of_training(tiny_data, cpu):
    split = tiny_data.train.subset(range(17))
    sizes = [len(labels) for _, labels in batches(split, batch_size=8, device=cpu, shuffle=True)]
    assert sizes == [8, 8]


def test_labels_out_of_range_are_told(tiny_data):
    with pytest.raises(FlowersError, match="0 to 2"):
        check_split(tiny_data.val, 3)


def test_the_fingerprint_changes_with_the_data(tiny_data):
    from dataclasses import replace

    other = replace(tiny_data, val=tiny_data.val.subset(range(15)))
    assert other.fingerprint != tiny_data.fingerprint == replace(tiny_data).fingerprint


def test_the_fingerprint_changes_with_every_photograph(tiny_data):
    before = tiny_data.fingerprint
    for image in range(len(tiny_data.val)):
        tiny_data.val.images[image] += 1
        assert tiny_data.fingerprint != before
        tiny_data.val.images[image] -= 1


def test_a_short_run_leaves_the_cache_of_the_full_one(mini_flowers102):
    cache = Path(config.PATHS["cache"])
    load_data("flowers102", profile="full")
    full = set(cache.iterdir())
    load_data("flowers102", profile="smoke")
    assert full < set(cache.iterdir())


def test_auto_takes_an_archive_that_was_put_there_by_hand(mini_flowers102, monkeypatch):
    base = mini_flowers102 / "flowers-102"
    with tarfile.open(base / "102flowers.tgz", "w:gz") as archive:
        archive.add(base / "jpg", "jpg")
    md5 = hashlib.md5((base / "102flowers.tgz").read_bytes()).hexdigest()
    monkeypatch.setitem(config.DATASET, "archive", {"name": "102flowers.tgz", "md5": md5})
    monkeypatch.setitem(config.DATASET, "base_urls", ("http://127.0.0.1:9/",))
    shutil.rmtree(base / "jpg")
    data = load_data("auto", profile="smoke")
    assert data.source == "flowers102"


def some_split():
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8)).astype(np.uint8)
    return Split("train", images, torch.arange(10))


def test_a_split_stays_in_main_memory_without_a_card_or_where_it_does_not_fit(monkeypatch, cpu):
    split, card = some_split(), Device(torch.device("cuda"), "a small card")
    assert on_card(split, cpu) is split
    room = 4 * split.images.nbytes - 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, 10**9))
    assert on_card(split, card) is split


def test_a_split_of_tensors_gives_the_same_batches(cpu):
    split = some_split()
    tensors = Split("train", torch.tensor(split.images), split.labels)
    for shuffle in (False, True):
        one, other = (
            list(batches(s, batch_size=4, device=cpu, shuffle=shuffle,
                         generator=torch.Generator().manual_seed(1)))
            for s in (split, tensors)
        )  # fmt: skip
        for (images, labels), (same, same_labels) in zip(one, other, strict=True):
            assert torch.equal(images, same) and torch.equal(labels, same_labels)
