"""What goes wrong in training costs an epoch at most; a file is used whole or told in words."""

import errno
import gc
import io
import random
import sys
import threading
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import CPU, NAME, SmallNet, facts, history, small_data, small_model, small_phase

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


def fail_to_write(monkeypatch, where, error, epochs):
    """While an epoch of `epochs` is saved, writing fails at `where`."""
    owner, name = {
        "save": (files.torch, "save"),
        "flush": (files.os, "fsync"),
        "rename": (files.Path, "replace"),
    }[where]
    whole, train, passes = getattr(owner, name), training.train_one_epoch, []

    def failing(*args, **kwargs):
        if len(passes) in epochs:
            if where == "save":
                Path(args[1]).write_bytes(b"half a fi")
            raise error
        return whole(*args, **kwargs)

    def counted(*args, **kwargs):
        passes.append(1)
        return train(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)
    monkeypatch.setattr(training, "train_one_epoch", counted)


FULL = OSError(errno.ENOSPC, "No space left on device")
WRITE_FAULTS = {
    "full": ("save", FULL, "disk is full"),
    "full, torch's writer": ("save", RuntimeError("PytorchStreamWriter failed"), "disk is full"),
    "full at the flush": ("flush", FULL, "disk is full"),
    "read-only": ("save", OSError(errno.EROFS, "Read-only system"), "cannot be written"),
    "rename": ("rename", OSError(errno.EIO, "Input/output error"), "was not written"),
}


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_files_that_cannot_be_written_do_not_stop_training(tmp_path, monkeypatch, quiet, fault):
    where, error, told = WRITE_FAULTS[fault]
    with monkeypatch.context() as patch:
        fail_to_write(patch, where, error, range(2, 7))
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


def test_space_that_comes_back_in_time_leaves_nothing_to_tell(tmp_path, monkeypatch, quiet):
    fail_to_write(monkeypatch, "save", FULL, (2, 3))
    with pytest.warns(UserWarning, match="disk is full"):
        result = small_phase(tmp_path)
    assert result.note == "" and facts(result) == quiet


def stopped_at_line(folder, stop):
    """Train; at the line of this package that is number `stop`, the stop button is pressed.

    Returns the number of lines that ran.
    """
    package, lines = str(Path(training.__file__).parent), 0

    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            lines += 1
            if lines == stop:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        small_phase(folder, epochs=2)
    except KeyboardInterrupt:
        assert lines >= stop
    finally:
        sys.settrace(before)
        torch.set_grad_enabled(True)  # a stop within a with may lose its end
    return lines


@pytest.mark.slow
def test_a_stop_at_any_line_leaves_whole_files_and_a_bit_identical_end(tmp_path):
    lines = stopped_at_line(tmp_path / "quiet", 0)
    quiet, places = facts(small_phase(tmp_path / "quiet", epochs=2)), random.Random(0)
    for attempt in range(20):
        for _ in range(2):
            stopped_at_line(tmp_path / str(attempt), places.randint(1, lines))
        for path in (tmp_path / str(attempt)).glob("[!.]*.pth"):
            files.load_tensors(path)
        assert facts(small_phase(tmp_path / str(attempt), epochs=2)) == quiet


def test_two_phases_in_one_folder_at_once_leave_whole_files(tmp_path):
    seeds, found = (0, 1), {}

    def train(seed):
        found[seed] = small_phase(tmp_path, seed=seed, device=CPU, model=small_model(seed))

    threads = [threading.Thread(target=train, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1]
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
    "other count": (lambda whole: {**whole, "num_classes": 5}, "'num_classes' is not what"),
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
    """`value` with something in it replaced, left out or renamed, at any depth."""
    if not isinstance(value, dict) or not value or rng.random() < 0.15:
        return rng.choice(ODD_VALUES)
    chosen, how = rng.choice(list(value)), rng.random()
    if how < 0.1:
        return {key: v for key, v in value.items() if key != chosen}
    if how < 0.2:
        return {(7 if key == chosen else key): v for key, v in value.items()}
    return {key: mutated(v, rng) if key == chosen else v for key, v in value.items()}


def mutated_bytes(whole, rng):
    """One member of the archive with bytes changed, and a checksum that fits what it is now."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = rng.choice([name for name in old.namelist() if name.endswith("data.pkl")])
        for name in old.namelist():
            content = bytearray(old.read(name))
            for _ in range(rng.choice((1, 8)) if name == chosen else 0):
                content[rng.randrange(len(content))] = rng.randrange(256)
            new.writestr(name, bytes(content))
    return out.getvalue()


@pytest.mark.slow
def test_a_fuzzed_checkpoint_works_or_is_told(checkpoint, tmp_path):
    rng, told = random.Random(0), 0
    for _ in range(100):
        told += bool(read(tmp_path, mutated(checkpoint, rng)))
        told += bool(read(tmp_path, mutated_bytes(saved(checkpoint), rng)))
    assert told > 60
