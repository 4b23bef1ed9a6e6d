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
from small_training import NAME, SmallNet, register_small_net, small_data, small_phase
from test_resume import facts

import transfer_learning_config as config
from flowers_utils import phases, trainer, training
from flowers_utils.data import Split
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, build_model
from flowers_utils.storage import files
from flowers_utils.storage.checkpoints import load_checkpoint

PHASES = {1: {"phase": 1, "backbone_lr": None}, 2: {"phase": 2}}
TRAINED = {1: trainer.FrozenBackbone, 2: SmallNet}  # the class whose forward pass a phase trains
STEPS = 3  # in an epoch: 24 images, 8 at a time
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))


@pytest.fixture(scope="module", autouse=True)
def threads():
    """One thread, many times faster for so small a network; gives the number that there was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield before
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_net(monkeypatch):
    monkeypatch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
    register_small_net()
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 8)


@pytest.fixture(scope="module")
def quiet_facts(tmp_path_factory, threads):
    """What a phase gives when nothing disturbs it: {number of the phase: its facts}."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, NAME, None)
        register_small_net()
        patch.setitem(config.TRAINING_CONFIG, "batch_size", 8)
        folder = tmp_path_factory.mktemp("quiet")
        return {number: facts(small_phase(folder, **PHASES[number])) for number in PHASES}


def in_forward_pass(monkeypatch, number, epoch, step, act):
    """Let `act(network)` happen at the start of one training step; returns a list of all steps."""
    kind, steps = TRAINED[number], []
    forward = kind.forward

    def disturbed(self, images):
        if self.training:
            steps.append(len(steps) + 1)
            if len(steps) == STEPS * (epoch - 1) + step:
                act(self)
        return forward(self, images)

    monkeypatch.setattr(kind, "forward", disturbed)
    return steps


def spoil(network):
    with torch.no_grad():
        network.classifier[1].weight[0, 0] = torch.nan


def best_of(history):
    return max(history, key=lambda row: (row["val_accuracy"], -row["epoch"]))


# The loss is no longer a number.


@pytest.mark.parametrize("number", PHASES)
@pytest.mark.parametrize(("epoch", "step"), [(2, 1), (2, 3), (5, 2)])
def test_a_loss_that_is_not_finite_stops_training_and_the_best_weights_are_kept(
    tmp_path, monkeypatch, quiet_facts, number, epoch, step
):
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        steps = in_forward_pass(patch, number, epoch, step, spoil)
        small_phase(tmp_path, **PHASES[number])
    message = str(caught.value)
    assert message.startswith(f"Phase {number}, epoch {epoch}: ") and f"step {step})" in message
    assert "learning rate ten times smaller" in message
    assert len(steps) == STEPS * (epoch - 1) + step  # not one step more
    best = best_of(quiet_facts[number][0][: epoch - 1])
    path = tmp_path / f"{NAME}_phase{number}_best.pth"
    assert f"(epoch {best['epoch']}) are kept in '{path}'" in message
    saved = load_checkpoint(path)
    assert saved["epoch"] == best["epoch"]
    assert saved["metrics"]["val_accuracy"] == best["val_accuracy"]
    assert facts(small_phase(tmp_path, **PHASES[number])) == quiet_facts[number]


def test_a_val_loss_that_is_not_finite_stops_training_too(tmp_path, monkeypatch, quiet_facts):
    forward, evaluations = SmallNet.forward, []

    def disturbed(self, images):
        evaluations.extend([1] if not self.training else [])
        return forward(self, images) * (torch.nan if len(evaluations) == 2 * 2 + 1 else 1.0)

    with monkeypatch.context() as patch, pytest.raises(FlowersError, match=r"Phase 2, epoch 3: "):
        patch.setattr(SmallNet, "forward", disturbed)
        small_phase(tmp_path)
    assert facts(small_phase(tmp_path)) == quiet_facts[2]


@pytest.mark.parametrize("rate", [1e9, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("part", ["head_lr", "backbone_lr"])
def test_a_huge_learning_rate_is_told_and_no_spoilt_checkpoint_stays(
    tmp_path, monkeypatch, rate, part
):
    rules = config._RULES["PHASES['phase2']"]
    monkeypatch.setitem(rules, part, (float, 0.0, rate))  # the check would not let it through
    with pytest.raises(FlowersError, match=r"^Phase 2, epoch \d: The loss is no longer a finite"):
        small_phase(tmp_path, **{part: rate})
    for path in tmp_path.glob("*_best.pth"):
        load_checkpoint(path)  # refuses weights that are not finite


@pytest.mark.parametrize("earlier", [False, True])
def test_without_a_best_epoch_no_checkpoint_is_claimed_to_be_kept(tmp_path, monkeypatch, earlier):
    if earlier:  # that of another run is not this run's best
        small_phase(tmp_path, seed=7)
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        in_forward_pass(patch, 2, 1, 2, spoil)
        small_phase(tmp_path)
    assert str(caught.value).startswith("Phase 2, epoch 1: ")
    assert "kept" not in str(caught.value)
    assert bool(list(tmp_path.glob("*"))) == earlier


# The device or the computer runs out of memory.


def raising(kind, *words):
    def act(_):
        raise kind(*words)

    return act


def too_large(_):
    torch.empty(2**58)


NO_MEMORY = {
    "a real allocation": too_large,
    "cuda": raising(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2 GiB"),
    "python": raising(MemoryError),
}
WORDS = [
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory (MPS allocated: 9 GB)",
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes",
    "unable to mmap 99 bytes from file: Cannot allocate memory (12)",
]


@pytest.mark.parametrize("words", WORDS)
def test_a_lack_of_memory_is_known_by_what_each_device_says(words):
    assert phases.is_out_of_memory(RuntimeError(words))
    assert not phases.is_out_of_memory(FlowersError(words))


def remember_what_is_made(monkeypatch):
    """A list that fills with weak references to all that a phase makes."""
    made, make = [], trainer.PhaseTrainer.__init__

    def remembered(self, *args, **kwargs):
        make(self, *args, **kwargs)
        things = [self, self.model, self.optimizer, *self.model.parameters()]
        made.extend(weakref.ref(thing) for thing in things)

    monkeypatch.setattr(trainer.PhaseTrainer, "__init__", remembered)
    return made


def tensors_alive():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_without_memory_a_smaller_batch_is_named_and_nothing_is_held(
    tmp_path, monkeypatch, quiet_facts, kind
):
    settings = {"model": build_model(NAME, num_classes=4, weights=None), "data": small_data()}
    before = tensors_alive()
    with monkeypatch.context() as patch, pytest.raises(FlowersError) as caught:
        made = remember_what_is_made(patch)
        in_forward_pass(patch, 2, 2, 2, NO_MEMORY[kind])
        small_phase(tmp_path, **settings)
    message = str(caught.value)  # and `caught` holds the error with its frames
    assert "memory at batch size 8" in message and "['batch_size'] = 4" in message
    assert tensors_alive() <= before
    assert len(made) > 5 and not any(thing() is not None for thing in made)
    resumed = small_phase(tmp_path, **settings)
    assert "going on after epoch 1 of 6" in resumed.note
    assert facts(resumed) == quiet_facts[2]


def test_without_memory_at_the_smallest_batch_no_smaller_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_size", 2)
    in_forward_pass(monkeypatch, 2, 1, 1, too_large)
    with pytest.raises(
        FlowersError, match=r"at batch size 2\. No smaller one works: take a smaller"
    ):
        small_phase(tmp_path)


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    in_forward_pass(monkeypatch, 2, 1, 1, raising(RuntimeError, "shapes do not match"))
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        small_phase(tmp_path)


# Data and arguments that cannot work.


def with_split(name, images=None, labels=None):
    """The small data with other images or labels in one split."""
    data = small_data()
    split = getattr(data, name)
    changed = Split(
        name,
        split.images if images is None else images(split.images),
        split.labels if labels is None else labels(split.labels),
    )
    object.__setattr__(data, name, changed)
    return {"data": data}


def put(value):
    def changed(labels):
        return torch.cat([labels[:-1], torch.tensor([value])])

    return changed


BAD_SPLITS = {
    "empty": ({"images": lambda x: x[:0], "labels": lambda x: x[:0]}, "is empty"),
    "labels below 0": ({"labels": put(-1)}, "from -1 to 3"),
    "labels too large": ({"labels": put(4)}, "from 0 to 4, but for 4 classes"),
    "labels far too large": ({"labels": put(2**62)}, "0 to 3"),
    "grey images": ({"images": lambda x: x[:, :1]}, "shape"),
    "channels last": ({"images": lambda x: x.transpose(0, 2, 3, 1)}, "shape"),
    "no square": ({"images": lambda x: x[..., :-1]}, "shape"),
    "one image too few axes": ({"images": lambda x: x[0]}, "shape"),
    "float images": ({"images": lambda x: x / 255}, "float64"),
    "int32 labels": ({"labels": lambda x: x.int()}, "int32"),
    "one-hot labels": ({"labels": lambda x: torch.eye(4).long()[x]}, "as many int64 labels"),
    "more labels than images": ({"images": lambda x: x[:-3]}, "as many int64 labels"),
    "fewer labels than images": ({"labels": lambda x: x[:-3]}, "as many int64 labels"),
    "a tensor of images": ({"images": torch.from_numpy}, "numpy array"),
    "a list of labels": ({"labels": lambda x: x.tolist()}, "tensor of labels"),
}
BAD_ARGUMENTS = {
    "rate 0": ({"head_lr": 0.0}, "head_lr .* it is 0.0"),
    "negative rate": ({"backbone_lr": -0.1}, "backbone_lr .* it is -0.1"),
    "rate nan": ({"head_lr": float("nan")}, "head_lr .* it is nan"),
    "rate inf": ({"head_lr": float("inf")}, "head_lr .* it is inf"),
    "epochs 0": ({"epochs": 0}, "epochs .* it is 0"),
    "seed -1": ({"seed": -1}, "seed .* it is -1"),
    "phase as text": ({"phase": "2"}, "phase .* it is '2'"),
}


@pytest.fixture
def nothing_happens(tmp_path, monkeypatch):
    """Afterwards no step was taken and no file was written."""
    steps = []
    monkeypatch.setattr(training, "take_step", lambda *_: steps.append(1))
    yield
    assert not steps and not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["train", "val", "test"])
@pytest.mark.parametrize("what", BAD_SPLITS)
def test_a_split_that_cannot_work_is_named_before_the_first_step(
    tmp_path, nothing_happens, name, what
):
    change, told = BAD_SPLITS[what]
    with pytest.raises(FlowersError, match=told) as caught:
        small_phase(tmp_path / "new", **with_split(name, **change))
    assert name in str(caught.value)


def test_a_train_split_of_one_image_is_refused(tmp_path, nothing_happens):
    one = {"images": lambda x: x[:1], "labels": lambda x: x[:1]}
    with pytest.raises(FlowersError, match="at least two photographs"):
        small_phase(tmp_path / "new", **with_split("train", **one))


def test_a_val_split_of_one_image_can_be_trained_with(tmp_path):
    one = {"images": lambda x: x[:1], "labels": lambda x: x[:1]}
    assert small_phase(tmp_path, **with_split("val", **one)).best_val_accuracy in (0.0, 1.0)


@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_an_argument_that_cannot_work_is_named_before_the_first_step(
    tmp_path, nothing_happens, what
):
    change, told = BAD_ARGUMENTS[what]
    with pytest.raises(FlowersError, match=told):
        small_phase(tmp_path / "new", **change)


@pytest.mark.parametrize("classes", [1, 3, 5, 102])
def test_a_head_of_another_class_count_is_refused(tmp_path, nothing_happens, classes):
    model = build_model(NAME, num_classes=classes, weights=None)
    with pytest.raises(FlowersError, match=f"head has {classes} outputs, but the data has 4"):
        small_phase(tmp_path / "new", model=model)


def test_a_misspelt_key_is_named_before_the_first_step(tmp_path, monkeypatch, nothing_happens):
    monkeypatch.setitem(config.TRAINING_CONFIG, "batch_szie", 64)
    with pytest.raises(FlowersError, match="has no key 'batch_szie'"):
        small_phase(tmp_path / "new")


# The disk is full, or may not be written.


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


def after_epoch(monkeypatch, acts):
    """Let `acts[epoch]()` happen after the step of an epoch, before its files are written."""
    record = trainer.PhaseTrainer.record

    def disturbed(self, epoch, *args):
        acts.get(epoch, lambda: None)()
        record(self, epoch, *args)

    monkeypatch.setattr(trainer.PhaseTrainer, "record", disturbed)


def fill(place, *, leave):
    """Fill the file system of `place` but for `leave` bytes."""
    free = shutil.disk_usage(place).free
    (place / "filler").write_bytes(b"0" * max(0, free - leave))


def remount(place, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


def assert_training_goes_on(folder, quiet, told):
    """A run whose files cannot be written from epoch 2 on: told, the best at hand, files whole."""
    with pytest.warns(UserWarning, match=f"Training goes on, but: .*{told}"):
        result = small_phase(folder)
    assert "Not everything could be saved" in result.note and re.search(told, result.note)
    history, best, weights, *_ = quiet
    found = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    assert (found, (result.best_epoch, result.best_val_accuracy)) == (history, best)
    assert {key: value.tolist() for key, value in result.model.state_dict().items()} == weights
    assert load_checkpoint(result.checkpoint)["epoch"] == 1
    assert files.load_tensors(folder / f"{NAME}_phase2_resume.pth")["epoch"] == 1
    assert sorted(path.name for path in folder.glob("*.pth")) == [
        f"{NAME}_phase2_best.pth",
        f"{NAME}_phase2_resume.pth",
    ]
    assert not list(folder.glob(".*"))


def assert_made_good(folder, quiet):
    again = small_phase(folder)
    assert facts(again) == quiet and "could be saved" not in again.note


def test_room_for_the_checkpoint_but_not_for_the_state_is_used(
    small_disk, monkeypatch, quiet_facts
):
    with monkeypatch.context() as patch:
        after_epoch(patch, {2: lambda: fill(small_disk, leave=12288)})
        with pytest.warns(UserWarning, match="resume.pth' was not written"):
            result = small_phase(small_disk)
    assert facts(result) == quiet_facts[2] and "Not everything could be saved" in result.note
    assert files.load_tensors(small_disk / f"{NAME}_phase2_resume.pth")["epoch"] == 1
    (small_disk / "filler").unlink()
    assert_made_good(small_disk, quiet_facts[2])


@pytest.mark.parametrize("leave", [0, 4096])
def test_a_full_disk_does_not_stop_training(small_disk, monkeypatch, quiet_facts, leave):
    with monkeypatch.context() as patch:
        after_epoch(patch, {2: lambda: fill(small_disk, leave=leave)})
        assert_training_goes_on(small_disk, quiet_facts[2], "disk is full")
    (small_disk / "filler").unlink()
    assert_made_good(small_disk, quiet_facts[2])


def test_a_folder_that_turns_read_only_does_not_stop_training(small_disk, monkeypatch, quiet_facts):
    with monkeypatch.context() as patch:
        after_epoch(patch, {2: lambda: remount(small_disk, "ro")})
        assert_training_goes_on(small_disk, quiet_facts[2], "cannot be written: no permission")
    remount(small_disk, "rw")
    assert_made_good(small_disk, quiet_facts[2])


def test_space_that_comes_back_in_time_leaves_nothing_to_tell(tmp_path, monkeypatch, quiet_facts):
    full = threading.Event()
    fail_to_write(monkeypatch, "save", OSError(errno.ENOSPC, "No space left on device"), full)
    after_epoch(monkeypatch, {2: full.set, 4: full.clear})
    with pytest.warns(UserWarning, match="disk is full"):
        result = small_phase(tmp_path)
    assert result.note == "" and facts(result) == quiet_facts[2]
    assert files.load_tensors(tmp_path / f"{NAME}_phase2_resume.pth")["epoch"] == 6


def fail_to_write(monkeypatch, where, error, now):
    """While `now` is set, writing a file fails at `where` with `error`."""
    owner, name = {
        "save": (files.torch, "save"),
        "flush": (files.os, "fsync"),
        "touch": (files.Path, "touch"),
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


WRITE_FAULTS = {
    "full, torch.save": ("save", OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
    "full, quota": ("save", OSError(errno.EDQUOT, "Disk quota exceeded"), "disk is full"),
    "full, torch's writer": ("save", RuntimeError("PytorchStreamWriter failed"), "disk is full"),
    "full, a record": ("save", RuntimeError("unexpected pos 64 vs 0"), "disk is full"),
    "full, the end": ("save", RuntimeError("basic_ios::clear: iostream error"), "disk is full"),
    "read-only": ("touch", OSError(errno.EROFS, "Read-only system"), "cannot be written"),
    "no permission": ("touch", PermissionError(errno.EACCES, "denied"), "cannot be written"),
    "cable out": ("touch", OSError(errno.EIO, "Input/output error"), "was not written"),
    "rename": ("rename", OSError(errno.EIO, "Input/output error"), "was not written"),
}


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_files_that_cannot_be_written_do_not_stop_training(
    tmp_path, monkeypatch, quiet_facts, fault
):
    where, error, told = WRITE_FAULTS[fault]
    with monkeypatch.context() as patch:
        broken = threading.Event()
        fail_to_write(patch, where, error, broken)
        after_epoch(patch, {2: broken.set})
        assert_training_goes_on(tmp_path, quiet_facts[2], told)
    assert_made_good(tmp_path, quiet_facts[2])


def test_a_disk_full_at_the_flush_keeps_the_earlier_checkpoint(tmp_path, monkeypatch, quiet_facts):
    with monkeypatch.context() as patch:
        broken = threading.Event()
        fail_to_write(patch, "flush", OSError(errno.ENOSPC, "No space left on device"), broken)
        after_epoch(patch, {2: broken.set})
        with pytest.warns(UserWarning, match="disk is full"):
            result = small_phase(tmp_path)
    assert load_checkpoint(result.checkpoint)["epoch"] == 1
    assert_made_good(tmp_path, quiet_facts[2])


# The stop button, at any moment.


def press_stop(*_):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heeds_stop():
    """A shell starts its background jobs with the signal ignored, and so would Python."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that interrupt")
@pytest.mark.parametrize("number", PHASES)
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_phase_stopped_in_the_middle_of_an_epoch_ends_bit_identical(
    tmp_path, monkeypatch, quiet_facts, heeds_stop, number, step
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        in_forward_pass(patch, number, 3, step, press_stop)
        small_phase(tmp_path, **PHASES[number])
    resumed = small_phase(tmp_path, **PHASES[number])
    assert "going on after epoch 2 of 6" in resumed.note
    assert facts(resumed) == quiet_facts[number]


def stopped_at_line(folder, stop):
    """Train; at the line of this package that is number `stop`, the stop button is pressed.

    Returns the number of lines that ran.
    """
    package = str(Path(files.__file__).parent)
    lines = 0

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
    assert torch.is_grad_enabled()
    return lines


def test_a_stop_at_any_line_leaves_whole_files_and_a_bit_identical_end(tmp_path):
    lines = stopped_at_line(tmp_path / "quiet", 0)
    quiet = facts(small_phase(tmp_path / "quiet", epochs=2))
    places = random.Random(0)
    for attempt in range(max(1, EXAMPLES // 3)):
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

    monkeypatch.setattr(trainer, "run_epoch", stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            small_phase(tmp_path, epochs=2)
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled("cpu", False)


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
        for _ in range(20):
            files.save_tensors(path, {"who": who, "numbers": torch.full((5000,), float(who))})

    def read():
        for _ in range(40):
            content = files.load_tensors(path)
            assert torch.all(content["numbers"] == content["who"])

    run_in_threads(lambda: write(1), lambda: write(2), read)
    assert [found.name for found in tmp_path.iterdir()] == ["one.pth"]


def test_two_phases_in_one_folder_and_process_leave_whole_files(tmp_path):
    run_in_threads(*(lambda seed=seed: small_phase(tmp_path, seed=seed) for seed in (0, 1)))
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        files.load_tensors(path)
    load_checkpoint(tmp_path / f"{NAME}_phase2_best.pth")


# Another number of threads.


def stop_in_epoch_3(folder):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        in_forward_pass(patch, 2, 3, 1, raising(KeyboardInterrupt))
        small_phase(folder)


GOING_ON = "Phase 2: going on after epoch 2 of 6, where it stopped."


def test_going_on_with_another_number_of_threads_is_told_and_not_refused(tmp_path):
    torch.set_num_threads(2)
    stop_in_epoch_3(tmp_path)
    torch.set_num_threads(1)
    result = small_phase(tmp_path)
    assert result.note == (
        f"{GOING_ON} The last digits may differ from an uninterrupted run, because the number of "
        "CPU threads was 2 and is now 1."
    )
    assert len(result.history) == 6


def test_a_finished_phase_is_loaded_with_any_number_of_threads(tmp_path, monkeypatch):
    small_phase(tmp_path)
    monkeypatch.setattr("flowers_utils.storage.resume.torch.get_num_threads", lambda: 64)
    assert "threads" not in small_phase(tmp_path).note


def test_with_the_same_number_of_threads_or_an_unknown_one_nothing_is_told(tmp_path):
    stop_in_epoch_3(tmp_path)
    path = tmp_path / f"{NAME}_phase2_resume.pth"
    state = torch.load(path, weights_only=True)
    assert state["threads"] == 1
    assert small_phase(tmp_path).note == GOING_ON
    del state["threads"]  # as an earlier version of the lesson wrote it
    torch.save(state, path)
    assert small_phase(tmp_path).note == GOING_ON
