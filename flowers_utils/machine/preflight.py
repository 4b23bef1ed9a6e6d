"""Is this machine ready for the lesson? One line for each question, answered in seconds."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import transfer_learning_config as config
from flowers_utils.config_check import DATA_WORDS, check_config, check_knobs
from flowers_utils.datasets import flowers102
from flowers_utils.datasets.disk import check_writable, megabytes
from flowers_utils.datasets.download import reachable
from flowers_utils.datasets.folder import describe_folder
from flowers_utils.datasets.load import data_root
from flowers_utils.datasets.weights import imagenet_weights, weights_file
from flowers_utils.device import Device, choose_device
from flowers_utils.errors import FlowersError
from flowers_utils.machine.epoch_time import lesson_seconds
from flowers_utils.models import BACKBONES

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)
REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
PRACTICE, OWN = "PRACTICE flowers", "your own flowers"
ENOUGH_DISK, SOME_DISK = 3e9, 0.5e9  # bytes
ENOUGH_MEMORY, SOME_MEMORY = 3e9, 1e9  # bytes
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


def preflight(data: str = "auto", profile: str = "full") -> str:
    """What is not as it should be, the data, and how long the lesson takes; for the notebook.

    `data` and `profile` are the notebook's knobs. Raises FlowersError for a value that cannot work.
    """
    found = list(each_check(data, profile))
    shown = (PRACTICE, OWN, config.DATASET["name"], found[-1].what)
    return "\n".join(each.line() for each in found if each.status != "ok" or each.what in shown)


def each_check(data: str = "auto", profile: str = "full") -> Iterator[Check]:
    """Every check in turn, as soon as its answer is there; the last one sums up."""
    check_config()
    data, profile, _ = check_knobs(data, profile, 0)
    done: list[Check] = []

    def keep(checks: Iterable[Check]) -> Iterator[Check]:
        for check in checks:
            done.append(check)
            yield check

    device = choose_device()
    yield from keep([python_check(), *package_checks(REQUIREMENTS.read_text(encoding="utf-8"))])
    yield from keep([Check("ok", "device", device.describe()), *machine_checks(), disk_check()])
    flowers = data_check(data)
    on_practice = flowers.what == PRACTICE
    yield from keep([flowers, weights_check(on_practice), write_check(), *notebook_checks()])
    if can_run(done):
        yield Check("ok", "lesson", _summary(device, flowers.what, profile))
    else:
        yield Check("fail", "lesson", "cannot run yet, see each [fail] above")


def can_run(checks: Iterable[Check]) -> bool:
    """Whether nothing has failed."""
    return all(check.status != "fail" for check in checks)


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
    for name, wanted, use in re.findall(
        r"(?m)^([\w.-]+)\s*>=\s*([\d.]+)(?:\s*#\s*(.*))?", requirements
    ):
        try:
            installed = version(name)
            problem = f"version {installed} is too old, {wanted} or newer is needed"
            if _numbers(installed) >= _numbers(wanted):
                good.append(f"{name} {installed}")
                continue
        except PackageNotFoundError:
            problem = f"is not installed, {wanted} or newer is needed"
        # Without torch nothing of this runs; what else is missing may be needed late or never.
        status = "fail" if name.startswith("torch") else "warn"
        advice = "run: python -m pip install -r requirements.txt"
        bad.append(Check(status, name, f"{problem} ({use}); {advice}"))
    more = f" and {len(good) - 2} more" if len(good) > 2 else ""
    if good:
        bad.append(Check("ok", "packages", f"{', '.join(good[:2])}{more} as required"))
    return bad


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers a version begins with, without zeros at the end: `2.6.0+cu118` -> `(2, 6)`."""
    found = re.match(r"\d+(\.\d+)*", re.sub(r"(\.0+)*(?=$|\+)", "", text))
    return tuple(int(part) for part in found[0].split(".")) if found else ()


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


def data_check(choice: str = "auto") -> Check:
    """Where the flowers of `choice` will come from; an own folder is listed as loading lists it."""
    if choice == "practice":
        return Check("ok", PRACTICE, "drawn here, nothing to download")
    try:
        if choice not in DATA_WORDS:
            return Check("ok", OWN, describe_folder(choice))
        return _flowers102_check(choice, data_root())
    except FlowersError as error:
        return Check(
            "fail", OWN if choice not in DATA_WORDS else config.DATASET["name"], str(error)
        )


def _flowers102_check(choice: str, root: Path) -> Check:
    what = config.DATASET["name"]
    if flowers102.flowers102_is_whole(root):
        return Check("ok", what, f"on disk in {root}")
    by_hand = flowers102.flowers102_lies_ready(root)
    if by_hand or flowers102.flowers102_is_reachable(timeout=PROBE_SECONDS):
        check_writable(root, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
        how = "put there by hand, will be unpacked" if by_hand else "will be downloaded (345 MB)"
        return Check("ok", what, f"{how}, in {root}")
    why = f"neither in {root} nor reachable"
    if choice == "flowers102":
        return Check("fail", what, f"{why} (README.md, 'Download errors')")
    advice = "so they take its place (README.md, 'Download errors')"
    return Check("warn", PRACTICE, f"{what} is {why}, {advice}")


def weights_check(on_practice: bool) -> Check:
    """Whether the pretrained backbone is at hand."""
    what = f"pretrained {config.BACKBONE}"
    if on_practice and config.BACKBONE != "resnet18":
        advice = "practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18'"
        return Check("fail", what, advice)
    if on_practice:
        return Check("ok", what, "practice flowers bring their own, pretrained here once")
    path, url = weights_file(config.BACKBONE), BACKBONES[config.BACKBONE].weights.url
    if path.parts[0] == "~":  # torch would make a folder of that name
        return Check("fail", what, "no home folder is known here; set TORCH_HOME to a folder")
    if path.is_file():
        try:
            imagenet_weights(config.BACKBONE)
        except FlowersError as error:
            return Check("fail", what, str(error))
        return Check("ok", what, f"on disk, {path}")
    if reachable(url, timeout=PROBE_SECONDS):
        return Check("ok", what, f"will be downloaded from {url}")
    return Check("fail", what, f"not on disk and not reachable; get {url} and save it as {path}")


def write_check() -> Check:
    """Whether results and the cache can be saved."""
    names = list(dict.fromkeys(config.PATHS.values()))
    try:
        for name in names:
            check_writable(Path(name), advice="Copy the project to a folder of your own.")
    except FlowersError as error:
        return Check("fail", "write access", str(error))
    return Check("ok", "write access", " and ".join(f"{name}/" for name in names))


def notebook_checks() -> list[Check]:
    """Whether bars and figures will be seen."""
    found = []
    try:
        found.append(Check("ok", "progress bars", f"ipywidgets {version('ipywidgets')}"))
    except PackageNotFoundError:
        advice = "drawn as text, since ipywidgets is missing; run: python -m pip install ipywidgets"
        found.append(Check("warn", "progress bars", advice))
    backend = os.environ.get("MPLBACKEND", "")
    if backend and not backend.startswith("module://"):
        advice = f"MPLBACKEND is '{backend}' here, which draws no figures into a notebook; unset it"
        found.append(Check("warn", "figures", advice))
    return found


def _summary(device: Device, flowers: str, profile: str) -> str:
    """On what the lesson runs and for about how long."""
    first, second = lesson_seconds(device, on_practice=flowers == PRACTICE, profile=profile)
    as_many = f" (if they are as many as {config.DATASET['name']})" if flowers == OWN else ""
    return (
        f"profile '{profile}' runs on {flowers}, {device.describe()}: about {in_words(first)} for "
        f"part one, then {in_words(second)} for part two{as_many}"
    )


def in_words(seconds: float) -> str:
    """A time that is only known roughly: minutes, or hours with one decimal."""
    minutes = int(seconds / 60) + 1
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} hours"
