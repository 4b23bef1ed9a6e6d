"""The better recipes: each part does what it says, and a phase goes on with it after a stop."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small_training import CPU, facts, small_data, small_model, small_phase

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils import insight, models, recipes
from flowers_utils.config_check import phase_settings
from flowers_utils.device import seed_everything
from flowers_utils.errors import Stopped
from flowers_utils.insight.study import STUDY_FILE
from flowers_utils.progress import Progress
from flowers_utils.training import Phase
from flowers_utils.transforms import crop_and_resize
from tests.benchmarks import study_recipe

pytestmark = pytest.mark.usefixtures("small_net")
CYCLE = {"one_cycle": True, "smallest_crop": 0.5, "freeze_batchnorm": True}
RED = np.stack([np.full((20, 20), value, np.uint8) for value in (200, 40, 40)])[None].repeat(4, 0)
CYCLE |= {"hue": 0.0, "fit_head": True}


def test_one_cycle_rises_to_the_rate_and_ends_at_nothing():
    optimizer, phase = (
        torch.optim.SGD(small_model().parameters(), 0.5),
        Phase(2, 5, 0.5, one_cycle=True),
    )
    scheduler, rates = recipes.make_scheduler(optimizer, phase, 320), []
    for _ in recipes.stepping(iter(range(50)), scheduler, phase):  # 5 epochs of 10 batches
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    assert rates[0] == pytest.approx(0.05) and max(rates) == pytest.approx(0.5, rel=0.01)
    assert rates.index(max(rates)) in range(8, 12) and rates[-1] < 0.005


@pytest.mark.parametrize("steps", range(8))
def test_one_cycle_of_any_length_rises_at_most_to_its_rate(steps):
    optimizer = torch.optim.SGD(small_model().parameters(), 0.5)
    phase = Phase(2, steps + 1, 0.5, one_cycle=True, fit_head=True)
    scheduler = recipes.make_scheduler(optimizer, phase, 1)
    for _ in range(steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= 0.5
        optimizer.step()
        scheduler.step()


def test_a_recipe_may_leave_the_hue_alone():
    grey_or_red = replace(small_data(), train=fu.data.Split("train", RED, torch.zeros(4).long()))
    seen = {}
    for hue in (None, 0.0):
        phase = Phase(2, 1, 0.1, smallest_crop=1.0, hue=hue)
        images, _ = next(recipes.epoch_batches(phase, 1, grey_or_red, CPU, seed_everything(0)))
        _, green, blue = fu.transforms.denormalise(images).float().mean(dim=(2, 3)).T
        seen[hue] = (green - blue).abs().max()
    assert seen[0.0] < 3 < seen[None]


def test_a_fitted_head_agrees_with_scikit_learn():
    data, model = small_data(), small_model().eval()
    pictures = fu.evaluation_batches(data.train, CPU, image_size=data.image_size)
    features, labels = recipes.fit_head(model, pictures, CPU)
    x = (features - features.mean(0)) / (features.std(0) + 1e-6)
    c = 1 / (2 * recipes.PENALTY * len(x))
    theirs = LogisticRegression(C=c, max_iter=1000, tol=1e-6).fit(x, labels)
    with torch.no_grad():
        ours = models.classifier_of(model)(features).softmax(1)
    assert len(features) == 2 * len(data.train)  # each photograph and its mirror image
    assert torch.allclose(ours, torch.from_numpy(theirs.predict_proba(x)).float(), atol=1e-2)


def test_phase_1_of_a_better_recipe_is_one_fit_that_moves_only_the_head(tmp_path):
    model = small_model()
    result = small_phase(tmp_path, model=model, number=1, epochs=1, backbone_lr=None, fit_head=True)
    assert models.fingerprint(result.model) == models.fingerprint(model)
    untrained = fu.evaluate(model, fu.evaluation_batches(small_data().val, CPU), CPU).top1
    assert result.best_val_accuracy > untrained and len(result.history) == 1


def test_the_last_epoch_fits_the_head_to_the_trained_backbone(tmp_path):
    trained = small_phase(tmp_path / "plain", epochs=1).model
    result = small_phase(tmp_path / "fitted", epochs=2, fit_head=True)
    first, last = result.history
    assert result.best_epoch == 2 and last["train_loss"] < first["train_loss"]
    assert last["learning_rates"] == {} != first["learning_rates"]
    assert models.fingerprint(result.model) == models.fingerprint(trained)
    heads = [models.head_of(model).weight for model in (result.model, trained)]
    assert not torch.equal(*heads)


def test_a_short_profile_shortens_the_training_and_keeps_the_fit():
    epochs = [phase_settings(p, "quick", "best")["epochs"] for p in ("phase1", "phase2")]
    assert epochs == [1, config.PROFILES["quick"]["epochs"] + 1]


@pytest.mark.parametrize("frozen", [True, False])
def test_batchnorm_stands_still_in_phase_2_if_the_recipe_says_so(tmp_path, frozen):
    model = small_model()
    trained = small_phase(tmp_path, model=model, epochs=1, freeze_batchnorm=frozen).model
    before, after = model.bn1.state_dict(), trained.bn1.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before) == frozen
    assert not torch.equal(model.conv1.weight, trained.conv1.weight)


def test_sizes_grow_from_the_first_epochs_to_the_last():
    data = replace(small_data(), image_size=64)
    phase = Phase(2, 6, 0.1, smallest_crop=0.5, sizes=(0.5, 0.75, 1.0))
    sizes = [
        next(iter(recipes.epoch_batches(phase, epoch, data, CPU, seed_everything(0))))[0].shape[-1]
        for epoch in range(1, 7)
    ]
    assert sizes == [32, 32, 48, 48, 64, 64]


def test_each_photograph_gets_a_crop_of_its_own():
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    crops = crop_and_resize(torch.stack([ramp] * 8), 32, 0.3)
    assert crops.shape == (8, 3, 32, 32) and crops.dtype is torch.uint8
    assert len({tuple(crop[0, 0].tolist()) for crop in crops}) > 4


def test_a_better_recipe_that_was_stopped_ends_as_one_in_one_go(tmp_path, monkeypatch):
    whole = small_phase(tmp_path / "whole", **CYCLE)
    seen, note = [], Progress.note

    def stop_after_three(bar, text):
        note(bar, text)
        seen.append(text)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="epoch 4: stopped"):
        patch.setattr(Progress, "note", stop_after_three)
        small_phase(tmp_path / "parts", **CYCLE)
    result = small_phase(tmp_path / "parts", **CYCLE)
    assert "Going on after epoch 3" in result.note and facts(result) == facts(whole)


def test_what_a_recipe_changes_is_part_of_a_phases_identity_and_of_its_checkpoint(tmp_path):
    assert Phase(1, 20, 0.001).numbers() == {"number": 1, "epochs": 20, "head_lr": 0.001, "seed": 0}
    first = small_phase(tmp_path, epochs=1)
    second = small_phase(tmp_path, epochs=1, one_cycle=True)
    assert "one_cycle" in second.note and "kept" in second.note
    third = small_phase(tmp_path, epochs=1, one_cycle=True, hue=0.0)
    assert "hue was 0.1 and is now 0.0" in third.note
    assert fu.load_checkpoint(third.checkpoint)["phase"]["one_cycle"] is True
    assert first.checkpoint == second.checkpoint


@pytest.mark.parametrize("recipe", sorted(config.RECIPES))
def test_every_recipe_of_the_config_trains_both_phases(tmp_path, tiny_data, recipe):
    model = small_model()
    for number in (1, 2):
        settings = phase_settings(f"phase{number}", "smoke", recipe)
        result = fu.train_phase(model, tiny_data, CPU, Phase(number, **settings), tmp_path)
        model = result.model
        assert len(result.history) == settings["epochs"]
        fitted = [row["learning_rates"] == {} for row in result.history]
        assert fitted == [False] * (len(fitted) - 1) + [settings.get("fit_head", False)]


def test_the_fast_recipe_is_announced_to_take_less_time(monkeypatch):
    preflight = importlib.import_module("flowers_utils.machine.preflight")
    monkeypatch.setattr(preflight, "seconds_here", lambda *_: (0.04, 0.01))
    fast, lesson = (
        preflight.lesson_seconds(CPU, on_practice=False, profile="full", recipe=name)[0]
        for name in ("fast", "lesson")
    )
    assert fast < lesson / 2


def test_the_studys_rows_are_whole_and_its_table_gives_mean_and_spread():
    rows = [
        {"name": "fast", "seconds": 120, "val": 0.70, "test": 0.66},
        {"name": "fast", "seconds": 240, "val": 0.74, "test": 0.68},
        {"name": "best on train and val", "seconds": 600, "val": None, "test": 0.75},
    ]
    table = insight.recipe_table(rows)
    assert "| fast | 2 | 2.0 | 72.0% ± 2.8 | 67.0% ± 1.4 |" in table
    assert "| best on train and val | 1 | 10.0 | trained on it | 75.0% |" in table
    heads = [{"name": "worse", "val": 0.098}, {"name": "better", "val": 0.62}]
    assert insight.head_table(heads).splitlines()[2:] == ["| better | 62.0% |", "| worse | 9.8% |"]
    saved = json.loads(STUDY_FILE.read_text(encoding="utf-8"))
    assert {row["part"] for row in saved} == {"heads", "trials", "recipes"}
    assert insight.recipe_study("trials")[0]["name"] == "improved"
    needed = {"phase1_val", "val", "test", "seconds"}  # by section 20
    assert all(needed < row.keys() for row in insight.recipe_study("recipes"))
    assert set(config.RECIPES) <= {row["name"] for row in insight.recipe_study("recipes")}


def test_train_and_val_together_are_one_split_of_the_same_size():
    data = small_data()
    both = study_recipe.with_val(data).train
    assert len(both) == 40 and both.images.shape[-1] == data.resize_size
    assert torch.equal(both.labels[24:], data.val.labels)


def test_a_study_says_how_long_it_takes_and_computes_nothing_twice(monkeypatch, capsys):
    asked = ["study_recipe", "recipes", "--seeds", "3", "--only", "fast", "best"]
    monkeypatch.setattr("sys.argv", asked)
    before = STUDY_FILE.read_bytes()
    study_recipe.main()
    assert capsys.readouterr().out.startswith("0 to compute") and STUDY_FILE.read_bytes() == before
    assert study_recipe.expected_seconds("recipes", ["fast", "best"]) > 2 * 120 + 200
