"""An interrupted phase goes on where it stopped, and ends as if nothing had happened."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from small_training import (
    NAME,
    noisy_colours,
    register_small_net,
    small_data,
    small_phase,
)

import transfer_learning_config as config
from flowers_utils import trainer
from flowers_utils.device import Device
from flowers_utils.models import BACKBONES, build_model
from flowers_utils.storage import files
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.storage.resume import KEYS

PHASES = {1: {"phase": 1, "backbone_lr": None}, 2: {"phase": 2}}


@pytest.fixture(autouse=True)
def small_net(monkeypatch):
    monkeypatch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
    register_small_net()


@pytest.fixture
def quiet_runs(tmp_path):
    """What a phase gives when nothing disturbs it: {number of the phase: its result}."""
    return {number: small_phase(tmp_path / f"quiet{number}", **PHASES[number]) for number in PHASES}


def facts(result):
    """All that must be alike, bit by bit: history without times, best weights, best checkpoint."""
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    saved = load_checkpoint(result.checkpoint)
    return (
        history,
        (result.best_epoch, result.best_val_accuracy),
        {key: value.tolist() for key, value in result.model.state_dict().items()},
        {key: value.tolist() for key, value in saved["state_dict"].items()},
        (saved["epoch"], saved["metrics"]),
    )


def interrupt_in_epoch(monkeypatch, epoch):
    """Let the stop button be pressed when the training part of `epoch` is done."""
    whole = trainer.PhaseTrainer.train_epoch

    def interrupted(self, network, number, after_step):
        result = whole(self, network, number, after_step)
        if number == epoch:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(trainer.PhaseTrainer, "train_epoch", interrupted)


@pytest.mark.parametrize("number", PHASES)
@pytest.mark.parametrize("epoch", range(1, 7))
def test_a_phase_interrupted_in_any_epoch_ends_bit_identical(
    tmp_path, monkeypatch, quiet_runs, number, epoch
):
    model = build_model(NAME, num_classes=4, weights=None)  # the same object, as in a notebook
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_epoch(patch, epoch)
        small_phase(tmp_path, model=model, **PHASES[number])
    resumed = small_phase(tmp_path, model=model, **PHASES[number])
    assert facts(resumed) == facts(quiet_runs[number])
    assert (f"going on after epoch {epoch - 1} of 6" in resumed.note) == (epoch > 1)


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_an_interruption_around_any_write_loses_nothing(tmp_path, monkeypatch, quiet_runs, moment):
    save = torch.save
    for write in range(1, 9):  # six states, and the checkpoints of the epochs that were best
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
        assert facts(small_phase(folder)) == facts(quiet_runs[2])


def test_many_interruptions_in_a_row_change_nothing(tmp_path, monkeypatch, quiet_runs):
    for epoch in (1, 2, 2, 4, 5):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_in_epoch(patch, epoch)
            small_phase(tmp_path)
    assert facts(small_phase(tmp_path)) == facts(quiet_runs[2])


def test_where_saving_costs_too_much_few_epochs_are_saved_but_always_the_last(
    tmp_path, monkeypatch, quiet_runs
):
    monkeypatch.setattr(trainer, "SAVING_SHARE", 1e-9)
    written = []
    save = files.torch.save
    monkeypatch.setattr(
        files.torch, "save", lambda content, path: (written.append(content), save(content, path))
    )
    rare = small_phase(tmp_path)
    assert [content["epoch"] for content in written if "optimizer" in content] == [1, 6]
    assert facts(rare) == facts(quiet_runs[2])
    assert "already trained" in small_phase(tmp_path).note


def test_a_phase_goes_on_exactly_from_a_state_some_epochs_old(tmp_path, monkeypatch, quiet_runs):
    monkeypatch.setattr(trainer, "SAVING_SHARE", 1e-9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_epoch(patch, 5)
        small_phase(tmp_path)
    resumed = small_phase(tmp_path)
    assert "going on after epoch 1 of 6" in resumed.note
    assert facts(resumed) == facts(quiet_runs[2])


def test_resuming_is_exact_with_loss_scaling_too(tmp_path, monkeypatch):
    half = Device(torch.device("cpu"), "test", torch.float16)
    quiet = small_phase(tmp_path / "quiet", device=half)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_epoch(patch, 4)
        small_phase(tmp_path, device=half)
    assert facts(small_phase(tmp_path, device=half)) == facts(quiet)


@pytest.mark.parametrize("first", [False, True])
def test_a_phase_goes_on_rightly_in_another_memory_layout(tmp_path, monkeypatch, first):
    device = {layout: Device(torch.device("cpu"), "test", channels_last=layout)
              for layout in (False, True)}  # fmt: skip
    quiet = small_phase(tmp_path / "quiet", device=device[first])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_epoch(patch, 4)
        small_phase(tmp_path, device=device[first])
    resumed = small_phase(tmp_path, device=device[not first])
    assert "going on after epoch 3" in resumed.note
    losses = [[row["train_loss"] for row in phase.history] for phase in (resumed, quiet)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("number", PHASES)
def test_a_finished_phase_is_loaded_and_not_trained(tmp_path, monkeypatch, quiet_runs, number):
    def never(*_):
        raise AssertionError("a finished phase was trained again")

    monkeypatch.setattr(trainer.PhaseTrainer, "train_epoch", never)
    loaded = small_phase(tmp_path / f"quiet{number}", **PHASES[number])
    assert facts(loaded) == facts(quiet_runs[number])
    assert loaded.seconds == quiet_runs[number].seconds
    assert "already trained" in loaded.note and "fresh=True" in loaded.note


def test_fresh_trains_a_finished_phase_anew(tmp_path, quiet_runs):
    fresh = small_phase(tmp_path / "quiet2", fresh=True)
    assert fresh.note == "" and fresh.seconds != quiet_runs[2].seconds
    assert facts(fresh) == facts(quiet_runs[2])


def test_the_given_model_stays_as_it_is(tmp_path):
    model = build_model(NAME, num_classes=4, weights=None)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = small_phase(tmp_path, model=model)
    assert result.model is not model
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def other_val():
    data = small_data()
    object.__setattr__(data, "val", noisy_colours("val", 16, size=16, seed=50))
    return data


CHANGES = {
    "seed was 0 and is now 1": {"seed": 1},
    "epochs was 6 and is now 7": {"epochs": 7},
    "learning rate['classifier'] was 0.02 and is now 0.03": {"head_lr": 0.03},
    "learning rate['stem'] was 0.01 and is now 0.002": {"backbone_lr": 0.002},
    "data was": {"data": other_val()},
    "device was 'cpu float32' and is now 'cpu bfloat16'": {
        "device": Device(torch.device("cpu"), "test", torch.bfloat16)
    },
}


@pytest.mark.parametrize("told", CHANGES)
def test_the_state_of_another_run_is_not_used_and_the_line_says_why(tmp_path, quiet_runs, told):
    result = small_phase(tmp_path / "quiet2", **CHANGES[told])
    assert result.note.startswith("Starting anew") and told in result.note
    assert result.note.count(" was ") == 1  # and nothing else is blamed
    assert facts(result) == facts(small_phase(tmp_path / "clean", **CHANGES[told]))


def test_a_changed_configuration_is_named(tmp_path, monkeypatch, quiet_runs):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 5)
    monkeypatch.setitem(config.AUGMENTATION, "hue", 0.2)
    note = small_phase(tmp_path / "quiet2").note
    assert "TRAINING_CONFIG['batch_size'] was 32 and is now 5" in note
    assert "AUGMENTATION['hue'] was 0.1 and is now 0.2" in note


def test_a_state_for_other_starting_weights_or_versions_is_not_used(
    tmp_path, monkeypatch, quiet_runs
):
    other = build_model(NAME, num_classes=4, weights=None, seed=5)
    assert "starting weights was" in small_phase(tmp_path / "quiet2", model=other).note
    monkeypatch.setattr("flowers_utils.storage.resume.versions", lambda: {"torch": "9.9"})
    monkeypatch.setattr("flowers_utils.storage.resume.STATE_VERSION", 99)
    note = small_phase(tmp_path / "quiet2", model=other).note
    assert "is now '9.9'" in note and "state version was 1 and is now 99" in note


def damaged_states(state):
    """Ways in which a state can be no good, each with the bytes or the content of the file."""
    yield "half of it", lambda path: path.write_bytes(path.read_bytes()[:7000])
    yield "empty", lambda path: path.write_bytes(b"")
    yield "text", lambda path: path.write_text("epoch 17", encoding="utf-8")
    yield "a list", lambda path: torch.save([1, 2], path)
    yield "foreign", lambda path: torch.save({"model": 1}, path)
    for key in KEYS:
        less = {k: v for k, v in state.items() if k != key}
        yield f"no {key}", lambda path, content=less: torch.save(content, path)
    for key in ("model", "best", "optimizer", "scheduler"):
        emptied = {**state, key: {}}
        yield f"empty {key}", lambda path, content=emptied: torch.save(content, path)
    wrong = {**state, "model": {key: torch.zeros(3, 3) for key in state["model"]}}
    yield "tensors of another shape", lambda path: torch.save(wrong, path)


def test_a_damaged_state_is_told_and_training_starts_anew(tmp_path, quiet_runs):
    path = tmp_path / "quiet2" / f"{NAME}_phase2_resume.pth"
    expected = facts(quiet_runs[2])
    for what, damage in damaged_states(torch.load(path, weights_only=True)):
        damage(path)
        result = small_phase(tmp_path / "quiet2")
        assert result.note.startswith("Starting anew: "), (what, result.note)
        assert facts(result) == expected, what


@pytest.mark.parametrize("damage", ["gone", "half", "of another run"])
def test_the_best_checkpoint_is_put_right_when_a_phase_is_loaded(tmp_path, quiet_runs, damage):
    path = quiet_runs[2].checkpoint
    expected = facts(quiet_runs[2])
    if damage == "gone":
        path.unlink()
    elif damage == "half":
        path.write_bytes(path.read_bytes()[:2000])
    else:  # another run was killed after its first epoch, between its two files
        small_phase(tmp_path / "other", seed=9).checkpoint.replace(path)
    assert facts(small_phase(tmp_path / "quiet2")) == expected


def test_ten_runs_in_one_process_leave_nothing_in_memory(tmp_path, monkeypatch):
    alive = []
    make = trainer.PhaseTrainer.__init__

    def remembered(self, *args, **kwargs):
        make(self, *args, **kwargs)
        alive.extend([weakref.ref(self), weakref.ref(self.model), weakref.ref(self.optimizer)])

    monkeypatch.setattr(trainer.PhaseTrainer, "__init__", remembered)
    for run in range(10):
        result = small_phase(tmp_path, epochs=2, fresh=True, **PHASES[1 + run % 2])
    gc.collect()
    assert len(alive) == 30
    assert [thing() for thing in alive if thing() is not None] == [result.model]
