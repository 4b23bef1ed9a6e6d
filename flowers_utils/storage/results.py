"""What a run leaves behind for its readers: the result of a phase, and `models/results.json`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.device import PRECISION_NAMES, Device
from flowers_utils.errors import FlowersError
from flowers_utils.memory import peak_memory_bytes
from flowers_utils.storage.checkpoints import versions
from flowers_utils.storage.files import atomic_write

Z_95 = 1.96  # standard errors on either side of a 95 % interval


@dataclass(frozen=True)
class PhaseResult:
    """What a phase leaves behind; `model` holds the weights of the epoch that was best on val.

    `history` has a row an epoch: phase, epoch, train_loss, train_accuracy, val_loss, val_accuracy,
    learning_rates (a dict, by group) and seconds; losses in nats, accuracies as fractions 0..1. An
    epoch that fitted the head has no rates.
    """

    name: str
    number: int
    model: nn.Module
    checkpoint: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""  # what the student should know: went on, was already finished, disk full

    @property
    def best_epoch(self) -> int:
        return best_row(self.history)["epoch"]

    @property
    def best_val_accuracy(self) -> float:
        return best_row(self.history)["val_accuracy"]

    @property
    def seconds(self) -> float:
        """Time spent training, in seconds, over all sittings."""
        return sum(row["seconds"] for row in self.history)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {
            "name": self.name,
            "best_epoch": self.best_epoch,
            "best_val_accuracy": self.best_val_accuracy,
            "seconds": self.seconds,
            "history": self.history,
        }


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the epoch that was best on val; the first of them, if several were."""
    return max(history, key=lambda row: row["val_accuracy"])


def describe_run(
    data: FlowerData, device: Device, phases: list[dict[str, Any]], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    """Data, device, versions, the whole config and the history of each phase, as plain values.

    `knobs` are the notebook's: "profile", "recipe" and "seed".
    """
    splits = (data.train, data.val, data.test)
    return {
        "data": {
            "source": data.source,
            "title": data.title,
            "fingerprint": data.fingerprint,
            "images": {split.name: len(split) for split in splits},
        },
        "device": device.describe(),
        "precision": PRECISION_NAMES[device.precision],
        **knobs,
        "versions": versions(),
        "config": {name: value for name, value in vars(config).items() if name.isupper()},
        "phases": {phase["name"].lower().replace(" ", ""): phase for phase in phases},
        "peak_memory_bytes": peak_memory_bytes(device.torch_device),
    }


def save_results(path: str | Path, results: dict[str, Any]) -> None:
    """Write the results of a run as JSON: whole or not at all."""
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))


def load_results(path: str | Path) -> dict[str, Any]:
    """Read what `save_results` wrote; raises FlowersError that says what is wrong with the file."""
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FlowersError(f"There is no file '{path}'; run the lesson to its end.") from error
    except (OSError, ValueError) as error:
        raise FlowersError(f"'{path}' cannot be read as JSON ({error}).") from error
    if not isinstance(results, dict) or "phases" not in results:
        raise FlowersError(f"'{path}' is not the results.json of a run of this lesson.")
    return results


def compare_runs(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Two runs side by side as Markdown: settings that differ, then numbers and their differences.

    A difference of val or test accuracy is marked if it lies outside what the choice of images
    explains: 1.96 standard errors of a difference of two proportions.
    """
    settings = [
        [f"`{key}`", theirs, ours]
        for key, (theirs, ours) in _both(_flat(old), _flat(new)).items()
        if theirs != ours
    ]
    rows = [
        [name, *_compared(*pair, [run["data"]["images"][split] for run in (old, new)])]
        for name, (split, *pair) in _accuracies(old, new).items()
    ]
    seconds = _both(*({k: p["seconds"] for k, p in run["phases"].items()} for run in (old, new)))
    for name, (before, after) in seconds.items():
        if before and after:
            rows.append(
                [f"{name}, seconds", f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f} times"]
            )
    parts = [markdown_table(["setting", "old", "new"], settings)] if settings else []
    parts = parts or ["The settings of both runs are the same."]
    return "\n\n".join([*parts, markdown_table(["measure", "old", "new", "difference"], rows)])


def _both(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (old.get(key), new.get(key)) for key in {**old, **new}}


def _flat(run: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of a run as one level: `config.PHASES.phase1.epochs` -> 20."""
    known = ("data", "device", "precision", "profile", "recipe", "seed", "versions", "config")
    flat: dict[str, Any] = {}
    for key, value in run.items():
        if prefix or key in known:
            name = f"{prefix}{key}"
            flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _accuracies(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple]:
    """Name -> the split that was scored, and accuracy in both runs (None where one lacks it)."""
    found: dict[str, tuple] = {}
    best = [
        {key: phase["best_val_accuracy"] for key, phase in run["phases"].items()}
        for run in (old, new)
    ]
    for key, pair in _both(*best).items():
        found[f"{key}, val top-1"] = ("val", *pair)
    tests = [run.get("test", {}) for run in (old, new)]
    for name in ("top1", "top5", "mean_per_class"):
        pair = tuple((test.get(name) or {}).get("value") for test in tests)
        if any(value is not None for value in pair):
            found[f"test {name}"] = ("test", *pair)
    return found


def _compared(old: float | None, new: float | None, counts: Sequence[int]) -> list[str]:
    shown = ["none" if value is None else f"{value:.1%}" for value in (old, new)]
    if old is None or new is None:
        return [*shown, ""]
    noise = Z_95 * (old * (1 - old) / counts[0] + new * (1 - new) / counts[1]) ** 0.5
    verdict = "beyond noise" if abs(new - old) > noise else "within noise"
    return [*shown, f"{100 * (new - old):+.1f} points, {verdict} (±{100 * noise:.1f})"]


def plain(text: str) -> str:
    """A student's own words, which Markdown must show and not obey: a class may be called `$Rosa$`."""
    return re.sub(r"([\\`*_\[\]<>$|#~])", r"\\\1", " ".join(text.split()))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, for `display(Markdown(...))`."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
