"""The rules for `transfer_learning_config.py` and for the notebook's four knobs, one after another."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transfer_learning_config as config
from flowers_utils.errors import FlowersError

DATA_WORDS = ("auto", "flowers102", "practice")
# Lowest and highest value of each hyperparameter. A whole number as lowest: only whole numbers.
LIMITS = {
    "batch_size": (2, 4096),
    "rotation": (0.0, 180.0),
    "hue": (0.0, 0.5),
    "seed": (0, 2**31 - 1),
    **dict.fromkeys(("epochs", "total_epochs", "step_size", "number"), (1, 10_000)),
    **dict.fromkeys(("learning_rate", "head_lr", "backbone_lr", "gamma"), (1e-8, 1.0)),
    **dict.fromkeys(("flip", "brightness", "contrast", "saturation", "weight_decay"), (0.0, 1.0)),
    **dict.fromkeys(("resize", "crop", "use"), (32, 2048)),
}
CHOICES = {"optimizer": ("AdamW",), "scheduler": ("StepLR",)}  # one legal value each, to be read
CHOICES |= dict.fromkeys(("one_cycle", "fit_head"), (True, False))


def check(condition: bool, sentence: str) -> None:
    """Raise FlowersError with `sentence` unless `condition` holds."""
    if not condition:
        raise FlowersError(sentence)


def check_numbers(where: str, values: Mapping[str, Any]) -> None:
    """Raise FlowersError for a hyperparameter of the part `where` that cannot work or is unknown."""
    for name, value in values.items():
        must, shown = f"{name} of {where} must be", f"but it is {' '.join(repr(value).split())}."
        if choices := CHOICES.get(name):
            check(value in choices, f"{must} {' or '.join(map(repr, choices))}, {shown}")
            continue
        check(name in LIMITS, f"{where} has no setting {name!r}.")
        low, high = LIMITS[name]
        # `type`: True counts as an int in Python, and a checkpoint cannot hold numpy's numbers.
        fits = type(value) is int or (type(value) is float and type(low) is float)
        kind = "a whole number" if type(low) is int else "a number"
        check(fits and low <= value <= high, f"{must} {kind} from {low:,} to {high:,}, {shown}")


def check_config() -> None:
    """Raise FlowersError for the first value of the config that cannot work."""
    training, augmentation, phases = config.TRAINING_CONFIG, config.AUGMENTATION, config.PHASES
    parts = {f"PHASES[{name!r}]": numbers for name, numbers in phases.items()}
    parts |= {"TRAINING_CONFIG": training, "AUGMENTATION": augmentation}
    for where, numbers in parts.items():
        check_numbers(where, numbers)
    for recipe, changes in config.RECIPES.items():
        for phase, numbers in changes.items():
            check(phase in (*phases, "sizes"), f"RECIPES[{recipe!r}] has no part {phase!r}.")
            check_numbers(f"RECIPES[{recipe!r}][{phase!r}]", numbers)
        resize, crop, _ = image_sizes(recipe)
        told = f"The crop of the recipe {recipe!r} has {crop} pixels, but 'resize' only {resize}."
        check(crop <= resize, told)
    both, total = phases["phase1"]["epochs"] + phases["phase2"]["epochs"], training["total_epochs"]
    check(total == both, f"total_epochs must be {both}, the sum of both PHASES; it is {total}.")


def check_knobs(
    data: Any, profile: Any, seed: Any, recipe: Any = "lesson"
) -> tuple[str, str, int, str]:
    """The notebook's four knobs, with an absolute path in place of a folder.

    Raises FlowersError with one sentence for each of them that cannot work, all at once.
    """
    problems = []
    folder = data if data in DATA_WORDS else None
    with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):  # no path, no such user
        if not folder and data and Path(data).expanduser().is_dir():
            folder = str(Path(data).expanduser().resolve())
    if folder is None:
        problems.append(f"DATA must be one of {DATA_WORDS} or an existing folder, not {data!r}.")
    if profile not in config.PROFILES:
        problems.append(f"PROFILE must be one of {tuple(config.PROFILES)}, not {profile!r}.")
    if type(seed) is not int or not 0 <= seed < 2**31:
        problems.append(f"SEED must be a whole number from 0 to 2147483647, not {seed!r}.")
    if recipe not in config.RECIPES:
        problems.append(f"RECIPE must be one of {tuple(config.RECIPES)}, not {recipe!r}.")
    check(not problems, "\n".join(problems))
    return folder, profile, seed, recipe


def absolute_paths() -> None:
    """Make relative paths absolute (config, TORCH_HOME): a later `os.chdir` must not move them."""
    for name, path in config.PATHS.items():
        config.PATHS[name] = str(Path(path).expanduser().resolve())
    if home := os.environ.get("TORCH_HOME"):
        os.environ["TORCH_HOME"] = str(Path(home).expanduser().resolve())


def image_sizes(recipe: str) -> tuple[int, int, int]:
    """Pixels: `resize` and `crop` in training, and those in use; the lesson's, or the recipe's."""
    sizes = config.AUGMENTATION | config.RECIPES[recipe].get("sizes", {})
    return sizes["resize"], sizes["crop"], sizes.get("use", sizes["crop"])


def phase_settings(phase: str, profile: str = "full", recipe: str = "lesson") -> dict[str, Any]:
    """What `fu.Phase` is told of "phase1" or "phase2": the lesson's, the recipe's, the profile's."""
    settings = {**config.PHASES[phase], **config.RECIPES[recipe].get(phase, {})}
    limit = config.PROFILES[profile]["epochs"]
    return settings | {"epochs": min(limit or settings["epochs"], settings["epochs"])}
