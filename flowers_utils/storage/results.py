"""What a run leaves behind for its readers: `models/results.json`."""

from pathlib import Path
from typing import Any

from flowers_utils.data import FlowerData
from flowers_utils.device import PRECISION_NAMES, Device, peak_memory_bytes
from flowers_utils.phases import PhaseResult
from flowers_utils.storage.checkpoints import versions
from flowers_utils.storage.files import save_json


def describe_run(
    data: FlowerData, device: Device, phases: list[PhaseResult], *, profile: str, seed: int
) -> dict[str, Any]:
    """Data, device, versions and the history of each phase, as plain values."""
    return {
        "data": {"source": data.source, "title": data.title, "fingerprint": data.fingerprint,
                 "images": {s.name: len(s) for s in (data.train, data.val, data.test)}},
        "device": device.describe(),
        "precision": PRECISION_NAMES[device.precision],
        "profile": profile,
        "seed": seed,
        "versions": versions(),
        "phases": {
            phase.title.lower().replace(" ", ""): {
                "best_epoch": phase.best_epoch,
                "best_val_accuracy": phase.best_val_accuracy,
                "seconds": phase.seconds,
                "history": phase.history,
            }
            for phase in phases
        },
        "peak_memory_bytes": peak_memory_bytes(device),
    }  # fmt: skip


def save_results(path: str | Path, results: dict[str, Any]) -> None:
    """Write the results of a run as JSON, atomically."""
    save_json(path, results)


def markdown_table(headers: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown, for `display(Markdown(...))`."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
