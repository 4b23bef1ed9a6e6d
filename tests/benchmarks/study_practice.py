"""Do the practice flowers still teach what the lesson says? Measures it with several seeds.

    python -m tests.benchmarks.study_practice --seeds 5   # in the project's folder

Prints a Markdown table: val accuracy after each phase and from scratch, the proportion of heat on the
flower in relation to its area (chance: 1), and minutes. What was stopped goes on where it was.
"""

import argparse
import time
from pathlib import Path
from statistics import mean, stdev

import torch

import transfer_learning_config as config
from flowers_utils.datasets.load import load_data, starting_weights
from flowers_utils.datasets.practice import practice_scenes
from flowers_utils.device import Device, choose_device
from flowers_utils.insight import heat_map
from flowers_utils.models import build_model
from flowers_utils.phases import Phase
from flowers_utils.storage.results import markdown_table
from flowers_utils.training import train_phase

PICTURES = 200  # of the test split, for the heat


def heat_on_flowers(model: torch.nn.Module, device: Device, *, size: int, seed: int) -> float:
    """How much more of the heat lies on the drawn flower than its area alone would get."""
    on_flower, area = [], []
    for _, picture, mask in practice_scenes("test", size=size, seed=seed, limit=PICTURES):
        heat = heat_map(model, picture, device).values
        if heat.max() > 0:
            on_flower.append(float(heat[mask].sum() / heat.sum()))
            area.append(float(mask.float().mean()))
    return mean(on_flower) / mean(area)


def study(seed: int, folder: Path) -> dict[str, float]:
    """All figures of one seed: accuracies 0..1, times in minutes."""
    config.PATHS.update(models=str(folder), cache=str(folder))  # the project's own stay as they are
    device, start = choose_device(), time.perf_counter()
    data = load_data("practice", seed=seed)
    weights = starting_weights(data, device, backbone="resnet18", seed=seed)
    found = {"drawing and pretraining, min": (time.perf_counter() - start) / 60}

    def train(model: torch.nn.Module, phase: Phase) -> torch.nn.Module:
        result = train_phase(model, data, device, phase, folder)
        found[f"{phase.name}, val"] = result.best_val_accuracy
        found[f"{phase.name}, min"] = result.seconds / 60
        return result.model

    first, second = config.PHASES.values()
    model = build_model(num_classes=data.num_classes, weights=weights, seed=seed)
    model = train(train(model, Phase(1, seed=seed, **first)), Phase(2, seed=seed, **second))
    heat = heat_on_flowers(model, device, size=data.image_size, seed=seed)
    found["heat on flower / area"] = heat
    rate = config.TRAINING_CONFIG["learning_rate"]
    scratch = Phase(2, second["epochs"], rate, rate, seed=seed, title="From scratch")
    train(build_model(num_classes=data.num_classes, weights=None, seed=seed), scratch)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("models/study_practice"))
    asked = parser.parse_args()
    runs = [study(seed, asked.folder.absolute() / f"seed{seed}") for seed in range(asked.seeds)]
    table = []
    for key in runs[0]:
        values = [run[key] for run in runs]
        deviation = stdev(values) if len(values) > 1 else 0.0
        shown = (mean(values), deviation, min(values), max(values))
        table.append([key, *(f"{value:.3f}" for value in shown)])
    print(markdown_table(["", "mean", "s.d.", "lowest", "highest"], table))
    print(f"\n{choose_device().describe()}")


if __name__ == "__main__":
    main()
