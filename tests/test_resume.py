"""An interrupted phase goes on where it stopped; what it cannot use it names first, and keeps."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from small_training import NAME, facts, noisy_colours, small_data, small_phase

import transfer_learning_config as config
from flowers_utils import models, training
from flowers_utils.device import Device
from flowers_utils.errors import Stopped
from flowers_utils.models import build_model
from flowers_utils.storage import files, resume
from flowers_utils.storage.checkpoints import load_checkpoint

pytestmark = pytest.mark.usefixtures("small_net")
PHASES = {1: {"number": 1, "backbone_lr": None}, 2: {"number": 2}}


@pytest.fixture
def quiet(tmp_path):
    """What Phase 2 gives when nothing disturbs it; its files lie in `tmp_path / "quiet"`."""
    return facts(small_phase(tmp_path / "quiet"))


def interrupt_in_epoch(monkeypatch, epoch):
    """Let the stop button be pressed when the training part of `epoch` is done."""
    whole, passes = training.train_one_epoch, []

    def interrupted(*args, **kwargs):
        result = whole(*args, **kwargs)
        passes.append(1)
        if len(passes) == epoch:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(training, "train_one_epoch", interrupted)


def stopped_phase(folder, monkeypatch, epoch, **settings):
    """Train until the stop button is pressed in `epoch` of those that are left."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        interrupt_in_epoch(patch, epoch)
        small_phase(folder, **settings)
    return caught.value


def never(*_, **__):
    raise AssertionError("a finished phase was trained again")


# Going on


@pytest.mark.parametrize("number", PHASES)
@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_a_phase_interrupted_in_any_epoch_ends_bit_identical(tmp_path, monkeypatch, number, epoch):
    quiet = facts(small_phase(tmp_path / "quiet", **PHASES[number]))
    model = build_model(NAME, num_classes=4, weights=None)  # the same object, as in a notebook
    stopped_phase(tmp_path, monkeypatch, epoch, model=model, **PHASES[number])
    resumed = small_phase(tmp_path, model=model, **PHASES[number])
    assert facts(resumed) == quiet
    assert (f"Going on after epoch {epoch - 1} of 6" in resumed.note) == (epoch > 1)


def test_a_stop_says_what_is_saved_and_how_to_go_on(tmp_path, monkeypatch):
    stop = stopped_phase(tmp_path, monkeypatch, 3)
    assert isinstance(stop, Stopped)
    assert "epoch 3: stopped. Epochs 1 to 2 are saved; run this cell again" in str(stop)


def test_many_interruptions_in_a_row_change_nothing(tmp_path, monkeypatch, quiet):
    for epoch in (1, 2, 2, 2):
        stopped_phase(tmp_path, monkeypatch, epoch)
    resumed = small_phase(tmp_path)
    assert "Going on after epoch 3 of 6" in resumed.note and facts(resumed) == quiet


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_an_interruption_around_any_write_loses_nothing(tmp_path, monkeypatch, quiet, moment):
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
    stopped_phase(tmp_path, monkeypatch, 5)
    rare = small_phase(tmp_path)
    assert facts(rare) == quiet
    monkeypatch.setattr(training, "train_one_epoch", never)
    assert "already trained" in small_phase(tmp_path).note


def test_resuming_is_exact_with_loss_scaling_too(tmp_path, monkeypatch):
    half = Device(torch.device("cpu"), "test", torch.float16)
    quiet = facts(small_phase(tmp_path / "quiet", device=half))
    stopped_phase(tmp_path, monkeypatch, 4, device=half)
    assert facts(small_phase(tmp_path, device=half)) == quiet


@pytest.mark.parametrize("first", [False, True])
def test_a_phase_goes_on_rightly_in_another_memory_layout(tmp_path, monkeypatch, first):
    one, other = (
        Device(torch.device("cpu"), "test", channels_last=layout) for layout in (first, not first)
    )
    quiet = small_phase(tmp_path / "quiet", device=one)
    stopped_phase(tmp_path, monkeypatch, 4, device=one)
    resumed = small_phase(tmp_path, device=other)
    assert "Going on after epoch 3" in resumed.note
    losses = [[row["train_loss"] for row in phase.history] for phase in (resumed, quiet)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_going_on_with_another_number_of_threads_is_told_and_not_refused(tmp_path, monkeypatch):
    stopped_phase(tmp_path, monkeypatch, 3)
    monkeypatch.setattr("flowers_utils.storage.resume.torch.get_num_threads", lambda: 64)
    resumed = small_phase(tmp_path)
    assert "Going on after epoch 2" in resumed.note
    assert "CPU threads was 1 and is now 64" in resumed.note


# Already trained


@pytest.mark.parametrize("number", PHASES)
def test_a_finished_phase_is_loaded_and_not_trained(tmp_path, monkeypatch, number):
    first = small_phase(tmp_path, **PHASES[number])
    monkeypatch.setattr(training, "train_one_epoch", never)
    loaded = small_phase(tmp_path, **PHASES[number])
    assert facts(loaded) == facts(first) and loaded.seconds == first.seconds
    assert "already trained" in loaded.note and "fresh=True" in loaded.note


def test_fresh_trains_a_finished_phase_anew_and_keeps_the_earlier_file(tmp_path, quiet):
    fresh = small_phase(tmp_path / "quiet", fresh=True)
    assert facts(fresh) == quiet
    (earlier,) = (tmp_path / "quiet").glob("*_best.earlier-*.pth")
    assert load_checkpoint(earlier)["epoch"] == fresh.best_epoch


@pytest.mark.parametrize("damage", ["gone", "half", "of another run"])
def test_the_best_checkpoint_is_put_right_when_a_phase_is_loaded(tmp_path, quiet, damage):
    path = tmp_path / "quiet" / f"{NAME}_phase2_best.pth"
    if damage == "gone":
        path.unlink()
    elif damage == "half":
        path.write_bytes(path.read_bytes()[:2000])
    else:  # another run was killed after its first epoch, between its two files
        small_phase(tmp_path / "other", seed=9).checkpoint.replace(path)
    assert facts(small_phase(tmp_path / "quiet")) == quiet


# Of another run


def other_val():
    data = small_data()
    object.__setattr__(data, "val", noisy_colours("val", 16, size=16, seed=50))
    return data


CHANGES = {
    "seed was 0 and is now 1": {"seed": 1},
    "head_lr was 0.02 and is now 0.03": {"head_lr": 0.03},
    "backbone_lr was 0.01 and is now 0.002": {"backbone_lr": 0.002},
    "data was": {"data": other_val()},
    "device was 'cpu float32' and is now 'cpu bfloat16'": {
        "device": Device(torch.device("cpu"), "test", torch.bfloat16)
    },
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_state_of_another_run_is_not_used_and_the_line_says_why(tmp_path, quiet, told):
    result = small_phase(tmp_path / "quiet", **CHANGES[told])
    assert told in result.note and result.note.count(" is now ") == 1  # nothing else is blamed
    assert facts(result) == facts(small_phase(tmp_path / "clean", **CHANGES[told]))


IDENTITY = {
    "the seed": lambda patch: {"seed": 1},
    "the precision": lambda patch: {"device": Device(torch.device("cpu"), "test", torch.bfloat16)},
    "one augmentation value": lambda patch: patch.setitem(config.AUGMENTATION, "hue", 0.2) or {},
}


@pytest.mark.parametrize("what", IDENTITY)
def test_a_change_of_identity_is_said_first_and_the_trained_files_are_kept(
    tmp_path, monkeypatch, quiet, capsys, what
):
    folder, whole = tmp_path / "quiet", training.train_one_epoch
    trained = (folder / f"{NAME}_phase2_best.pth").read_bytes()
    said_before_the_first_step = []

    def watched(*args, **kwargs):
        said_before_the_first_step.append(capsys.readouterr().out)
        return whole(*args, **kwargs)

    monkeypatch.setattr(training, "train_one_epoch", watched)
    capsys.readouterr()
    small_phase(folder, **IDENTITY[what](monkeypatch))
    (kept,) = folder.glob(f"{NAME}_phase2_best.earlier-*.pth")
    assert kept.read_bytes() == trained
    assert " was " in said_before_the_first_step[0] and kept.name in said_before_the_first_step[0]


def test_two_changes_are_both_named_and_two_earlier_files_both_kept(tmp_path, monkeypatch, quiet):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 5)
    monkeypatch.setitem(config.AUGMENTATION, "hue", 0.2)
    note = small_phase(tmp_path / "quiet").note
    assert "batch_size was 32 and is now 5" in note and "hue was 0.1 and is now 0.2" in note
    other = build_model(NAME, num_classes=4, weights=None, seed=5)
    assert "starting weights was" in small_phase(tmp_path / "quiet", model=other).note
    assert len(list((tmp_path / "quiet").glob("*_best.earlier-*.pth"))) == 2


def damage_half(path, state):
    path.write_bytes(path.read_bytes()[:7000])


def damage_text(path, state):
    path.write_text("epoch 17", encoding="utf-8")


def damage_less(path, state):
    del state["training"]["optimizer"]
    torch.save(state, path)


def damage_emptied(path, state):
    state["training"]["model"] = {}
    torch.save(state, path)


def damage_shapes(path, state):
    """Found out only when the optimizer has taken in its part of the state."""
    for key in state["training"]["model"]:
        state["training"]["model"][key] = torch.zeros(3, 3)
    torch.save(state, path)


@pytest.mark.parametrize(
    "damage", [damage_half, damage_text, damage_less, damage_emptied, damage_shapes]
)
def test_a_damaged_state_is_told_and_training_starts_anew(tmp_path, quiet, damage):
    path = tmp_path / "quiet" / f"{NAME}_phase2_resume.pth"
    damage(path, torch.load(path, weights_only=True))
    result = small_phase(tmp_path / "quiet")
    assert "anew" in result.note and facts(result) == quiet
    assert list((tmp_path / "quiet").glob("*_best.earlier-*.pth"))


def test_runs_in_one_process_leave_nothing_in_memory(tmp_path, monkeypatch):
    alive, make = [], models.make_optimizer

    def remembered(*args, **kwargs):
        optimizer = make(*args, **kwargs)
        alive.append(weakref.ref(optimizer))
        alive.extend(weakref.ref(p) for group in optimizer.param_groups for p in group["params"])
        return optimizer

    monkeypatch.setattr(models, "make_optimizer", remembered)
    for run in range(4):
        result = small_phase(tmp_path, epochs=2, fresh=True, **PHASES[1 + run % 2])
    gc.collect()
    kept = {id(thing()) for thing in alive if thing() is not None}
    assert len(alive) > 8 and kept <= {id(p) for p in result.model.parameters()}
