"""Is this machine ready for the lesson? One line for each question, answered in seconds."""

import os
import re
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
from flowers_utils.datasets.load import data_root
from flowers_utils.device import choose_device
from flowers_utils.errors import FlowersError
from flowers_utils.machine.speed import lesson_seconds
from flowers_utils.storage.files import check_writable, megabytes

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
NAME, PRACTICE = config.DATASET["name"], "PRACTICE flowers"


def check_machine(data: str = "auto", profile: str = "full", recipe: str = "lesson") -> str:
    """Lines that begin with [ok], [warn] or [fail]; FlowersError for a knob that cannot work."""
    check_config()
    data, profile, _, recipe = check_knobs(data, profile, 0, recipe)
    device, (flowers, where) = choose_device(), check_flowers(data)
    on_practice = flowers == PRACTICE
    packages = check_packages(REQUIREMENTS.read_text(encoding="utf-8-sig"))
    lines = [packages, check_memory(), check_disk(), where]
    if not on_practice:  # practice flowers bring their own weights
        lines.append(check_weights())
    if any(line.startswith("[fail]") for line in lines):
        lines.append("[fail]  lesson: cannot run yet, see each [fail] above")
    else:
        seconds = lesson_seconds(device, on_practice=on_practice, profile=profile, recipe=recipe)
        run = f"profile '{profile}', recipe '{recipe}', {flowers}, {device.describe()}"
        lines.append(f"[ok]    lesson: {run}: about {seconds / 60:.0f} min for part one")
    return "\n".join(filter(None, lines))


def check_packages(requirements: str) -> str:
    """Which packages are missing or too old; a line's comment says what its package is for."""
    problems = []
    for line in requirements.splitlines():
        wanted, _, use = (part.strip() for part in line.partition(" #"))
        try:
            package = Requirement(wanted)
            here = version(package.name)
            fits = package.specifier.contains(here, prereleases=True)
        except InvalidRequirement:  # an empty line, a comment, an option of pip, an address
            continue
        except PackageNotFoundError:
            here, fits = "not installed", False
        if not fits:
            problems.append(f"{wanted} is needed for {use or 'the lesson'}, here it is {here}")
    advice = "; run: python -m pip install -r requirements.txt"
    return f"[warn]  packages: {'; '.join(problems)}{advice}" if problems else ""


def check_memory(root: Path = Path("/")) -> str:
    """Whether little memory is free, or little of a container's limit; `root` holds its files."""

    def read(file: Path) -> str:  # some are not there, or not for everybody
        return file.read_text().strip() if os.access(file, os.R_OK) else ""

    free = psutil.virtual_memory().available
    # https://docs.kernel.org/admin-guide/cgroup-v2.html
    groups = re.findall(r"(?m)^\d+:(.*?):(.*)$", read(root / "proc/self/cgroup"))
    for controllers, group in groups:  # of "4:memory:/docker/1234" or "0::/user.slice"
        inner = root / "sys/fs/cgroup" / controllers / group.strip("/")
        for folder in (inner, *inner.parents):  # an outer group limits the inner ones, too
            limits = [read(folder / f"memory.{end}") for end in ("max", "high", "limit_in_bytes")]
            for limit in filter(str.isdigit, limits):  # not "max", which means: no limit
                # Without the files that the system keeps cached, because it gives them back.
                used = re.search(r"(?m)^(anon|total_rss) (\d+)$", read(folder / "memory.stat"))
                free = min(free, int(limit) - int(used[2] if used else 0))
    told = f"[warn]  memory: {megabytes(max(free, 0))} free, a complete run needs 3 GB"
    return told if free < 3e9 else ""


def check_disk() -> str:
    """Whether a folder of the config cannot be written, or is nearly full."""
    advice = "PATHS in the config can name a folder of your own."
    try:
        for folder in config.PATHS.values():
            check_writable(Path(folder), 10**9, advice=advice)
    except FlowersError as error:
        return f"[fail]  disk: {error}"
    return ""


def check_flowers(choice: str) -> tuple[str, str]:
    """Which flowers `load_data` takes for this choice, and a line on where they come from."""
    given, own = flowers102.root_of(Path(choice)), "your own flowers"
    root = given or data_root()
    if choice not in DATA_WORDS and not given:
        return own, f"[ok]    {own}: in {choice}"  # what is in it, `load_data` says
    if choice == "practice":
        return PRACTICE, f"[ok]    {PRACTICE}: drawn here, nothing to download"
    if flowers102.flowers102_is_available(root):
        return NAME, f"[ok]    {NAME}: in {root}; what it lacks is downloaded (345 MB)"
    missing = f"{NAME} is neither in {root} nor reachable (README.md, 'Download errors')"
    if choice == "auto":
        return PRACTICE, f"[warn]  {PRACTICE}: {missing}"
    return NAME, f"[fail]  {NAME}: {missing}"


def check_weights() -> str:
    """Whether the backbone's pretrained weights are neither on the disk nor to be downloaded."""
    file = models.weights_file(config.BACKBONE)
    url = get_model_weights(config.BACKBONE).IMAGENET1K_V1.url
    if file.is_file() or reachable(url):
        return ""
    missing = f"not on disk and not reachable; get {url} and save it as {file}"
    return f"[fail]  pretrained {config.BACKBONE}: {missing}"
