"""The notebook: well-formed as a file, and executed headless on a tiny Flowers102."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import torchvision
from conftest import MINI_SPLITS, write_mini_flowers102

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "resnet18_training.ipynb"
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


def test_the_notebook_is_valid_and_every_cell_has_an_id():
    notebook = load()
    nbformat.validate(notebook)
    ids = [cell["id"] for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)
    assert "widgets" not in notebook.metadata


def test_the_notebook_is_kept_without_outputs():
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells())


def test_one_cell_holds_the_three_knobs():
    tagged = [c for c in code_cells() if "parameters" in c.metadata.get("tags", [])]
    assert [cell.source for cell in tagged] == ['DATA = "auto"\nPROFILE = "full"\nSEED = 0']


def test_cells_are_short():
    for cell in code_cells():
        assert len(cell.source.splitlines()) <= 20, cell.id


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a tiny Flowers102, and weights where torchvision looks for them."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("flowers_utils", "transfer_learning_config.py", NOTEBOOK.name, "requirements.txt"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
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


@pytest.fixture(scope="module")
def executed(project):
    """The notebook after a headless run in the smoke profile, and what the run printed."""
    places = {"FLOWERS_DATA_DIR": "share", "TORCH_HOME": "torch_home", "IPYTHONDIR": "ipython"}
    done = subprocess.run(
        [sys.executable, "-m", "papermill", NOTEBOOK.name, "run.ipynb", "-p", "PROFILE", "smoke",
         "--log-output", "--no-progress-bar"],
        cwd=project, env={**os.environ, **{k: str(project / v) for k, v in places.items()}},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(project / "run.ipynb", as_version=4), done.stderr + done.stdout


def outputs_of(notebook, cell_id):
    cell = next(cell for cell in notebook.cells if cell.get("id") == cell_id)
    return "".join(out.get("text", "") for out in cell.outputs)


def test_the_notebook_runs_headless_on_flowers102(executed):
    notebook, _ = executed
    assert "Oxford Flowers102" in outputs_of(notebook, "data")
    assert "Not one number moved" in outputs_of(notebook, "phase1-proof")
    assert "<All keys matched successfully>" in outputs_of(notebook, "reload")


def test_a_headless_run_prints_a_line_an_epoch_and_no_bars(executed):
    _, log = executed
    assert "Phase 2, epoch  1/1: train loss" in log
    assert "it/s]" not in log and "\x1b[A" not in log


def test_a_run_leaves_the_files_it_promises(executed, project):
    left = {path.name for path in (project / "models" / "smoke").iterdir()}
    promised = {"resnet18_phase1_best.pth", "resnet18_phase2_best.pth", "resnet18_final.pth",
                "resnet18_final.onnx", "resnet18_final.pt2", "results.json"}  # fmt: skip
    assert promised <= left
    results = json.loads((project / "models" / "smoke" / "results.json").read_text("utf-8"))
    assert results["profile"] == "smoke" and results["data"]["source"] == "flowers102"
    assert len(results["phases"]["phase1"]["history"]) == 1
    assert results["test"]["top1"]["value"] <= 1


def test_figures_are_saved_in_the_run(executed):
    notebook, _ = executed
    for cell_id in ("samples", "augment", "curves", "predictions", "confusion", "cam"):
        cell = next(cell for cell in notebook.cells if cell.get("id") == cell_id)
        assert any("image/png" in out.get("data", {}) for out in cell.outputs), cell_id
