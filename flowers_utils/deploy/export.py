"""The final model as files that run without this lesson: `torch.export`, ONNX, and ONNX with 8 bits.

All take uint8 images `(B, 3, S, S)`, any number, and give calibrated probabilities `(B, classes)`.
"""

import json
import os
import textwrap
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flowers_utils.data import FlowerData, Split
from flowers_utils.deploy.predictor import Deployable
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.storage.files import atomic_write
from flowers_utils.transforms import MEAN, STD, eval_batch

TOLERANCE = 1e-4  # the largest allowed difference of a probability (0 to 1) from PyTorch's
INT8_TOLERANCE = 0.005  # the largest allowed loss of 8 bits, as a proportion of val
OPSET = 18  # the version of the ONNX operators; what torch's exporter writes without a conversion
CALIBRATION, BATCH = 128, 32  # photographs
UPGRADE = "If you need it, run 'python -m pip install --upgrade -r requirements.txt' in a terminal."


def export_model(checkpoint: str | os.PathLike, data: FlowerData) -> list[dict[str, Any]]:
    """Write `a_final.pt2`, `a_final.onnx` and `a_int8.onnx` beside `a_final.pth`.

    Returns a dict for each file: "path" and "sentence". A failed export does not raise, because the
    rest of the lesson works without it: its "path" is None, and its "sentence" says why.
    """
    source, content = Path(checkpoint), load_checkpoint(checkpoint)
    module, images = Deployable(content), np.array(data.val.images[:16])
    # The batch may have any length; torch would otherwise build the example's length in.
    any_length = {"images": {0: torch.export.Dim("batch", min=1)}}
    example = {"args": (torch.from_numpy(images[:2]),), "dynamic_shapes": any_length}
    facts = {  # what an application must know, as text
        "class_names": json.dumps(content["class_names"], ensure_ascii=False),
        "image_size": str(content["image_size"]),
        "input": "uint8 RGB, the whole photograph squashed to a square; normalised in the graph",
    }

    def compared(write: Callable[..., None], part: Path) -> str:
        write(part, module, example, facts)
        gap = np.abs(open_export(part)(images) - _run(module, images)).max()
        said = f"its probabilities differ from PyTorch's by at most {gap:.1e}"
        if not gap <= TOLERANCE:  # written so that nan fails, too
            raise FlowersError(f"{said}, more than {TOLERANCE:.0e}, so it was not kept.")
        return f"Opened again, {said} on {len(images)} photographs."

    onnx = source.with_suffix(".onnx")
    int8 = source.with_name(f"{source.stem.removesuffix('_final')}_int8.onnx")
    found = [
        _export("torch.export", source.with_suffix(".pt2"), partial(compared, _write_program)),
        _export(f"ONNX, opset {OPSET}", onnx, partial(compared, _write_onnx)),
    ]
    if found[1]["path"]:  # otherwise a file that lies there is of earlier weights
        saw_val = content.get("head_saw_val", False)
        found.append(_export("ONNX, 8 bits", int8, partial(_write_int8, onnx, data, saw_val)))
    return found


def _export(kind: str, out: Path, write: Callable[[Path], str]) -> dict[str, Any]:
    """Let `write` fill a file, check it and say how good it is; only then it takes its place."""
    checked: list[str] = []
    try:
        atomic_write(out, lambda part: checked.append(write(part)))
    except FlowersError as error:
        return {"path": None, "sentence": f"{kind}: {error}"}
    except Exception as error:  # of dozens of types, mostly where versions do not fit together
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        return {"path": None, "sentence": f"{kind}: the export failed ({said}). {UPGRADE}"}
    told = f"{kind}: {out.name}, {out.stat().st_size / 1e6:.1f} MB. {checked[0]}"
    return {"path": out.as_posix(), "sentence": told}


def _write_program(part: Path, module: nn.Module, example: dict, facts: dict) -> None:
    """`torch.export.load` opens it, with the facts as the extra file `model.json`."""
    program = torch.export.export(module, **example)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds the paths of this computer
    buffer = BytesIO()  # on a full disk torch would end the whole process
    torch.export.save(program, buffer, extra_files={"model.json": json.dumps(facts)})
    part.write_bytes(buffer.getbuffer())


def _write_onnx(part: Path, module: nn.Module, example: dict, facts: dict) -> None:
    """One file; input `images`, output `probabilities`, the facts in its metadata."""
    import onnx  # here, not above: only this function needs it, and it takes a second to load

    names = {"input_names": ["images"], "output_names": ["probabilities"]}
    settings = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    proto = torch.onnx.export(module, **example, **names, **settings).model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # they hold paths, too
    onnx.helper.set_model_props(proto, facts)
    part.write_bytes(proto.SerializeToString())  # one file, the weights within


def _write_int8(source: Path, data: FlowerData, saw_val: bool, part: Path) -> str:
    """The ONNX file `source` with 8-bit weights and activations, if it is as good on val."""
    _quantize(source, part, data)
    before, after = (_accuracy(file, data.val) for file in (source, part))
    seen = ", of which the head learned: both are too high" if saw_val else ""
    said = f"Val accuracy {after:.1%} instead of {before:.1%} ({len(data.val)} photographs{seen})."
    if after < before - INT8_TOLERANCE - 1e-9:  # for the rounding of the subtraction
        raise FlowersError(f"{said} That is more than {INT8_TOLERANCE:.1%} less: it was not kept.")
    return said


def _quantize(source: Path, target: Path, data: FlowerData) -> None:
    """Static quantisation (Jacob et al. 2018): a scale for each channel, ranges from train."""
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Photographs spread over the classes, as the network gets them in evaluation.
    chosen = np.linspace(0, len(data.train) - 1, min(CALIBRATION, len(data.train))).astype(int)
    images = eval_batch(torch.as_tensor(data.train.images[chosen]), data.image_size)
    images = ((images * STD + MEAN) * 255).round().clamp(0, 255).to(torch.uint8)  # pixels again

    class Photographs(ort.CalibrationDataReader):
        batches = iter([{"images": batch.numpy()} for batch in images.split(BATCH)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    quant_pre_process(source, target, skip_symbolic_shape=True)
    ort.quantize_static(
        target,
        target,
        Photographs(),
        activation_type=ort.QuantType.QUInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],  # not normalisation and softmax
        per_channel=True,
        reduce_range=True,  # 7-bit weights: sums of 8-bit products overflow on older x86
    )


def _accuracy(file: Path, split: Split) -> float:
    """Top-1 accuracy (0 to 1) of an exported file on the split."""
    run, starts = open_export(file), range(0, len(split), BATCH)
    answers = [run(split.images[start : start + BATCH]).argmax(axis=1) for start in starts]
    return float((np.concatenate(answers) == split.labels.numpy()).mean())


def open_export(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """An exported file as a function: uint8 images `(B, 3, S, S)` to probabilities `(B, classes)`."""
    if path.suffix != ".onnx":
        with path.open("rb") as file:  # by its path, Windows fails at letters such as ü
            return partial(_run, torch.export.load(file).module())
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _run(module: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()
