"""The rules for `transfer_learning_config.py` and for the notebook's three knobs.

One table says what each value must be; whatever breaks a rule is named in one sentence.
"""

import reprlib
from pathlib import Path
from typing import Any, NoReturn

import transfer_learning_config as config
from flowers_utils.errors import FlowersError

_SHORTEN = reprlib.Repr()
_SHORTEN.maxstring = 200  # a path is worth reading to its end
DATA_WORDS = ("auto", "flowers102", "practice")
_EPOCHS, _RATE, _SHARE = (int, 1, 10_000), (float, 1e-8, 1.0), (float, 0.0, 1.0)
_NETWORK = {"resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "mobilenet_v2"}
_FILE = {"name": str, "md5": str}
_EXPECTATION = {"promised": _SHARE, "published": [_SHARE], "val_range": [_SHARE, _SHARE]}

# How to read a rule:
# (int, 2, 4096): a whole number from 2 to 4096; (float, 0, 1): any number between; (.., None): or None;
# {"a", "b"}: one of these texts; str: a text that is not empty; [rule]: a list of one or more;
# [rule, rule]: a list of exactly two; a dict: exactly these keys ("*": any keys).
_RULES: dict[str, Any] = {
    "TRAINING_CONFIG": {
        "batch_size": (int, 2, 4096),
        "learning_rate": _RATE,
        "total_epochs": _EPOCHS,
        "optimizer": {"AdamW"},
        "weight_decay": _SHARE,
        "scheduler": {"StepLR"},
        "step_size": _EPOCHS,
        "gamma": (float, 1e-6, 1.0),
    },
    "PHASES": {
        "phase1": {"epochs": _EPOCHS, "head_lr": _RATE},
        "phase2": {"epochs": _EPOCHS, "backbone_lr": _RATE, "head_lr": _RATE},
    },
    "PROFILES": {"*": {"epochs": (*_EPOCHS, None), "images": (int, 4, 10_000_000, None)}},
    "BACKBONE": _NETWORK,
    "COMPARISON": [_NETWORK],
    "AUGMENTATION": {
        "resize": (int, 32, 2048),
        "crop": (int, 32, 2048),
        "flip": _SHARE,
        "rotation": (float, 0.0, 180.0),
        "brightness": _SHARE,
        "contrast": _SHARE,
        "saturation": _SHARE,
        "hue": (float, 0.0, 0.5),
    },
    "NORMALIZATION": {"mean": [_SHARE] * 3, "std": [(float, 1e-3, 1.0)] * 3},
    "DATASET": {
        "name": str,
        "num_classes": (int, 2, 100_000),
        "splits": dict.fromkeys(("train", "val", "test"), (int, 2, 10_000_000)),
        "base_urls": [str],
        **dict.fromkeys(("archive", "labels", "setid"), _FILE),
    },
    "PATHS": {"models": str, "cache": str},
    "EXPECTED": {"phase1": _EXPECTATION, "phase2": _EXPECTATION},
}
# What may be handed to `check_numbers`, by name: the numbers of the config, and those of a phase.
_NUMBERS = {
    **_RULES["TRAINING_CONFIG"],
    **_RULES["AUGMENTATION"],
    **_RULES["PHASES"]["phase2"],
    "number": (int, 1, 99),
    "seed": (int, 0, 2**31 - 1),
}


def check_config() -> None:
    """Raise FlowersError for the first value of the config that cannot work."""
    for name, rule in _RULES.items():
        _check(name, getattr(config, name), rule)
    crop, resize = config.AUGMENTATION["crop"], config.AUGMENTATION["resize"]
    if crop > resize:
        _refuse("AUGMENTATION['crop']", f"at most AUGMENTATION['resize'], which is {resize}", crop)
    first, second = (phase["epochs"] for phase in config.PHASES.values())
    total = config.TRAINING_CONFIG["total_epochs"]
    if total != first + second:
        both = f"{first + second}, the sum of the epochs of the two PHASES ({first} + {second})"
        _refuse("TRAINING_CONFIG['total_epochs']", both, total)


def check_knobs(data: Any, profile: Any, seed: Any) -> tuple[str, str, int]:
    """The notebook's DATA, PROFILE and SEED, cleaned: `" quick"` becomes `"quick"`, `"3"` becomes 3.

    Raises FlowersError with one sentence for each of the three that cannot work, all at once.
    """
    cleaned, problems = [], []
    for clean, value in ((_clean_data, data), (_clean_profile, profile), (_clean_seed, seed)):
        try:
            cleaned.append(clean(value))
        except FlowersError as error:
            problems.append(str(error))
    if problems:
        raise FlowersError("\n".join(problems))
    return tuple(cleaned)


def check_numbers(where: str, values: dict[str, Any]) -> None:
    """Raise FlowersError for a value that cannot work: `check_numbers("Phase 2", {"epochs": 0})`."""
    for name, value in values.items():
        _check_number(f"{name} of {where}", value, _NUMBERS[name])


def profile_epochs(profile: str, phase: str) -> int:
    """Epochs that `phase` ("phase1" or "phase2") runs in `profile`."""
    return config.PROFILES[profile]["epochs"] or config.PHASES[phase]["epochs"]


def _check(where: str, value: Any, rule: Any) -> None:
    """One value, or all that it holds, against its rule in the table."""
    if isinstance(rule, dict):
        _check_keys(where, value, rule)
        for key in value:
            _check(f"{where}[{key!r}]", value[key], rule.get(key) or rule["*"])
    elif isinstance(rule, list):
        if not isinstance(value, (tuple, list)) or not value or len(rule) not in (1, len(value)):
            many = "one or more" if len(rule) == 1 else len(rule)
            _refuse(where, f"a list of {many} values", value)
        for each in value:
            _check(where, each, rule[0])
    elif isinstance(rule, set):
        if type(value) is not str or value not in rule:
            _refuse(where, f"one of {', '.join(sorted(rule))}", value)
    elif rule is str:
        if type(value) is not str or not value.strip():
            _refuse(where, "a text in quotes", value)
    else:
        _check_number(where, value, rule)


def _check_keys(where: str, value: Any, rule: dict[str, Any]) -> None:
    if not isinstance(value, dict):
        _refuse(where, "a dict", value)
    for key in value:
        if type(key) is not str or not (key in rule or "*" in rule):
            known = ", ".join(rule)
            raise FlowersError(f"{where} has no key {_shown(key)}; its keys are {known}.")
    for key in rule.keys() - value.keys() - {"*"}:
        raise FlowersError(f"{where} lacks the key {key!r}.")


def _check_number(where: str, value: Any, rule: tuple[Any, ...]) -> None:
    """Only Python's own numbers: numpy's would make a checkpoint that cannot be opened safely."""
    kind, low, high, *or_none = rule
    if value is None and or_none:
        return
    # `type`, not `isinstance`: True is an int. `not low <= value` is also right for nan.
    if type(value) not in ((int,) if kind is int else (int, float)) or not low <= value <= high:
        what = "a whole number" if kind is int else "a plain number"
        _refuse(where, f"{what} from {low:,} to {high:,}", value)


def _clean_data(value: Any) -> str:
    """One of DATA_WORDS, or the path of a folder that is there."""
    if isinstance(value, str) and value.strip() in DATA_WORDS:
        return value.strip()
    if isinstance(value, (str, Path)) and str(value).strip():
        try:
            folder = Path(value).expanduser()
            if folder.is_dir():
                return str(folder)
        except (OSError, RuntimeError, ValueError):
            pass  # no such user as in "~name", or a text that cannot be a path: no folder either
    words = ", ".join(map(repr, DATA_WORDS))
    value = str(value) if isinstance(value, Path) else value
    _refuse("DATA", f"{words} or the path (in quotes) of a folder that is there", value)


def _clean_profile(value: Any) -> str:
    if isinstance(value, str) and value.strip() in config.PROFILES:
        return value.strip()
    _refuse("PROFILE", f"one of {', '.join(map(repr, config.PROFILES))}", value)


def _clean_seed(value: Any) -> int:
    """A whole number of 31 bits, as numpy's seeds must be; `papermill -r` hands it over as text."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= 10:
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**31:
        _refuse("SEED", f"a whole number from 0 to {2**31 - 1:,}", value)
    return value


def _refuse(where: str, must: str, value: Any) -> NoReturn:
    raise FlowersError(f"{where} must be {must}, but it is {_shown(value)}.")


def _shown(value: Any) -> str:
    """A value as Python writes it, shortened and in one line (an array's own text has several)."""
    try:
        return " ".join(_SHORTEN.repr(value).split())
    except ValueError:  # a whole number of more digits than Python is willing to write
        return "a number of thousands of digits"
