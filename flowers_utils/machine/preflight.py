"""Is this machine ready for the lesson? One line for each question, answered in seconds."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import psutil
from packaging.requirements import InvalidRequirement, Requirement  # comes with matplotlib
from torchvision.models import get_model_weights

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.config_check import DATA_WORDS, check_config, check_knobs
from flowers_utils.datasets import flowers102
from flowers_utils.datasets.download import reachable
from flowers_utils.datasets.folder import describe_folder
from flowers_utils.datasets.load import data_root
from flowers_utils.device import choose_device
from flowers_utils.errors import FlowersError
from flowers_utils.machine.speed import lesson_seconds
from flowers_utils.storage.files import check_writable, megabytes

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
PRACTICE, OWN = "PRACTICE flowers", "your own flowers"
DISK, MEMORY = (3e9, 0.5e9), (3e9, 1e9)  # bytes: enough, and the least with which it may work
Answer = tuple[str, str]  # the status and the detail of a Check


@dataclass(frozen=True)
class Check:
    """One answer: `status` is "ok", "warn" or "fail"."""

    status: str
    what: str
    detail: str

    def line(self) -> str:
        return f"{f'[{self.status}]':<7} {self.what}: {self.detail}"


def check_machine(data: str = "auto", profile: str = "full", recipe: str = "lesson") -> str:
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
    device, flowers = choose_device(), check_flowers(data)
    on_practice = flowers.what == PRACTICE
    questions = {
        "packages": lambda: packages(REQUIREMENTS.read_text(encoding="utf-8-sig")),
        "device": lambda: ("ok", device.describe()),
        "memory": lambda: enough(free_memory(), MEMORY, "close programs"),
        "disk": disk,
        flowers.what: lambda: (flowers.status, flowers.detail),
        f"pretrained {config.BACKBONE}": lambda: weights(on_practice=on_practice),
    }
    done = []
    for what, question in questions.items():
        done.append(answered(what, question))
        yield done[-1]
    if not can_run(done):
        yield Check("fail", "lesson", "cannot run yet, see each [fail] above")
        return
    times = lesson_seconds(device, on_practice=on_practice, profile=profile, recipe=recipe)
    first, second = (f"{int(s / 60) + 1} min" if s < 7200 else f"{s / 3600:.1f} h" for s in times)
    many = f" (if they are as many as {config.DATASET['name']})" if flowers.what == OWN else ""
    run = f"profile '{profile}', recipe '{recipe}', {flowers.what}, {device.describe()}"
    yield Check("ok", "lesson", f"{run}: about {first} for part one, {second} for part two{many}")


def answered(what: str, question: Callable[[], Answer]) -> Check:
    """The answer to a question; an error of the lesson is a failure in its own words."""
    try:
        status, detail = question()
    except (FlowersError, OSError) as error:
        status, detail = "fail", str(error)
    return Check(status, what, detail)


def can_run(checks: Iterable[Check]) -> bool:
    """Whether nothing has failed."""
    return all(check.status != "fail" for check in checks)


def packages(requirements: str) -> Answer:
    """Whether the installed versions are those that the text of `requirements.txt` allows.

    The comment of a line says where its package is used, and so what would not work.
    """
    problems, status = [], "warn"
    for line in requirements.splitlines():
        wanted, _, use = (part.strip() for part in f" {line}".partition(" #"))
        if not wanted or wanted.startswith("-"):  # an empty line, a comment, an option of pip
            continue
        try:
            package = Requirement(wanted)
            installed = version(package.name)
        except InvalidRequirement:  # the path or address of a package, which pip takes too
            continue
        except PackageNotFoundError:
            installed = "not installed"
        if package.marker and not package.marker.evaluate():  # not for this Python or system
            continue
        if installed == "not installed" or not package.specifier.contains(installed, True):
            problems.append(f"{wanted} is needed for {use or 'the lesson'}, here it is {installed}")
            status = "fail" if package.name.startswith("torch") else status
    if problems:
        return status, f"{'; '.join(problems)}; run: python -m pip install -r requirements.txt"
    return "ok", f"torch {version('torch')} and all others as required"


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: of the machine, and of its container's control group.

    `root` is where the file system begins. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """

    def number(file: Path, name: str = "") -> int:
        text = file.read_text() if file.is_file() else ""
        found = re.search(rf"^{name}\s?(\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0  # 0 for "max" too, which means: no limit

    free, groups = psutil.virtual_memory().available, root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, group = line.split(":", 2)  # "4:memory:/docker/1234" or "0::/user.slice"
        base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        if "memory" in controllers.split(","):  # version 1
            base, limit, used = base / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        parts = PurePosixPath(group).parts[1:]
        for depth in range(len(parts) + 1):  # the limit of an outer group holds in the inner ones
            place = base.joinpath(*parts[:depth])
            if most := number(place / limit):
                # Files that the system keeps cached count as used, but it gives them back.
                cached = (
                    number(place / "memory.stat", f"{i}inactive_file") for i in ("", "total_")
                )
                free = min(free, most - number(place / used) + max(cached))
    return max(free, 0)


def enough(free: float, bounds: tuple[float, float], advice: str) -> Answer:
    """Whether so many free bytes are plenty, little, or too few to work with."""
    plenty, least = bounds
    if free >= plenty:
        return "ok", f"{free / 1e9:.0f} GB free"
    needed = f"{megabytes(free)} free, a complete run needs {plenty / 1e9:.0f} GB; {advice}"
    return ("warn" if free >= least else "fail"), needed


def writable(place: str | Path) -> Path:
    check_writable(Path(place), advice="PATHS and FLOWERS_DATA_DIR can name a folder of your own.")
    return Path(place)


def disk() -> Answer:
    """Whether results and decoded photographs can be saved."""
    free = [shutil.disk_usage(writable(place)).free for place in config.PATHS.values()]
    return enough(min(free), DISK, "delete what you do not need")


def check_flowers(choice: str) -> Check:
    """Where the flowers of `choice` will come from, as `load_data` decides it."""
    if choice not in DATA_WORDS:
        return answered(OWN, lambda: ("ok", describe_folder(choice)))
    if choice == "practice":
        return Check("ok", PRACTICE, "drawn here, nothing to download")
    name, root = config.DATASET["name"], data_root()
    if flowers102.flowers102_is_whole(root):
        return Check("ok", name, f"on disk in {root}")
    by_hand = flowers102.flowers102_lies_ready(root)
    if by_hand or flowers102.flowers102_is_reachable():
        how = "put there by hand, will be unpacked" if by_hand else "will be downloaded (345 MB)"
        return answered(name, lambda: ("ok", f"{how}, in {writable(root)}"))
    missing = f"neither in {root} nor reachable (README.md, 'Download errors')"
    if choice == "auto":
        return Check("warn", PRACTICE, f"they take the place of {name}: {missing}")
    return Check("fail", name, missing)


def weights(*, on_practice: bool) -> Answer:
    """Whether the pretrained backbone can be had."""
    name = config.BACKBONE
    if on_practice and name != "resnet18":
        return "fail", "practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18'"
    if on_practice:
        return "ok", "practice flowers bring their own, pretrained here once"
    path, url = models.weights_file(name), get_model_weights(name).IMAGENET1K_V1.url
    if not path.is_file() and not reachable(url):
        return "fail", f"not on disk and not reachable; get {url} and save it as {path}"
    if not path.is_file():
        return "ok", f"will be downloaded from {url}"
    models.imagenet_weights(name)  # raises if the file is damaged
    return "ok", f"on disk, {path}"
