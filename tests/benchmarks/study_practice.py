"""Do the practice flowers still teach what the lesson says? Measures it over some seeds.

    python -m tests.benchmarks.study_practice --seeds 5   # in the project's folder

Prints a Markdown table: how rough the first filters are, how much of Grad-CAM's heat lies on the
flower, val accuracy after each phase and from scratch, what moved, and what each part costs. A
study that was stopped goes on where it was. `--parts pretraining phase1` leaves the others out.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

import transfer_learning_config as config
from flowers_utils.datasets.load import load_data
from flowers_utils.datasets.practice import flower_masks, pretrain_backbone, smooth_network
from flowers_utils.device import choose_device
from flowers_utils.insight.inside import grad_cam, how_far_each_group_moved
from flowers_utils.memory import peak_memory_bytes
from flowers_utils.models import build_model
from flowers_utils.storage.results import markdown_table
from flowers_utils.training import Phase, train_phase

PARTS = ("pretraining", "phase1", "phase2", "scratch")
PICTURES = 200  # of the test split, for Grad-CAM
IMAGENET_ROUGHNESS = 0.144  # of resnet18-f37072fd.pth, which is not here without a network


def roughness(filters: Tensor) -> float:
    """Share of the energy of filters (K, 3, 7, 7) in the highest frequency across or down.

    White noise has 0.49: 24 of a filter's 49 frequencies are the highest in one direction.
    """
    energy = torch.fft.fft2(filters.float()).abs() ** 2
    highest = torch.fft.fftfreq(7).abs() > 2.5 / 7
    return float(energy[..., highest[:, None] | highest].sum() / energy.sum())


def heat_on_flowers(model, data, device, *, seed: int) -> dict[str, float]:
    """Grad-CAM against the drawn truth: the heat's share on flowers, and the flowers' own share."""
    masks = torch.from_numpy(
        flower_masks("test", size=data.image_size, seed=seed, limit=min(PICTURES, len(data.test)))
    )
    seen = [grad_cam(model, picture, device) for picture in data.test.images[: len(masks)]]
    shares = [
        float(one.heat[mask].sum() / one.heat.sum())
        for one, mask in zip(seen, masks, strict=True)
        if one.heat.max() > 0
    ]
    blank, area = len(masks) - len(shares), float(masks.float().mean())
    return {"heat on flower": mean(shares), "flower's area": area, "blank": blank,
            "heat / area": mean(shares) / area}  # fmt: skip


def study(seed: int, parts: list[str], folder: Path) -> dict[str, float]:
    """All figures of one seed."""
    device, start = choose_device(), time.perf_counter()
    data = load_data("practice", seed=seed)
    figures = {"drawing, s": time.perf_counter() - start}
    start = time.perf_counter()
    weights = pretrain_backbone(folder / "backbone.pth", device=device, seed=seed)
    figures["pretraining, s"] = time.perf_counter() - start
    figures["rough at the start"] = roughness(smooth_network(2, seed).conv1.weight.detach())
    figures["rough after pretraining"] = roughness(weights["conv1.weight"])
    model = build_model(num_classes=data.num_classes, weights=weights, seed=seed)
    rates = {name: config.PHASES[name] for name in ("phase1", "phase2")}
    for number, name in enumerate(("phase1", "phase2"), start=1):
        if name not in parts:
            return figures
        before = model
        result = train_phase(before, data, device, Phase(number, seed=seed, **rates[name]), folder)
        model = result.model
        figures[f"{name}, val"], figures[f"{name}, s"] = result.best_val_accuracy, result.seconds
        heat = heat_on_flowers(model, data, device, seed=seed)
        figures |= {f"{name}, {key}": value for key, value in heat.items()}
    moved = how_far_each_group_moved(before, model)
    figures |= {f"moved, {group}": value for group, value in moved.items()}
    if "scratch" in parts:
        untaught = build_model(num_classes=data.num_classes, weights=None, seed=seed)
        rate = config.TRAINING_CONFIG["learning_rate"]
        phase = Phase(3, rates["phase2"]["epochs"], rate, rate, title="From scratch", seed=seed)
        result = train_phase(untaught, data, device, phase, folder)
        figures["scratch, val"], figures["scratch, s"] = result.best_val_accuracy, result.seconds
        figures["gain of phase 2"] = figures["phase2, val"] - figures["phase1, val"]
        figures["gain over scratch"] = figures["phase2, val"] - figures["scratch, val"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder", type=Path, default=Path("models/study_practice"))
    asked = parser.parse_args()
    rows = []
    for seed in range(asked.first, asked.first + asked.seeds):
        folder = asked.folder / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        rows.append(study(seed, asked.parts, folder))
        (folder / "figures.json").write_text(json.dumps(rows[-1], indent=1))
    table = []
    for key in rows[0]:
        values = [row[key] for row in rows]
        spread = f"{stdev(values):.3f}" if len(values) > 1 else ""
        table.append([key, f"{mean(values):.3f}", spread, *(f"{value:.3f}" for value in values)])
    seeds = [f"seed {asked.first + i}" for i in range(len(rows))]
    print(markdown_table(["", "mean", "s.d.", *seeds], table))
    print(f"\nImageNet's first filters: {IMAGENET_ROUGHNESS}")
    memory = peak_memory_bytes(choose_device().torch_device) / 2**30
    print(f"{choose_device().describe()}; peak memory {memory:.2f} GiB")


if __name__ == "__main__":
    main()
