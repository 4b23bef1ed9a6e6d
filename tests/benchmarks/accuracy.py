"""Does the faster loop learn as much? Both loops, the same recipe, several seeds, accuracy on val.

    python -m tests.benchmarks.accuracy --seeds 3 --epochs 5 --size 96   # in the project's folder

Needs Flowers102 and ImageNet's weights on the disk. The textbook loop decodes and augments with
PIL, image by image, in float32; what it computes is the lesson's recipe. Prints a Markdown table.
"""

import argparse
import contextlib
import copy
import statistics
import sys
import tempfile
from collections.abc import Iterable

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import Flowers102
from torchvision.models import resnet18

import transfer_learning_config as config
from flowers_utils.datasets.load import data_root, load_data
from flowers_utils.datasets.weights import imagenet_weights
from flowers_utils.device import choose_device, seed_everything
from flowers_utils.models import build_model
from flowers_utils.training import Phase, train_phase
from flowers_utils.transforms import eval_transform, train_transform
from tests.benchmarks.report import at_least

RATES = {phase: values.get("backbone_lr") for phase, values in config.PHASES.items()}
HEAD_LR = config.PHASES["phase1"]["head_lr"]


def textbook(seed: int, epochs: int, size: int) -> list[float]:
    """Best accuracy on val after each phase, by the plain loop."""
    seed_everything(seed)
    device = choose_device(fast=False).torch_device
    batch_size = config.TRAINING_CONFIG["batch_size"]
    transforms = {
        "train": train_transform(resize=size * 256 // 224, crop=size),
        "val": eval_transform(size=size),
    }
    loaders = {
        split: DataLoader(
            Flowers102(data_root(), split, transform=transforms[split]),
            batch_size=batch_size,
            shuffle=split == "train",
        )
        for split in transforms
    }
    model = resnet18()
    model.load_state_dict(imagenet_weights("resnet18"))
    model.fc = nn.Linear(model.fc.in_features, 102)
    model.to(device)
    accuracies = []
    for backbone_lr in RATES.values():
        accuracies.append(textbook_phase(model, loaders, backbone_lr, epochs))
    return accuracies


def textbook_phase(
    model: nn.Module, loaders: dict[str, Iterable], backbone_lr: float | None, epochs: int
) -> float:
    """Train `model` in place for one phase and leave it with the weights that were best on val."""
    frozen, recipe, device = backbone_lr is None, config.TRAINING_CONFIG, model.fc.weight.device
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not frozen or name.startswith("fc.")
    backbone = [p for n, p in model.named_parameters() if not n.startswith("fc.")]
    groups = [{"params": model.fc.parameters(), "lr": HEAD_LR}]
    if not frozen:
        groups.append({"params": backbone, "lr": backbone_lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe["weight_decay"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    best, best_state = -1.0, {}
    for _ in range(epochs):
        model.train(not frozen)  # frozen BatchNorm stays as it is
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()
        scheduler.step()
        accuracy = textbook_accuracy(model, loaders["val"])
        if accuracy > best:
            best, best_state = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return best


@torch.no_grad()
def textbook_accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    device = model.fc.weight.device
    right = sum((model(x.to(device)).argmax(1).cpu() == y).sum().item() for x, y in loader)
    return right / len(loader.dataset)


def lesson(seed: int, epochs: int, size: int) -> list[float]:
    """Best accuracy on val after each phase, by the lesson's loop."""
    config.AUGMENTATION.update(resize=size * 256 // 224, crop=size)
    device, data = choose_device(), load_data("flowers102")
    model = build_model(
        num_classes=data.num_classes, weights=imagenet_weights("resnet18"), seed=seed
    )
    accuracies = []
    with tempfile.TemporaryDirectory() as folder:
        for phase, backbone_lr in enumerate(RATES.values(), start=1):
            wanted = Phase(phase, epochs, HEAD_LR, backbone_lr, seed=seed)
            result = train_phase(model, data, device, wanted, folder=folder)
            model = result.model
            accuracies.append(result.best_val_accuracy)
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=at_least(1), default=3)
    parser.add_argument("--epochs", type=at_least(1), default=5, help="of each phase (default 5)")
    parser.add_argument(
        "--size", type=at_least(32), default=224, help="pixels that the network sees"
    )
    args = parser.parse_args()
    print("| loop | seed | val, Phase 1 | val, Phase 2 |\n|---|---|---|---|")
    for loop in (textbook, lesson):
        found = []
        for seed in range(args.seeds):
            print(f"{loop.__name__}, seed {seed}", file=sys.stderr, flush=True)
            with contextlib.redirect_stdout(sys.stderr):  # the lesson's lines for each epoch
                found.append(loop(seed, args.epochs, args.size))
            cells = " | ".join(f"{value:.1%}" for value in found[-1])
            print(f"| {loop.__name__} | {seed} | {cells} |", flush=True)
        means = " | ".join(f"{statistics.mean(column):.1%}" for column in zip(*found, strict=True))
        print(f"| **{loop.__name__}** | mean | {means} |", flush=True)


if __name__ == "__main__":
    main()
