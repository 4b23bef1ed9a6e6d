"""A wrong value in the config, or in the notebook's knobs, is named in one sentence."""

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest

import transfer_learning_config as config
from flowers_utils.config_check import check_config, check_knobs, check_numbers, profile_epochs
from flowers_utils.errors import FlowersError


def is_one_sentence(text):
    return text.endswith(".") and not re.search(r"[.!?] [A-Z]", text) and text.isprintable()


def refusal(monkeypatch, name, path, value):
    """What the check says once `value` stands at `path` of section `name`."""
    section = copy.deepcopy(getattr(config, name))
    if path:
        place = section
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    monkeypatch.setattr(config, name, section if path else value)
    with pytest.raises(FlowersError) as caught:
        check_config()
    assert is_one_sentence(str(caught.value))
    return str(caught.value)


def test_the_config_as_it_stands_can_work():
    check_config()


def test_the_recipe_is_the_given_dict_to_the_letter():
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
        ("TRAINING_CONFIG", ("batch_size",), 1.5, "a whole number from 2 to 4,096"),
        ("TRAINING_CONFIG", ("batch_size",), np.int64(32), "a whole number"),
        ("TRAINING_CONFIG", ("learning_rate",), math.nan, "a plain number from 1e-08 to 1.0"),
        ("TRAINING_CONFIG", ("optimizer",), "SGD", "one of AdamW"),
        ("PROFILES", ("smoke", "images"), 3, "a whole number from 4"),
        ("BACKBONE", (), "resnet19", "one of efficientnet_b0"),
        ("NORMALIZATION", ("mean",), (0.5, 0.5), "a list of 3 values"),
        ("DATASET", ("archive", "md5"), "", "a text in quotes"),
        ("PATHS", ("models",), Path("models"), "a text in quotes"),
        ("AUGMENTATION", (), None, "a dict"),
    ],
)
def test_an_impossible_value_is_named_with_what_it_must_be(monkeypatch, name, path, value, must):
    message = refusal(monkeypatch, name, path, value)
    assert message.startswith(name) and f"must be {must}" in message
    assert all(repr(key) in message for key in path)


@pytest.mark.parametrize("value", [10**5000, np.zeros((30, 30))], ids=["number", "array"])
def test_a_long_value_is_shown_in_short(monkeypatch, value):
    assert len(refusal(monkeypatch, "TRAINING_CONFIG", ("step_size",), value)) < 200


@pytest.mark.parametrize("name", ["TRAINING_CONFIG", "DATASET"])
def test_a_key_that_is_misspelt_or_missing_is_named(monkeypatch, name):
    message = refusal(monkeypatch, name, ("batch_szie",), 64)
    assert message.startswith(f"{name} has no key 'batch_szie'; its keys are ")
    monkeypatch.undo()
    key, *others = getattr(config, name)
    section = {other: getattr(config, name)[other] for other in others}
    assert refusal(monkeypatch, name, (), section) == f"{name} lacks the key {key!r}."


def test_numbers_that_do_not_fit_together_are_named_with_each_other(monkeypatch):
    message = refusal(monkeypatch, "AUGMENTATION", ("crop",), 257)
    assert "crop" in message and "257" in message and "256" in message
    monkeypatch.undo()
    message = refusal(monkeypatch, "PHASES", ("phase2", "epochs"), 31)
    assert "must be 51, the sum of the epochs of the two PHASES (20 + 31), but it is 50" in message


def test_the_full_profile_follows_the_phases_and_the_others_do_not(monkeypatch):
    monkeypatch.setitem(config.PHASES["phase1"], "epochs", 7)
    assert profile_epochs("full", "phase1") == 7
    assert profile_epochs("quick", "phase1") == 3 and profile_epochs("smoke", "phase2") == 1


def test_a_profile_of_ones_own_may_be_added(monkeypatch):
    monkeypatch.setitem(config.PROFILES, "night", {"epochs": 100, "images": None})
    check_config()
    assert check_knobs("auto", "night", 0)[1] == "night"


@pytest.mark.parametrize(("key", "value"), [("epochs", 0), ("head_lr", math.inf), ("seed", "3")])
def test_an_impossible_argument_is_named_with_where_it_stands(key, value):
    with pytest.raises(FlowersError, match=f"^{key} of Phase 2 must be .* it is {value!r}."):
        check_numbers("Phase 2", {"number": 2, key: value})


def test_knobs_are_cleaned_where_they_are_unambiguous(tmp_path):
    assert check_knobs(" auto", "quick ", "3") == ("auto", "quick", 3)
    assert check_knobs(tmp_path, "full", 2**31 - 1) == (str(tmp_path), "full", 2**31 - 1)


def test_a_folder_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "own").mkdir()
    assert check_knobs("~/own", "full", 0)[0] == str(tmp_path / "own")


@pytest.mark.parametrize("data", [2024, "", "~nobody-here/x", "nowhere", "\0"])
def test_data_that_is_no_folder_is_named(data):
    with pytest.raises(FlowersError, match=r"^DATA must be .* folder that is there, but it is ."):
        check_knobs(data, "full", 0)


@pytest.mark.parametrize("seed", [-1, 1.5, "-3", True, 2**31])
def test_a_seed_that_is_no_whole_number_of_31_bits_is_named(seed):
    with pytest.raises(FlowersError, match=r"^SEED must be a whole number from 0 to 2,147,483,647"):
        check_knobs("auto", "full", seed)


@pytest.mark.parametrize("profile", [None, "fast"])
def test_a_profile_that_is_not_there_is_named(profile):
    with pytest.raises(FlowersError, match=r"^PROFILE must be one of 'full', 'quick', 'smoke'"):
        check_knobs("auto", profile, 0)


def test_all_wrong_knobs_are_told_at_once_with_a_sentence_each():
    with pytest.raises(FlowersError) as caught:
        check_knobs(2024, None, 1.5)
    sentences = str(caught.value).splitlines()
    assert [sentence.split()[0] for sentence in sentences] == ["DATA", "PROFILE", "SEED"]
    assert all(map(is_one_sentence, sentences))
