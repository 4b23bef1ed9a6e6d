"""The notebook: well-formed and readable as a file, its outputs its own, and executed headless."""

import builtins
import json
import os
import re
import shutil
import subprocess
import symtable
import sys
from itertools import pairwise

import nbformat
import pytest
import torch
import torchvision
from conftest import MINI_SPLITS, write_mini_flowers102
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from remake_outputs import LIMIT, NOTEBOOK, PROJECT, ROOT, WIDGET, paths_in, sources_hash

import flowers_utils
from flowers_utils.exercises.missing_names import names_made, sections_of_names

# Runs in the kernel before the first cell: makes the tiny data set count as whole.
STARTUP = """
from torchvision.datasets import Flowers102
import transfer_learning_config as config

config.COMPARISON = ("resnet18", "mobilenet_v2")  # what a comparison is, not how long five take
sums = {sums}
config.DATASET["splits"].update({splits})
config.DATASET["labels"]["md5"] = sums["imagelabels"]
config.DATASET["setid"]["md5"] = sums["setid"]
Flowers102._file_dict["label"] = ("imagelabels.mat", sums["imagelabels"])
Flowers102._file_dict["setid"] = ("setid.mat", sums["setid"])
"""


def load():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells():
    return [cell for cell in load().cells if cell.cell_type == "code"]


def markdown_cells():
    return [cell for cell in load().cells if cell.cell_type == "markdown"]


def test_the_notebook_is_valid_and_every_cell_has_an_id():
    nbformat.validate(load())
    ids = [cell["id"] for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)


def test_one_cell_holds_the_four_knobs():
    tagged = [c for c in code_cells() if "parameters" in c.metadata.get("tags", [])]
    knobs = 'DATA = "auto"\nPROFILE = "full"\nSEED = 0\nRECIPE = "lesson"'
    assert [cell.source for cell in tagged] == [knobs]


def test_the_page_is_as_short_as_it_promises():
    assert len(load().cells) <= 150
    assert max(len(cell.source.splitlines()) for cell in code_cells()) <= 22
    calls = {name for c in code_cells() for name in re.findall(r"\bfu\.[\w.]+", c.source)}
    assert len(calls) <= 60


def test_every_link_to_a_place_on_the_page_has_its_place():
    text = "\n".join(cell.source for cell in markdown_cells())
    links, places = (set(re.findall(p, text)) for p in (r"\(#([\w-]+)\)", r'<a id="([\w-]+)">'))
    assert links and links <= places


def test_headings_go_down_one_step_at_a_time():
    lines = [line for c in markdown_cells() for line in c.source.splitlines()]
    levels = [len(line.split()[0]) for line in lines if re.match(r"#+ ", line)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def names_read(source):
    """The names that a cell, or a function in it, takes from elsewhere; its own are left out."""

    def read(scope):
        for symbol in scope.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or scope.get_type() == "module"):
                yield symbol.get_name()
        for inner in scope.get_children():
            yield from read(inner)

    return set(read(symtable.symtable(source, "cell", "exec"))) - names_made(source)


def test_each_section_needs_only_earlier_ones_and_those_of_part_two_only_part_one():
    known = {*dir(builtins), "get_ipython"}
    part_one = None
    for cell in load().cells:
        if cell.id == "part-two":
            part_one = known
        if part_one is not None and "\n### " in f"\n{cell.source}":
            known = part_one
        if cell.cell_type == "code":
            assert names_read(cell.source) <= known, cell.id
            known = known | names_made(cell.source)


def test_every_helper_that_the_notebook_calls_is_there():
    for cell in code_cells():
        for path in re.findall(r"\bfu((?:\.\w+)+)", cell.source):
            found = flowers_utils
            for name in path.split(".")[1:]:
                assert hasattr(found, name), (cell.id, path)
                found = getattr(found, name)


def test_the_section_told_is_the_one_that_makes_the_name_first(tmp_path):
    told = sections_of_names(NOTEBOOK)
    assert told["data"].startswith("2. ") and told["phase1"].startswith("7. ")
    assert sections_of_names(tmp_path / "renamed.ipynb") == {}


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
    assert all(out.metadata["image/png"]["alt"] for out in figures)


# The notebook executed.


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a tiny Flowers102, and weights where torchvision looks for them."""
    folder = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    rows = folder / "tests" / "benchmarks"  # what the page quotes
    shutil.copytree(ROOT / "tests" / "benchmarks", rows)
    shutil.copy(NOTEBOOK, folder)
    sums = write_mini_flowers102(folder / "share")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    text = STARTUP.format(sums=sums, splits=MINI_SPLITS)
    (startup / "00-tiny.py").write_text(text, encoding="utf-8")
    checkpoints = folder / "torch_home" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    torch.save(weights, checkpoints / "resnet18-f37072fd.pth")
    return folder


def run_in(project, notebook, out):
    """Run a notebook of the project's copy in the smoke profile; what the run left and printed."""
    places = {"FLOWERS_DATA_DIR": "share", "TORCH_HOME": "torch_home", "IPYTHONDIR": "ipython"}
    places = {key: str(project / place) for key, place in places.items()}
    command = [sys.executable, "-m", "papermill", notebook, out, "-p", "PROFILE", "smoke"]
    command += ["--log-output", "--no-progress-bar"]
    done = subprocess.run(
        command, cwd=project, env={**os.environ, **places}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((project / "models" / "smoke" / "results.json").read_text("utf-8"))
    return nbformat.read(project / out, as_version=4), done.stderr + done.stdout, results


@pytest.fixture(scope="module")
def executed(project):
    return run_in(project, NOTEBOOK.name, "run.ipynb")


def outputs_of(notebook, cell_id):
    cell = next(cell for cell in notebook.cells if cell.get("id") == cell_id)
    return "".join(
        out.get("text", "") + str(out.get("data", {}).get("text/markdown", ""))
        for out in cell.outputs
    )


@pytest.mark.slow
def test_the_notebook_runs_headless_on_flowers102(executed):
    notebook, log, results = executed
    assert "Oxford Flowers102" in outputs_of(notebook, "data")
    assert "it/s]" not in log and "\x1b[A" not in log
    assert results["profile"] == "smoke" and results["data"]["source"] == "flowers102"


@pytest.mark.slow
def test_a_run_leaves_the_files_it_promises(executed, project):
    left = {path.name for path in (project / "models" / "smoke").iterdir()}
    names = ("phase1_best.pth", "phase2_best.pth", "final.pth", "final.onnx", "final.pt2")
    assert {"results.json", *(f"resnet18_{name}" for name in names)} <= left
    assert not [name for name in left if "resume" in name]


@pytest.mark.slow
def test_unsolved_exercises_stop_nothing(executed):
    notebook, _, _ = executed
    cells = [cell.id for cell in code_cells() if cell.id.startswith("exercise-")]
    said = "\n".join(outputs_of(notebook, cell_id) for cell_id in cells)
    assert all(f"Exercise {number}: not answered yet" in said for number in range(1, 9))


@pytest.mark.slow
def test_every_cell_can_be_run_again_after_a_complete_run(executed, project):
    again = load()
    # From the last to the first: so each one finds the names as the end of the page left them.
    # (papermill sets its values behind the knobs, so these are not repeated.)
    repeated = [c for c in again.cells if c.cell_type == "code" and "tags" not in c.metadata]
    again.cells += reversed(repeated)
    for position, cell in enumerate(again.cells):
        again.cells[position] = nbformat.from_dict({**cell, "id": f"cell-{position}"})
    nbformat.write(again, project / "again.ipynb")
    shutil.rmtree(project / "models" / "smoke")
    _, _, results = run_in(project, "again.ipynb", "again_run.ipynb")
    assert numbers_of(results) == numbers_of(executed[2])


def numbers_of(results):
    """The test metrics, and the losses of every epoch of the two phases."""
    losses = {
        name: [(epoch["train_loss"], epoch["val_loss"]) for epoch in phase["history"]]
        for name, phase in results["phases"].items()
        if name in ("phase1", "phase2")
    }
    return results["test"], losses


@pytest.mark.slow
def test_a_cell_run_too_early_says_which_section_to_run():
    cells = {cell.id: cell for cell in code_cells()}
    early = [cells[name] for name in ("parameters", "imports", "phase1", "test")]
    notebook = nbformat.v4.new_notebook(cells=early)
    client = NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}})
    with client.setup_kernel():
        client.execute_cell(early[0], 0)
        client.execute_cell(early[1], 1)
        for position, section in ((2, "[1-7]"), (3, "[78]")):
            with pytest.raises(CellExecutionError) as failure:
                client.execute_cell(early[position], position)
            assert re.search(rf"section \"{section}\. ", failure.value.evalue)


@pytest.mark.slow
def test_the_notebook_as_a_script_is_python(tmp_path):
    command = [sys.executable, "-m", "nbconvert", "--to", "script", str(NOTEBOOK)]
    subprocess.run([*command, "--output-dir", tmp_path], check=True, capture_output=True)
    script = (tmp_path / f"{NOTEBOOK.stem}.py").read_text(encoding="utf-8")
    assert "get_ipython" not in script
    compile(script, "lesson.py", "exec")
