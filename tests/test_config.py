"""A wrong value in the configuration is named in one sentence; whatever passes can be trained."""

import contextlib
import copy
import math
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from small_training import NAME, register_small_net, small_phase

import transfer_learning_config as config
from flowers_utils.errors import ConfigError, FlowersError
from flowers_utils.models import BACKBONES
from flowers_utils.storage.checkpoints import load_checkpoint
from flowers_utils.transforms import augment_batch, draw_augmentation

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
SECTIONS = (
    *("TRAINING_CONFIG", "PHASES", "BACKBONE", "COMPARISON", "PROFILES", "AUGMENTATION"),
    *("NORMALIZATION", "DATASET", "PATHS", "EXPECTED"),
)
AT_WORK = ("TRAINING_CONFIG", "PHASES", "AUGMENTATION", "NORMALIZATION")  # in a step of training


@contextlib.contextmanager
def small_net():
    """The small network among the backbones, on one thread, for as long as this lasts."""
    register_small_net()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many times faster for so small a network
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del BACKBONES[NAME]


@contextlib.contextmanager
def configured(sections):
    """The configuration with `sections` in place of its own, for as long as this lasts."""
    before = {name: getattr(config, name) for name in sections}
    try:
        for name, section in sections.items():
            setattr(config, name, section)
        yield
    finally:
        for name, section in before.items():
            setattr(config, name, section)


def changed(name, path, value):
    """A copy of section `name` in which what stands at `path` is `value`."""
    section = copy.deepcopy(getattr(config, name))
    place = section
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return {name: section}


def is_one_sentence(text):
    ends_once = text.endswith(".") and not re.search(r"[.!?] [A-Z]", text)
    return ends_once and text.isprintable() and len(text) < 300


def refusal(sections):
    """What the check says about a configuration that has `sections` in place of its own."""
    with configured(sections), pytest.raises(ConfigError) as caught:
        config.check_config()
    return str(caught.value)


NO_BATCH_SIZE = [-1, 0, 1, 4097, 10**5000, 1.5, True, None, math.nan, "32", [32], np.int64(32),
                 np.array([[1, 2], [3, 4]]), torch.zeros(2, 2)]  # fmt: skip
NO_RATE = [0, 0.0, -0.001, math.nan, math.inf, -math.inf, 1.1, True, "0.001", None,
           np.float64(0.001), 10**400]  # fmt: skip
WRONG = [
    *(("TRAINING_CONFIG", ("batch_size",), value) for value in NO_BATCH_SIZE),
    *(("TRAINING_CONFIG", ("learning_rate",), value) for value in NO_RATE),
    *(("PHASES", ("phase1", "head_lr"), value) for value in NO_RATE),
    *(("PHASES", ("phase2", "backbone_lr"), value) for value in NO_RATE),
    *(("TRAINING_CONFIG", ("optimizer",), value) for value in ("adamw", "SGD", None, ["AdamW"])),
    ("TRAINING_CONFIG", ("scheduler",), "a\nb"),
    ("PHASES", ("phase1", "epochs"), 0),
    ("AUGMENTATION", ("hue",), 0.6),
    ("NORMALIZATION", ("mean",), (0.5, 0.5)),
    ("NORMALIZATION", ("std",), (0.2, 0.0, 0.2)),
    ("PROFILES", ("smoke", "images"), 3),
    ("DATASET", ("num_classes",), 1),
    ("DATASET", ("archive", "md5"), ""),
    ("EXPECTED", ("phase1", "val_range"), (0.9, 0.6)),
    ("PATHS", ("models",), 7),
]


def shown(value):
    """How a value must be recognisable in a message: by its first characters at least."""
    if type(value) is int and value > 10**4000:
        return "digits"
    return repr(value).split("\n")[0][:10]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    WRONG,
    ids=[f"{path[-1]}-{i}" for i, (_, path, _) in enumerate(WRONG)],
)
def test_an_impossible_value_is_named_in_one_sentence(name, path, value):
    message = refusal(changed(name, path, value))
    assert is_one_sentence(message), message
    assert message.startswith(name) and repr(path[-1]) in message
    found = value if name != "NORMALIZATION" or len(value) != 3 else value[1]
    assert shown(found) in message, message


@pytest.mark.parametrize("name", [*AT_WORK, "PROFILES", "DATASET", "PATHS", "EXPECTED"])
@pytest.mark.parametrize("value", [None, 7, [("batch_size", 32)], "a\nb", np.zeros((3, 3))])
def test_a_section_that_is_no_dict_is_named(name, value):
    message = refusal({name: value})
    assert is_one_sentence(message) and message.startswith(f"{name} must be a dict"), message


@pytest.mark.parametrize("name", [*AT_WORK, "DATASET", "PATHS", "EXPECTED"])
@pytest.mark.parametrize("key", ["batch_szie", "", "a\nb", 7, None, ("a", 1)])
def test_a_key_that_is_not_known_is_named(name, key):
    message = refusal(changed(name, (key,), 64))
    assert is_one_sentence(message) and message.startswith(f"{name} has no key {key!r}"), message
    assert all(known in message for known in getattr(config, name))


def test_a_key_that_only_looks_like_a_known_one_is_refused():
    section = {np.str_(k) if k == "batch_size" else k: v for k, v in config.TRAINING_CONFIG.items()}
    assert "has no key" in refusal({"TRAINING_CONFIG": section})


@pytest.mark.parametrize("name", [*AT_WORK, "DATASET", "PATHS", "EXPECTED"])
def test_a_key_that_is_missing_is_named(name):
    for key in getattr(config, name):
        section = {k: v for k, v in getattr(config, name).items() if k != key}
        assert refusal({name: section}) == f"{name} lacks the key {key!r}."


def test_a_crop_larger_than_the_image_is_refused_with_both_sizes():
    message = refusal(changed("AUGMENTATION", ("crop",), 257))
    assert "crop" in message and "257" in message and "256" in message, message
    assert is_one_sentence(message)


def test_epochs_that_do_not_add_up_are_refused_with_all_three_numbers():
    message = refusal(changed("PHASES", ("phase2", "epochs"), 31))
    assert all(number in message for number in ("20", "31", "50", "51")), message
    assert is_one_sentence(message)


def test_a_networks_name_that_is_not_known_is_refused():
    assert "'resnet19'" in refusal({"BACKBONE": "resnet19"})
    assert "'resnet19'" in refusal({"COMPARISON": ("resnet18", "resnet19")})


def test_the_configuration_as_it_stands_is_possible():
    config.check_config()
    config.check_training_config(config.TRAINING_CONFIG)


PHASE = {"phase": 2, "epochs": 3, "head_lr": 0.001, "backbone_lr": 0.001, "seed": 0}


@pytest.mark.parametrize("key", PHASE)
@pytest.mark.parametrize("value", [-1, 1.5, math.nan, math.inf, True, "3", np.int64(1), 2**31])
def test_an_impossible_argument_of_a_phase_is_named_in_one_sentence(key, value):
    with pytest.raises(ConfigError) as caught:
        config.check_phase(**PHASE | {key: value})
    assert is_one_sentence(str(caught.value))
    assert str(caught.value).startswith(key) and repr(value) in str(caught.value)


# Values around what can work, and values of every kind that cannot.
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 7, 20, 24, 30, 50, 4096, 10_000, 0.0, 1e-8, 1e-3, 0.1, 0.5, 1.0]),
    st.integers(-3, 60),
    st.floats(0, 1),
    st.integers(),
    st.floats(),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.sampled_from([True, False, None, "", "AdamW", "32", b"32", (), {}, Path("models")]),
    st.text(max_size=8),
    st.lists(st.one_of(st.floats(), st.none(), st.text(max_size=3)), max_size=4),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).map(tuple),
    st.one_of(st.integers(0, 99).map(np.int64), st.floats(width=32).map(np.float32)),
    st.sampled_from([np.zeros(3), np.ones((2, 2)), torch.ones(3), torch.tensor(0.5), object]),
)


def between(kind, low, high):
    return st.integers(low, high) if kind is int else st.floats(low, high)


POSSIBLE = {
    key: between(*rule) for section in config._RULES.values() for key, rule in section.items()
}
POSSIBLE["mean"] = st.tuples(*[st.floats(0, 1)] * 3)
POSSIBLE["std"] = st.tuples(*[st.floats(1e-3, 1)] * 3)


@st.composite
def configurations(draw):
    """The configuration with one to four of its places changed, dropped or added to."""
    sections = {name: copy.deepcopy(getattr(config, name)) for name in SECTIONS}
    for _ in range(draw(st.integers(1, 4))):
        likely = st.sampled_from((*AT_WORK, *AT_WORK, *SECTIONS))
        place, key = sections, draw(likely)
        while isinstance(place[key], dict) and place[key] and draw(st.integers(0, 9)):
            place = place[key]
            key = draw(st.sampled_from(list(place)))
        action = draw(st.sampled_from([*["possible"] * 12, "number", "anything", "drop", "add"]))
        if action == "possible":
            place[key] = draw(POSSIBLE.get(key, st.just(place[key])))
        elif place is sections or action in ("number", "anything"):
            place[key] = draw(NUMBERS if action == "number" else ANYTHING)
        elif action == "drop":
            del place[key]
        else:
            place[draw(st.one_of(st.text(max_size=6), st.integers(), st.none()))] = draw(ANYTHING)
    if draw(st.integers(0, 3)) and isinstance(sections["TRAINING_CONFIG"], dict):
        with contextlib.suppress(
            TypeError, KeyError, IndexError
        ):  # epochs that add up, where they can
            epochs = [sections["PHASES"][phase]["epochs"] for phase in ("phase1", "phase2")]
            sections["TRAINING_CONFIG"]["total_epochs"] = epochs[0] + epochs[1]
    return sections


def augment_a_few():
    """Three images through the augmentation, at the sizes asked for but never at large ones."""
    crop, resize = min(config.AUGMENTATION["crop"], 40), min(config.AUGMENTATION["resize"], 48)
    images = torch.randint(0, 256, (3, 3, resize, resize), dtype=torch.uint8)
    draws = draw_augmentation(3, torch.Generator().manual_seed(0), resize=resize, crop=crop)
    return augment_batch(images, draws, crop=crop)


def train_shortly(folder):
    """One epoch at the rates of Phase 2 in the configuration."""
    rates = config.PHASES["phase2"]
    return small_phase(folder, epochs=1, head_lr=rates["head_lr"], backbone_lr=rates["backbone_lr"])


@settings(deadline=None, max_examples=EXAMPLES, derandomize=True)
@given(configurations())
def test_a_configuration_is_refused_in_one_sentence_or_can_be_trained(sections):
    with configured(sections), small_net(), tempfile.TemporaryDirectory() as folder:
        try:
            config.check_config()
        except ConfigError as error:
            assert is_one_sentence(str(error)), str(error)
            return
        event("can be trained")
        assert torch.isfinite(augment_a_few()).all()
        try:
            result = train_shortly(Path(folder))
        except FlowersError as error:
            assert "finite" in str(error), str(error)
            return
        row = result.history[0]
        assert all(math.isfinite(row[key]) for key in ("train_loss", "val_loss", "val_accuracy"))
        load_checkpoint(result.checkpoint)


@settings(deadline=None, max_examples=EXAMPLES, derandomize=True)
@given(st.dictionaries(st.sampled_from([*config.TRAINING_CONFIG, "batch_szie"]), ANYTHING))
def test_a_recipe_is_refused_in_one_sentence_or_holds_only_plain_values(changes):
    recipe = {**config.TRAINING_CONFIG, **changes}
    try:
        config.check_training_config(recipe)
    except ConfigError as error:
        assert is_one_sentence(str(error)), str(error)
    else:
        assert all(type(value) in (int, float, str) for value in recipe.values())
        assert all(math.isfinite(value) for value in recipe.values() if type(value) is not str)
