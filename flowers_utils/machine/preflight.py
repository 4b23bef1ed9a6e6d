"""Is this machine ready for the lesson? One line for each question, answered in seconds."""

import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

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
PRACTICE, OWN, FLOWERS102 = "PRACTICE flowers", "your own flowers", config.DATASET["name"]
NEEDED = 3e9  # bytes of disk, and of memory, for a complete run


class Check(NamedTuple):
    """One answer: `status` is "ok", "warn" or "fail"."""

    status: str
    what: str
    detail: str

    def line(self) -> str:
        return f"{f'[{self.status}]':<7} {self.what}: {self.detail}"


def check_machine(data: str = "auto", profile: str = "full", recipe: str = "lesson") -> str:
    """What is not as it should be, the data, and the time; the arguments are the notebook's knobs."""
    always, checks = (PRACTICE, OWN, FLOWERS102, "lesson"), all_checks(data, profile, recipe)
    return "\n".join(each.line() for each in checks if each.status != "ok" or each.what in always)


def all_checks(data: str = "auto", profile: str = "full", recipe: str = "lesson") -> list[Check]:
    """Every check, the time for the lesson at last; FlowersError for an impossible knob."""
    check_config()
    data, profile, _, recipe = check_knobs(data, profile, 0, recipe)
    device, flowers = choose_device(), check_flowers(data)
    on_practice = flowers.what == PRACTICE
    checks = [
        check_packages(REQUIREMENTS.read_text(encoding="utf-8-sig")),
        Check("ok", "device", device.describe()),
        check_free("memory", free_memory()),
        check_disk(),
        flowers,
        *([] if on_practice else [check_weights()]),  # practice flowers bring their own
    ]
    if any(check.status == "fail" for check in checks):
        return [*checks, Check("fail", "lesson", "cannot run yet, see each [fail] above")]
    seconds = lesson_seconds(device, on_practice=on_practice, profile=profile, recipe=recipe)
    time = f"{int(seconds / 60) + 1} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    run = f"profile '{profile}', recipe '{recipe}', {flowers.what}, {device.describe()}"
    return [*checks, Check("ok", "lesson", f"{run}: about {time} for part one")]


def check_packages(requirements: str) -> Check:
    """Whether the installed versions are allowed; a line's comment says what its package is for."""
    problems = []
    for line in requirements.splitlines():
        wanted, _, use = (part.strip() for part in line.partition(" #"))
        try:
            package = Requirement(wanted)
            here = version(package.name)
        except InvalidRequirement:  # an empty line, a comment, an option of pip, an address
            continue
        except PackageNotFoundError:
            here = ""
        if package.marker and not package.marker.evaluate():  # not for this Python or system
            continue
        if not (here and package.specifier.contains(here, prereleases=True)):
            found = here or "not installed"
            problems.append(f"{wanted} is needed for {use or 'the lesson'}, here it is {found}")
    if not problems:
        return Check("ok", "packages", f"torch {version('torch')} and all others as required")
    advice = "run: python -m pip install -r requirements.txt"
    return Check("warn", "packages", "; ".join([*problems, advice]))


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
        for folder in (inner, *inner.parents):  # an outer group limits the inner ones, too
            limit = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes")
            if limit.strip().isdigit():  # not "max", which means: no limit
                # Without the files that the system keeps cached, because it gives them back.
                used = re.search(r"(?m)^(anon|total_rss) (\d+)$", read(folder / "memory.stat"))
                free = min(free, int(limit) - int(used[2] if used else 0))
    return max(free, 0)


def check_free(what: str, free: float) -> Check:
    """Whether so many free bytes are enough."""
    if free >= NEEDED:
        return Check("ok", what, f"{free / 1e9:.0f} GB free")
    return Check(
        "warn", what, f"{megabytes(free)} free, a complete run needs {NEEDED / 1e9:.0f} GB"
    )


def check_disk() -> Check:
    """Whether the folders of the config can be written, and have space."""
    folders = [Path(folder) for folder in config.PATHS.values()]
    try:
        for folder in folders:
            check_writable(folder, advice="PATHS in the config can name a folder of your own.")
    except FlowersError as error:
        return Check("fail", "disk", str(error))
    return check_free("disk", min(shutil.disk_usage(folder).free for folder in folders))


def check_flowers(choice: str) -> Check:
    """Where the flowers of `choice` will come from, as `load_data` decides it."""
    root = data_root()
    if choice not in DATA_WORDS:
        try:
            return Check("ok", OWN, describe_folder(choice))
        except (FlowersError, OSError) as error:
            return Check("fail", OWN, str(error))
    if choice == "practice":
        return Check("ok", PRACTICE, "drawn here, nothing to download")
    if flowers102.flowers102_is_whole(root):
        return Check("ok", FLOWERS102, f"on disk in {root}")
    if flowers102.flowers102_lies_ready(root) or flowers102.flowers102_is_reachable():
        return Check("ok", FLOWERS102, f"will be unpacked or downloaded (345 MB), in {root}")
    missing = f"{FLOWERS102} is neither in {root} nor reachable (README.md, 'Download errors')"
    return (
        Check("warn", PRACTICE, missing) if choice == "auto" else Check("fail", FLOWERS102, missing)
    )


def check_weights() -> Check:
    """Whether the backbone's pretrained weights are on the disk or can be downloaded."""
    what, url = (
        f"pretrained {config.BACKBONE}",
        get_model_weights(config.BACKBONE).IMAGENET1K_V1.url,
    )
    path = models.weights_file(config.BACKBONE)
    if path.is_file():
        return Check("ok", what, f"on disk, {path}")
    if reachable(url):
        return Check("ok", what, f"will be downloaded from {url}")
    return Check("fail", what, f"not on disk and not reachable; get {url} and save it as {path}")
