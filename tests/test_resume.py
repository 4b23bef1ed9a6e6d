"""A stopped phase goes on, a finished one is loaded, another run's is kept; a fault costs an epoch."""

import errno
import itertools
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from small_training import CPU, NAME, SmallNet, facts, small_data, small_model, small_phase

import transfer_learning_config as config
from flowers_utils import training
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError, Stopped
from flowers_utils.storage import resume
from flowers_utils.storage.checkpoints import load_checkpoint

PHASE_1 = {"number": 1, "backbone_lr": None}
RECIPE = {"one_cycle": True, "fit_head": True}
HALF = Device(CPU.torch_device, "test", torch.float16, channels_last=True)  # with loss scaling
BFLOAT = Device(CPU.torch_device, "test", torch.bfloat16)
BEST, STATE = f"{NAME}_phase2_best.pth", f"{NAME}_phase2_resume.pth"
EARLIER = f"{NAME}_phase2_best.earlier.pth"


@pytest.fixture(autouse=True)
def three_steps_an_epoch_and_each_is_saved(monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 8)
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_SAVES", 0.0)


@pytest.fixture
def quiet(tmp_path):
    """What Phase 2 gives when nothing disturbs it; its files are in `tmp_path / "quiet"`."""
    return facts(small_phase(tmp_path / "quiet"))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def in_epoch(patch, epoch, act):
    """Let `act(network)` happen in the second of the three training steps of an epoch."""
    forward, steps = SmallNet.forward, itertools.count(1)

    def disturbed(self, images):
        if self.training and next(steps) == 3 * (epoch - 1) + 2:
            act(self)
        return forward(self, images)

    patch.setattr(SmallNet, "forward", disturbed)


def from_write_on(patch, number, error):
    """From the write with this number on, half of a file is written, then `error` raised."""
    write, count = Path.write_bytes, itertools.count(1)

    def broken(path, content):
        if next(count) < number:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise error

    patch.setattr(Path, "write_bytes", broken)


def stopped_phase(folder, epoch, **settings):
    """Train; the stop button is pressed in the middle of `epoch`. Returns what is said."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped) as caught:
        in_epoch(patch, epoch, Mock(side_effect=KeyboardInterrupt))
        small_phase(folder, **settings)
    return str(caught.value)


# Going on


@pytest.mark.parametrize("settings", [PHASE_1, {}, RECIPE, {"device": HALF}])
def test_an_interrupted_phase_ends_bit_identical(tmp_path, settings):
    quiet = facts(small_phase(tmp_path / "quiet", **settings))
    model = small_model()  # the same object, as in a notebook
    for epoch in (1, 5):
        folder = tmp_path / str(epoch)
        told = stopped_phase(folder, epoch, model=model, **settings)
        assert f"stopped. {epoch - 1} epochs are saved. Run this cell again to go on." in told
        resumed = small_phase(folder, model=model, **settings)
        assert facts(resumed) == quiet
        assert (f"Going on after epoch {epoch - 1}," in resumed.note) == (epoch > 1)
        assert names_in(folder) == [resumed.checkpoint.name]  # no state is left behind


@pytest.mark.parametrize("write", [1, 2, 11])  # the first checkpoint and state, the last checkpoint
def test_a_stop_in_the_middle_of_a_write_loses_nothing(tmp_path, monkeypatch, quiet, write):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        from_write_on(patch, write, KeyboardInterrupt())
        small_phase(tmp_path)
    assert not list(tmp_path.glob(".*"))  # no half-written file stays behind
    assert facts(small_phase(tmp_path)) == quiet and STATE not in names_in(tmp_path)


def test_where_epochs_are_short_few_are_saved_but_always_the_last(tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_SAVES", 1e9)
    assert "0 epochs are saved" in stopped_phase(tmp_path, 5)
    assert facts(small_phase(tmp_path)) == quiet
    assert "already trained" in small_phase(tmp_path).note


# A finished phase is finished


@pytest.mark.parametrize("settings", [PHASE_1, RECIPE])
def test_a_finished_phase_is_loaded_on_any_device_and_version(tmp_path, monkeypatch, settings):
    first = small_phase(tmp_path, **settings)
    monkeypatch.setattr(training, "train_one_epoch", None)  # must not be called again
    here = small_phase(tmp_path, **settings)
    assert facts(here) == facts(first) and here.seconds == first.seconds
    monkeypatch.setattr(resume, "versions", lambda: {"torch": "9.9"})
    elsewhere = small_phase(tmp_path, device=BFLOAT, **settings)
    assert facts(elsewhere) == facts(first)
    place = f"CPU (test), float32, contiguous with torch {torch.__version__}"
    assert f"already trained, on {place}, so it is loaded" in elsewhere.note
    assert names_in(tmp_path) == [first.checkpoint.name]


def test_only_the_middle_of_a_phase_asks_for_the_same_device(tmp_path):
    stopped_phase(tmp_path, 4)
    note = small_phase(tmp_path, device=BFLOAT).note
    assert "device was 'CPU (test), float32" in note and "Going on" not in note


# Of another run, or damaged


CHANGES = {
    "seed was 0 and is now 1": lambda patch: {"seed": 1},
    "data was": lambda patch: {"data": small_data(val_seed=50)},
    "starting weights was": lambda patch: {"model": small_model(seed=5)},
    "hue was 0.1 and is now 0.2": lambda patch: patch.setitem(config.AUGMENTATION, "hue", 0.2),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_change_is_said_before_training_and_the_earlier_weights_are_kept(
    tmp_path, monkeypatch, capsys, told
):
    stopped_phase(tmp_path, 4)  # its resume state is not used
    trained, changed = (tmp_path / BEST).read_bytes(), CHANGES[told](monkeypatch) or {}
    clean = facts(small_phase(tmp_path / "clean", **changed))
    capsys.readouterr()
    result = small_phase(tmp_path, **changed)
    assert (tmp_path / EARLIER).read_bytes() == trained
    assert told in result.note and result.note.count(" is now ") == 1  # nothing else is blamed
    assert EARLIER in result.note and capsys.readouterr().out.startswith(result.note)
    assert facts(result) == clean and names_in(tmp_path) == sorted([BEST, EARLIER])


def test_of_two_runs_in_turn_none_is_trained_again(tmp_path):
    first = facts(small_phase(tmp_path))
    small_phase(tmp_path, seed=1)
    second = (tmp_path / BEST).read_bytes()
    again = small_phase(tmp_path)
    assert facts(again) == first and "already trained" in again.note
    assert (tmp_path / EARLIER).read_bytes() == second and len(names_in(tmp_path)) == 2
    stopped_phase(tmp_path, 4, seed=2)
    assert facts(small_phase(tmp_path)) == first  # and what was trained with seed 2 stays
    assert "Going on after epoch 3" in small_phase(tmp_path, seed=2).note
    assert facts(small_phase(tmp_path)) == first and len(names_in(tmp_path)) == 2


def test_a_damaged_state_costs_no_more_than_a_new_start(tmp_path, quiet):
    stopped_phase(tmp_path, 4)
    for name in (BEST, STATE):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:3000])
    result = small_phase(tmp_path)
    assert facts(result) == quiet and "anew" in result.note and "damaged" in result.note


# Faults


FAULTS = {
    "learning rate ten times smaller": lambda network: network.bn1.weight.data.fill_(torch.nan),
    r"out of memory at batch size 8.*\['batch_size'\] = 4": lambda network: torch.empty(2**58),
}


@pytest.mark.parametrize("told", FAULTS)
def test_a_fault_is_explained_and_the_phase_goes_on_before_it(tmp_path, monkeypatch, quiet, told):
    with monkeypatch.context() as patch, pytest.raises(FlowersError, match=told):
        in_epoch(patch, 5, FAULTS[told])
        small_phase(tmp_path)
    assert names_in(tmp_path) == [BEST, STATE]
    assert facts(small_phase(tmp_path)) == quiet


def test_a_full_disk_does_not_stop_training_and_memory_holds_the_best(tmp_path, monkeypatch, quiet):
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="goes on, but: The disk"):
        from_write_on(patch, 3, OSError(errno.ENOSPC, "full"))  # after the first epoch
        result = small_phase(tmp_path)
    assert "Not everything could be saved: The disk is full" in result.note
    assert facts(result) == quiet and result.best_epoch > 1  # the next phase starts from it
    assert load_checkpoint(result.checkpoint)["epoch"] == 1  # the earlier files are complete
    assert names_in(tmp_path) == [BEST, STATE]
    assert facts(small_phase(tmp_path)) == quiet
