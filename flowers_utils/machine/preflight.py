"""Is this machine ready for the lesson? One line a question, answered in seconds."""

import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import transfer_learning_config as config
from flowers_utils.config_check import check_config, check_knobs
from flowers_utils.datasets import flowers102
from flowers_utils.datasets.download import check_writable, megabytes, reachable
from flowers_utils.datasets.load import data_root
from flowers_utils.device import Device, choose_device
from flowers_utils.errors import FlowersError
from flowers_utils.machine.duration import lesson_seconds
from flowers_utils.models import BACKBONES
from flowers_utils.weights import weights_path, weights_status

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
ESSENTIAL = {"torch", "torchvision", "numpy", "matplotlib", "tqdm", "scipy"}  # no lesson without
ENOUGH_MEMORY, SOME_MEMORY = 3e9, 1e9  # bytes
PRACTICE, OWN = "PRACTICE flowers", "your own flowers"
ENOUGH_DISK, SOME_DISK = 3e9, 0.5e9  # bytes
PROBE_SECONDS = 2.0
BUSY = 50  # per cent of the processor used by other programs


@dataclass(frozen=True)
class Check:
    """One answer: `status` is "ok", "warn" or "fail"."""

    status: str
    what: str
    detail: str

    def line(self) -> str:
        return f"{f'[{self.status}]':<7} {self.what}: {self.detail}"


def each_check(choice: str = "auto", profile: str = "full") -> Iterator[Check]:
    """Every check in turn, as soon as its answer is there; the last one sums up.

    `choice` and `profile` are the notebook's DATA and PROFILE.
    Raises FlowersError for a value of the configuration that cannot work.
    """
    check_config()
    check_knobs(choice, profile, 0)
    requirements = Path(__file__).parents[2] / "requirements.txt"
    device = choose_device()
    done = [python_check(), *package_checks(requirements.read_text(encoding="utf-8"))]
    done += [Check("ok", "device", device.describe()), *machine_checks(), disk_check()]
    yield from done
    data, photographs = data_check(choice)
    for check in (data, weights_check(photographs), write_check(), widget_check()):
        done.append(check)
        yield check
    yield summary(done, device, photographs=photographs, data=data.what, profile=profile)


def checks(choice: str = "auto", profile: str = "full") -> list[Check]:
    """All checks of `each_check`; takes a few seconds."""
    return list(each_check(choice, profile))


def report(results: Iterable[Check]) -> str:
    """One line a check."""
    return "\n".join(check.line() for check in results)


def short_report(results: Iterable[Check]) -> str:
    """Only what is not as it should be, and the last line; for the notebook's first cell."""
    *rest, last = results
    return report([*(check for check in rest if check.status != "ok"), last])


def exit_status(results: Iterable[Check]) -> int:
    """0 if the lesson can run, else 1."""
    return int(any(check.status == "fail" for check in results))


def python_check(running: tuple[int, ...] = sys.version_info[:3]) -> Check:
    text = ".".join(map(str, running))
    if running[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Check("fail", "Python", f"{text}, but the lesson needs {wanted} or newer")
    if running[:2] > NEWEST_PYTHON:
        return Check("warn", "Python", f"{text}, newer than any the lesson was tried with")
    return Check("ok", "Python", text)


def package_checks(requirements: str) -> list[Check]:
    """One line for all packages that are as `requirements.txt` asks, one for each that is not."""
    good, bad = [], []
    for line in requirements.splitlines():
        match = re.match(r"\s*([\w.-]+)\s*>=\s*([\d.]+)\s*(?:#\s*(.*))?", line)
        if match:
            name, wanted, use = match.groups(default="")
            problem = _package_problem(name, wanted)
            status = "fail" if name in ESSENTIAL else "warn"
            reason = f"{problem} ({use}); run: python -m pip install -r requirements.txt"
            bad.append(Check(status, name, reason)) if problem else good.append(name)
    shown = ", ".join(f"{name} {version(name)}" for name in good[:2])
    more = f" and {len(good) - 2} more" if len(good) > 2 else ""
    return [Check("ok", "packages", f"{shown}{more} as required"), *bad] if good else bad


def _package_problem(name: str, wanted: str) -> str:
    """Empty if the package is installed and new enough."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        return f"is not installed, {wanted} or newer is needed"
    if _release(installed) >= _release(wanted):
        return ""
    return f"version {installed} is too old, {wanted} or newer is needed"


def _release(text: str) -> tuple[int, ...]:
    """The numbers a version begins with, without zeros at the end: `2.6.0+cu118` -> `(2, 6)`."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    found = [int(part) for part in numbers[0].split(".")] if numbers else []
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def machine_checks() -> list[Check]:
    """Free memory, and how busy other programs keep the processor."""
    try:
        import psutil  # comes with ipykernel
    except ModuleNotFoundError:
        return [Check("warn", "memory", "unknown, since the package psutil is missing")]
    busy, memory = psutil.cpu_percent(interval=0.3), psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    found = [Check("ok", "memory", text)]
    if memory.available < ENOUGH_MEMORY:
        advice = f"{text}; close other programs, or make TRAINING_CONFIG['batch_size'] smaller"
        found = [Check("warn" if memory.available >= SOME_MEMORY else "fail", "memory", advice)]
    if busy > BUSY:
        text = (
            f"other programs use {busy:.0f} % of it; without them the lesson is faster than below"
        )
        found.append(Check("warn", "processor", text))
    return found


def disk_check(free: int | None = None) -> Check:
    free = shutil.disk_usage(Path.cwd()).free if free is None else free
    if free >= ENOUGH_DISK:
        return Check("ok", "disk", f"{free / 1e9:.0f} GB free")
    need = f"{megabytes(free)} free, a whole run on Flowers102 needs {ENOUGH_DISK / 1e9:.0f} GB"
    return Check("warn" if free >= SOME_DISK else "fail", "disk", need)


def data_check(choice: str = "auto") -> tuple[Check, bool]:
    """Where the data of `choice` will come from, and whether it is photographs (else practice)."""
    if choice == "practice":
        return Check("ok", PRACTICE, "drawn here, nothing to download"), False
    if choice not in ("auto", "flowers102"):
        found = Path(choice).expanduser().is_dir()
        detail = f"in '{choice}'" if found else f"there is no folder '{choice}'; correct DATA"
        return Check("ok" if found else "fail", OWN, detail), True
    root, what = data_root(), config.DATASET["name"]
    if flowers102.flowers102_is_whole(root):
        return Check("ok", what, f"on disk in {root}"), True
    by_hand = flowers102.flowers102_lies_ready(root)
    if not by_hand and not flowers102.flowers102_is_reachable(timeout=PROBE_SECONDS):
        reason, advice = f"neither in {root} nor reachable", "(README.md, 'Download errors')"
        if choice == "flowers102":
            return Check("fail", what, f"{reason} {advice}"), True
        return Check(
            "warn", PRACTICE, f"{what} is {reason}, so they take its place {advice}"
        ), False
    try:
        check_writable(root, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
    except FlowersError as error:
        return Check("fail", what, str(error)), True
    how = "put there by hand, will be unpacked" if by_hand else "will be downloaded (345 MB)"
    return Check("ok", what, f"{how}, in {root}"), True


def weights_check(photographs: bool) -> Check:
    """Whether the pretrained backbone is at hand."""
    what = f"pretrained {config.BACKBONE}"
    if not photographs and config.BACKBONE != "resnet18":
        advice = "practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18'"
        return Check("fail", what, advice)
    if not photographs:
        return Check("ok", what, "practice flowers bring their own, pretrained here once")
    weights = BACKBONES[config.BACKBONE].weights
    path, status, url = weights_path(weights), weights_status(weights), weights.url
    if status == "on disk":
        return Check("ok", what, f"on disk, {path}")
    if reachable(url, timeout=PROBE_SECONDS):
        return Check("ok", what, f"{status} on disk, will be downloaded from {url}")
    advice = f"get {url} and save it as {path}"
    return Check("fail", what, f"{status} on disk and not reachable; {advice}")


def write_check() -> Check:
    """Whether results and the cache can be saved."""
    names = list(dict.fromkeys(config.PATHS.values()))
    try:
        for name in names:
            check_writable(Path(name), advice="Copy the project to a folder of your own.")
    except FlowersError as error:
        return Check("fail", "write access", str(error))
    return Check("ok", "write access", " and ".join(f"{name}/" for name in names))


def widget_check() -> Check:
    what = "notebook progress bars"
    try:
        return Check("ok", what, f"ipywidgets {version('ipywidgets')}")
    except PackageNotFoundError:
        return Check("warn", what, "ipywidgets is missing; run: python -m pip install ipywidgets")


def summary(
    done: list[Check], device: Device, *, photographs: bool, data: str, profile: str
) -> Check:
    """The last line: on what the lesson runs and for about how long."""
    if exit_status(done):
        return Check("fail", "lesson", "cannot run yet, see each [fail] above")
    classifier, control = lesson_seconds(device, photographs=photographs, profile=profile)
    as_many = f" (if they are as many as {config.DATASET['name']})" if data == OWN else ""
    return Check(
        "ok",
        "lesson",
        f"profile '{profile}' runs on {data}, {device.describe()}: about {in_words(classifier)} "
        f"to the finished classifier, then {in_words(control)} for the control experiment{as_many}",
    )


def in_words(seconds: float) -> str:
    """A time that is only known roughly: minutes, or hours with one decimal."""
    minutes = int(seconds / 60) + 1
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} hours"
