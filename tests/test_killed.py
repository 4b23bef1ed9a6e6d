"""A killed run loses at most the epoch it was in; two runs in one folder do no harm."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_training import KILLED_EPOCHS, NAME, facts, small_phase

from flowers_utils.storage import files
from flowers_utils.storage.checkpoints import load_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_net"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals"),
]


@pytest.fixture(scope="module")
def program():
    """A process that trains in children of its own when it is told to; see `small_training.py`."""
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-m", "tests.small_training"],
        cwd=root,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process
        process.stdin.close()


def next_numbers(program):
    """The next line of process ids or exit codes (the others are the progress of training)."""
    for line in program.stdout:
        words = line.split()
        if words and all(word.lstrip("-").isdigit() for word in words):
            return [int(word) for word in words]
    raise AssertionError("the training program ended")


def run_children(program, folder, seeds, *, stop=None, after=0.0):
    """Train with each seed in a child; send `stop` to all `after` some seconds.

    Returns how they ended, and the seconds that it took.
    """
    program.stdin.write(json.dumps([str(folder), seeds]) + "\n")
    program.stdin.flush()
    children, start = next_numbers(program), time.perf_counter()
    if stop is not None:
        time.sleep(after)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, stop)
    return next_numbers(program), time.perf_counter() - start


def kill_until_finished(program, folder, stop, *, kills):
    """Stop training at `kills` random moments; returns how often a child really was stopped."""
    codes, whole = run_children(program, folder, [77])  # another seed, to learn how long it takes
    assert codes == [0]
    stopped, moments = 0, random.Random(int(stop))
    for _ in range(kills):
        after = moments.uniform(0.0, 1.5) * whole / kills
        stopped += run_children(program, folder, [0], stop=stop, after=after)[0] == [-stop]
    assert run_children(program, folder, [0])[0] == [0]
    return stopped


@pytest.mark.parametrize("stop", ["SIGKILL", "SIGTERM"])
def test_a_killed_phase_ends_bit_identical(program, tmp_path, stop):
    assert kill_until_finished(program, tmp_path / "killed", getattr(signal, stop), kills=6) > 2
    quiet = small_phase(tmp_path / "quiet", epochs=KILLED_EPOCHS)
    killed = small_phase(tmp_path / "killed", epochs=KILLED_EPOCHS)
    assert "already trained" in killed.note
    assert facts(killed) == facts(quiet)


def test_two_runs_in_one_folder_do_not_corrupt_its_files(program, tmp_path):
    assert run_children(program, tmp_path / "both", [0, 1])[0] == [0, 0]
    for path in (tmp_path / "both").iterdir():
        files.load_tensors(path)
    best = load_checkpoint(tmp_path / "both" / f"{NAME}_phase2_best.pth")["state_dict"]
    runs = [
        small_phase(tmp_path / str(seed), seed=seed, epochs=KILLED_EPOCHS).model.state_dict()
        for seed in (0, 1)
    ]
    assert any(all(torch.equal(best[key], run[key]) for key in run) for run in runs)
