"""What makes the lesson's recipe better on photographs, and what does not?

    python -m tests.benchmarks.study_recipe trials --data FOLDER --folds 2
    python -m tests.benchmarks.study_recipe recipes --data FOLDER --seeds 3
    python -m tests.benchmarks.study_recipe sizes --data FOLDER       # pixels in use
    python -m tests.benchmarks.study_recipe scratch --data FOLDER     # without pretrained weights
    python -m tests.benchmarks.study_recipe batchnorm --data FOLDER   # what train mode costs

FOLDER holds train/, val/ and test/ with one folder for each class (or is the word flowers102);
ImageNet's weights are on the disk. `trials` are cross-validated over train and val together, one
change at a time (`--size 160 --only base "backbone 1e-4"`: at fewer pixels, of these alone); test is
scored once, by `recipes`. Each result is a row of
tests/benchmarks/photos.json (`--out mine.json`: of your own file), and what is there is not computed
again: a study that was stopped goes on. The time is told beforehand, from the rows that are there.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.stats import t

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.config_check import phase_settings
from flowers_utils.data import FlowerData, batches
from flowers_utils.device import Device
from flowers_utils.evaluation import compute_metrics, fit_temperature, predict_logits
from flowers_utils.fitted_head import fit_head
from flowers_utils.phases import PhaseResult
from flowers_utils.progress import clock, say
from flowers_utils.storage.checkpoints import versions
from flowers_utils.storage.results import peak_memory_bytes
from flowers_utils.transforms import eval_batch
from tests.benchmarks.trials import FOLDS, TRIALS, run_trial, start, top1

ROWS = Path(__file__).with_name("photos.json")
Job = tuple[str, str, int]  # part, name, seed or fold
Rows = dict[str, dict[str, Any]]  # of one job, by their name


def train_recipe(
    name: str, seed: int, data: FlowerData, device: Device
) -> tuple[PhaseResult, dict[str, Any]]:
    """Both phases as the notebook has them: the result of the second, and a row."""
    model, row = start(data, seed), {"seconds": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            phase = fu.Phase(number, seed=seed, **phase_settings(f"phase{number}", recipe=name))
            result = fu.train_phase(model, data, device, phase, folder)
            model = result.model
            row |= {f"phase {number}, val": result.best_val_accuracy}
            row |= {f"phase {number}, seconds": result.seconds}
            row["seconds"] += result.seconds
    return result, row | {"val": result.best_val_accuracy}


def run_recipe(name: str, seed: int, data: FlowerData, device: Device) -> dict[str, Any]:
    """Train by a recipe, then score test once."""
    result, row = train_recipe(name, seed, data, device)
    model = result.model
    logits, labels = predict_logits(model, data.test, device)
    temperature, _ = fit_temperature(result.val_logits, data.val.labels)
    scores, calibrated = (
        compute_metrics(x, labels, class_names=data.class_names)
        for x in (logits, logits / temperature)
    )
    row |= {
        "test": scores.top1.value,
        "low": scores.top1.low,
        "high": scores.top1.high,
        "top-5": scores.top5.value,
        "mean per class": scores.mean_per_class.value,
        "mirrored twin": top1(model, data.test, device, twin=True),
        "temperature": temperature,
        "ece": scores.ece,
        "ece after temperature": calibrated.ece,
        "peak_memory_bytes": peak_memory_bytes(device.torch_device),
    }
    if config.RECIPES[name].get("phase2", {}).get("fit_head"):  # to train and val
        fit_head(model, data, device)
        row |= {"val, head fitted to train alone": top1(model, data.val, device)}
    return row


def run_sizes(seed: int, folder: str, device: Device) -> Rows:
    """`fast` is trained once; val at several sizes in use, with the head fitted at each of them."""
    model, rows = None, {}
    for size in (224, 256, 288, 320):
        config.RECIPES["fast"]["sizes"] = {"use": size}
        data = fu.load_data(folder, recipe="fast")
        model = model or train_recipe("fast", seed, data, device)[0].model
        fit_head(model, data, device)
        rows[f"used at {size}"] = {"val": top1(model, data.val, device)}
    return rows


def run_scratch(seed: int, data: FlowerData, device: Device) -> dict[str, Any]:
    """The same network without pretrained weights, as many epochs as Phase 2."""
    rate = config.TRAINING_CONFIG["learning_rate"]
    epochs = config.PHASES["phase2"]["epochs"]
    phase = fu.Phase(2, epochs, rate, rate, seed=seed, title="From scratch")
    with tempfile.TemporaryDirectory() as folder:
        network = start(data, seed, pretrained=False)
        result = fu.train_phase(network, data, device, phase, folder)
    return {"val": result.best_val_accuracy, "seconds": result.seconds}


def run_batchnorm(seed: int, data: FlowerData, device: Device) -> Rows:
    """Val with a fitted head and a frozen backbone: in eval mode, and with each effect of train mode.

    Batch statistics: `model.train()` while classifying, shuffled batches of 32, 8 and 2.
    Running averages: eval mode again, after 1 and 10 epochs of `model.train()` on train.
    """
    model = device.place(start(data, seed))
    models.freeze_backbone(model)
    fit_head(model, data, device)
    rows = {"eval mode": {"val": top1(model, data.val, device)}}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for size in (32, 8, 2):
        generator, correct = torch.Generator().manual_seed(seed), []
        shuffled = {"batch_size": size, "generator": generator}
        model.train()
        with torch.no_grad():
            for photos, labels in batches(data.val, device, **shuffled):
                logits = model(device.place_batch(eval_batch(photos, data.image_size)))
                correct += (logits.argmax(dim=1) == labels).tolist()
        model.load_state_dict(before)
        rows[f"batch statistics, {size} photographs"] = {"val": mean(correct)}
    generator = fu.seed_everything(seed)
    for epoch in range(1, 11):
        model.train()
        with torch.no_grad():
            for images, _ in fu.training_batches(data, device, generator):
                model(images)
        if epoch in (1, 10):
            name = f"running averages after {epoch} epoch{'s' * (epoch > 1)}"
            rows[name] = {"val": top1(model, data.val, device)}
    return rows


def compute(job: Job, asked: argparse.Namespace, device: Device) -> Rows:
    """The rows of one job, by their name."""
    _, name, seed = job
    if asked.part == "trials":
        return {name: run_trial(name, seed, str(asked.data), device, asked.size)}
    if asked.part == "sizes":
        return run_sizes(seed, str(asked.data), device)
    recipe = name if asked.part == "recipes" else "lesson"  # some have their own sizes in pixels
    data = fu.load_data(str(asked.data), recipe=recipe)
    if asked.part == "batchnorm":
        return run_batchnorm(seed, data, device)
    if asked.part == "scratch":
        return {"from scratch": run_scratch(seed, data, device)}
    return {name: run_recipe(name, seed, data, device)}


def gains(part: str, rows: list[dict]) -> str:
    """What each trial gained over `base` in points, with the 95 % interval of the mean of the pairs.

    Folds share training photographs, so the interval is widened (Nadeau and Bengio 2003).
    """
    scores = {(r["name"], r["seed"]): 100 * r["accuracy"] for r in rows if r["part"] == part}
    lines = []
    for name in TRIALS:
        folds = [fold for fold in range(FOLDS) if {(name, fold), ("base", fold)} <= scores.keys()]
        if name != "base" and len(folds) > 1:
            pairs = [scores[name, fold] - scores["base", fold] for fold in folds]
            error = stdev(pairs) * (1 / len(pairs) + 1 / (FOLDS - 1)) ** 0.5
            half = error * t.ppf(0.975, len(pairs) - 1)
            lines.append(f"{name}: {mean(pairs):+.1f} ± {half:.1f} points, {len(pairs)} pairs")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("trials", "recipes", "sizes", "scratch", "batchnorm"))
    parser.add_argument("--data", required=True, type=Path, help="a folder, or flowers102")
    parser.add_argument("--seeds", "--folds", type=int, default=1, dest="count")
    parser.add_argument("--size", type=int, default=224, help="pixels of all trials")
    parser.add_argument("--only", nargs="+", help="names of trials or recipes")
    parser.add_argument("--out", type=Path, default=ROWS)
    asked, device = parser.parse_args(), fu.choose_device()
    smaller = asked.part == "trials" and asked.size != 224
    part = f"trials at {asked.size}" if smaller else asked.part
    names = asked.only or {"trials": TRIALS, "recipes": config.RECIPES}.get(asked.part, [""])
    rows = json.loads(asked.out.read_text()) if asked.out.is_file() else []
    done = {(row["part"], row["job"], row["seed"]) for row in rows}
    jobs = [(part, name, seed) for seed in range(asked.count) for name in names]
    jobs = [job for job in jobs if job not in done]
    took = [row["seconds"] for row in rows if row["part"] == part and "seconds" in row]
    expected = f"about {clock(mean(took) * len(jobs))}" if took else "no row to tell the time from"
    say(f"{len(jobs)} to compute, {expected} on the machine that made the rows.")
    about = {"device": device.describe(), "torch": versions()["torch"], "data": asked.data.name}
    for job in jobs:
        for name, row in compute(job, asked, device).items():
            which = {"part": part, "job": job[1], "name": name, "seed": job[2]}
            rows.append({**which, **row, **about})
            say(json.dumps(rows[-1]))
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")
    if asked.part == "trials":
        say(gains(part, rows))


if __name__ == "__main__":
    main()
