"""What a run leaves: `models/results.json`, and to which run the files there belong."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Z_95
from flowers_utils.storage.checkpoints import about, versions
from flowers_utils.storage.files import atomic_write, keep_earlier

# What a run writes under the names of the run before it; phases keep their own earlier files.
FILES_OF_A_RUN = ("results.json", "my_flowers.pth", "*_final.[!e]*", "*_int8.onnx")  # not .earlier
NOT_OF_A_RUN = ("PATHS", "DATASET", "EXPECTED", "COMPARISON")  # config that changes no result
SETTINGS = ("data", "device", "precision", "profile", "recipe", "seed", "versions", "config")


def begin_run(folder: str | Path, data: FlowerData, knobs: Mapping[str, Any]) -> str:
    """Write `run.json`: to which run the files in `folder` belong. Those of another are renamed.

    `a.pth` becomes `a.earlier.pth`. Returns a sentence in plain text that names them, or "".
    """
    path = Path(folder, "run.json")
    run = {"data": about(data), "knobs": dict(knobs), "config": _config()}
    content = json.dumps(run, indent=2, default=str).encode()
    if path.exists() and path.read_bytes() == content:
        return ""
    files = [file for name in FILES_OF_A_RUN for file in path.parent.glob(name)]
    kept = [f"{file.name} is now {keep_earlier(file).name}" for file in files]
    atomic_write(path, lambda part: part.write_bytes(content))  # last: a stop leaves nothing undone
    told = "Files of a run with other data, knobs or configuration were renamed and replace"
    return f"{told} those kept before: {', '.join(kept)}." if kept else ""


def _config() -> dict[str, Any]:
    return {k: v for k, v in vars(config).items() if k.isupper() and k not in NOT_OF_A_RUN}


def describe_run(
    data: FlowerData, device: Device, phases: list[dict[str, Any]], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    """A run as plain values; `phases` come from `PhaseResult.to_dict`, `knobs` from the notebook."""
    images = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return {
        "data": {**about(data), "images": images},
        "device": device.describe(),
        "precision": str(device.precision).removeprefix("torch."),
        **knobs,
        "versions": versions(),
        "config": _config(),
        "phases": {phase["name"].lower().replace(" ", ""): phase for phase in phases},
        "peak_memory_bytes": peak_memory_bytes(device.torch_device),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this run in bytes: of the card on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


def save_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON (NaN and infinity as null, arrays as lists): completely, or not at all."""
    text = json.dumps(results, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    finite = json.loads(text, parse_constant=lambda _: None)
    text = json.dumps(finite, indent=2, ensure_ascii=False) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))


def load_results(path: str | Path) -> dict[str, Any]:
    """Read what `save_results` wrote; raises FlowersError if that is not what the file holds."""
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # Notepad adds a mark
    except (OSError, ValueError, RecursionError) as error:
        raise FlowersError(f"'{path}' cannot be read as JSON ({error}).") from error
    if not isinstance(results, dict) or "phases" not in results:
        raise FlowersError(f"'{path}' is not the results.json of a run of this lesson.")
    return results


def compare_runs(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Two runs side by side as Markdown: settings that differ, then accuracies.

    A difference is beyond noise if it is more than the choice of images explains: 1.96 standard
    errors of a difference of two proportions. What a run lacks is "none".
    """
    settings, measures, old, new = [], [], _flat(old), _flat(new)
    for key in {**old, **new}:
        pair = (old.get(key), new.get(key))
        if key.split(".")[0] in SETTINGS and pair[0] != pair[1]:
            settings.append([f"`{key}`", *(plain(str(value)) for value in pair)])
        elif key.endswith((".best_val_accuracy", ".value")):
            images = "data.images.test" if key.startswith("test") else "data.images.val"
            measures.append([f"`{key}`", *_accuracies(pair, (old.get(images), new.get(images)))])
    table = markdown_table(["setting", "old", "new"], settings)
    first = table if settings else "The settings of both runs are the same."
    return f"{first}\n\n{markdown_table(['measure', 'old', 'new', 'difference'], measures)}"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as one level: `{"config.PHASES.phase1.epochs": 20}`."""
    flat = {}
    for key, value in values.items():
        inside = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return flat


def _accuracies(pair: Sequence[Any], images: Sequence[Any]) -> list[str]:
    """The cells "old", "new" and "difference" for two accuracies; a file may hold anything."""
    cells = [f"{value:.1%}" if isinstance(value, float) else "none" for value in pair]
    try:
        noise = Z_95 * math.sqrt(sum(p * (1 - p) / n for p, n in zip(pair, images, strict=True)))
    except (TypeError, ValueError, ZeroDivisionError):  # without the number of images, for example
        return [*cells, ""]
    gain = pair[1] - pair[0]
    verdict = "beyond noise" if abs(gain) > noise else "within noise"
    return [*cells, f"{100 * gain:+.1f} points, {verdict} (±{100 * noise:.1f})"]


def plain(text: str) -> str:
    """Any name, ready for Markdown: shown as it is, never obeyed. A class may be called `<b>|$x$*`."""
    return re.sub(r"([\\`*_\[\]<>$|#~&])", r"\\\1", " ".join(text.split()))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, for `display(Markdown(...))`; names in its cells went through `plain`."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
