"""What goes wrong in training is told at once, costs an epoch at most, and spoils no file."""

import errno
import gc
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from small_training import CPU, NAME, SmallNet, facts, small_phase

import transfer_learning_config as config
from flowers_utils import models, training
from flowers_utils.errors import FlowersError, out_of_memory_explained
from flowers_utils.models import build_model
from flowers_utils.storage import files
from flowers_utils.storage.checkpoints import load_checkpoint

pytestmark = pytest.mark.usefixtures("small_net", "steps_of_eight")
PHASES = {1: {"number": 1, "backbone_lr": None}, 2: {"number": 2}}
STEPS = 3  # in an epoch: 24 images, 8 at a time
BEST, STATE = f"{NAME}_phase2_best.pth", f"{NAME}_phase2_resume.pth"


@pytest.fixture
def steps_of_eight(monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 8)


@pytest.fixture
def quiet(tmp_path_factory, small_net, steps_of_eight):
    """What Phase 2 gives when nothing disturbs it."""
    return facts(small_phase(tmp_path_factory.mktemp("quiet")))


def in_forward_pass(monkeypatch, epoch, step, act):
    """Let `act(network)` happen at the start of one training step; returns a list of all steps."""
    forward, steps = SmallNet.forward, []

    def disturbed(self, images):
        if self.training:
            steps.append(len(steps) + 1)
            if len(steps) == STEPS * (epoch - 1) + step:
                act(self)
        return forward(self, images)

    monkeypatch.setattr(SmallNet, "forward", disturbed)
    return steps


def spoil(network):
    with torch.no_grad():
        network.classifier[1].weight[0, 0] = torch.nan


def raising(kind, *words):
    def act(_):
        raise kind(*words)

    return act


def best_of(history):
    return max(history, key=lambda row: (row["val_accuracy"], -row["epoch"]))


# The loss is no longer a number.


@pytest.mark.parametrize(("epoch", "step"), [(2, 1), (5, 3)])
def test_a_loss_that_is_not_finite_stops_training_and_the_best_weights_are_kept(
    tmp_path, monkeypatch, quiet, epoch, step
):
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        steps = in_forward_pass(patch, epoch, step, spoil)
        small_phase(tmp_path)
    message, best = str(caught.value), best_of(quiet[0][: epoch - 1])
    assert f"Phase 2, epoch {epoch}: " in message
    assert "learning rate ten times smaller" in message
    assert len(steps) <= STEPS * epoch  # not one epoch more
    assert ("Epoch 1 is saved" if epoch == 2 else "Epochs 1 to 4 are saved") in message
    saved = load_checkpoint(tmp_path / BEST)
    assert saved["epoch"] == best["epoch"]
    assert saved["metrics"]["val_accuracy"] == best["val_accuracy"]
    assert facts(small_phase(tmp_path)) == quiet


def test_a_val_loss_that_is_not_finite_stops_training_too(tmp_path, monkeypatch, quiet):
    forward, evaluations = SmallNet.forward, []

    def disturbed(self, images):
        evaluations.extend([1] if not self.training else [])
        return forward(self, images) * (torch.nan if len(evaluations) == 2 * 2 + 1 else 1.0)

    with monkeypatch.context() as patch, pytest.raises(FlowersError, match=r"Phase 2, epoch 3: "):
        patch.setattr(SmallNet, "forward", disturbed)
        small_phase(tmp_path)
    assert facts(small_phase(tmp_path)) == quiet


@pytest.mark.parametrize("part", ["head_lr", "backbone_lr"])
def test_a_huge_learning_rate_is_told_and_no_spoilt_checkpoint_stays(tmp_path, monkeypatch, part):
    monkeypatch.setattr(training, "check_numbers", lambda *_: None)  # it would not let it through
    with pytest.raises(FlowersError, match=r"Phase 2, epoch \d: The loss is no longer a finite"):
        small_phase(tmp_path, **{part: 1e30})
    for path in tmp_path.glob("*_best.pth"):
        load_checkpoint(path)  # refuses weights that are not finite


def test_in_the_first_epoch_nothing_is_claimed_to_be_saved(tmp_path, monkeypatch):
    small_phase(tmp_path, seed=7)  # that of another run is not this run's best
    in_forward_pass(monkeypatch, 1, 2, spoil)
    with pytest.raises(FlowersError, match=r"Phase 2, epoch 1: ") as caught:
        small_phase(tmp_path)
    assert "Nothing of it is saved yet" in str(caught.value)


# The device or the computer runs out of memory.


def too_large(_):
    torch.empty(2**58)


NO_MEMORY = {
    "a real allocation": too_large,
    "cuda": raising(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2 GiB"),
    "mps": raising(RuntimeError, "MPS backend out of memory (MPS allocated: 9 GB)"),
    "python": raising(MemoryError),
}


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_without_memory_a_smaller_batch_is_named_and_nothing_is_held(
    tmp_path, monkeypatch, quiet, kind
):
    made, make = [], models.make_optimizer

    def remembered(*args, **kwargs):
        optimizer = make(*args, **kwargs)
        made.append(weakref.ref(optimizer))
        made.extend(weakref.ref(p) for group in optimizer.param_groups for p in group["params"])
        return optimizer

    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        patch.setattr(models, "make_optimizer", remembered)
        in_forward_pass(patch, 2, 2, NO_MEMORY[kind])
        small_phase(tmp_path)
    message = str(caught.value)  # and `caught` holds the error with its frames
    assert "out of memory at batch size 8" in message and "['batch_size'] = 4" in message
    gc.collect()
    assert len(made) > 4 and not any(thing() is not None for thing in made)
    resumed = small_phase(tmp_path)
    assert "Going on after epoch 1 of 6" in resumed.note and facts(resumed) == quiet


def test_after_a_lack_of_memory_the_caches_of_cuda_and_mps_are_freed(monkeypatch):
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append("cuda"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: freed.append("mps"))
    with pytest.raises(FlowersError, match="memory"), out_of_memory_explained(8):
        raise torch.OutOfMemoryError
    assert sorted(freed) == ["cuda", "mps"]


def test_without_memory_at_the_smallest_batch_no_smaller_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 2)
    in_forward_pass(monkeypatch, 1, 1, too_large)
    with pytest.raises(FlowersError, match=r"at batch size 2\. .*smaller BACKBONE") as caught:
        small_phase(tmp_path)
    assert "['batch_size'] = 2" not in str(caught.value)


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    in_forward_pass(monkeypatch, 1, 1, raising(RuntimeError, "shapes do not match"))
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        small_phase(tmp_path)


def test_a_restore_that_runs_out_of_memory_is_not_called_damaged(tmp_path, monkeypatch, quiet):
    stop_in_epoch_3(tmp_path)
    state = (tmp_path / STATE).read_bytes()
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        patch.setattr(torch.optim.AdamW, "load_state_dict", lambda *_: too_large(None))
        small_phase(tmp_path)
    assert "memory" in str(caught.value) and "damaged" not in str(caught.value)
    assert (tmp_path / STATE).read_bytes() == state  # and nothing was trained anew
    assert facts(small_phase(tmp_path)) == quiet


# The disk is full, or may not be written.


def after_epoch(monkeypatch, acts):
    """Let `acts[epoch]()` happen after the training part of an epoch, before its files are written."""
    whole, passes = training.train_one_epoch, []

    def disturbed(*args, **kwargs):
        result = whole(*args, **kwargs)
        passes.append(1)
        acts.get(len(passes), lambda: None)()
        return result

    monkeypatch.setattr(training, "train_one_epoch", disturbed)


def fail_to_write(monkeypatch, where, error, now):
    """While `now` is set, writing a file fails at `where` with `error`."""
    owner, name = {
        "save": (files.torch, "save"),
        "flush": (files.os, "fsync"),
        "rename": (files.Path, "replace"),
    }[where]
    whole = getattr(owner, name)

    def failing(*args, **kwargs):
        if now.is_set():
            if where == "save":
                Path(args[1]).write_bytes(b"half a fi")
            raise error
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


def epochs_in(state):
    return len(files.load_tensors(state)["training"]["history"])


def assert_training_goes_on(folder, quiet, told):
    """A run whose files cannot be written from epoch 2 on: told, the best at hand, files whole."""
    with pytest.warns(UserWarning, match=f"Training goes on, but: .*{told}"):
        result = small_phase(folder)
    assert "Not everything could be saved" in result.note and re.search(told, result.note)
    found = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    assert (found, (result.best_epoch, result.best_val_accuracy)) == quiet[:2]
    assert {key: value.tolist() for key, value in result.model.state_dict().items()} == quiet[2]
    assert load_checkpoint(result.checkpoint)["epoch"] == 1
    assert epochs_in(folder / STATE) == 1
    assert sorted(path.name for path in folder.glob("*.pth")) == [BEST, STATE]
    assert not list(folder.glob(".*"))


def assert_made_good(folder, quiet):
    again = small_phase(folder)
    assert facts(again) == quiet and "could be saved" not in again.note


WRITE_FAULTS = {
    "full": ("save", OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
    "full, torch's writer": ("save", RuntimeError("PytorchStreamWriter failed"), "disk is full"),
    "read-only": ("save", OSError(errno.EROFS, "Read-only system"), "cannot be written"),
    "rename": ("rename", OSError(errno.EIO, "Input/output error"), "was not written"),
}


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_files_that_cannot_be_written_do_not_stop_training(tmp_path, monkeypatch, quiet, fault):
    where, error, told = WRITE_FAULTS[fault]
    with monkeypatch.context() as patch:
        broken = threading.Event()
        fail_to_write(patch, where, error, broken)
        after_epoch(patch, {2: broken.set})
        assert_training_goes_on(tmp_path, quiet, told)
    assert_made_good(tmp_path, quiet)


def test_a_disk_full_at_the_flush_keeps_the_earlier_checkpoint(tmp_path, monkeypatch, quiet):
    with monkeypatch.context() as patch:
        broken = threading.Event()
        fail_to_write(patch, "flush", OSError(errno.ENOSPC, "No space left on device"), broken)
        after_epoch(patch, {2: broken.set})
        with pytest.warns(UserWarning, match="disk is full"):
            result = small_phase(tmp_path)
    assert load_checkpoint(result.checkpoint)["epoch"] == 1
    assert_made_good(tmp_path, quiet)


def test_space_that_comes_back_in_time_leaves_nothing_to_tell(tmp_path, monkeypatch, quiet):
    full = threading.Event()
    fail_to_write(monkeypatch, "save", OSError(errno.ENOSPC, "No space left on device"), full)
    after_epoch(monkeypatch, {2: full.set, 4: full.clear})
    with pytest.warns(UserWarning, match="disk is full"):
        result = small_phase(tmp_path)
    assert result.note == "" and facts(result) == quiet
    assert epochs_in(tmp_path / STATE) == 6


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 160 KB; mounting one takes root on Linux."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_really_full_disk_does_not_stop_training(small_disk, monkeypatch, quiet):
    def fill():
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(b"0" * free)

    with monkeypatch.context() as patch:
        after_epoch(patch, {2: fill})
        assert_training_goes_on(small_disk, quiet, "disk is full")
    (small_disk / "filler").unlink()
    assert_made_good(small_disk, quiet)


# The stop button, at any moment.


@pytest.fixture
def heeds_stop():
    """A shell starts its background jobs with the signal ignored, and so would Python."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that interrupt")
@pytest.mark.parametrize("number", PHASES)
def test_a_phase_stopped_in_the_middle_of_an_epoch_ends_bit_identical(
    tmp_path, monkeypatch, heeds_stop, number
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        in_forward_pass(patch, 3, 2, lambda _: os.kill(os.getpid(), signal.SIGINT))
        small_phase(tmp_path / "stopped", **PHASES[number])
    resumed = small_phase(tmp_path / "stopped", **PHASES[number])
    assert "Going on after epoch 2 of 6" in resumed.note
    assert facts(resumed) == facts(small_phase(tmp_path / "quiet", **PHASES[number]))


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
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return lines


@pytest.mark.slow
def test_a_stop_at_any_line_leaves_whole_files_and_a_bit_identical_end(tmp_path):
    lines = stopped_at_line(tmp_path / "quiet", 0)
    quiet, places = facts(small_phase(tmp_path / "quiet", epochs=2)), random.Random(0)
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        for _ in range(2):
            stopped_at_line(folder, places.randint(1, lines))
        for path in folder.glob("[!.]*.pth"):
            files.load_tensors(path)
        assert facts(small_phase(folder, epochs=2)) == quiet


def test_a_stop_that_loses_the_end_of_a_with_leaves_gradients_and_autocast_as_they_were(
    tmp_path, monkeypatch
):
    def stopped(*_, **__):
        torch.set_grad_enabled(False)
        torch.set_autocast_enabled("cpu", True)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_one_epoch", stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            small_phase(tmp_path, epochs=2)
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    finally:
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled("cpu", False)


def stop_in_epoch_3(folder):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        in_forward_pass(patch, 3, 1, raising(KeyboardInterrupt))
        small_phase(folder)


# Two at once.


def run_in_threads(*tasks):
    """Run all at once; raises what one of them raised."""
    errors = []

    def guarded(task):
        try:
            task()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_file_written_by_two_threads_is_whole_whenever_it_is_read(tmp_path):
    path = tmp_path / "one.pth"
    files.save_tensors(path, {"who": 0, "numbers": torch.zeros(5000)})

    def write(who):
        for _ in range(10):
            files.save_tensors(path, {"who": who, "numbers": torch.full((5000,), float(who))})

    def read():
        for _ in range(20):
            content = files.load_tensors(path)
            assert torch.all(content["numbers"] == content["who"])

    run_in_threads(lambda: write(1), lambda: write(2), read)
    assert [found.name for found in tmp_path.iterdir()] == ["one.pth"]


def test_two_phases_in_one_folder_and_process_leave_whole_files(tmp_path):
    models = [build_model(NAME, num_classes=4, weights=None) for _ in range(2)]
    run_in_threads(
        *(
            lambda seed=seed: small_phase(tmp_path, seed=seed, device=CPU, model=models[seed])
            for seed in (0, 1)
        )
    )
    for path in tmp_path.iterdir():
        files.load_tensors(path)
    load_checkpoint(tmp_path / BEST)
