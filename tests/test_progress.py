"""Bars, the lines that they leave, and errors as a notebook shows them."""

import io
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from flowers_utils import progress
from flowers_utils.progress import Progress, clock, program_name, progress_style, say

ROOT = Path(__file__).parent.parent


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets by hand."""
    seconds = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(
    ("seconds", "words"), [(7.6, "8 s"), (185, "3 min 05 s"), (4320, "1 h 12 min")]
)
def test_durations_are_quick_to_read(seconds, words):
    assert clock(seconds) == words


def test_work_ends_with_a_line_of_title_amount_note_and_time(now, capsys):
    with Progress(1020, "Phase 1", unit="image", style="lines") as bar:
        bar.update(1020)
        bar.note("best val 76 %")
        now[0] += 185
    assert capsys.readouterr().out == "Phase 1: 1,020 images   best val 76 %   3 min 05 s\n"


def test_work_that_was_stopped_says_how_far_it_came(now, capsys):
    with pytest.raises(KeyboardInterrupt), Progress(64, "Phase 2", style="lines") as bar:
        bar.update(12)
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "Phase 2: stopped after 12 of 64 steps   0 s\n"


def test_a_text_bar_leaves_the_same_line(now, capsys):
    with Progress(4, "Work", style="terminal") as bar:
        bar.update(4)
        bar.line("not printed beside a bar")
    assert capsys.readouterr().out == "Work: 4 steps   0 s\n"


def test_lines_come_now_and_then_with_the_time_left(now, capsys):
    bar = Progress(10, "Work", style="lines")
    bar.update(1)
    now[0] += 20
    bar.update(4)
    assert capsys.readouterr().out == "Work: 50 %   20 s left\n"


def test_time_left_counts_only_what_this_run_did(now):
    bar = Progress(10, "Work", style="lines")
    bar.skip(5)
    now[0] += 2
    bar.update(1)
    assert bar.seconds_left() == pytest.approx(8.0)


@pytest.mark.parametrize("total", [0, None])
@pytest.mark.parametrize("style", ["lines", "terminal"])
def test_an_unknown_total_shows_amounts_and_no_percentage(total, style, now, capsys):
    with Progress(total, "Download", unit="B", style=style) as bar:
        now[0] += 20
        bar.update(12_000_000)
    shown = capsys.readouterr()
    assert "12 MB" in shown.out and "%" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/venv/bin/python3.11 /venv/bin/papermill a.ipynb", "papermill"),
        ("/venv/bin/python -Wignore -m pytest tests", "pytest"),
        ("python /venv/bin/jupyter-execute a.ipynb", "jupyter-execute"),
        (
            "C:/venv/Scripts/python.exe C:/venv/Scripts/jupyter-nbconvert-script.py a",
            "jupyter-nbconvert",
        ),
        ("/venv/bin/python /venv/bin/jupyter-lab /data/pytest/papermill", "jupyter-lab"),
        ("python -c code papermill", ""),
    ],
)
def test_a_program_is_known_by_its_name_and_not_by_its_paths(command, name):
    assert program_name(command.split()) == name


def test_a_live_notebook_without_widgets_gets_a_text_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setitem(sys.modules, "IPython", sys)
    monkeypatch.setattr(progress, "is_headless", lambda: True)
    assert progress_style() == "lines"
    monkeypatch.setattr(progress, "is_headless", lambda: False)
    assert progress_style() == "widget"
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert progress_style() == "terminal"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_a_character_shows_its_code(encoding, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", console)
    say("菊 in data/\udcff")
    assert console.buffer.getvalue().decode(encoding).strip() == r"\u83ca in data/\udcff"


CELLS = {
    "headless": "from flowers_utils.progress import Progress, is_headless\nprint(is_headless())",
    "widget": """
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
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c) for c in CELLS.values()]
    )
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, allow_errors=True, timeout=120, resources=resources).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


@pytest.mark.slow
def test_a_kernel_that_a_test_started_is_headless(outputs):
    assert outputs["headless"][-1].text == "True\n"


@pytest.mark.slow
def test_a_widget_bar_is_saved_as_its_last_line_of_text(outputs):
    (output,) = outputs["widget"]
    assert dict(output.data) == {"text/plain": "Phase $1: 64 steps   best <val> 76 %   0 s"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "kind", "words"),
    [("error", "FlowersError", "The disk is full"), ("stop", "Stopped", "Stopped in epoch 2")],
)
def test_an_error_of_the_lesson_fails_the_cell_and_shows_its_sentence_alone(
    outputs, cell, kind, words
):
    (output,) = outputs[cell]
    assert (output.output_type, output.ename) == ("error", kind)
    assert len(output.traceback) == 1 and output.traceback[0].startswith(words)


@pytest.mark.slow
def test_any_other_error_keeps_its_traceback(outputs):
    assert len(outputs["other"][0].traceback) > 1
