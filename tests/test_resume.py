"""An interrupted phase goes on where it stopped; what it cannot use it names first, and keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import CPU, KILLED_EPOCHS, NAME, facts, small_data, small_model, small_phase

import transfer_learning_config as config
from flowers_utils import training
from flowers_utils.device import Device
from flowers_utils.errors import Stopped
from flowers_utils.storage import files, resume
from flowers_utils.storage.checkpoints import load_checkpoint

pytestmark = pytest.mark.usefixtures("small_net")
PHASES = {1: {"number": 1, "backbone_lr": None}, 2: {"number": 2}}
BEST, STATE = f"{NAME}_phase2_best.pth", f"{NAME}_phase2_resume.pth"
HALF, BFLOAT = (Device(CPU.torch_device, "test", p) for p in (torch.float16, torch.bfloat16))


@pytest.fixture
def quiet(tmp_path):
    """What Phase 2 gives when nothing disturbs it; its files lie in `tmp_path / "quiet"`."""
    return facts(small_phase(tmp_path / "quiet"))


def stopped_phase(folder, epoch, **settings):
    """Train; the stop button is pressed when the training part of `epoch` is done."""
    whole, passes = training.train_one_epoch, []

    def interrupted(*args, **kwargs):
        result = whole(*args, **kwargs)
        passes.append(1)
        if len(passes) == epoch:
            raise KeyboardInterrupt
        return result

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped) as caught:
        patch.setattr(training, "train_one_epoch", interrupted)
        small_phase(folder, **settings)
    return str(caught.value)


def never(*_, **__):
    raise AssertionError("a finished phase was trained again")


# Going on


@pytest.mark.parametrize("number", PHASES)
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_phase_interrupted_in_any_epoch_ends_bit_identical(tmp_path, number, epoch):
    quiet = facts(small_phase(tmp_path / "quiet", **PHASES[number]))
    model = small_model()  # the same object, as in a notebook
    stopped_phase(tmp_path, epoch, model=model, **PHASES[number])
    resumed = small_phase(tmp_path, model=model, **PHASES[number])
    assert facts(resumed) == quiet
    assert (f"Going on after epoch {epoch - 1} of 6" in resumed.note) == (epoch > 1)


def test_many_stops_in_a_row_change_nothing_and_each_says_what_is_saved(tmp_path, quiet):
    stopped_phase(tmp_path, 1)
    stopped_phase(tmp_path, 2)
    told = stopped_phase(tmp_path, 2)
    assert "epoch 3: stopped. Epochs 1 to 2 are saved" in told and "un this cell again" in told
    assert facts(small_phase(tmp_path)) == quiet


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_stop_around_any_write_loses_nothing(tmp_path, monkeypatch, quiet, moment):
    save = torch.save
    for write in (1, 2, 5):  # the first checkpoint, the first state, and one in the middle
        folder, count = tmp_path / f"{write}", iter(range(1, 99))

        def interrupted(content, path, stop=write, numbers=count):
            now = next(numbers) == stop
            if now and moment == "within":
                Path(path).write_bytes(b"half a fi")
            if not (now and moment != "after"):
                save(content, path)
            if now:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(files.torch, "save", interrupted)
            small_phase(folder)
        assert not list(folder.glob(".*"))  # no half-written file stays behind
        assert facts(small_phase(folder)) == quiet


def test_where_epochs_are_short_few_are_saved_but_always_the_last(tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_SAVES", 1e9)
    assert "Nothing of it is saved" in stopped_phase(tmp_path, 5)
    assert facts(small_phase(tmp_path)) == quiet
    monkeypatch.setattr(training, "train_one_epoch", never)
    assert "already trained" in small_phase(tmp_path).note


def test_resuming_is_exact_with_loss_scaling_too(tmp_path):
    quiet = facts(small_phase(tmp_path / "quiet", device=HALF))
    stopped_phase(tmp_path, 4, device=HALF)
    assert facts(small_phase(tmp_path, device=HALF)) == quiet


def test_a_phase_goes_on_rightly_in_another_memory_layout(tmp_path):
    layouts = [Device(CPU.torch_device, "test", channels_last=last) for last in (False, True)]
    for one, other in (layouts, reversed(layouts)):
        folder = tmp_path / str(one.channels_last)
        quiet = small_phase(folder / "quiet", device=one)
        stopped_phase(folder, 4, device=one)
        resumed = small_phase(folder, device=other)
        assert "Going on after epoch 3" in resumed.note
        losses = [[row["train_loss"] for row in phase.history] for phase in (resumed, quiet)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
def test_a_phase_killed_again_and_again_ends_bit_identical(tmp_path):
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, "-m", "tests.small_training", str(tmp_path / "killed"), "0", "6"]
    done = subprocess.run(
        command, cwd=root, env=environment, text=True, capture_output=True, check=True
    )
    assert int(done.stdout.split()[-1]) > 0  # were killed at work
    killed = small_phase(tmp_path / "killed", epochs=KILLED_EPOCHS)
    assert "already trained" in killed.note
    assert facts(killed) == facts(small_phase(tmp_path / "quiet", epochs=KILLED_EPOCHS))


# Already trained


@pytest.mark.parametrize("number", PHASES)
def test_a_finished_phase_is_loaded_and_not_trained(tmp_path, monkeypatch, number):
    first = small_phase(tmp_path, **PHASES[number])
    monkeypatch.setattr(training, "train_one_epoch", never)
    loaded = small_phase(tmp_path, **PHASES[number])
    assert facts(loaded) == facts(first) and loaded.seconds == first.seconds
    assert "already trained" in loaded.note and NAME in loaded.note


def test_without_its_state_a_phase_trains_anew_and_the_earlier_checkpoint_is_kept(tmp_path, quiet):
    (tmp_path / "quiet" / STATE).unlink()
    fresh = small_phase(tmp_path / "quiet")
    assert facts(fresh) == quiet
    (earlier,) = (tmp_path / "quiet").glob("*_best.earlier-*.pth")
    assert load_checkpoint(earlier)["epoch"] == fresh.best_epoch


def test_the_best_checkpoint_is_put_right_when_a_phase_is_loaded(tmp_path, quiet):
    path = tmp_path / "quiet" / BEST
    path.unlink()
    assert facts(small_phase(tmp_path / "quiet")) == quiet
    # of another run, which was killed after its first epoch, between its two files:
    small_phase(tmp_path / "other", seed=9).checkpoint.replace(path)
    assert facts(small_phase(tmp_path / "quiet")) == quiet


# Of another run


CHANGES = {
    "seed was 0 and is now 1": lambda patch: {"seed": 1},
    "head_lr was 0.02 and is now 0.03": lambda patch: {"head_lr": 0.03},
    "data was": lambda patch: {"data": small_data(val_seed=50)},
    "starting weights was": lambda patch: {"model": small_model(seed=5)},
    "device was 'cpu float32' and is now 'cpu bfloat16'": lambda patch: {"device": BFLOAT},
    "hue was 0.1 and is now 0.2": lambda patch: patch.setitem(config.AUGMENTATION, "hue", 0.2),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_change_of_identity_is_said_first_and_the_trained_files_are_kept(
    tmp_path, monkeypatch, quiet, capsys, told
):
    folder, whole, said = tmp_path / "quiet", training.train_one_epoch, []
    trained, changed = (folder / BEST).read_bytes(), CHANGES[told](monkeypatch) or {}

    def watched(*args, **kwargs):
        said.append(capsys.readouterr().out)
        return whole(*args, **kwargs)

    clean = facts(small_phase(tmp_path / "clean", **changed))
    capsys.readouterr()
    monkeypatch.setattr(training, "train_one_epoch", watched)
    result = small_phase(folder, **changed)
    (kept,) = folder.glob("*_best.earlier-*.pth")
    assert kept.read_bytes() == trained
    assert told in said[0] and kept.name in said[0]  # before the first step
    assert told in result.note and result.note.count(" is now ") == 1  # nothing else is blamed
    assert facts(result) == clean


def test_two_changes_are_both_named_and_earlier_files_are_kept_each_time(tmp_path, quiet):
    note = small_phase(tmp_path / "quiet", seed=3, head_lr=0.03).note
    assert "seed was 0 and is now 3" in note and "head_lr was 0.02 and is now 0.03" in note
    small_phase(tmp_path / "quiet")
    assert len(list((tmp_path / "quiet").glob("*_best.earlier-*.pth"))) == 2


def half(path, state):
    path.write_bytes(path.read_bytes()[:7000])


def of_other_shapes(path, state):
    """Found out only when the optimizer has taken in its part of the state."""
    weights = state["training"]["model"]
    weights.update({key: torch.zeros(3, 3) for key in weights})
    torch.save(state, path)


@pytest.mark.parametrize("damage", [half, of_other_shapes])
def test_a_damaged_state_is_told_and_training_starts_anew(tmp_path, quiet, damage):
    path = tmp_path / "quiet" / STATE
    damage(path, torch.load(path, weights_only=True))
    result = small_phase(tmp_path / "quiet")
    assert "anew" in result.note and facts(result) == quiet
    assert list((tmp_path / "quiet").glob("*_best.earlier-*.pth"))
