"""Run the lesson in full on practice flowers and keep its outputs: `python -m tests.remake_outputs`.

It runs in a copy of the project and writes the outputs into `resnet18_training.ipynb`; after it,
`test_notebook.py` says whether they may be committed. Run it again when a reader sees a change.
"""

import argparse
import base64
import hashlib
import io
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "resnet18_training.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
PROJECT = ("flowers_utils", "tests/benchmarks", "transfer_learning_config.py", "requirements.txt")
LIMIT = 2_000_000  # bytes of the notebook with its outputs
PLACES = re.compile(r"(?<![\w./:])/(?:[\w.-]+/)+[\w.-]+|[A-Z]:\\\\?\w+")


def sources_hash(notebook: nbformat.NotebookNode) -> str:
    """A short hash of the code cells, which says whether outputs belong to them."""
    code = [f"{cell.id}\n{cell.source}" for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()[:16]


def paths_in(notebook: nbformat.NotebookNode) -> list[str]:
    """Absolute paths that stand in outputs: they tell about the machine, and mean nothing elsewhere."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    texts = [out.get("text", "") for out in outputs]
    texts += [str(v) for out in outputs for k, v in out.get("data", {}).items() if "image" not in k]
    return [found for text in texts for found in PLACES.findall(text)]


def copy_project(folder: Path) -> None:
    """Copy what the notebook's cells need to `folder`, so that nothing trained before is loaded."""
    for name in (*PROJECT, NOTEBOOK.name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def run(folder: Path) -> nbformat.NotebookNode:
    """The notebook executed on practice flowers in `folder`, its sources as they were."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    knobs = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    source, knobs.source = knobs.source, knobs.source.replace('"auto"', '"practice"')
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=None, record_timing=False, resources=resources).execute()
    knobs.source = source
    return notebook


def fewer_colours(png: str) -> str:
    """A figure, base64 PNG, in 256 colours of its own: hardly to be seen, and a third of the size."""
    figure = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    out = io.BytesIO()
    figure.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without widgets (a saved bar would stand still for ever), times, and the kernel's details."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
            for data in (out.data for out in cell.outputs if "image/png" in out.get("data", {})):
                data["image/png"] = fewer_colours(data["image/png"])
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
        "outputs_of": sources_hash(notebook),
    }
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="copy what the run leaves in models/ to here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_project(Path(folder))
        nbformat.write(clean(run(Path(folder))), NOTEBOOK)
        if given.keep:  # README's numbers and picture are made from it
            shutil.copytree(Path(folder) / "models", given.keep, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
