"""An ONNX file with 8-bit weights and activations: a quarter of the size, if accuracy holds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from flowers_utils.data import FlowerData, Split
from flowers_utils.errors import FlowersError
from flowers_utils.machine.profiling import time_calls
from flowers_utils.storage.files import atomic_write
from flowers_utils.transforms import denormalise, eval_batch

TOLERANCE = 0.005  # half a percentage point of val accuracy
BATCH = 32
CALIBRATION = 128  # photographs from which the ranges of activations are taken


@dataclass(frozen=True)
class Int8Report:
    """What 8 bits cost and save; accuracies are fractions of the split on which both were scored.

    `path` is None where the accuracy fell by more than `tolerance`: then no file was kept.
    """

    path: str | None
    split: str
    photographs: int
    accuracy: float
    float_accuracy: float
    tolerance: float
    size_bytes: int
    float_size_bytes: int
    latency_ms: float
    float_latency_ms: float

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values, ready for `results.json`."""
        return asdict(self)

    def sentence(self) -> str:
        """What the student is to know, in one or two lines."""
        facts = (
            f"8-bit ONNX: {self.size_bytes / 1e6:.1f} MB instead of "
            f"{self.float_size_bytes / 1e6:.1f} MB, {self.latency_ms:.1f} ms instead of "
            f"{self.float_latency_ms:.1f} ms, {self.split} accuracy {self.accuracy:.2%} instead of "
            f"{self.float_accuracy:.2%} ({self.photographs} photographs)"
        )
        if self.path is None:
            return f"{facts}. That loses more than {self.tolerance:.1%}, so the file was not kept."
        return f"{facts}. Kept as '{self.path}'."


def quantize_onnx(
    float_path: str | os.PathLike,
    out: str | os.PathLike,
    data: FlowerData,
    *,
    tolerance: float = TOLERANCE,
) -> Int8Report:
    """Quantise an exported ONNX file to 8 bits; keep it only if it holds on val.

    How large activations become is measured on photographs of train. Convolutions and the head are
    quantised, normalisation and softmax are not. Writes `out`, or removes an older one if the new
    one loses more than `tolerance`. Raises FlowersError if there is no float file.
    """
    float_path, out = Path(float_path), Path(out)
    if not float_path.is_file():
        raise FlowersError(f"There is no '{float_path}'; export the model to ONNX first.")
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "int8.onnx"
        _quantize(float_path, candidate, _calibration(data))
        found, before = _measure(candidate, data.val), _measure(float_path, data.val)
        kept = found["accuracy"] >= before["accuracy"] - tolerance
        size, content = candidate.stat().st_size, candidate.read_bytes()
    if kept:
        atomic_write(out, lambda part: part.write_bytes(content))
    else:
        out.unlink(missing_ok=True)
    return Int8Report(
        path=out.as_posix() if kept else None,
        split=data.val.name,
        photographs=len(data.val),
        accuracy=found["accuracy"],
        float_accuracy=before["accuracy"],
        tolerance=tolerance,
        size_bytes=size,
        float_size_bytes=float_path.stat().st_size,
        latency_ms=found["latency_ms"],
        float_latency_ms=before["latency_ms"],
    )


def _calibration(data: FlowerData) -> np.ndarray:
    """Photographs of train, spread over the classes, as the network sees them: uint8 (N, 3, S, S)."""
    chosen = np.linspace(0, len(data.train) - 1, min(CALIBRATION, len(data.train))).astype(int)
    images = torch.as_tensor(data.train.images[chosen])
    return denormalise(eval_batch(images, data.image_size)).numpy()


def _quantize(source: Path, target: Path, calibration: np.ndarray) -> None:
    """Static quantisation (Jacob et al. 2018): ranges from `calibration`, a scale for each channel."""
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photographs(ort.CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(calibration), BATCH)
            self.batches: Iterator[np.ndarray] = (calibration[i : i + BATCH] for i in starts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": np.ascontiguousarray(batch)}

    prepared = target.with_name("prepared.onnx")  # BatchNorm folded into the convolutions
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    ort.quantize_static(
        prepared,
        target,
        Photographs(),
        quant_format=ort.QuantFormat.QDQ,
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        per_channel=True,
        reduce_range=True,  # 7-bit weights: on older x86 processors the sum of 8-bit products overflows
    )


def _measure(path: Path, split: Split) -> dict[str, float]:
    """Top-1 accuracy on the split and the median milliseconds for one image, by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(start: int, stop: int) -> np.ndarray:
        images = np.ascontiguousarray(split.images[start:stop])
        return session.run(None, {"images": images})[0].argmax(axis=1)

    answers = [run(start, start + BATCH) for start in range(0, len(split), BATCH)]
    right = (np.concatenate(answers) == split.labels.numpy()).mean()
    seconds = time_calls(lambda: run(0, 1), repeats=20)
    return {"accuracy": float(right), "latency_ms": float(np.median(seconds)) * 1000}
