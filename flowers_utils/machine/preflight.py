"""Is this machine ready for the lesson? One line for each question, answered in seconds."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import psutil  # comes with ipykernel
import torch
from packaging.requirements import Requirement  # comes with matplotlib and Jupyter

import transfer_learning_config as config
from flowers_utils.config_check import DATA_WORDS, check_config, check_knobs, phase_settings
from flowers_utils.data import Split
from flowers_utils.datasets import flowers102, practice
from flowers_utils.datasets.disk import check_writable, megabytes
from flowers_utils.datasets.download import reachable
from flowers_utils.datasets.folder import describe_folder
from flowers_utils.datasets.load import data_root
from flowers_utils.datasets.weights import imagenet_weights, weights_file
from flowers_utils.device import Device, choose_device
from flowers_utils.errors import FlowersError
from flowers_utils.machine.speed import images_a_batch, lesson_loop, seconds_an_image
from flowers_utils.models import BACKBONES, build_model

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
PRACTICE, OWN = "PRACTICE flowers", "your own flowers"
DISK, MEMORY = (3e9, 0.5e9), (3e9, 1e9)  # bytes: enough, and the least with which it may work
PROBE_SECONDS = 2.0
OTHER_PASSES = 8  # over a split without training: before and after the phases, stored features
COMPARISON_PASSES = 17  # the five backbones of part two, counted in passes of a ResNet18
EVERYTHING_ELSE = 60.0  # seconds of a part beside training and evaluation: figures, export
Answer = tuple[str, str]  # the status and the detail of a Check


@dataclass(frozen=True)
class Check:
    """One answer: `status` is "ok", "warn" or "fail"."""

    status: str
    what: str
    detail: str

    def line(self) -> str:
        return f"{f'[{self.status}]':<7} {self.what}: {self.detail}"


def preflight(data: str = "auto", profile: str = "full", recipe: str = "lesson") -> str:
    """What is not as it should be, the data, and how long the lesson takes; for the notebook.

    The arguments are the notebook's knobs. Raises FlowersError for a value that cannot work.
    """
    found = list(each_check(data, profile, recipe))
    shown = (PRACTICE, OWN, config.DATASET["name"], "lesson")
    return "\n".join(each.line() for each in found if each.status != "ok" or each.what in shown)


def each_check(
    data: str = "auto", profile: str = "full", recipe: str = "lesson"
) -> Iterator[Check]:
    """Every check in turn, as soon as its answer is there; the last one sums up."""
    check_config()
    data, profile, _, recipe = check_knobs(data, profile, 0, recipe)
    device, flowers = choose_device(), data_check(data)
    on_practice, done = flowers.what == PRACTICE, []
    questions = {
        "packages": partial(packages, REQUIREMENTS.read_text(encoding="utf-8")),
        "device": lambda: ("ok", device.describe()),
        "memory": lambda: enough(psutil.virtual_memory().available, MEMORY, "close programs"),
        "processor": lambda: processor(psutil.cpu_percent(interval=0.3)),
        "disk": lambda: enough(shutil.disk_usage(Path.cwd()).free, DISK, "free some"),
        flowers.what: lambda: (flowers.status, flowers.detail),
        f"pretrained {config.BACKBONE}": partial(weights, on_practice),
        "write access": write_access,
    }
    for what, question in questions.items():
        done.append(answered(what, question))
        yield done[-1]
    if can_run(done):
        yield Check("ok", "lesson", _summary(device, flowers.what, profile, recipe))
    else:
        yield Check("fail", "lesson", "cannot run yet, see each [fail] above")


def answered(what: str, question: Callable[[], Answer]) -> Check:
    """The answer to a question; an error of the lesson is a failure in its own words."""
    try:
        status, detail = question()
    except FlowersError as error:
        status, detail = "fail", str(error)
    return Check(status, what, detail)


def can_run(checks: Iterable[Check]) -> bool:
    """Whether nothing has failed."""
    return all(check.status != "fail" for check in checks)


def packages(requirements: str) -> Answer:
    """Whether all packages are as `requirements.txt` asks; without torch nothing of this runs."""
    problems, status = [], "warn"
    for line in requirements.splitlines():
        wanted, use = (part.strip() for part in line.split("#"))
        package = Requirement(wanted)
        try:
            installed = version(package.name)
            if package.specifier.contains(installed, prereleases=True):
                continue
        except PackageNotFoundError:
            installed = "not installed"
        problems.append(f"{wanted} is needed for {use}, here it is {installed}")
        status = "fail" if package.name.startswith("torch") else status
    if problems:
        return status, f"{'; '.join(problems)}; run: python -m pip install -r requirements.txt"
    return "ok", f"torch {version('torch')} and all others as required"


def processor(busy: float) -> Answer:
    if busy <= 50:
        return "ok", "free"
    return "warn", f"other programs use {busy:.0f} % of it; the lesson is faster without them"


def enough(free: float, bounds: tuple[float, float], advice: str) -> Answer:
    """Whether so many free bytes are plenty, little, or too few to work with."""
    plenty, least = bounds
    if free >= plenty:
        return "ok", f"{free / 1e9:.0f} GB free"
    status = "warn" if free >= least else "fail"
    return status, f"{megabytes(free)} free, a whole run needs {plenty / 1e9:.0f} GB; {advice}"


def data_check(choice: str) -> Check:
    """Where the flowers of `choice` will come from; an own folder is listed as loading lists it."""
    if choice == "practice":
        return Check("ok", PRACTICE, "drawn here, nothing to download")
    if choice not in DATA_WORDS:
        return answered(OWN, lambda: ("ok", describe_folder(choice)))
    found = answered(config.DATASET["name"], flowers102_here)
    if found.status == "absent" and choice == "auto":  # as `load_data` decides, too
        return Check("warn", PRACTICE, f"they take the place of {found.what}: {found.detail}")
    return replace(found, status="fail") if found.status == "absent" else found


def flowers102_here() -> Answer:
    """Where it is or will come from; "absent" if there is no way to it."""
    root = data_root()
    if flowers102.flowers102_is_whole(root):
        return "ok", f"on disk in {root}"
    by_hand = flowers102.flowers102_lies_ready(root)
    if by_hand or flowers102.flowers102_is_reachable(timeout=PROBE_SECONDS):
        check_writable(root, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
        how = "put there by hand, will be unpacked" if by_hand else "will be downloaded (345 MB)"
        return "ok", f"{how}, in {root}"
    return "absent", f"neither in {root} nor reachable (README.md, 'Download errors')"


def weights(on_practice: bool) -> Answer:
    """Whether the pretrained backbone is at hand."""
    if on_practice and config.BACKBONE != "resnet18":
        return "fail", "practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18'"
    if on_practice:
        return "ok", "practice flowers bring their own, pretrained here once"
    path, url = weights_file(config.BACKBONE), BACKBONES[config.BACKBONE].weights.url
    if path.parts[0] == "~":  # torch would make a folder of that name
        return "fail", "no home folder is known here; set TORCH_HOME to a folder"
    if path.is_file():
        imagenet_weights(config.BACKBONE)
        return "ok", f"on disk, {path}"
    if reachable(url, timeout=PROBE_SECONDS):
        return "ok", f"will be downloaded from {url}"
    return "fail", f"not on disk and not reachable; get {url} and save it as {path}"


def write_access() -> Answer:
    """Whether results and the cache can be saved."""
    for name in config.PATHS.values():
        check_writable(Path(name), advice="Copy the project to a folder of your own.")
    return "ok", " and ".join(config.PATHS.values())


def _summary(device: Device, flowers: str, profile: str, recipe: str) -> str:
    """On what the lesson runs and for about how long."""
    times = lesson_seconds(device, on_practice=flowers == PRACTICE, profile=profile, recipe=recipe)
    first, second = (f"{int(s / 60) + 1} min" if s < 7200 else f"{s / 3600:.1f} h" for s in times)
    also = "" if recipe == "lesson" else f" with the recipe '{recipe}'"
    as_many = f" (if they are as many as {config.DATASET['name']})" if flowers == OWN else ""
    return (
        f"profile '{profile}'{also} runs on {flowers}, {device.describe()}: about {first} for "
        f"part one, then {second} for part two{as_many}"
    )


def lesson_seconds(
    device: Device, *, on_practice: bool, profile: str, recipe: str = "lesson"
) -> tuple[float, float]:
    """About how long parts one and two take here, in seconds, from a few real steps."""
    photos = (config.AUGMENTATION["resize"], config.AUGMENTATION["crop"])
    drawings = (practice.PRACTICE_RESIZE, practice.PRACTICE_CROP)
    counts = practice.SPLIT_SIZES if on_practice else config.DATASET["splits"]
    if limit := config.PROFILES[profile]["images"]:
        counts = dict.fromkeys(counts, limit)
    train, forward = seconds_here(device, *(drawings if on_practice else photos))
    phase1, phase2 = (phase_settings(name, profile, recipe) for name in config.PHASES)
    sizes = phase2.get("sizes", (1.0,))  # a smaller picture takes as much less as it has pixels
    epoch = train * counts["train"] * sum(size**2 for size in sizes) / len(sizes)
    fit = phase2.get("fit_head", False)  # two passes in the place of the last epoch
    tuning = (phase2["epochs"] - fit) * epoch + fit * 2 * forward * counts["train"]
    tuning += phase2["epochs"] * forward * counts["val"]
    scratch = phase_settings("phase2", profile)["epochs"] * (
        train * counts["train"] + forward * counts["val"]
    )
    passes = phase1["epochs"] + OTHER_PASSES
    part_one = tuning + forward * (passes * counts["train"] + counts["test"]) + EVERYTHING_ELSE
    scratch += EVERYTHING_ELSE
    if not on_practice:
        return part_one, scratch + COMPARISON_PASSES * forward * counts["train"]
    if not (Path(config.PATHS["models"]) / "practice_backbone.pth").is_file():
        part_one += train * practice.PRETRAINING["images"]
    return part_one, scratch


def seconds_here(device: Device, resize: int, crop: int) -> tuple[float, float]:
    """Seconds that this lesson needs for one image: (training everything, forward pass alone)."""
    count = images_a_batch(device, crop)
    black = np.zeros((count, 3, resize, resize), np.uint8)
    train = Split("train", black, torch.zeros(count, dtype=torch.int64))
    model = build_model(config.BACKBONE, num_classes=config.DATASET["num_classes"], weights=None)
    parts = seconds_an_image(model, lesson_loop(train, device, crop), train.labels)
    return sum(parts.values()), parts["forward"]
