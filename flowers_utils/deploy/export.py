"""The final model as a file that runs without this lesson: a `torch.export` program and ONNX.

Both take uint8 images `(B, 3, S, S)` at the network's size, any number of them, and give calibrated
probabilities `(B, classes)`: normalisation, network, temperature and softmax all lie in the graph.
A file takes its place only after a fresh Python process has opened it and agreed with PyTorch.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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
PROGRAM, ONNX = "torch.export program", f"ONNX, opset {OPSET}"

# What the fresh process runs: nothing of this lesson, only what an application would use.
OPENERS = {
    PROGRAM: """
import torch
module = torch.export.load(path).module()
def run(images):
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()
""",
    ONNX: """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
def run(images):
    return session.run(None, {"images": images})[0]
""",
}
RELOAD = """
import sys
import numpy as np
path, photographs, answers = sys.argv[1:]
images = np.load(photographs)
%s
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
    content = load_checkpoint(checkpoint)

    def write(part: Path, module: nn.Module, images: torch.Tensor) -> None:
        program = torch.export.export(module, (images,), dynamic_shapes=_any_number())
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it holds the paths of this computer
        extra = {"model.json": json.dumps(_metadata(content))}
        torch.export.save(program, part, extra_files=extra)

    return _write_and_check(PROGRAM, Path(out), write=write, content=content, images=photographs)


def export_onnx(
    checkpoint: str | os.PathLike, out: str | os.PathLike, *, photographs: np.ndarray
) -> dict[str, Any]:
    """Write the checkpoint as one ONNX file; input `images`, output `probabilities`.

    Otherwise as `export_program`. Class names, normalisation, image size and temperature stand in
    the file's metadata.
    """
    import onnx  # here, not above: only this function needs it, and it takes a second to load

    content = load_checkpoint(checkpoint)

    def write(part: Path, module: nn.Module, images: torch.Tensor) -> None:
        proto = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=_any_number(),
            verbose=False,
        ).model_proto
        for node in proto.graph.node:
            del node.metadata_props[:]  # they hold paths, too
        onnx.helper.set_model_props(proto, _metadata(content))
        part.write_bytes(proto.SerializeToString())  # one file, the weights within

    return _write_and_check(ONNX, Path(out), write=write, content=content, images=photographs)


def _any_number() -> dict[str, dict[int, Any]]:
    """The batch may have any length; torch would otherwise build the example's length in."""
    return {"images": {0: torch.export.Dim("batch", min=1)}}


def _metadata(checkpoint: dict[str, Any]) -> dict[str, str]:
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


def _write_and_check(
    kind: str,
    out: Path,
    *,
    write: Callable[[Path, nn.Module, torch.Tensor], None],
    content: dict[str, Any],
    images: np.ndarray,
) -> dict[str, Any]:
    """Write beside `out`, open in a fresh process, compare, and only then take the place."""
    images = _checked_images(images, content["image_size"])
    module, batch, found = Deployable(content), torch.from_numpy(images), {}

    def write_then_compare(part: Path) -> None:
        with scratch_beside(out) as folder, torch.no_grad():
            write(part, module, batch[:2])
            answers = reopen(part, images, kind=kind, folder=folder)
            expected = module(torch.cat([batch, batch[:1]])).numpy()
        same_shape = answers.shape == expected.shape
        worst = float(np.abs(answers - expected).max()) if same_shape else float("inf")
        if not worst <= TOLERANCE:  # written so that nan fails, too
            raise FlowersError(
                f"The exported file answers differently from PyTorch (by {worst:.1e}, allowed is "
                f"{TOLERANCE:.0e}), so '{out}' was not written; try another version of torch."
            )
        found["max_difference"] = worst

    atomic_write(out, write_then_compare)
    size = out.stat().st_size
    sentence = (
        f"{kind}: '{out.as_posix()}', {size / 1e6:.1f} MB. Opened in a fresh process, its "
        f"probabilities differ from PyTorch's by at most {found['max_difference']:.1e} on {len(images)} "
        f"photographs (allowed: {TOLERANCE:.0e})."
    )
    facts = {"kind": kind, "path": out.as_posix(), "size_bytes": size, "photographs": len(images)}
    return {**facts, **found, "sentence": sentence}


def _checked_images(photographs: np.ndarray, size: int) -> np.ndarray:
    images = np.array(photographs)  # a copy: the cache is read-only, which torch warns about
    if images.dtype != np.uint8 or images.shape[1:] != (3, size, size) or len(images) < 2:
        raise FlowersError(
            f"To check an export, give at least two uint8 photographs (N, 3, {size}, {size}), such "
            f"as data.val.images[:8], not {images.dtype} of shape {images.shape}."
        )
    return images


def reopen(path: Path, images: np.ndarray, *, kind: str, folder: Path) -> np.ndarray:
    """Probabilities of all images together, then of the first alone, from a fresh Python process.

    `folder` takes the files that go to the process and come back. Raises FlowersError if the
    process fails or takes longer than RELOAD_SECONDS.
    """
    photographs, answers = folder / "photographs.npy", folder / "answers.npy"
    np.save(photographs, images)
    files = [str(file.resolve()) for file in (path, photographs, answers)]
    command = [sys.executable, "-c", RELOAD % OPENERS[kind], *files]
    try:  # in `folder`, so that no module of this project can help
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=RELOAD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise FlowersError(
            f"A fresh Python process did not open and run the exported file within "
            f"{RELOAD_SECONDS // 60} minutes, so the file was not kept. The computer may be busy: "
            "close other programs and run this cell again."
        ) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise FlowersError(
            f"A fresh Python process could not run the exported file ({lines[-1]}); "
            "check that the packages of requirements.txt are installed."
        )
    return np.load(answers)


@contextlib.contextmanager
def scratch_beside(out: Path, *, needed_bytes: int = 0) -> Iterator[Path]:
    """An empty folder beside `out`, removed afterwards; inside, all temporary files go there.

    Libraries write theirs to the system's folder, which may be too small: on some servers /tmp is a
    piece of memory. Raises FlowersError if the disk is full or the folder cannot be written.
    """
    system_folder = tempfile.tempdir
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(out.parent).free < needed_bytes:
            raise OSError(f"about {needed_bytes / 1e6:.0f} MB of free space are needed")
        with tempfile.TemporaryDirectory(
            dir=out.parent.resolve(), prefix=".scratch-", ignore_cleanup_errors=True
        ) as folder:
            tempfile.tempdir = folder  # the public setting of the tempfile module
            yield Path(folder)
    except OSError as error:
        raise FlowersError(
            f"'{out}' was not written ({error}). Free some space on that disk, or write to another "
            "folder, and run this cell again."
        ) from error
    finally:
        tempfile.tempdir = system_folder
