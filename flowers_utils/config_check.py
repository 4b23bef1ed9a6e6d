"""The rules for `transfer_learning_config.py` and for the notebook's four knobs, one after another."""

from pathlib import Path
from typing import Any

import transfer_learning_config as config
from flowers_utils.errors import FlowersError

DATA_WORDS = ("auto", "flowers102", "practice")
# Lowest and highest value of each hyperparameter. A whole number as lowest: only whole numbers.
LIMITS = {
    "batch_size": (2, 4096),
    "learning_rate": (1e-8, 1.0),
    "weight_decay": (0.0, 1.0),
    "step_size": (1, 10_000),
    "gamma": (1e-6, 1.0),
    "total_epochs": (1, 10_000),
    "epochs": (1, 10_000),
    "head_lr": (1e-8, 1.0),
    "backbone_lr": (1e-8, 1.0),
    "smallest_crop": (0.05, 1.0),
    "train_size": (0.25, 2.0),
    "resize": (32, 2048),
    "crop": (32, 2048),
    "rotation": (0.0, 180.0),
    "hue": (0.0, 0.5),
    **dict.fromkeys(("flip", "brightness", "contrast", "saturation"), (0.0, 1.0)),
    "seed": (0, 2**31 - 1),
    "number": (1, 99),
}
WORDS = {"optimizer": "AdamW", "scheduler": "StepLR"}  # the one legal value of each, to be read
SWITCHES = ("one_cycle", "fit_head")
AUGMENTATION_KEYS = {"resize", "crop", "flip", "rotation", "brightness"}
AUGMENTATION_KEYS |= {"contrast", "saturation", "hue"}
TRAINING_KEYS = {
    "batch_size",
    "learning_rate",
    "total_epochs",
    "weight_decay",
    "step_size",
    "gamma",
}
TRAINING_KEYS |= set(WORDS)


def check(condition: bool, sentence: str) -> None:
    """Raise FlowersError with `sentence` unless `condition` holds."""
    if not condition:
        raise FlowersError(sentence)


def check_numbers(where: str, values: Any) -> None:
    """Raise FlowersError for a hyperparameter that cannot work, or that nobody knows.

    `check_numbers("Phase 2", {"epochs": 0})` says: epochs of Phase 2 must be ... but it is 0.
    """
    check(isinstance(values, dict), f"{where} must be a dict, but it is {values!r}.")
    for name, value in values.items():
        shown = f"but it is {' '.join(repr(value).split())[:100]}."
        if name in WORDS:
            check(value == WORDS[name], f"{name} of {where} must be {WORDS[name]!r}, {shown}")
        elif name in SWITCHES:
            check(type(value) is bool, f"{name} of {where} must be True or False, {shown}")
        else:
            check(name in LIMITS, f"{where} has no setting {name!r}.")
            low, high = LIMITS[name]
            # `type`: True counts as an int in Python, and a checkpoint cannot hold numpy's numbers.
            kinds = (int,) if type(low) is int else (int, float)
            kind = "a whole number" if type(low) is int else "a number"
            must = f"{name} of {where} must be {kind} from {low:,} to {high:,}"
            check(type(value) in kinds and low <= value <= high, f"{must}, {shown}")


def check_config() -> None:
    """Raise FlowersError for the first value of the config that cannot work."""
    phases, augmentation = config.PHASES, config.AUGMENTATION
    for name in ("PHASES", "RECIPES", "PROFILES"):
        whole = getattr(config, name)
        fine = isinstance(whole, dict) and all(isinstance(part, dict) for part in whole.values())
        check(fine, f"{name} must be a dict of dicts, but it is {whole!r}.")
    tables = {
        "TRAINING_CONFIG": (config.TRAINING_CONFIG, TRAINING_KEYS),
        "AUGMENTATION": (augmentation, AUGMENTATION_KEYS),
        "PHASES['phase1']": (phases.get("phase1"), {"epochs", "head_lr"}),
        "PHASES['phase2']": (phases.get("phase2"), {"epochs", "head_lr", "backbone_lr"}),
    }
    for where, (numbers, keys) in tables.items():
        check_numbers(where, numbers)
        check(set(numbers) == keys, f"The keys of {where} must be {', '.join(sorted(keys))}.")
    for name, changes in config.RECIPES.items():
        for phase, numbers in changes.items():
            check(
                phase in phases, f"RECIPES[{name!r}] has no phase {phase!r}, only {list(phases)}."
            )
            check_numbers(f"RECIPES[{name!r}][{phase!r}]", numbers)
    crop, resize = augmentation["crop"], augmentation["resize"]
    check(crop <= resize, f"AUGMENTATION['crop'] is {crop}, but 'resize' is only {resize} pixels.")
    both, total = phases["phase1"]["epochs"] + phases["phase2"]["epochs"], "total_epochs"
    must = f"TRAINING_CONFIG['{total}'] must be {both}, the sum of the epochs of the two PHASES"
    check(config.TRAINING_CONFIG[total] == both, f"{must}; it is {config.TRAINING_CONFIG[total]}.")


def check_knobs(
    data: Any, profile: Any, seed: Any, recipe: Any = "lesson"
) -> tuple[str, str, int, str]:
    """The notebook's four knobs, cleaned: `" quick"` becomes `"quick"`, `"3"` becomes 3.

    Raises FlowersError with one sentence for each of them that cannot work, all at once.
    """
    data, profile, seed, recipe = (
        v.strip() if isinstance(v, str) else v for v in (data, profile, seed, recipe)
    )
    if isinstance(seed, str) and seed.isdecimal():  # `papermill -r` hands it over as text
        seed = int(seed)
    problems = []
    if data not in DATA_WORDS and not _is_folder(data):
        problems.append(f"DATA must be one of {DATA_WORDS} or an existing folder, not {data!r}.")
    if profile not in config.PROFILES:
        problems.append(f"PROFILE must be one of {tuple(config.PROFILES)}, not {profile!r}.")
    if type(seed) is not int or not 0 <= seed < 2**31:
        problems.append(f"SEED must be a whole number from 0 to 2147483647, not {seed!r}.")
    if recipe not in config.RECIPES:
        problems.append(f"RECIPE must be one of {tuple(config.RECIPES)}, not {recipe!r}.")
    check(not problems, "\n".join(problems))
    return data if data in DATA_WORDS else str(_path(data)), profile, seed, recipe


def _path(text: Any) -> Path:
    return Path(text).expanduser().resolve()


def _is_folder(text: Any) -> bool:
    try:
        return bool(str(text)) and _path(text).is_dir()
    except (OSError, RuntimeError, TypeError, ValueError):
        return False  # no path at all, or no such user as in "~name"


def absolute_paths() -> None:
    """Make the config's relative paths absolute: a later `os.chdir` must not move them."""
    config.PATHS.update({name: str(Path(path).resolve()) for name, path in config.PATHS.items()})


def phase_settings(phase: str, profile: str = "full", recipe: str = "lesson") -> dict[str, Any]:
    """What `fu.Phase` is told of "phase1" or "phase2": the lesson's, the recipe's, the profile's."""
    settings = {**config.PHASES[phase], **config.RECIPES[recipe].get(phase, {})}
    limit = config.PROFILES[profile]["epochs"]
    return settings | {"epochs": min(limit or settings["epochs"], settings["epochs"])}
