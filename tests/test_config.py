"""A wrong value in the config, or in the notebook's knobs, is named in one sentence."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

import flowers_utils
import transfer_learning_config as config
from flowers_utils.config_check import absolute_paths, check_config, check_knobs, phase_settings
from flowers_utils.errors import FlowersError


def test_the_recipe_is_the_given_dict_to_the_letter_and_can_work():
    check_config()
    given = {"batch_size": 32, "learning_rate": 0.001, "total_epochs": 50, "optimizer": "AdamW"}
    given |= {"weight_decay": 0.01, "scheduler": "StepLR", "step_size": 15, "gamma": 0.1}
    assert given == config.TRAINING_CONFIG


TRAINING, PHASE_2, FAST = config.TRAINING_CONFIG, config.PHASES["phase2"], config.RECIPES["fast"]
WRONG = [  # a dict of the config, a key in it, a value, what the sentence must hold
    (TRAINING, "batch_size", np.int64(32), "batch_size .* a whole number from 2 to 4,096"),
    (TRAINING, "learning_rate", math.nan, "learning_rate .* from 1e-08 to 1.0, but it is nan"),
    (TRAINING, "optimizer", "SGD", "optimizer .* must be 'AdamW', but it is 'SGD'"),
    (TRAINING, "batch_szie", 64, "TRAINING_CONFIG has no setting 'batch_szie'"),
    (config.AUGMENTATION, "crop", 257, "'lesson' has 257 pixels, but 'resize' only 256"),
    (FAST, "sizes", {"crop": 300}, "'fast' has 300 pixels, but 'resize' only 256"),
    (PHASE_2, "epochs", True, r"epochs of PHASES\['phase2'\] .* it is True"),
    (PHASE_2, "epochs", 31, "must be 51, the sum of both PHASES; it is 50"),
    (FAST, "phase3", {}, r"RECIPES\['fast'\] has no part 'phase3'"),
    (FAST["phase2"], "fit_head", 2, "fit_head of RECIPES.* must be True or False"),
    (FAST["phase2"], "onecycle", True, "RECIPES.* has no setting 'onecycle'"),
]


@pytest.mark.parametrize(("section", "key", "value", "told"), WRONG)
def test_a_value_that_cannot_work_is_named_in_one_sentence(monkeypatch, section, key, value, told):
    monkeypatch.setitem(section, key, value)
    with pytest.raises(FlowersError, match=told):
        check_config()


def test_settings_are_the_lessons_then_the_recipes_and_a_profile_only_shortens(monkeypatch):
    monkeypatch.setitem(config.RECIPES, "mine", {"phase2": {"epochs": 2, "one_cycle": True}})
    assert phase_settings("phase1", "full", "mine") == config.PHASES["phase1"]
    mine = config.PHASES["phase2"] | {"epochs": 2, "one_cycle": True}
    assert phase_settings("phase2", "full", "mine") == mine
    epochs = [phase_settings("phase2", name, "mine")["epochs"] for name in config.PROFILES]
    assert epochs == [2, 2, 1]  # full, quick (at most 3), smoke (at most 1)


def test_knobs_that_can_work_come_back_with_an_absolute_path(tmp_path, monkeypatch):
    assert check_knobs("auto", "quick", 3, "fast") == ("auto", "quick", 3, "fast")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert check_knobs("~", "full", 2**31 - 1) == (str(tmp_path), "full", 2**31 - 1, "lesson")


@pytest.mark.parametrize(
    ("data", "seed"), [(2024, -1), ("", 1.5), (" auto", "3"), ("~nobody-here/x", 2**31)]
)
def test_all_wrong_knobs_are_told_at_once_with_a_sentence_each(data, seed):
    with pytest.raises(FlowersError) as caught:
        check_knobs(data, "full ", seed, "worst")
    first_words = [sentence.split()[0] for sentence in str(caught.value).splitlines()]
    assert first_words == ["DATA", "PROFILE", "SEED", "RECIPE"]


def test_the_folders_of_the_config_stay_where_they_were_at_the_import(tmp_path, monkeypatch):
    assert flowers_utils and all(Path(path).is_absolute() for path in config.PATHS.values())
    (tmp_path / "photographs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "PATHS", {"models": "models"})
    monkeypatch.setenv("TORCH_HOME", "weights")
    absolute_paths()
    os.chdir("photographs")
    absolute_paths()  # a second import must not move them either
    assert [config.PATHS["models"], os.environ["TORCH_HOME"]] == [
        str(tmp_path / name) for name in ("models", "weights")
    ]
