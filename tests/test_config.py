"""A wrong value in the config, or in the notebook's knobs, is named in one sentence."""

import copy
import math
import re

import numpy as np
import pytest

import transfer_learning_config as config
from flowers_utils.config_check import check_config, check_knobs, check_numbers, phase_settings
from flowers_utils.errors import FlowersError


def is_one_sentence(text):
    return text.endswith(".") and not re.search(r"[.!?] [A-Z]", text) and text.isprintable()


def refusal(monkeypatch, name, path, value):
    """What the check says once `value` stands at `path` of section `name`."""
    section = {"all": copy.deepcopy(getattr(config, name))}
    *places, last = ("all", *path)
    place = section
    for key in places:
        place = place[key]
    place[last] = value
    monkeypatch.setattr(config, name, section["all"])
    with pytest.raises(FlowersError) as caught:
        check_config()
    assert is_one_sentence(str(caught.value)) and len(str(caught.value)) < 400
    return str(caught.value)


def test_the_recipe_is_the_given_dict_to_the_letter_and_can_work():
    check_config()
    assert config.TRAINING_CONFIG == {
        "batch_size": 32,
        "learning_rate": 0.001,
        "total_epochs": 50,
        "optimizer": "AdamW",
        "weight_decay": 0.01,
        "scheduler": "StepLR",
        "step_size": 15,
        "gamma": 0.1,
    }


@pytest.mark.parametrize(
    ("name", "path", "value", "must"),
    [
        ("TRAINING_CONFIG", ("batch_size",), np.int64(32), "a whole number from 2 to 4,096"),
        ("TRAINING_CONFIG", ("step_size",), np.zeros((30, 30)), "a whole number"),
        ("TRAINING_CONFIG", ("learning_rate",), math.nan, "a plain number from 1e-08 to 1.0"),
        ("TRAINING_CONFIG", ("optimizer",), "SGD", "one of AdamW"),
        ("PROFILES", ("smoke", "images"), 3, "a whole number from 4"),
        ("BACKBONE", (), "resnet19", "one of efficientnet_b0"),
        ("NORMALIZATION", ("mean",), (0.5, 0.5), "a list of 3 values"),
        ("PATHS", ("models",), "", "a text in quotes"),
        ("AUGMENTATION", (), None, "a dict"),
        ("AUGMENTATION", ("crop",), 257, "at most AUGMENTATION['resize'], which is 256"),
    ],
)
def test_an_impossible_value_is_named_with_what_it_must_be(monkeypatch, name, path, value, must):
    message = refusal(monkeypatch, name, path, value)
    assert message.startswith(name) and f"must be {must}" in message
    assert all(repr(key) in message for key in path)


def test_a_key_that_is_misspelt_or_missing_is_named(monkeypatch):
    message = refusal(monkeypatch, "TRAINING_CONFIG", ("batch_szie",), 64)
    assert message.startswith("TRAINING_CONFIG has no key 'batch_szie'; its keys are ")
    monkeypatch.undo()
    assert refusal(monkeypatch, "PATHS", (), {"models": "m"}) == "PATHS lacks the key 'cache'."


def test_epochs_that_do_not_add_up_are_named(monkeypatch):
    message = refusal(monkeypatch, "PHASES", ("phase2", "epochs"), 31)
    assert "must be 51, the sum of the epochs of the two PHASES, but it is 50" in message


def test_the_full_profile_follows_the_phases_and_ones_own_may_be_added(monkeypatch):
    monkeypatch.setitem(config.PROFILES, "night", {"epochs": 100, "images": None})
    monkeypatch.setitem(config.PHASES["phase1"], "epochs", 7)
    profiles = ("full", "quick", "smoke", "night")
    epochs = [phase_settings("phase1", name)["epochs"] for name in profiles]
    assert epochs == [7, 3, 1, 100] and check_knobs("auto", "night", 0)[1] == "night"


@pytest.mark.parametrize(("key", "value"), [("epochs", 0), ("head_lr", math.inf)])
def test_an_impossible_argument_is_named_with_where_it_stands(key, value):
    with pytest.raises(FlowersError, match=f"^{key} of Phase 2 must be .* it is {value!r}."):
        check_numbers("Phase 2", {"number": 2, key: value})


def test_knobs_are_cleaned_where_they_are_unambiguous(tmp_path, monkeypatch):
    assert check_knobs(" auto", "quick ", "3", "fast ") == ("auto", "quick", 3, "fast")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert check_knobs("~", "full", 2**31 - 1) == (str(tmp_path), "full", 2**31 - 1, "lesson")


@pytest.mark.parametrize(("data", "seed"), [(2024, -1), ("", 1.5), ("~nobody-here/x", 2**31)])
def test_all_wrong_knobs_are_told_at_once_with_a_sentence_each(data, seed):
    with pytest.raises(FlowersError) as caught:
        check_knobs(data, None, seed, ["best"])
    sentences = str(caught.value).splitlines()
    assert [sentence.split()[0] for sentence in sentences] == ["DATA", "PROFILE", "SEED", "RECIPE"]
    assert all(map(is_one_sentence, sentences))


def test_the_lessons_own_recipe_is_what_stands_in_phases(monkeypatch):
    monkeypatch.setitem(config.RECIPES, "lesson", {"phase2": {"hue": 0.0}})
    with pytest.raises(FlowersError, match="has no key 'phase2'; its keys are none"):
        check_config()


def test_a_recipe_says_only_what_it_does_otherwise(monkeypatch):
    monkeypatch.setitem(config.RECIPES, "mine", {"phase2": {"epochs": 5, "one_cycle": True}})
    assert phase_settings("phase1", "full", "mine") == config.PHASES["phase1"]
    both = {**config.PHASES["phase2"], "epochs": 5, "one_cycle": True}
    assert phase_settings("phase2", "full", "mine") == both
    assert phase_settings("phase2", "quick", "mine")["epochs"] == 3


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"phase3": {}}, "the phase in RECIPES['mine'] must be one of phase1, phase2"),
        ({"phase2": {"fit_head": 1}}, "fit_head of RECIPES['mine']['phase2'] must be True or"),
        ({"phase2": {"sizes": (0.5,)}}, "RECIPES['mine']['phase2'] has 'sizes' but no"),
        ({"phase2": {"onecycle": True}}, "RECIPES['mine']['phase2'] has no setting 'onecycle'"),
        ({"phase2": {"rotation": 0.0}}, "RECIPES['mine']['phase2'] has no setting 'rotation'"),
    ],
)
def test_an_impossible_recipe_is_named(monkeypatch, recipe, told):
    monkeypatch.setitem(config.RECIPES, "mine", recipe)
    with pytest.raises(FlowersError, match="RECIPES") as caught:
        check_config()
    assert str(caught.value).startswith(told)
