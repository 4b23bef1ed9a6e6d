"""An ONNX file with 8-bit weights and activations, kept if accuracy holds; and exported files opened."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowers_utils.data import FlowerData, Split
from flowers_utils.deploy.export import scratch_beside
from flowers_utils.deploy.predictor import Deployable
from flowers_utils.errors import FlowersError
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.storage.files import atomic_write
from flowers_utils.transforms import denormalise, eval_batch

TOLERANCE = 0.005  # half a percentage point of val accuracy
BATCH = 32
CALIBRATION = 128  # photographs from which the ranges of activations are taken


def quantize_onnx(
    float_path: str | os.PathLike, out: str | os.PathLike, data: FlowerData
) -> dict[str, Any]:
    """Quantise an exported ONNX file to 8 bits; keep it only if it holds on val.

    Otherwise an older `out` is removed, too, and "path" is None. Returns plain values (accuracies
    from 0 to 1), a "sentence" among them. Raises FlowersError without a float file or enough space.
    """
    float_path, out = Path(float_path), Path(out)
    if not float_path.is_file():
        raise FlowersError(f"There is no '{float_path}'; export the model to ONNX first.")
    float_size, kept = float_path.stat().st_size, False
    space = 4 * float_size  # for three versions of it
    atomic_write(out, lambda part: _quantize(float_path, part, data), needed_bytes=space)
    try:
        size = out.stat().st_size
        after, before = _accuracy(out, data.val), _accuracy(float_path, data.val)
        kept = after >= before - TOLERANCE - 1e-9  # for the rounding of the subtraction
    finally:
        if not kept:
            out.unlink()
    lost = f"That loses more than {100 * TOLERANCE:g} percentage points, so it was not kept."
    return {
        "kind": "ONNX, 8 bits",
        "path": out.as_posix() if kept else None,
        "size_bytes": size,
        "accuracy": after,
        "float_accuracy": before,
        "sentence": f"ONNX, 8 bits: {size / 1e6:.1f} MB instead of {float_size / 1e6:.1f} MB, val "
        f"accuracy {after:.1%} instead of {before:.1%} ({len(data.val)} photographs). "
        + (f"Kept as '{out.as_posix()}'." if kept else lost),
    }


def _quantize(source: Path, target: Path, data: FlowerData) -> None:
    """Static quantisation (Jacob et al. 2018): a scale for each channel, ranges from train.

    Convolutions and the head become 8-bit; normalisation and softmax cost nothing and stay float.
    """
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Spread over the classes, as the network sees them.
    chosen = np.linspace(0, len(data.train) - 1, min(CALIBRATION, len(data.train))).astype(int)
    images = torch.as_tensor(data.train.images[chosen])
    seen = denormalise(eval_batch(images, data.image_size)).numpy()

    class Photographs(ort.CalibrationDataReader):
        batches = ({"images": batch} for batch in _in_batches(seen))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with scratch_beside(target) as folder:
        prepared = Path(folder, "prepared.onnx")  # BatchNorm folded into the convolutions
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
            reduce_range=True,  # 7-bit weights: sums of 8-bit products overflow on older x86
        )


def _in_batches(images: np.ndarray) -> Iterator[np.ndarray]:
    starts = range(0, len(images), BATCH)
    return (np.ascontiguousarray(images[start : start + BATCH]) for start in starts)


def _accuracy(path: Path, split: Split) -> float:
    """Top-1 accuracy (0 to 1) of an exported file on the split."""
    run = open_export(path)
    answers = np.concatenate([run(batch).argmax(axis=1) for batch in _in_batches(split.images)])
    return float((answers == split.labels.numpy()).mean())


def open_export(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """An exported file as a function: uint8 images `(B, 3, S, S)` to probabilities `(B, classes)`."""
    if Path(path).suffix != ".onnx":
        return partial(_run, torch.export.load(path).module())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as PyTorch has
    # Its threads would go on turning after an answer, and slow what is timed after it twofold.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _run(module: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()


def calls_on_one_image(
    checkpoint: str | os.PathLike, files: Sequence[str | os.PathLike | None]
) -> dict[str, Callable[[], np.ndarray]]:
    """What `machine.latency_in_turn` can time: "PyTorch", then each exported file by its name.

    `None` among the files (an 8-bit file that was not kept) is passed over.
    """
    content = load_checkpoint(checkpoint)
    image = np.zeros((1, 3, content["image_size"], content["image_size"]), dtype=np.uint8)
    runs = {"PyTorch": partial(_run, Deployable(content))}
    runs |= {Path(file).name: open_export(file) for file in files if file is not None}
    return {name: partial(run, image) for name, run in runs.items()}
