"""A checkpoint is used whole or refused in words, and never runs code."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import small_data, small_model

from flowers_utils.deploy.predictor import Predictor
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    make_checkpoint,
    model_from_checkpoint,
)

pytestmark = pytest.mark.usefixtures("small_net")


@pytest.fixture
def checkpoint(small_net):
    """A whole checkpoint of a network so small that reading it takes a millisecond."""
    return make_checkpoint(small_model(), small_data(), epoch=3, metrics={"val_accuracy": 0.5})


def saved(content, *, zipped=True) -> bytes:
    """What `torch.save` writes, in its present or its old format."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def read(folder, content) -> str:
    """Reads a checkpoint; returns "" or what the FlowersError says."""
    path = folder / "model.pth"
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    try:
        loaded = load_checkpoint(path)
        model_from_checkpoint(loaded)
        probabilities = Predictor(loaded).probabilities([np.full((20, 30, 3), 99, np.uint8)])
        assert torch.isfinite(probabilities).all()
        return ""
    except FlowersError as error:
        assert 20 < len(str(error)) < 600 and "Traceback" not in str(error)
        return str(error)


def one_bit_flipped(checkpoint):
    whole = bytearray(saved(checkpoint))
    whole[whole.index(checkpoint["state_dict"]["conv1.weight"].numpy().tobytes())] ^= 1
    return bytes(whole)


UNUSABLE = {
    "cut": (lambda whole: saved(whole)[:3000], "damaged"),
    "one bit flipped": (one_bit_flipped, "damaged"),
    "of another program": (lambda _: {"model_state_dict": {}}, "lacks 'format_version'"),
    "other architecture": (lambda whole: {**whole, "architecture": "vgg99"}, "does not know"),
    "other head": (lambda whole: {**whole, "architecture": "resnet18"}, "do not fit"),
    "a text for a number": (lambda whole: {**whole, "num_classes": "4"}, "'num_classes' is not"),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_is_told(checkpoint, tmp_path, how):
    change, told = UNUSABLE[how]
    assert told in read(tmp_path, change(checkpoint))


def test_a_whole_checkpoint_works_and_a_missing_or_foreign_one_is_told(checkpoint, tmp_path):
    assert read(tmp_path, checkpoint) == ""
    with pytest.raises(FlowersError, match="There is no file"):
        load_checkpoint(tmp_path / "none.pth")


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
