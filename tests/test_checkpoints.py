"""A checkpoint holds what was in memory, is used or refused in words, and never runs code."""

import os
from pathlib import Path

import pytest
import torch
from small_training import small_data, small_model

from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    make_checkpoint,
    model_from_checkpoint,
    save_checkpoint,
)

ABOUT = {"epoch": 3, "metrics": {"val_accuracy": 0.5}}
UNUSABLE = {
    "missing": (Path.unlink, "There is no file"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:3000]), "damaged"),
    "of another program": (lambda path: torch.save({"model": {}}, path), "no checkpoint of this"),
    "not of plain values": (lambda path: torch.save({"to run": os.remove}, path), "could run code"),
}


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "final.pth", small_model(), data=small_data(), **ABOUT)
    return tmp_path / "final.pth"


@pytest.mark.parametrize("how", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_is_explained(path, how):
    spoil, told = UNUSABLE[how]
    spoil(path)
    with pytest.raises(FlowersError, match=told):
        load_checkpoint(path)


def test_what_is_saved_are_the_weights_in_memory_at_that_moment(path):
    model = small_model(seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_checkpoint(path, model.to(torch.float64), data=small_data(), temperature=1.5, **ABOUT)
    content = make_checkpoint(model.float(), small_data(), **ABOUT)
    torch.nn.init.zeros_(model.conv1.weight)  # training goes on
    for found in (load_checkpoint(path)["state_dict"], content["state_dict"]):
        for key, value in found.items():
            assert torch.equal(value, before[key]) and value.dtype == before[key].dtype
    assert not model_from_checkpoint(load_checkpoint(path)).training
