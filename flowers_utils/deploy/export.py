"""The final model as a file that runs without this lesson: a `torch.export` program and ONNX.

Both take uint8 images `(B, 3, S, S)` at the network's size, any number of them, and give calibrated
probabilities `(B, classes)`: normalisation, network, temperature and softmax all lie in the graph.
A file takes its place only after a fresh Python process has opened it and agreed with PyTorch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowers_utils.deploy.fresh_process import OPEN_ONNX, OPEN_PROGRAM, reopen
from flowers_utils.deploy.predictor import Deployable, deployable_from_checkpoint, predict_command
from flowers_utils.errors import FlowersError
from flowers_utils.machine.profiling import time_calls
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.storage.files import atomic_write

__all__ = ["ExportReport", "export_onnx", "export_program", "predict_command"]

TOLERANCE = 1e-4  # the largest allowed difference of a probability (0 to 1) from PyTorch's
OPSET = 18  # the version of the ONNX operators; what torch's exporter writes without a conversion


@dataclass(frozen=True)
class ExportReport:
    """One exported file and how it compares with the PyTorch model, on the CPU, in float32.

    `max_difference` is that of any probability (0 to 1) on `photographs` photographs, `latency_ms`
    the median for one image in a fresh process and `torch_latency_ms` that of the model here.
    """

    kind: str  # "torch.export program" or "ONNX, opset 18"
    path: str
    size_bytes: int
    photographs: int
    max_difference: float
    tolerance: float
    latency_ms: float
    torch_latency_ms: float

    def as_dict(self) -> dict[str, str | int | float]:
        """Plain values, ready for `results.json`."""
        return asdict(self)

    def sentence(self) -> str:
        """What the student is to know, in one line."""
        return (
            f"{self.kind}: '{self.path}', {self.size_bytes / 1e6:.1f} MB. Reopened in a fresh "
            f"process it differs from PyTorch by at most {self.max_difference:.1e} on "
            f"{self.photographs} photographs (allowed: {self.tolerance:.0e}); "
            f"one image takes {self.latency_ms:.1f} ms, PyTorch {self.torch_latency_ms:.1f} ms."
        )


def export_program(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    photographs: np.ndarray,
    tolerance: float = TOLERANCE,
) -> ExportReport:
    """Write the checkpoint as a `torch.export` program (`.pt2`), opened by `torch.export.load`.

    `photographs`: uint8 `(N, 3, S, S)`, N at least 2, on which parity is asserted. Class names and
    normalisation travel as the extra file `model.json`.
    Raises FlowersError, and writes nothing, if the file cannot be reopened or does not agree.
    """
    content = load_checkpoint(checkpoint)
    module = deployable_from_checkpoint(content)
    images = _checked(photographs, content["image_size"])

    def write(part: Path) -> None:
        program = torch.export.export(
            module, (torch.from_numpy(images[:2]),), dynamic_shapes=_dynamic_batch()
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it holds the paths of this computer
        extra = {"model.json": json.dumps(_metadata(content))}
        torch.export.save(program, part, extra_files=extra)

    return _export("torch.export program", module, images, write, OPEN_PROGRAM, out, tolerance)


def export_onnx(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    photographs: np.ndarray,
    tolerance: float = TOLERANCE,
    opset: int = OPSET,
) -> ExportReport:
    """Write the checkpoint as one ONNX file; input `images`, output `probabilities`.

    Otherwise as `export_program`. Class names, normalisation, image size and temperature stand in
    the file's metadata.
    """
    import onnx  # here, not above: only this function needs it, and it takes a second to load

    content = load_checkpoint(checkpoint)
    module = deployable_from_checkpoint(content)
    images = _checked(photographs, content["image_size"])

    def write(part: Path) -> None:
        program = torch.onnx.export(
            module,
            (torch.from_numpy(images[:2]),),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=_dynamic_batch(),
            optimize=True,
            verbose=False,
        )
        proto = program.model_proto
        for node in proto.graph.node:
            del node.metadata_props[:]  # likewise
        onnx.helper.set_model_props(proto, _metadata(content))
        part.write_bytes(proto.SerializeToString())  # one file, the weights within

    return _export(f"ONNX, opset {opset}", module, images, write, OPEN_ONNX, out, tolerance)


def _dynamic_batch() -> dict[str, dict[int, Any]]:
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


def _checked(photographs: np.ndarray, size: int) -> np.ndarray:
    images = np.array(photographs)  # a copy: the cache is read-only, which torch warns about
    if images.dtype != np.uint8 or images.shape[1:] != (3, size, size) or len(images) < 2:
        raise FlowersError(
            f"To check an export, give at least two uint8 photographs (N, 3, {size}, {size}), such "
            f"as data.val.images[:8], not {images.dtype} of shape {images.shape}."
        )
    return images


def _export(
    kind: str,
    module: Deployable,
    images: np.ndarray,
    write: Callable[[Path], None],
    opener: str,
    out: str | os.PathLike,
    tolerance: float,
) -> ExportReport:
    """Write beside `out`, reopen in a fresh process, compare, and only then take the place."""
    batch = torch.from_numpy(images)
    with torch.inference_mode():
        expected = module(batch).numpy()
        here = np.median(time_calls(lambda: module(batch[:1]), repeats=20))
    found: dict[str, float] = {}

    def write_and_check(part: Path) -> None:
        with torch.no_grad():  # no short cut for learning in the file: see one_pixel_maps.py
            write(part)
        together, alone, seconds = reopen(part, images, opener)
        pairs = ((together, expected), (alone, expected[:1]))
        difference = max(_difference(ours, theirs) for ours, theirs in pairs)
        if not difference <= tolerance:
            raise FlowersError(
                f"The exported file answers differently from PyTorch (by {difference:.1e}, allowed "
                f"is {tolerance:.0e}), so '{out}' was not written; try another version of torch."
            )
        found.update(difference=difference, seconds=float(np.median(seconds)))

    atomic_write(out, write_and_check)
    return ExportReport(
        kind=kind,
        path=Path(out).as_posix(),
        size_bytes=Path(out).stat().st_size,
        photographs=len(images),
        max_difference=found["difference"],
        tolerance=tolerance,
        latency_ms=found["seconds"] * 1000,
        torch_latency_ms=float(here) * 1000,
    )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; infinite where the shapes differ."""
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
