"""Every number of the lesson that you may change, in the words of the lesson.

Change a value, then restart the notebook's kernel. Each value is checked before anything starts:
an unknown key, a wrong type or an impossible value is named in one sentence.
"""

import reprlib
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A value in this file that cannot work, named in one sentence."""


# The recipe of training, shared by both phases. Exactly these keys.
TRAINING_CONFIG = {
    "batch_size": 32,
    "learning_rate": 0.001,  # of the control experiment; the phases have theirs in PHASES
    "total_epochs": 50,
    "optimizer": "AdamW",
    "weight_decay": 0.01,
    "scheduler": "StepLR",
    "step_size": 15,
    "gamma": 0.1,
}

# Phase 1 trains the new head alone. Phase 2 trains everything, the pretrained part ten times slower.
PHASES = {
    "phase1": {"epochs": 20, "head_lr": 0.001},
    "phase2": {"epochs": 30, "backbone_lr": 0.0001, "head_lr": 0.001},
}

# The pretrained network: resnet18, resnet50, efficientnet_b0, efficientnet_b3 or mobilenet_v2.
BACKBONE = "resnet18"

# The backbones that the lesson compares, on the same photographs.
COMPARISON = ("resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "mobilenet_v2")

# How many epochs of each phase a profile runs, and on how many images of each split (None: all).
PROFILES = {
    "full": {
        "phase1_epochs": PHASES["phase1"]["epochs"],
        "phase2_epochs": PHASES["phase2"]["epochs"],
        "scratch_epochs": PHASES["phase2"]["epochs"],
        "images": None,
    },
    "quick": {"phase1_epochs": 3, "phase2_epochs": 3, "scratch_epochs": 3, "images": None},
    "smoke": {"phase1_epochs": 1, "phase2_epochs": 1, "scratch_epochs": 1, "images": 32},
}

# Sizes are in pixels, rotation in degrees, the rest are strengths as torchvision's ColorJitter takes.
AUGMENTATION = {
    "resize": 256,
    "crop": 224,
    "flip": 0.5,
    "rotation": 15.0,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.1,
}

# Mean and standard deviation of ImageNet's red, green and blue, on a scale of 0 to 1.
NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# Oxford Flowers102. Add mirrors of your own (a school server, say) in front of the first address.
DATASET = {
    "name": "Oxford Flowers102",
    "num_classes": 102,
    "splits": {"train": 1020, "val": 1020, "test": 6149},
    "base_urls": ("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",),
    "archive": {"name": "102flowers.tgz", "md5": "52808999861908f626f3c1f4e79d11fa"},
    "labels": {"name": "imagelabels.mat", "md5": "e0620be6f572b9609742df49c70aed4d"},
    "setid": {"name": "setid.mat", "md5": "a5357ecc9cb78c4bef273ce3793fc85c"},
}

# Where results and the decoded photographs go. FLOWERS_DATA_DIR names the data set's own folder.
PATHS = {"models": "models", "cache": "data"}

# On full-size Flowers102 with ResNet18: what the lesson promises, what others published on the
# official split (test top-1), and the range of val accuracy outside which something is wrong.
EXPECTED = {
    "phase1": {"promised": 0.75, "published": (0.815, 0.831), "val_range": (0.60, 0.92)},
    "phase2": {"promised": 0.85, "published": (0.825, 0.841, 0.869), "val_range": (0.70, 0.96)},
}

# What each value of a section must be: its type, the lowest and the highest that can work.
_RULES: dict[str, dict[str, tuple[type, float, float]]] = {
    "TRAINING_CONFIG": {
        "batch_size": (int, 2, 4096),
        "learning_rate": (float, 1e-8, 1.0),
        "total_epochs": (int, 1, 10_000),
        "weight_decay": (float, 0.0, 1.0),
        "step_size": (int, 1, 10_000),
        "gamma": (float, 1e-6, 1.0),
    },
    "AUGMENTATION": {
        "resize": (int, 32, 2048),
        "crop": (int, 32, 2048),
        "flip": (float, 0.0, 1.0),
        "rotation": (float, 0.0, 180.0),
        "brightness": (float, 0.0, 1.0),
        "contrast": (float, 0.0, 1.0),
        "saturation": (float, 0.0, 1.0),
        "hue": (float, 0.0, 0.5),
    },
    "PHASES['phase1']": {"epochs": (int, 1, 10_000), "head_lr": (float, 1e-8, 1.0)},
    "PHASES['phase2']": {
        "epochs": (int, 1, 10_000),
        "backbone_lr": (float, 1e-8, 1.0),
        "head_lr": (float, 1e-8, 1.0),
    },
}
_CHOICES = {
    "optimizer": ("AdamW",),
    "scheduler": ("StepLR",),
    "backbone": ("resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "mobilenet_v2"),
}


def _shown(value: Any) -> str:
    """A value as Python writes it, shortened and in one line (an array's own text has several)."""
    try:
        return " ".join(reprlib.repr(value).split())
    except ValueError:  # a whole number of more digits than Python is willing to write
        return "a number of thousands of digits"


def _check_number(where: str, value: Any, rule: tuple[type, float, float]) -> None:
    """Only Python's own numbers: numpy's would make a checkpoint that cannot be opened safely."""
    kind, low, high = rule
    if type(value) not in ((int,) if kind is int else (int, float)):
        wanted = "a whole number" if kind is int else "a plain number"
        raise ConfigError(f"{where} must be {wanted}, but it is {_shown(value)}.")
    if not low <= value <= high:  # also for nan
        raise ConfigError(
            f"{where} must lie between {low:g} and {high:g}, but it is {_shown(value)}."
        )


def _check_choice(where: str, value: Any, choices: tuple[str, ...]) -> None:
    if type(value) is not str or value not in choices:
        known = ", ".join(choices)
        raise ConfigError(f"{where} must be one of {known}, but it is {_shown(value)}.")


def _check_text(where: str, value: Any) -> None:
    if type(value) is not str or not value.strip():
        raise ConfigError(f"{where} must be a text in quotes, but it is {_shown(value)}.")


def _check_list(where: str, value: Any, what: str) -> None:
    if not isinstance(value, (tuple, list)) or not value:
        raise ConfigError(f"{where} must be a list of {what}, but it is {_shown(value)}.")


def _check_keys(where: str, section: Any, known: set[str]) -> None:
    if not isinstance(section, dict):
        raise ConfigError(f"{where} must be a dict, but it is {_shown(section)}.")
    for key in section:
        if type(key) is not str or key not in known:  # numpy's texts would spoil a checkpoint
            raise ConfigError(
                f"{where} has no key {_shown(key)}; its keys are {', '.join(sorted(known))}."
            )
    for key in sorted(known - set(section)):
        raise ConfigError(f"{where} lacks the key {key!r}.")


def check_training_config(training: dict[str, Any]) -> None:
    """Raise ConfigError unless `training` has the keys of TRAINING_CONFIG and values that can work."""
    rules = _RULES["TRAINING_CONFIG"]
    _check_keys("TRAINING_CONFIG", training, set(rules) | {"optimizer", "scheduler"})
    for key, rule in rules.items():
        _check_number(f"TRAINING_CONFIG[{key!r}]", training[key], rule)
    for key in ("optimizer", "scheduler"):
        _check_choice(f"TRAINING_CONFIG[{key!r}]", training[key], _CHOICES[key])


def check_profile(name: Any) -> None:
    """Raise ConfigError unless `name` is one of PROFILES."""
    _check_choice("PROFILE", name, tuple(PROFILES))


def check_phase(
    *, phase: Any, epochs: Any, head_lr: Any, backbone_lr: Any = None, seed: Any = 0
) -> None:
    """Raise ConfigError for an argument of `train_phase` that cannot work."""
    rules = _RULES["PHASES['phase2']"]
    _check_number("phase", phase, (int, 1, 99))
    _check_number("epochs", epochs, rules["epochs"])
    _check_number("head_lr", head_lr, rules["head_lr"])
    if backbone_lr is not None:
        _check_number("backbone_lr", backbone_lr, rules["backbone_lr"])
    _check_number("seed", seed, (int, 0, 2**31 - 1))


def _check_phases_and_augmentation() -> None:
    _check_keys("PHASES", PHASES, {"phase1", "phase2"})
    sections = {"AUGMENTATION": AUGMENTATION, **{f"PHASES[{k!r}]": v for k, v in PHASES.items()}}
    for where, section in sections.items():
        _check_keys(where, section, set(_RULES[where]))
        for key, rule in _RULES[where].items():
            _check_number(f"{where}[{key!r}]", section[key], rule)
    if AUGMENTATION["crop"] > AUGMENTATION["resize"]:
        raise ConfigError(
            f"AUGMENTATION['crop'] is {AUGMENTATION['crop']} and must not be larger than "
            f"AUGMENTATION['resize'], which is {AUGMENTATION['resize']}."
        )
    epochs, total = [PHASES[phase]["epochs"] for phase in PHASES], TRAINING_CONFIG["total_epochs"]
    if sum(epochs) != total:
        raise ConfigError(
            "TRAINING_CONFIG['total_epochs'] must be the sum of the epochs of the two PHASES, "
            f"{epochs[0]} + {epochs[1]} = {sum(epochs)}, but it is {total}."
        )


def _check_normalization() -> None:
    _check_keys("NORMALIZATION", NORMALIZATION, {"mean", "std"})
    for key, low in (("mean", 0.0), ("std", 1e-3)):
        values = NORMALIZATION[key]
        if not isinstance(values, (tuple, list)) or len(values) != 3:
            raise ConfigError(
                f"NORMALIZATION[{key!r}] must hold three numbers, one a colour, but it is "
                f"{_shown(values)}."
            )
        for value in values:
            _check_number(f"NORMALIZATION[{key!r}]", value, (float, low, 1.0))


def _check_profiles() -> None:
    if not isinstance(PROFILES, dict) or not PROFILES:
        raise ConfigError(f"PROFILES must be a dict of profiles, but it is {_shown(PROFILES)}.")
    for name, profile in PROFILES.items():
        where = f"PROFILES[{_shown(name)}]"
        _check_keys(where, profile, {"phase1_epochs", "phase2_epochs", "scratch_epochs", "images"})
        for key in ("phase1_epochs", "phase2_epochs", "scratch_epochs"):
            _check_number(f"{where}[{key!r}]", profile[key], (int, 1, 10_000))
        if profile["images"] is not None:
            _check_number(f"{where}['images']", profile["images"], (int, 4, 10_000_000))


def _check_dataset() -> None:
    files = ("archive", "labels", "setid")
    _check_keys("DATASET", DATASET, {"name", "num_classes", "splits", "base_urls", *files})
    _check_text("DATASET['name']", DATASET["name"])
    _check_number("DATASET['num_classes']", DATASET["num_classes"], (int, 2, 100_000))
    _check_keys("DATASET['splits']", DATASET["splits"], {"train", "val", "test"})
    for name, count in DATASET["splits"].items():
        _check_number(f"DATASET['splits'][{name!r}]", count, (int, 2, 10_000_000))
    _check_list("DATASET['base_urls']", DATASET["base_urls"], "addresses")
    for address in DATASET["base_urls"]:
        _check_text("Each of DATASET['base_urls']", address)
    for file in files:
        _check_keys(f"DATASET[{file!r}]", DATASET[file], {"name", "md5"})
        for key, value in DATASET[file].items():
            _check_text(f"DATASET[{file!r}][{key!r}]", value)


def _check_places_and_expectations() -> None:
    _check_keys("PATHS", PATHS, {"models", "cache"})
    for key, place in PATHS.items():
        if not isinstance(place, Path):
            _check_text(f"PATHS[{key!r}]", place)
    _check_keys("EXPECTED", EXPECTED, {"phase1", "phase2"})
    for phase, expected in EXPECTED.items():
        where = f"EXPECTED[{phase!r}]"
        _check_keys(where, expected, {"promised", "published", "val_range"})
        _check_number(f"{where}['promised']", expected["promised"], (float, 0.0, 1.0))
        for key in ("published", "val_range"):
            _check_list(f"{where}[{key!r}]", expected[key], "numbers")
            for value in expected[key]:
                _check_number(f"{where}[{key!r}]", value, (float, 0.0, 1.0))
        low_high = expected["val_range"]
        if len(low_high) != 2 or low_high[0] >= low_high[1]:
            raise ConfigError(
                f"{where}['val_range'] must be two numbers, the lower one first, but it is "
                f"{_shown(low_high)}."
            )


def check_config() -> None:
    """Raise ConfigError, in one sentence, for the first value of this file that cannot work."""
    check_training_config(TRAINING_CONFIG)
    _check_phases_and_augmentation()
    _check_choice("BACKBONE", BACKBONE, _CHOICES["backbone"])
    _check_list("COMPARISON", COMPARISON, "networks")
    for name in COMPARISON:
        _check_choice("Each network of COMPARISON", name, _CHOICES["backbone"])
    _check_normalization()
    _check_profiles()
    _check_dataset()
    _check_places_and_expectations()
