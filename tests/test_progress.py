"""Bars, the lines that they leave, and errors as a notebook shows them."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from flowers_utils import progress
from flowers_utils.progress import Progress, clock, is_headless, progress_style, say

ROOT = Path(__file__).parent.parent


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets by hand."""
    seconds = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def test_durations_are_quick_to_read():
    assert [clock(s) for s in (7.6, 185, 4320)] == ["8 s", "3 min 05 s", "1 h 12 min"]


@pytest.mark.parametrize("style", ["lines", "terminal"])
def test_work_ends_with_a_line_of_title_amount_note_and_time(style, now, capsys):
    with Progress(1020, "Phase 1", unit="image", style=style) as bar:
        bar.update(1020)
        bar.note("best val 76 %")
        now[0] += 185
    assert capsys.readouterr().out == "Phase 1: 1,020 images   best val 76 %   3 min 05 s\n"


def test_work_that_was_stopped_says_how_far_it_came(now, capsys):
    with pytest.raises(KeyboardInterrupt), Progress(64, "Phase 2", style="lines") as bar:
        bar.update(12)
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "Phase 2: stopped after 12 of 64 steps   0 s\n"


def test_lines_come_now_and_then_with_the_time_left_of_what_this_run_did(now, capsys):
    bar = Progress(20, "Work", style="lines")
    bar.skip(10)
    bar.update(1)
    now[0] += 20
    bar.update(4)
    assert capsys.readouterr().out == "Work: 75 %   20 s left\n"


@pytest.mark.parametrize("style", ["lines", "terminal"])
def test_an_unknown_total_shows_amounts_and_no_percentage(style, now, capsys):
    with Progress(None, "Download", unit="B", style=style) as bar:
        now[0] += 20
        bar.update(12_000_000)
    shown = capsys.readouterr()
    assert "12 MB" in shown.out and "%" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("command", "headless"),
    [
        ("/venv/bin/python3.11 /venv/bin/papermill a.ipynb", True),
        ("python -m pytest tests", True),
        ("/venv/bin/python /venv/bin/jupyter-lab /papermill/lesson.ipynb", False),
    ],
)
def test_a_program_is_known_by_its_name_and_not_by_its_folders(monkeypatch, command, headless):
    parent = SimpleNamespace(cmdline=command.split)
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(parents=lambda: [parent]))
    assert is_headless() is headless


def test_a_program_that_only_imports_ipykernel_is_no_notebook(monkeypatch):
    kernel = SimpleNamespace(IPKernelApp=SimpleNamespace(initialized=lambda: False))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    assert progress_style() in ("lines", "terminal")


def test_a_live_notebook_without_widgets_gets_a_text_bar(monkeypatch):
    kernel = SimpleNamespace(IPKernelApp=SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    monkeypatch.setattr(progress, "is_headless", lambda: True)
    assert progress_style() == "lines"
    monkeypatch.setattr(progress, "is_headless", lambda: False)
    assert progress_style() == "widget"
    monkeypatch.setattr(progress, "find_spec", lambda _: None)
    assert progress_style() == "terminal"


def test_a_console_that_lacks_a_character_shows_its_code():
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    say("菊 in data/\udcff", console)
    assert console.buffer.getvalue().decode("cp1252").strip() == r"\u83ca in data/\udcff"


CELLS = {
    "widget": """
from flowers_utils.progress import Progress
with Progress(64, "Phase $1", unit="step", style="widget") as bar:
    bar.update(64)
    bar.note("best <val> 76 %")""",
    "error": """
from flowers_utils.errors import FlowersError, Stopped
try:
    {}["key"]
except KeyError as error:
    raise FlowersError("The disk is full: free 1 GB, then run this cell again.") from error""",
    "stop": 'raise Stopped("Stopped in epoch 2; run this cell again to go on.")',
    "other": "1 / 0",
}


@pytest.fixture(scope="module")
def outputs():
    """What a real kernel made of CELLS: name of the cell -> its outputs."""
    cells = [nbformat.v4.new_code_cell(c) for c in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, allow_errors=True, timeout=120, resources=resources).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


@pytest.mark.slow
def test_a_widget_bar_is_saved_as_its_last_line_of_text(outputs):
    (output,) = outputs["widget"]
    assert dict(output.data) == {"text/plain": "Phase $1: 64 steps   best <val> 76 %   0 s"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "kind", "words"),
    [("error", "FlowersError", "The disk is full"), ("stop", "Stopped", "Stopped in epoch 2")],
)
def test_an_error_of_the_lesson_shows_its_sentence_alone(outputs, cell, kind, words):
    (output,) = outputs[cell]
    assert (output.output_type, output.ename) == ("error", kind)
    assert len(output.traceback) == 1 and output.traceback[0].startswith(words)
    assert len(outputs["other"][0].traceback) > 1
