"""Is this machine ready for the lesson? One line for each question, answered in seconds."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    """What is not as it should be, the data, and the time; the arguments are the notebook's knobs."""
    found = list(each_check(data, profile, recipe))
    shown = (PRACTICE, OWN, config.DATASET["name"], "lesson")
    return "\n".join(each.line() for each in found if each.status != "ok" or each.what in shown)


def each_check(
    data: str = "auto", profile: str = "full", recipe: str = "lesson"
) -> Iterator[Check]:
    """Every check in turn, as soon as its answer is there; FlowersError for an impossible knob."""
    check_config()
    data, profile, _, recipe = check_knobs(data, profile, 0, recipe)
    device, flowers = choose_device(), check_flowers(data)
    on_practice = flowers.what == PRACTICE
    questions = {
        "packages": lambda: packages(REQUIREMENTS.read_text(encoding="utf-8-sig")),
        "device": lambda: ("ok", device.describe()),
        "memory": lambda: enough(free_memory(), MEMORY),
        "disk": lambda: enough(min(map(free_disk, config.PATHS.values())), DISK),
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
    seconds = lesson_seconds(device, on_practice=on_practice, profile=profile, recipe=recipe)
    time = f"{int(seconds / 60) + 1} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    run = f"profile '{profile}', recipe '{recipe}', {flowers.what}, {device.describe()}"
    yield Check("ok", "lesson", f"{run}: about {time} for part one")


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
    """Whether the installed versions are allowed; a line's comment says what its package is for."""
    problems, status = [], "warn"
    for line in requirements.splitlines():
        wanted, _, use = (part.strip() for part in line.partition(" #"))
        try:
            package = Requirement(wanted)
            installed = version(package.name)
        except InvalidRequirement:  # an empty line, a comment, an option of pip, an address
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
    """Bytes that this process may still take, also in a container; `root` holds the file system.

    https://docs.kernel.org/admin-guide/cgroup-v2.html
    """

    def read(file: Path) -> str:
        return file.read_text() if file.is_file() else ""

    free = psutil.virtual_memory().available
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)  # "4:memory:/docker/1234" or "0::/user.slice"
        inner = root / "sys/fs/cgroup" / controllers / group.strip("/")
        for folder in (
            inner,
            *inner.parents,
        ):  # the limit of an outer group holds in the inner ones
            limit = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes")
            if limit.strip().isdigit():  # not "max", which means: no limit
                # Without the files that the system keeps cached, because it gives them back.
                used = re.search(r"(?m)^(anon|total_rss) (\d+)$", read(folder / "memory.stat"))
                free = min(free, int(limit) - int(used[2] if used else 0))
    return max(free, 0)


def enough(free: float, bounds: tuple[float, float]) -> Answer:
    """Whether so many free bytes are plenty, little, or too few to work with."""
    plenty, least = bounds
    if free >= plenty:
        return "ok", f"{free / 1e9:.0f} GB free"
    needed = f"{megabytes(free)} free, a complete run needs {plenty / 1e9:.0f} GB"
    return "warn" if free >= least else "fail", needed


def free_disk(folder: str | Path) -> int:
    """Free bytes where `folder` is; FlowersError if nothing can be saved in it."""
    advice = "PATHS and FLOWERS_DATA_DIR can name a folder of your own."
    check_writable(Path(folder), advice=advice)
    return shutil.disk_usage(folder).free


def check_flowers(choice: str) -> Check:
    """Where the flowers of `choice` will come from, as `load_data` decides it."""
    name, root = config.DATASET["name"], data_root()
    if choice not in DATA_WORDS:
        return answered(OWN, lambda: ("ok", describe_folder(choice)))
    if choice == "practice":
        return Check("ok", PRACTICE, "drawn here, nothing to download")
    if flowers102.flowers102_is_whole(root):
        return Check("ok", name, f"on disk in {root}")
    if flowers102.flowers102_lies_ready(root) or flowers102.flowers102_is_reachable():
        ready = f"will be unpacked or downloaded (345 MB), in {root}"
        return answered(name, lambda: (enough(free_disk(root), DISK)[0], ready))
    missing = f"{name} is neither in {root} nor reachable (README.md, 'Download errors')"
    return Check("warn", PRACTICE, missing) if choice == "auto" else Check("fail", name, missing)


def weights(*, on_practice: bool) -> Answer:
    """Whether the pretrained backbone is available."""
    name = config.BACKBONE
    if on_practice and name != "resnet18":
        return "fail", "practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18'"
    if on_practice:
        return "ok", "practice flowers bring their own, pretrained here once"
    path, url = models.weights_file(name), get_model_weights(name).IMAGENET1K_V1.url
    if path.is_file():
        models.imagenet_weights(name)  # raises if the file is damaged
        return "ok", f"on disk, {path}"
    if reachable(url):
        return "ok", f"will be downloaded from {url}"
    return "fail", f"not on disk and not reachable; get {url} and save it as {path}"
