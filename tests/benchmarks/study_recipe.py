"""What makes the lesson's recipe better, and what does not? Measured on real flowers and weights.

    python -m tests.benchmarks.study_recipe heads --seeds 2     # ways to train the head alone
    python -m tests.benchmarks.study_recipe trials --seeds 2    # one change at a time, small pictures
    python -m tests.benchmarks.study_recipe recipes --seeds 3   # the config's recipes, whole

Run it in the project's folder, with Flowers102 and ImageNet's weights on the disk. Choices are made
on val; a whole recipe is scored on test once. Each result is a row of `recipe_study.json` in
flowers_utils/insight (of another file with `--out mine.json`), and what stands there is not computed
again: a study that was stopped goes on. On two cores with AVX512-BF16 a trial took about 45 seconds,
training "fast" 2 minutes, "best" 5, "lesson" 17 to 24, and each score on test 2 more.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils.config_check import phase_settings
from flowers_utils.data import FlowerData, Split
from flowers_utils.device import Device
from flowers_utils.evaluation import predict_logits, wilson
from flowers_utils.insight.study import STUDY_FILE, recipe_study
from flowers_utils.progress import clock, say
from flowers_utils.storage.checkpoints import versions
from tests.benchmarks.recipe_trials import SIZE, TRIALS, accuracy, heads, mirrored, start_of, trial

WITH_VAL = "best on train and val"
NOT_IN_A_ROW = {"heads": 60.0, "trials": 5.0, "recipes": 120.0}  # seconds: features, test


def with_val(data: FlowerData) -> FlowerData:
    """Train and val together to train on. (Val keeps its place, but says nothing any more.)"""
    shape = (data.resize_size,) * 2
    larger = F.interpolate(
        torch.from_numpy(data.val.images.copy()).float(), shape, mode="bilinear", antialias=True
    )
    images = np.concatenate([data.train.images, larger.round().to(torch.uint8).numpy()])
    labels = torch.cat([data.train.labels, data.val.labels])
    return replace(data, train=Split("train", images, labels))


def whole_recipe(name: str, seed: int, device: Device) -> dict[str, Any]:
    """Both phases as the notebook has them; test scored once, by what was best on val."""
    recipe, data = ("best" if name == WITH_VAL else name), fu.load_data("flowers102")
    data = with_val(data) if name == WITH_VAL else data
    model = start_of(data, seed, device)
    row: dict[str, Any] = {"seconds": 0.0, "course": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            settings = phase_settings(f"phase{number}", recipe=recipe)
            result = fu.train_phase(
                model, data, device, fu.Phase(number, seed=seed, **settings), folder
            )
            model = result.model
            row |= {f"phase{number}_val": result.best_val_accuracy}
            row |= {f"phase{number}_seconds": result.seconds}
            for epoch in result.history:
                row["seconds"] += epoch["seconds"]
                row["course"].append((row["seconds"], epoch["val_accuracy"]))
        if name == WITH_VAL:  # val can choose no epoch here: the last one counts
            state = torch.load(Path(folder, "resnet18_phase2_resume.pth"), weights_only=True)
            model.load_state_dict(state["training"]["model"])
    logits, labels = predict_logits(model, data.test, device)
    twins, _ = predict_logits(model, mirrored(data.test), device)
    found = wilson(int((logits.argmax(dim=1) == labels).sum()), len(labels))
    both = float(((logits + twins).argmax(dim=1) == labels).float().mean())
    row |= {"mirrored_val": accuracy(model, mirrored(data.val), device, and_with=data.val)}
    row |= {"val": None if name == WITH_VAL else result.best_val_accuracy, "test": found.value}
    return row | {"test_low": found.low, "test_high": found.high, "mirrored_test": both}


def expected_seconds(part: str, names: list[str]) -> float:
    """What the parts took when the project's rows were made (each with what is not in its row)."""
    took = {row["name"]: row["seconds"] for row in recipe_study(part)}
    return sum(took.get(name, 0.0) + NOT_IN_A_ROW[part] for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("heads", "trials", "recipes"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="names of trials or recipes")
    parser.add_argument("--out", type=Path, default=STUDY_FILE, help="a JSON of your own")
    asked = parser.parse_args()
    device = fu.choose_device()
    rows = json.loads(asked.out.read_text()) if asked.out.is_file() else []
    every = {"heads": ["heads"], "trials": list(TRIALS), "recipes": [*config.RECIPES, WITH_VAL]}
    names = asked.only or every[asked.part]
    if unknown := set(names) - set(every[asked.part]):
        parser.error(f"no {', '.join(unknown)} here; there are {', '.join(every[asked.part])}")
    done = {(row["seed"], row["name"]) for row in rows if row["part"] == asked.part}
    if asked.part == "heads":  # its rows have other names
        done = {(seed, "heads") for seed, _ in done}
    todo = [(s, name) for s in range(asked.seeds) for name in names if (s, name) not in done]
    seconds = expected_seconds(asked.part, [name for _, name in todo])
    say(f"{len(todo)} to compute: about {clock(seconds)} on two cores with AVX512-BF16.")
    if asked.part != "recipes":
        config.AUGMENTATION.update(resize=SIZE * 256 // 224, crop=SIZE)
    usual = [dict(config.TRAINING_CONFIG), dict(config.AUGMENTATION)]
    for seed, name in todo:
        config.TRAINING_CONFIG.update(usual[0])
        config.AUGMENTATION.update(usual[1])
        if asked.part == "heads":
            found = heads(seed, device)
        elif asked.part == "trials":
            found = {name: trial(TRIALS[name], seed, device)}
        else:
            found = {name: whole_recipe(name, seed, device)}
        about = {"device": device.describe(), "torch": versions()["torch"]}
        for key, row in found.items():
            rows.append({"part": asked.part, "name": key, "seed": seed, **row, **about})
            say(f"{key}, seed {seed}: {clock(row['seconds'])} {json.dumps(row)}")
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
