"""What a run leaves for its readers: `models/results.json`, and to which run the files there belong."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.device import PRECISION_NAMES, Device, peak_memory_bytes
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Z_95
from flowers_utils.storage.checkpoints import about, versions
from flowers_utils.storage.files import atomic_write, keep_earlier

# What a run writes under the names of the run before it; phases keep their own earlier files.
FILES_OF_A_RUN = ("results.json", "*_final.*", "*.onnx", "*.onnx.data", "*.pt2")
NOT_OF_A_RUN = ("PATHS", "DATASET", "EXPECTED", "COMPARISON")  # config that changes no result
SETTINGS = ("data", "device", "precision", "profile", "recipe", "seed", "versions", "config")


def begin_run(folder: str | Path, data: FlowerData, knobs: Mapping[str, Any]) -> str:
    """Write into `folder` which run its files belong to, and keep those of another run.

    What a run with other data, knobs or config left, or a run that `run.json` does not name, is
    renamed: `a.pth` to `a.earlier.pth`. Returns a sentence in plain text, which files and why, or
    "" if nothing was renamed. Raises FlowersError if the folder cannot be written.
    """
    path, before, kept = Path(folder, "run.json"), {}, []
    owner = {"data": about(data), "knobs": dict(knobs), "config": _config()}
    owner = json.loads(json.dumps(owner))  # tuples become lists, as they are in the file
    with suppress(FlowersError):
        before = _load_json(path)
    if before == owner:
        return ""

    def keep_and_write(part: Path) -> None:
        found = {file for pattern in FILES_OF_A_RUN for file in path.parent.glob(pattern)}
        for file in sorted(found):
            if ".earlier" not in file.name and not file.name.startswith("."):
                kept.append(f"{file.name} is now {keep_earlier(file).name}")
        part.write_text(json.dumps(owner, indent=2), encoding="utf-8")

    atomic_write(path, keep_and_write)  # if it is interrupted, the next run completes it
    changes = [
        f"{key} was {old!r} and is now {new!r}"
        for key, (old, new) in _both(_flat(before), _flat(owner)).items()
        if old != new and key != "data.fingerprint"  # a number that tells nobody anything
    ]
    why = "; ".join(changes[:3]) or "its photographs were others"
    why = why if before else "no 'run.json' names it"
    told = f"Files of another run ({why}) were renamed: {', '.join(kept)}. A file that was kept"
    return f"{told} under such a name before is replaced." if kept else ""


def _config() -> dict[str, Any]:
    return {k: v for k, v in vars(config).items() if k.isupper() and k not in NOT_OF_A_RUN}


def describe_run(
    data: FlowerData, device: Device, phases: list[dict[str, Any]], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    """Data, device, versions, the config and the history of each phase, as plain values.

    `phases` come from `PhaseResult.to_dict`; `knobs` are the notebook's: "profile", "recipe", "seed".
    """
    images = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return {
        "data": {**about(data), "images": images},
        "device": device.describe(),
        "precision": PRECISION_NAMES[device.precision],
        **knobs,
        "versions": versions(),
        "config": _config(),
        "phases": {phase["name"].lower().replace(" ", ""): phase for phase in phases},
        "peak_memory_bytes": peak_memory_bytes(device.torch_device),
    }


def save_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON: completely, or not at all. NaN and infinity, which JSON lacks: null."""
    text = json.dumps(_finite(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_results(path: str | Path) -> dict[str, Any]:
    """Read what `save_results` wrote of a run; raises FlowersError that says what is wrong with it."""
    results = _load_json(path)
    if "phases" not in results:
        raise FlowersError(f"'{path}' is not the results.json of a run of this lesson.")
    return results


def _load_json(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=lambda _: None)  # older versions wrote NaN
    except FileNotFoundError as error:
        raise FlowersError(f"There is no file '{path}'; run the lesson to its end.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FlowersError(f"'{path}' cannot be read as JSON ({error}).") from error
    return content if isinstance(content, dict) else {}


def compare_runs(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Two runs side by side as Markdown: settings that differ, then numbers and their differences.

    A difference of val or test accuracy is marked if it lies outside what the choice of images
    explains: 1.96 standard errors of a difference of two proportions. What a run lacks is "none".
    """
    pairs = _both(*(_flat({k: run[k] for k in SETTINGS if k in run}) for run in (old, new)))
    settings = [
        [f"`{key}`", plain(str(a)), plain(str(b))] for key, (a, b) in pairs.items() if a != b
    ]
    kept = (run.get("phases") for run in (old, new))
    phases = list(_both(*(each if isinstance(each, dict) else {} for each in kept)))
    wanted = [(f"{key}, val top-1", "val", ("phases", key, "best_val_accuracy")) for key in phases]
    tests = ("top1", "top5", "mean_per_class")
    wanted += [(f"test {key}", "test", ("test", key, "value")) for key in tests]
    rows = []
    for name, split, keys in wanted:
        values = [_number(run, *keys, limit=1) for run in (old, new)]
        counts = [_number(run, "data", "images", split) for run in (old, new)]
        if values != [None, None]:
            rows.append([plain(name), *_compared(values, counts)])
    for key in phases:
        before, after = (_number(run, "phases", key, "seconds") for run in (old, new))
        if before and after:
            ratio = f"{after / before:.2f} times"
            rows.append([f"{plain(key)}, seconds", f"{before:.0f}", f"{after:.0f}", ratio])
    table = markdown_table(["setting", "old", "new"], settings)
    first = table if settings else "The settings of both runs are the same."
    return f"{first}\n\n{markdown_table(['measure', 'old', 'new', 'difference'], rows)}"


def _number(run: dict[str, Any], *keys: str, limit: float = 1e12) -> float | None:
    """A number from 0 to `limit` inside a run, or None: a text, a list, NaN and True are no number."""
    value: Any = run
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if type(value) in (int, float) and 0 <= value <= limit else None


def _compared(values: Sequence[float | None], counts: Sequence[float | None]) -> list[str]:
    """The cells "old", "new" and "difference" for two accuracies of 0 to 1."""
    shown = ["none" if value is None else f"{value:.1%}" for value in values]
    if None in values:
        return [*shown, ""]
    difference = values[1] - values[0]
    if not all(counts):  # without the number of photographs nobody can say how large chance is
        return [*shown, f"{100 * difference:+.1f} points"]
    variances = (p * (1 - p) / count for p, count in zip(values, counts, strict=True))
    noise = Z_95 * math.sqrt(sum(variances))
    verdict = "beyond noise" if abs(difference) > noise else "within noise"
    return [*shown, f"{100 * difference:+.1f} points, {verdict} (±{100 * noise:.1f})"]


def _both(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (old.get(key), new.get(key)) for key in {**old, **new}}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: `config.PHASES.phase1.epochs` -> 20."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def plain(text: str) -> str:
    """Any name, ready for Markdown: shown as it is, never obeyed. A class may be called `<b>|$x$*`.

    Every class name, title and path that reaches a Markdown cell or a table goes through here.
    """
    return re.sub(r"([\\`*_\[\]<>$|#~&])", r"\\\1", " ".join(text.split()))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, for `display(Markdown(...))`; names in its cells went through `plain`."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
