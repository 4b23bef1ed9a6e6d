"""The notebook: well-formed and readable as a file, its outputs its own, and executed headless."""

import builtins
import json
import os
import re
import subprocess
import symtable
import sys
from operator import attrgetter

import nbformat
import pytest
import torch
import torchvision
from conftest import write_mini_flowers102
from nbconvert import ScriptExporter
from remake_outputs import LIMIT, NOTEBOOK, WIDGET, copy_project, paths_in, sources_hash

import flowers_utils

# Runs in the kernel before the first cell: makes the tiny data set count as whole, and all quicker.
STARTUP = """
from torchvision.datasets import Flowers102
import transfer_learning_config as config

Flowers102._check_integrity = lambda self: True
config.DATASET.update({dataset})
config.COMPARISON = ("resnet18", "mobilenet_v2")  # what a comparison is, not how long five take
config.AUGMENTATION.update(resize=72, crop=64)  # as of practice flowers: a tenth of the work
"""


def load():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells():
    return [cell for cell in load().cells if cell.cell_type == "code"]


def test_the_notebook_is_valid_and_every_cell_has_an_id():
    nbformat.validate(load())
    ids = [cell["id"] for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)


def test_one_cell_holds_the_four_knobs():
    tagged = [c for c in code_cells() if "parameters" in c.metadata.get("tags", [])]
    knobs = 'DATA = "auto"\nPROFILE = "full"\nSEED = 0\nRECIPE = "lesson"'
    assert [cell.source for cell in tagged] == [knobs]


def test_the_page_is_as_short_as_it_promises_and_every_helper_it_calls_is_there():
    calls = {name for c in code_cells() for name in re.findall(r"\bfu\.([\w.]+)", c.source)}
    for name in calls:
        attrgetter(name)(flowers_utils)  # an error names what is not there
    assert len(calls) <= 60 and len(load().cells) <= 150
    assert max(len(cell.source.splitlines()) for cell in code_cells()) <= 22


def test_every_link_to_a_place_on_the_page_has_its_place():
    text = "\n".join(cell.source for cell in load().cells if cell.cell_type == "markdown")
    links, places = (set(re.findall(p, text)) for p in (r"\(#([\w-]+)\)", r'<a id="([\w-]+)">'))
    assert links and links <= places


def names_in(source):
    """The names that a cell makes, and those that it, or a function in it, takes from elsewhere."""
    cell = symtable.symtable(source, "cell", "exec")
    made = {s.get_name() for s in cell.get_symbols() if s.is_assigned() or s.is_imported()}
    read, scopes = set(), [cell]
    for scope in scopes:
        scopes += scope.get_children()  # which are visited in their turn
        used = [s for s in scope.get_symbols() if s.is_referenced()]
        read |= {s.get_name() for s in used if scope is cell or s.is_global()}
    return made, read - made


def test_each_section_needs_only_earlier_ones_and_those_of_part_two_only_part_one():
    known = set(dir(builtins))
    part_one = None
    for cell in load().cells:
        if cell.id == "part-two":
            part_one = known
        if part_one is not None and "\n### " in f"\n{cell.source}":
            known = part_one
        if cell.cell_type == "code":
            made, read = names_in(cell.source)
            assert read <= known, cell.id
            known = known | made


# What a reader finds in the file: outputs of one whole run of these very cells.


def test_outputs_belong_to_these_sources():
    message = "the outputs are of other code cells: run `python -m tests.remake_outputs`"
    assert load().metadata.get("outputs_of") == sources_hash(load()), message


def test_cells_were_executed_once_in_order_and_without_errors():
    counts = [cell.execution_count for cell in code_cells()]
    assert counts == list(range(1, len(counts) + 1))
    assert not [c.id for c in code_cells() for out in c.outputs if out.output_type == "error"]


def test_outputs_hold_no_widgets_no_places_no_times_and_are_small():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < LIMIT
    assert WIDGET not in text and "widgets" not in load().metadata
    assert not paths_in(load())
    assert not [c.id for c in load().cells if "execution" in c.metadata]


def test_every_figure_has_an_alternative_text():
    figures = [out for c in code_cells() for out in c.outputs if "image/png" in out.get("data", {})]
    assert len(figures) > 20
    assert all(len(out.metadata["image/png"]["alt"]) > 20 for out in figures)


# The notebook executed.


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a tiny Flowers102, and weights where torchvision looks for them."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    text = STARTUP.format(dataset=write_mini_flowers102(folder / "share"))
    (startup / "00-tiny.py").write_text(text, encoding="utf-8")
    checkpoints = folder / "torch_home" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    torch.save(weights, checkpoints / "resnet18-f37072fd.pth")
    return folder


@pytest.fixture(scope="module")
def executed(project):
    """The smoke profile by papermill, and then the cells again; the notebook and what it printed.

    Again: each cell, from the last to the first, so that it finds the names as the end of the page
    left them. Then those that make the results.
    """
    notebook, cells = load(), {cell.id: cell for cell in code_cells()}
    del cells["parameters"]  # papermill sets its values behind the knobs
    again = [*reversed(cells), "phase1", "phase2", "test", "save", "final"]
    again = [cells[name].source for name in again]
    keep = "(folder / 'results.json').rename('first_results.json')"
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (keep, *again)]
    nbformat.write(notebook, project / "twice.ipynb")
    places = {"FLOWERS_DATA_DIR": "share", "TORCH_HOME": "torch_home", "IPYTHONDIR": "ipython"}
    env = {**os.environ, **{key: str(project / place) for key, place in places.items()}}
    command = [sys.executable, "-m", "papermill", "twice.ipynb", "run.ipynb", "-p", "PROFILE"]
    command += ["smoke", "--log-output", "--no-progress-bar"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(project / "run.ipynb", as_version=4), done.stderr + done.stdout


def outputs_of(notebook, start):
    """What the cells whose id begins with `start` say in text."""
    outputs = [o for c in notebook.cells if c.id.startswith(start) for o in c.get("outputs", [])]
    return "".join(
        f"{o.get('text', '')}{o.get('data', {}).get('text/markdown', '')}" for o in outputs
    )


@pytest.mark.slow
def test_the_notebook_runs_headless_on_flowers102_unsolved_and_leaves_its_files(executed, project):
    notebook, log = executed
    assert "Oxford Flowers102" in outputs_of(notebook, "data")
    said = outputs_of(notebook, "exercise-")
    assert all(f"Exercise {number}: not answered yet" in said for number in range(1, 9))
    assert "it/s]" not in log and "\x1b[A" not in log
    left = {path.name for path in (project / "models" / "smoke").iterdir()}
    names = ("phase1_best.pth", "phase2_best.pth", "final.pth", "final.onnx", "final.pt2")
    assert {"results.json", *(f"resnet18_{name}" for name in names)} <= left
    assert not [name for name in left if "resume" in name]


@pytest.mark.slow
def test_every_cell_run_again_after_a_complete_run_gives_the_same(executed, project):
    paths = ("first_results.json", "models/smoke/results.json")
    first, again = (json.loads((project / path).read_text(encoding="utf-8")) for path in paths)
    assert again["profile"] == "smoke" and again["data"]["source"] == "flowers102"
    assert again["test"] == first["test"]
    assert all(again["phases"][name] == first["phases"][name] for name in ("phase1", "phase2"))


@pytest.mark.slow
def test_the_notebook_as_a_script_is_python():
    script, resources = ScriptExporter().from_filename(str(NOTEBOOK))
    assert resources["output_extension"] == ".py" and "get_ipython" not in script
    compile(script, "lesson.py", "exec")
