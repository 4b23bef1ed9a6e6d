"""What goes wrong in training costs an epoch at most."""

import errno
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_training import NAME, SmallNet, facts, history, small_phase

import transfer_learning_config as config
from flowers_utils import models, training
from flowers_utils.errors import FlowersError
from flowers_utils.storage import files
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
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
