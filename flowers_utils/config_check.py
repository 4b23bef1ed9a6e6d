"""The rules for `transfer_learning_config.py` and for the notebook's four knobs.

One table says what each value must be; whatever breaks a rule is named in one sentence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import transfer_learning_config as config
from flowers_utils.errors import FlowersError

DATA_WORDS = ("auto", "flowers102", "practice")
_EPOCHS, _RATE, _SHARE = (int, 1, 10_000), (float, 1e-8, 1.0), (float, 0.0, 1.0)
_NETWORK = {"resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "mobilenet_v2"}

# How to read a rule:
# (int, 2, 4096): a whole number from 2 to 4096; (float, 0, 1): any number between; (.., None): or None;
# {"a", "b"}: one of these texts; str: a text that is not empty; [rule]: a list of one or more;
# [rule, rule]: a list of exactly two; a dict: exactly these keys ("*": any others); object: anything.
_TRAINING = {
    "batch_size": (int, 2, 4096),
    "learning_rate": _RATE,
    "total_epochs": _EPOCHS,
    "optimizer": {"AdamW"},
    "weight_decay": _SHARE,
    "scheduler": {"StepLR"},
    "step_size": _EPOCHS,
    "gamma": (float, 1e-6, 1.0),
}
_PHASE = {"epochs": _EPOCHS, "head_lr": _RATE}
_IN_RECIPES = {
    **_PHASE,
    "backbone_lr": _RATE,
    **dict.fromkeys(("fit_head", "one_cycle", "freeze_batchnorm"), bool),
    "smallest_crop": _SHARE,
    "hue": (float, 0.0, 0.5),
    "sizes": [(float, 0.1, 2.0)],
}
_AUGMENTATION = {
    **dict.fromkeys(("resize", "crop"), (int, 32, 2048)),
    **dict.fromkeys(("flip", "brightness", "contrast", "saturation"), _SHARE),
    "rotation": (float, 0.0, 180.0),
    "hue": (float, 0.0, 0.5),
}
_RULES: dict[str, Any] = {
    "TRAINING_CONFIG": _TRAINING,
    "PHASES": {"phase1": _PHASE, "phase2": {**_PHASE, "backbone_lr": _RATE}},
    "RECIPES": {"lesson": {}, "*": object},
    "PROFILES": {"*": {"epochs": (*_EPOCHS, None), "images": (int, 4, 10_000_000, None)}},
    "BACKBONE": _NETWORK,
    "COMPARISON": [_NETWORK],
    "AUGMENTATION": _AUGMENTATION,
    "NORMALIZATION": {"mean": [_SHARE] * 3, "std": [(float, 1e-3, 1.0)] * 3},
    "DATASET": {"base_urls": [str], "*": object},
    "PATHS": {"models": str, "cache": str},
}
# What may be handed to `check_numbers`, by name; numpy's seeds must be of 31 bits, too.
_OTHERS = {"number": (int, 1, 99), "seed": (int, 0, 2**31 - 1)}
_NUMBERS = {**_TRAINING, **_AUGMENTATION, **_IN_RECIPES, **_OTHERS}


def check_config() -> None:
    """Raise FlowersError for the first value of the config that cannot work."""
    for name, rule in _RULES.items():
        _check(name, getattr(config, name), rule)
    crop, resize = config.AUGMENTATION["crop"], config.AUGMENTATION["resize"]
    if crop > resize:
        _refuse("AUGMENTATION['crop']", f"at most AUGMENTATION['resize'], which is {resize}", crop)
    for recipe, phases in config.RECIPES.items():
        _check(f"RECIPES[{recipe!r}]", phases, {"*": object})
        for phase, settings in phases.items():
            _check(f"the phase in RECIPES[{recipe!r}]", phase, set(config.PHASES))
            check_numbers(f"RECIPES[{recipe!r}][{phase!r}]", settings, known=_IN_RECIPES)
    both = sum(phase["epochs"] for phase in config.PHASES.values())
    total = config.TRAINING_CONFIG["total_epochs"]
    if total != both:
        must = f"{both}, the sum of the epochs of the two PHASES"
        _refuse("TRAINING_CONFIG['total_epochs']", must, total)


def check_knobs(
    data: Any, profile: Any, seed: Any, recipe: Any = "lesson"
) -> tuple[str, str, int, str]:
    """The notebook's four knobs, cleaned: `" quick"` becomes `"quick"`, `"3"` becomes 3.

    Raises FlowersError with one sentence for each of them that cannot work, all at once.
    """
    given = (data, profile, seed, recipe)
    data, profile, seed, recipe = (v.strip() if isinstance(v, str) else v for v in given)
    if isinstance(seed, str) and seed.isdecimal():  # `papermill -r` hands it over as text
        seed = int(seed)
    problems = []
    rules = (Path, set(config.PROFILES), _OTHERS["seed"], set(config.RECIPES))
    names = ("DATA", "PROFILE", "SEED", "RECIPE")
    for name, rule, value in zip(names, rules, (data, profile, seed, recipe), strict=True):
        try:
            _check(name, value, rule)
        except FlowersError as error:
            problems.append(str(error))
    if problems:
        raise FlowersError("\n".join(problems))
    return data if data in DATA_WORDS else str(Path(data).expanduser()), profile, seed, recipe


def check_numbers(where: str, values: dict[str, Any], known: Mapping = _NUMBERS) -> None:
    """Raise FlowersError for a value that cannot work: `check_numbers("Phase 2", {"epochs": 0})`."""
    for name, value in values.items():
        if name not in known:
            raise FlowersError(f"{where} has no setting {name!r}; there are {', '.join(known)}.")
        _check(f"{name} of {where}", value, known[name])
    if values.get("sizes") and not values.get("smallest_crop"):
        raise FlowersError(
            f"{where} has 'sizes' but no 'smallest_crop', and only such crops are scaled to them; "
            "give it one, 0.75 for crops about as large as the lesson's."
        )


def phase_settings(phase: str, profile: str = "full", recipe: str = "lesson") -> dict[str, Any]:
    """What `fu.Phase` is told of "phase1" or "phase2": of the lesson, the recipe, the profile."""
    settings = {**config.PHASES[phase], **config.RECIPES[recipe].get(phase, {})}
    shorter = config.PROFILES[profile]["epochs"] or settings["epochs"]
    if settings.get("fit_head"):  # an epoch more, which is no training
        shorter = min(shorter + 1, settings["epochs"])
    settings["epochs"] = shorter
    return settings


def _check(where: str, value: Any, rule: Any) -> None:
    """One value, or all that it holds, against its rule in the table."""
    if isinstance(rule, dict):
        _check_keys(where, value, rule)
        for key in value:
            _check(f"{where}[{key!r}]", value[key], rule[key] if key in rule else rule["*"])
    elif isinstance(rule, list):
        if not isinstance(value, (tuple, list)) or not value or len(rule) not in (1, len(value)):
            many = "one or more" if len(rule) == 1 else len(rule)
            _refuse(where, f"a list of {many} values", value)
        for each in value:
            _check(where, each, rule[0])
    elif rule is not object and not _fits(value, rule):
        _refuse(where, _in_words(rule), value)


def _check_keys(where: str, value: Any, rule: dict[str, Any]) -> None:
    if not isinstance(value, dict):
        _refuse(where, "a dict", value)
    for key in () if "*" in rule else value:
        if key not in rule:
            known = ", ".join(rule) or "none"
            raise FlowersError(f"{where} has no key {key!r}; its keys are {known}.")
    for key in rule.keys() - value.keys() - {"*"}:
        raise FlowersError(f"{where} lacks the key {key!r}.")


def _fits(value: Any, rule: Any) -> bool:
    if rule is Path:
        return _is_data(value)
    if rule is str or isinstance(rule, set):
        return type(value) is str and (bool(value.strip()) if rule is str else value in rule)
    if rule is bool:
        return type(value) is bool
    kind, low, high, *or_none = rule
    # `type`, not `isinstance`: True is an int; and numpy's numbers make a checkpoint unsafe to open.
    return (type(value) in (int, kind) and low <= value <= high) or (
        value is None and bool(or_none)
    )


def _in_words(rule: Any) -> str:
    if rule is Path or rule is str:
        folder = (
            "'auto', 'flowers102', 'practice' or the path (in quotes) of a folder that is there"
        )
        return folder if rule is Path else "a text in quotes"
    if rule is bool:
        return "True or False"
    if isinstance(rule, set):
        return f"one of {', '.join(sorted(rule))}"
    return f"a {'whole' if rule[0] is int else 'plain'} number from {rule[1]:,} to {rule[2]:,}"


def _is_data(value: Any) -> bool:
    """Whether it is one of DATA_WORDS, or the path of a folder that is there."""
    try:
        return value in DATA_WORDS or (str(value) and Path(value).expanduser().is_dir())
    except (OSError, RuntimeError, TypeError, ValueError):
        return False  # no path at all, or no such user as in "~name"


def _refuse(where: str, must: str, value: Any) -> NoReturn:
    shown = " ".join(repr(value).split())[:200]  # an array's own text has several lines
    raise FlowersError(f"{where} must be {must}, but it is {shown}.")
