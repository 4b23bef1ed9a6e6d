"""What goes wrong in training costs an epoch at most; a file is used whole or told in words."""

import errno
import gc
import io
import random
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import NAME, SmallNet, facts, history, small_data, small_model, small_phase

import transfer_learning_config as config
from flowers_utils import models, training
from flowers_utils.deploy.predictor import Predictor
from flowers_utils.errors import FlowersError
from flowers_utils.storage import files
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    make_checkpoint,
    model_from_checkpoint,
)

pytestmark = pytest.mark.usefixtures("small_net")
STEPS = 3  # in an epoch: 24 images, 8 at a time
BEST, STATE = f"{NAME}_phase2_best.pth", f"{NAME}_phase2_resume.pth"


@pytest.fixture
def quiet(tmp_path_factory, small_net, monkeypatch):
    """What Phase 2 gives, eight images a step, when nothing disturbs it."""
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 8)
    return facts(small_phase(tmp_path_factory.mktemp("quiet")))


def disturb(monkeypatch, epoch, act):
    """Let `act(network)` happen in the second training step of an epoch."""
    forward, steps = SmallNet.forward, []

    def disturbed(self, images):
        if self.training:
            steps.append(1)
            if len(steps) == STEPS * (epoch - 1) + 2:
                act(self)
        return forward(self, images)

    monkeypatch.setattr(SmallNet, "forward", disturbed)


def raising(kind, *words):
    def act(*_):
        raise kind(*words)

    return act


def spoil(network):
    with torch.no_grad():
        network.classifier[1].weight[0, 0] = torch.nan


# In training


@pytest.mark.parametrize(
    ("epoch", "kept"), [(1, "Nothing of it is saved yet"), (5, "Epochs 1 to 4 are saved")]
)
def test_a_loss_that_is_not_finite_stops_training_and_the_best_weights_are_kept(
    tmp_path, monkeypatch, quiet, epoch, kept
):
    small_phase(tmp_path, seed=7)  # that of another run is not this run's best
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        disturb(patch, epoch, spoil)
        small_phase(tmp_path)
    for words in (f"Phase 2, epoch {epoch}: ", "learning rate ten times smaller", kept):
        assert words in str(caught.value)
    assert (tmp_path / BEST).exists() == (epoch > 1)
    if epoch > 1:
        before = max(quiet[0][: epoch - 1], key=lambda row: row["val_accuracy"])
        assert load_checkpoint(tmp_path / BEST)["epoch"] == before["epoch"]
    assert facts(small_phase(tmp_path)) == quiet


def too_large(*_):
    torch.empty(2**58)


NO_MEMORY = {
    "a real allocation": too_large,
    "cuda": raising(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2 GiB"),
    "mps": raising(RuntimeError, "MPS backend out of memory (MPS allocated: 9 GB)"),
}


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_without_memory_a_smaller_batch_is_named_and_nothing_is_held(
    tmp_path, monkeypatch, quiet, kind
):
    made, make, freed = [], models.make_optimizer, []

    def remembered(*args, **kwargs):
        optimizer = make(*args, **kwargs)
        made.append(weakref.ref(optimizer))
        made.extend(weakref.ref(p) for group in optimizer.param_groups for p in group["params"])
        return optimizer

    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        patch.setattr(models, "make_optimizer", remembered)
        patch.setattr(torch.cuda, "empty_cache", lambda: freed.append("cuda"))
        patch.setattr(torch.backends.mps, "is_available", lambda: True)
        patch.setattr(torch.mps, "empty_cache", lambda: freed.append("mps"))
        disturb(patch, 2, NO_MEMORY[kind])
        small_phase(tmp_path)
    message = str(caught.value)  # and `caught` holds the error with its frames
    assert "out of memory at batch size 8" in message and "['batch_size'] = 4" in message
    assert sorted(freed) == ["cuda", "mps"]
    gc.collect()
    assert len(made) > 4 and not any(thing() is not None for thing in made)
    resumed = small_phase(tmp_path)
    assert "Going on after epoch 1 of 6" in resumed.note and facts(resumed) == quiet


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch, quiet):
    disturb(monkeypatch, 1, raising(RuntimeError, "shapes do not match"))
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        small_phase(tmp_path)


def test_a_restore_that_runs_out_of_memory_is_not_called_damaged(tmp_path, monkeypatch, quiet):
    small_phase(tmp_path)
    state = (tmp_path / STATE).read_bytes()
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        patch.setattr(torch.optim.AdamW, "load_state_dict", too_large)
        small_phase(tmp_path)
    assert "memory" in str(caught.value) and "damaged" not in str(caught.value)
    assert (tmp_path / STATE).read_bytes() == state  # and nothing was trained anew
    assert facts(small_phase(tmp_path)) == quiet


# Writing: the disk is full, or may not be written


def fail_to_write(monkeypatch, owner, name, error):
    """From the second epoch on, the function that writes leaves half a file, and fails."""
    whole, train, passes = getattr(owner, name), training.train_one_epoch, []

    def failing(content, path):
        if len(passes) < 2:
            return whole(content, path)
        if name == "save":
            path.write_bytes(b"half a fi")
        raise error

    def counted(*args, **kwargs):
        passes.append(1)
        return train(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)
    monkeypatch.setattr(training, "train_one_epoch", counted)


FULL, READ_ONLY, BROKEN = (
    OSError(number, "in the system's words") for number in (errno.ENOSPC, errno.EROFS, errno.EIO)
)
WRITE_FAULTS = {
    "full": (torch, "save", FULL, "disk is full"),
    "full, torch's writer": (torch, "save", RuntimeError("PytorchStreamWriter"), "disk is full"),
    "read-only": (torch, "save", READ_ONLY, "cannot be written"),
    "rename": (Path, "replace", BROKEN, "was not written"),
}


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_files_that_cannot_be_written_do_not_stop_training(tmp_path, monkeypatch, quiet, fault):
    *writer, error, told = WRITE_FAULTS[fault]
    with monkeypatch.context() as patch:
        fail_to_write(patch, *writer, error)
        with pytest.warns(UserWarning, match=f"Training goes on, but: .*{told}"):
            result = small_phase(tmp_path)
    assert "Not everything could be saved" in result.note and told in result.note
    assert history(result) == quiet[0]  # and the best weights are at hand:
    assert {key: value.tolist() for key, value in result.model.state_dict().items()} == quiet[2]
    assert load_checkpoint(result.checkpoint)["epoch"] == 1  # the earlier files are whole
    assert len(files.load_tensors(tmp_path / STATE)["training"]["history"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, STATE]
    again = small_phase(tmp_path)
    assert facts(again) == quiet and "could be saved" not in again.note


def test_two_phases_in_one_folder_at_once_leave_whole_files(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(small_phase, tmp_path, seed=seed) for seed in (0, 1)]
    assert [len(run.result().history) for run in runs] == [6, 6]
    for path in tmp_path.iterdir():
        files.load_tensors(path)
    load_checkpoint(tmp_path / BEST)


# Reading: checkpoints that are cut, foreign or hostile


@pytest.fixture
def checkpoint(small_net):
    """A whole checkpoint of a network so small that reading it takes a millisecond."""
    return make_checkpoint(small_model(), small_data(), epoch=3, metrics={"val_accuracy": 0.5})


def saved(content, *, zipped=True) -> bytes:
    """What `torch.save` writes, in its present or its old format."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def read(folder, content, **kwargs) -> str:
    """Reads a checkpoint; returns "" or what the FlowersError says."""
    path = folder / "model.pth"
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    try:
        loaded = load_checkpoint(path)
        model_from_checkpoint(loaded, **kwargs)
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


def with_weight(change):
    def changed(whole):
        weights = whole["state_dict"]
        return {**whole, "state_dict": {**weights, "conv1.weight": change(weights["conv1.weight"])}}

    return changed


UNUSABLE = {
    "cut": (lambda whole: saved(whole)[:3000], "damaged"),
    "one bit flipped": (one_bit_flipped, "damaged"),
    "of another program": (lambda _: {"model_state_dict": {}}, "lacks 'format_version'"),
    "other architecture": (lambda whole: {**whole, "architecture": "vgg99"}, "does not know"),
    "other head": (lambda whole: {**whole, "architecture": "resnet18"}, "do not fit"),
    "nan": (with_weight(lambda t: t * torch.nan), "'state_dict' is not what"),
    "endless": (with_weight(lambda t: torch.zeros(1).expand(2**50)), "'state_dict' is not what"),
    "text for a number": (lambda whole: {**whole, "temperature": "1"}, "'temperature'"),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_is_told(checkpoint, tmp_path, how):
    change, told = UNUSABLE[how]
    assert told in read(tmp_path, change(checkpoint))


def test_a_whole_checkpoint_works_and_a_missing_or_foreign_one_is_told(checkpoint, tmp_path):
    assert read(tmp_path, checkpoint) == ""
    assert "knows 4 classes, but the data has 102" in read(tmp_path, checkpoint, num_classes=102)
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


ODD_VALUES = (None, 10**400, -1, "text", float("nan"), True, [], {1: 2}, torch.empty(0))


def mutated(value, rng):
    """`value` with something in it replaced or left out, at any depth."""
    if not isinstance(value, dict) or not value or rng.random() < 0.15:
        return rng.choice(ODD_VALUES)
    chosen = rng.choice(list(value))
    rest = {key: v for key, v in value.items() if key != chosen}
    return rest if rng.random() < 0.1 else {**rest, chosen: mutated(value[chosen], rng)}


@pytest.mark.slow
def test_a_fuzzed_checkpoint_works_or_is_told(checkpoint, tmp_path):
    rng = random.Random(0)
    told = [read(tmp_path, mutated(checkpoint, rng)) for _ in range(200)]
    assert len(list(filter(None, told))) > 60
