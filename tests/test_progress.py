"""Bars, the lines that they leave, and errors as a notebook shows them."""

import io
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

from flowers_utils import progress
from flowers_utils.progress import Progress, clock, is_watched, say


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets by hand."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize("watched", [True, False])
def test_work_ends_with_a_line_of_title_amount_note_and_time(monkeypatch, now, capsys, watched):
    monkeypatch.setattr(progress, "is_watched", lambda: watched)
    with Progress(4, "Phase 1", unit="image") as bar:
        batches = [("images", [0, 1, 2]), ("images", [3])]
        assert list(bar.follow(batches)) == batches
        bar.note("best val 76 %")
        now[0] += 185
    shown = capsys.readouterr()
    assert shown.out == "Phase 1: 4 images   best val 76 %   3 min 05 s\n"
    assert ("Phase 1" in shown.err) == watched  # the bar


def test_work_that_was_stopped_says_how_far_it_came(now, capsys):
    with pytest.raises(KeyboardInterrupt), Progress(1064, "Phase 2") as bar:
        bar.update(12)
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "Phase 2: stopped after 12 of 1,064 steps   0 s\n"


@pytest.mark.parametrize(
    ("total", "unit", "told"),
    [(30_000, "step", "15,000 of 30,000 steps   1 min 00 s left"), (None, "B", "15 MB   20 s")],
)
def test_unwatched_work_prints_a_line_now_and_then(now, capsys, total, unit, told):
    bar, each = Progress(total, "Work", unit=unit), 1000 if total else 10**6
    bar.skip(10 * each)
    bar.update(each)
    now[0] += 20
    bar.update(4 * each)
    bar.update(each)
    assert capsys.readouterr().out == f"Work: {told}\n"


KERNEL = "/venv/bin/python3.11 -m ipykernel_launcher -f kernel.json"


@pytest.mark.parametrize(
    ("own", "parent", "watched"),
    [
        (KERNEL, "/venv/bin/python /venv/bin/jupyter-lab /papermill/lesson.ipynb", True),
        (KERNEL, "/venv/bin/python3.11 /venv/bin/papermill a.ipynb", False),
        ("python -m pytest tests", "bash", False),
    ],
)
def test_programs_tell_who_watches_and_their_folders_do_not(monkeypatch, own, parent, watched):
    secret = Mock(side_effect=psutil.AccessDenied)  # on macOS the first process of all
    parents = [SimpleNamespace(cmdline=parent.split), SimpleNamespace(cmdline=secret)]
    this = SimpleNamespace(cmdline=own.split, parents=lambda: parents)
    monkeypatch.setattr("psutil.Process", lambda: this)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    assert is_watched() is watched
    monkeypatch.delitem(sys.modules, "ipykernel")  # and a log file is watched by nobody
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_watched()


def test_a_console_that_lacks_a_character_shows_its_code_and_durations_are_words(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    say(f"菊\udce9 {clock(7.6)}, {clock(185)}, {clock(4320)}")  # also a byte that is not UTF-8
    assert console.buffer.getvalue().strip() == rb"\u83ca\udce9 8 s, 3 min 05 s, 1 h 12 min"


def test_an_error_of_the_lesson_shows_its_sentence_alone_in_a_notebook(capsys):
    shell = InteractiveShell()
    for kind in ("FlowersError", "Stopped", "RuntimeError"):
        shell.run_cell(f"from flowers_utils.errors import *\nraise {kind}('The disk is full.')")
        shown = capsys.readouterr().out
        assert (shown.strip() == "The disk is full.") == (kind != "RuntimeError")
