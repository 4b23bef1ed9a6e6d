"""A checkpoint holds what was in memory, is used completely or refused in words, and never runs code."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_training import small_data, small_model

from flowers_utils.deploy.predictor import Deployable
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    make_checkpoint,
    model_from_checkpoint,
    save_checkpoint,
)

pytestmark = pytest.mark.usefixtures("small_net")
ABOUT = {"epoch": 3, "metrics": {"val_accuracy": 0.5}}


@pytest.fixture
def checkpoint(small_net):
    """A complete checkpoint of a network so small that reading it takes a millisecond."""
    return make_checkpoint(small_model(), small_data(), **ABOUT)


def saved(content, *, zipped=True) -> bytes:
    """What `torch.save` writes, in its present or its old format."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def read(folder, content) -> str:
    """Reads a checkpoint and uses it; returns "" or what the FlowersError says."""
    path = folder / "model.pth"
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    try:
        probabilities = Deployable(load_checkpoint(path))(torch.zeros(1, 3, 32, 32))
        assert torch.isfinite(probabilities).all()
        return ""
    except FlowersError as error:
        assert 20 < len(str(error)) < 600 and "Traceback" not in str(error)
        return str(error)


def one_bit_flipped(checkpoint):
    content = bytearray(saved(checkpoint))
    content[content.index(checkpoint["state_dict"]["conv1.weight"].numpy().tobytes())] ^= 1
    return bytes(content)


UNUSABLE = {
    "cut": (lambda content: saved(content)[:3000], "damaged"),
    "one bit flipped": (one_bit_flipped, "damaged"),
    "of another program": (lambda _: {"model_state_dict": {}}, "lacks 'format_version'"),
    "of a newer lesson": (lambda content: {**content, "format_version": 99}, "newer version"),
    "other architecture": (lambda content: {**content, "architecture": "vgg99"}, "'vgg99'"),
    "other head": (lambda content: {**content, "architecture": "resnet18"}, "do not fit"),
    "text for a number": (lambda content: {**content, "num_classes": "4"}, "'num_classes' is not"),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_is_explained(checkpoint, tmp_path, how):
    change, told = UNUSABLE[how]
    assert told in read(tmp_path, change(checkpoint))


def test_a_complete_checkpoint_works_and_a_missing_one_is_explained(checkpoint, tmp_path):
    assert read(tmp_path, checkpoint) == ""
    with pytest.raises(FlowersError, match="There is no file"):
        load_checkpoint(tmp_path / "none.pth")


def test_what_is_saved_are_the_weights_in_memory_at_that_moment(tmp_path):
    model, path = small_model(seed=1), tmp_path / "final.pth"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_checkpoint(path, small_model(seed=2), data=small_data(), **ABOUT)  # an older file
    save_checkpoint(path, model.to(torch.float64), data=small_data(), temperature=1.5, **ABOUT)
    content = make_checkpoint(model.float(), small_data(), **ABOUT)
    with torch.no_grad():
        model.conv1.weight.zero_()  # training goes on
    for found in (load_checkpoint(path)["state_dict"], content["state_dict"]):
        for key, value in found.items():
            assert torch.equal(value, before[key]) and value.dtype == before[key].dtype
    assert load_checkpoint(path)["temperature"] == 1.5
    assert not model_from_checkpoint(load_checkpoint(path)).training


def test_two_notebooks_that_save_at_once_leave_one_complete_file(tmp_path):
    path, data = tmp_path / "final.pth", small_data()
    models = [small_model(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        seeds = [seed for seed in range(4) for _ in range(5)]
        list(pool.map(lambda s: save_checkpoint(path, models[s], data=data, **ABOUT), seeds))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    saved = load_checkpoint(path)["state_dict"]["conv1.weight"]
    assert any(torch.equal(saved, model.conv1.weight) for model in models)


class Hostile:
    """Unpickling this makes a file: harmless, but seen."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_runs_nothing(checkpoint, tmp_path, zipped):
    marker = tmp_path / "harm"
    content = saved({**checkpoint, "config": {"epochs": Hostile(marker)}}, zipped=zipped)
    assert "could run code" in read(tmp_path, content)
    assert not marker.exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert marker.exists()  # it would have done harm
