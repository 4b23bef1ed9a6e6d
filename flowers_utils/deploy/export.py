"""The final model as a file that runs without this lesson: a `torch.export` program and ONNX.

Both take uint8 images `(B, 3, S, S)` at the network's size, any number of them, and give calibrated
probabilities `(B, classes)`: normalisation, network, temperature and softmax all lie in the graph.
A file takes its place only after a fresh Python process has opened it and agreed with PyTorch.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flowers_utils.deploy.predictor import Deployable
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.storage.files import atomic_write

TOLERANCE = 1e-4  # the largest allowed difference of a probability (0 to 1) from PyTorch's
OPSET = 18  # the version of the ONNX operators; what torch's exporter writes without a conversion
RELOAD_SECONDS = 300  # a laptop needs about five

# What the fresh process runs: nothing of this lesson, only what an application would use.
RELOAD = """
import sys
import numpy as np
path, photographs, answers = sys.argv[1:]
if path.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    run = lambda images: session.run(None, {"images": images})[0]
else:
    import torch
    module = torch.export.load(path).module()
    run = lambda images: module(torch.from_numpy(images)).detach().numpy()
images = np.load(photographs)
np.save(answers, np.concatenate([run(images), run(images[:1])]))
"""


def export_program(
    checkpoint: str | os.PathLike, out: str | os.PathLike, *, photographs: np.ndarray
) -> dict[str, Any]:
    """Write the checkpoint as a `torch.export` program (`.pt2`), opened by `torch.export.load`.

    `photographs`: uint8 `(N, 3, S, S)`, N at least 2, on which file and PyTorch must agree. Class
    names and normalisation travel as the extra file `model.json`.
    Returns plain values for `results.json`, a "sentence" for the student among them.
    Raises FlowersError, and writes nothing, if the file cannot be opened or does not agree.
    """

    def write(part: Path, module: nn.Module, example: dict, facts: dict) -> None:
        program = torch.export.export(module, **example)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it holds the paths of this computer
        torch.export.save(program, part, extra_files={"model.json": json.dumps(facts)})

    return _write_and_check("torch.export program", write, checkpoint, Path(out), photographs)


def export_onnx(
    checkpoint: str | os.PathLike, out: str | os.PathLike, *, photographs: np.ndarray
) -> dict[str, Any]:
    """Write the checkpoint as one ONNX file; input `images`, output `probabilities`.

    Otherwise as `export_program`. Class names, normalisation, image size and temperature stand in
    the file's metadata.
    """
    import onnx  # here, not above: only this function needs it, and it takes a second to load

    def write(part: Path, module: nn.Module, example: dict, facts: dict) -> None:
        names = {"input_names": ["images"], "output_names": ["probabilities"]}
        settings = {"dynamo": True, "opset_version": OPSET, "verbose": False}
        proto = torch.onnx.export(module, **example, **names, **settings).model_proto
        for node in proto.graph.node:
            del node.metadata_props[:]  # they hold paths, too
        onnx.helper.set_model_props(proto, facts)
        part.write_bytes(proto.SerializeToString())  # one file, the weights within

    return _write_and_check(f"ONNX, opset {OPSET}", write, checkpoint, Path(out), photographs)


def _write_and_check(
    kind: str,
    write: Callable[..., None],
    checkpoint: str | os.PathLike,
    out: Path,
    images: np.ndarray,
) -> dict[str, Any]:
    """Write beside `out`, open in a fresh process, compare, and only then take the place."""
    content = load_checkpoint(checkpoint)
    images = np.array(images)  # a copy: the cache is read-only
    module, batch, found = Deployable(content), torch.from_numpy(images), {}
    # The batch may have any length; torch would otherwise build the example's length in.
    any_length = {"images": {0: torch.export.Dim("batch", min=1)}}

    def write_and_compare(part: Path) -> None:
        with torch.no_grad():
            example = {"args": (batch[:2],), "dynamic_shapes": any_length}
            write(part, module, example, _facts(content))
            expected = module(torch.cat([batch, batch[:1]])).numpy()
        found["max_difference"] = worst = float(np.abs(reopen(part, images) - expected).max())
        if not worst <= TOLERANCE:  # written so that nan fails, too
            raise FlowersError(
                f"The exported file answers differently from PyTorch (by {worst:.1e}, allowed is "
                f"{TOLERANCE:.0e}), so '{out}' was not written; try another version of torch."
            )

    atomic_write(out, write_and_compare)
    bytes_ = out.stat().st_size
    facts = {"kind": kind, "path": out.as_posix(), "size_bytes": bytes_, "photographs": len(images)}
    sentence = (
        f"{kind}: '{out.as_posix()}', {bytes_ / 1e6:.1f} MB. Opened in a fresh process, its "
        f"probabilities differ from PyTorch's by at most {found['max_difference']:.1e} on "
        f"{len(images)} photographs (allowed: {TOLERANCE:.0e})."
    )
    return {**facts, **found, "sentence": sentence}


def _facts(checkpoint: dict[str, Any]) -> dict[str, str]:
    """What an application must know, each value as text (JSON where it is a list)."""
    return {
        "architecture": checkpoint["architecture"],
        "class_names": json.dumps(checkpoint["class_names"], ensure_ascii=False),
        "image_size": str(checkpoint["image_size"]),
        "normalization": json.dumps(checkpoint["normalization"]),
        "temperature": str(checkpoint.get("temperature", 1.0)),
        "trained_on": checkpoint["data"]["title"],
        "input": "uint8 RGB, the whole photograph squashed to a square; normalised in the graph",
    }


def reopen(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities of all images together, then of the first alone, from a fresh Python process."""
    with scratch_beside(path) as folder:
        photographs, answers = Path(folder, "photographs.npy"), Path(folder, "answers.npy")
        np.save(photographs, images)
        command = [sys.executable, "-c", RELOAD, str(path.resolve()), photographs, answers]
        try:  # in `folder`, so that no module of this project can help
            subprocess.run(
                command, cwd=folder, capture_output=True, timeout=RELOAD_SECONDS, check=True
            )
        except subprocess.SubprocessError as error:
            last = (error.stderr or str(error).encode()).decode(errors="replace").splitlines()[-1]
            raise FlowersError(
                f"A fresh Python process could not open and run the exported file ({last}), so it was "
                "not kept. Close other programs and run this cell again."
            ) from error
        return np.load(answers)


def scratch_beside(path: Path) -> tempfile.TemporaryDirectory:
    """An empty folder beside `path`, to be removed afterwards."""
    # On Windows a library may still hold a file when it is removed.
    parent = path.parent.resolve()
    return tempfile.TemporaryDirectory(dir=parent, prefix=".scratch-", ignore_cleanup_errors=True)
