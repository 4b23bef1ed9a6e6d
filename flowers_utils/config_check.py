"""The rules for `transfer_learning_config.py` and for the notebook's three knobs.

One table says what each value must be; whatever breaks a rule is named in one sentence.
"""

from pathlib import Path
from typing import Any, NoReturn

import transfer_learning_config as config
from flowers_utils.errors import FlowersError

DATA_WORDS = ("auto", "flowers102", "practice")
_EPOCHS, _RATE, _SHARE = (int, 1, 10_000), (float, 1e-8, 1.0), (float, 0.0, 1.0)
_NETWORK = {"resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "mobilenet_v2"}
_FILE = {"name": str, "md5": str}
_EXPECTATION = {"promised": _SHARE, "published": [_SHARE], "val_range": [_SHARE, _SHARE]}

# How to read a rule:
# (int, 2, 4096): a whole number from 2 to 4096; (float, 0, 1): any number between; (.., None): or None;
# {"a", "b"}: one of these texts; str: a text that is not empty; [rule]: a list of one or more;
# [rule, rule]: a list of exactly two; a dict: exactly these keys ("*": any keys).
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
_AUGMENTATION = {
    **dict.fromkeys(("resize", "crop"), (int, 32, 2048)),
    **dict.fromkeys(("flip", "brightness", "contrast", "saturation"), _SHARE),
    "rotation": (float, 0.0, 180.0),
    "hue": (float, 0.0, 0.5),
}
_RULES: dict[str, Any] = {
    "TRAINING_CONFIG": _TRAINING,
    "PHASES": {"phase1": _PHASE, "phase2": {**_PHASE, "backbone_lr": _RATE}},
    "PROFILES": {"*": {"epochs": (*_EPOCHS, None), "images": (int, 4, 10_000_000, None)}},
    "BACKBONE": _NETWORK,
    "COMPARISON": [_NETWORK],
    "AUGMENTATION": _AUGMENTATION,
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
_SEED = (int, 0, 2**31 - 1)  # as numpy's seeds must be
# What may be handed to `check_numbers`, by name.
_NUMBERS = {**_TRAINING, **_AUGMENTATION, **_RULES["PHASES"]["phase2"], "seed": _SEED}
_NUMBERS["number"] = (int, 1, 99)


def check_config() -> None:
    """Raise FlowersError for the first value of the config that cannot work."""
    for name, rule in _RULES.items():
        _check(name, getattr(config, name), rule)
    crop, resize = config.AUGMENTATION["crop"], config.AUGMENTATION["resize"]
    if crop > resize:
        _refuse("AUGMENTATION['crop']", f"at most AUGMENTATION['resize'], which is {resize}", crop)
    both = sum(phase["epochs"] for phase in config.PHASES.values())
    total = config.TRAINING_CONFIG["total_epochs"]
    if total != both:
        must = f"{both}, the sum of the epochs of the two PHASES"
        _refuse("TRAINING_CONFIG['total_epochs']", must, total)


def check_knobs(data: Any, profile: Any, seed: Any) -> tuple[str, str, int]:
    """The notebook's DATA, PROFILE and SEED, cleaned: `" quick"` becomes `"quick"`, `"3"` becomes 3.

    Raises FlowersError with one sentence for each of the three that cannot work, all at once.
    """
    data, profile, seed = (v.strip() if isinstance(v, str) else v for v in (data, profile, seed))
    if isinstance(seed, str) and seed.isdecimal():  # `papermill -r` hands it over as text
        seed = int(seed)
    folder, problems = data in DATA_WORDS or _folder(data), []
    profiles = ", ".join(map(repr, config.PROFILES))
    for name, good, must, value in (
        ("DATA", folder, "'auto', 'flowers102', 'practice' or the path of a folder that is there", data),
        ("PROFILE", profile in [*config.PROFILES], f"one of {profiles}", profile),
    ):
        ...
