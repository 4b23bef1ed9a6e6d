"""The lesson's recipe as a textbook has it: PIL image by image, a `DataLoader`, float32."""

import copy
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import transfer_learning_config as config

# How both pipelines end: a tensor of whole numbers, then of decimal ones from 0 to 1, normalised.
FINISH = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**config.NORMALIZATION)]


def train_transform(crop: int) -> v2.Compose:
    """Training pipeline: one PIL image -> augmented, normalised float tensor `(3, crop, crop)`."""
    a = config.AUGMENTATION
    return v2.Compose(
        [
            v2.Resize((a["resize"], a["resize"])),
            # Before the crop, so that most of the black corners of a rotation are cut off again.
            v2.RandomRotation(a["rotation"], interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomCrop(crop),
            v2.RandomHorizontalFlip(a["flip"]),
            v2.ColorJitter(a["brightness"], a["contrast"], a["saturation"], a["hue"]),
            *FINISH,
        ]
    )


def eval_transform(size: int) -> v2.Compose:
    """Evaluation pipeline: one PIL image, squashed to a square -> float tensor `(3, size, size)`."""
    return v2.Compose([v2.Resize((size, size)), *FINISH])


def make_loaders(folder: Path) -> dict[str, DataLoader]:
    """A loader for each of the folders train, val and test in `folder`."""
    crop, size = config.AUGMENTATION["crop"], config.TRAINING_CONFIG["batch_size"]
    use = eval_transform(crop)
    transforms = {"train": train_transform(crop), "val": use, "test": use}
    return {
        split: DataLoader(ImageFolder(folder / split, transform), size, shuffle=split == "train")
        for split, transform in transforms.items()
    }


def train_phase(
    model: nn.Module, loaders: dict[str, DataLoader], name: str, *, epochs: int
) -> list[dict[str, float]]:
    """Train a ResNet in place to its best weights on val; accuracy and seconds of each epoch."""
    rates, recipe = config.PHASES[name], config.TRAINING_CONFIG
    frozen, device = "backbone_lr" not in rates, model.fc.weight.device
    backbone = [p for n, p in model.named_parameters() if not n.startswith("fc.")]
    for parameter in backbone:
        parameter.requires_grad = not frozen
    groups = [{"params": model.fc.parameters(), "lr": rates["head_lr"]}]
    if not frozen:
        groups.append({"params": backbone, "lr": rates["backbone_lr"]})
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe["weight_decay"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    history, best_state, running_loss = [], {}, 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        model.train(not frozen)  # in eval mode the frozen BatchNorm layers stay as they are
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        scheduler.step()
        row = {"val_accuracy": accuracy(model, loaders["val"])}
        history.append(row | {"seconds": time.perf_counter() - start})
        if row["val_accuracy"] >= max(each["val_accuracy"] for each in history):
            best_state = copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return history


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Top-1 accuracy, 0..1."""
    model.eval()
    device = model.fc.weight.device
    correct = sum((model(x.to(device)).argmax(1).cpu() == y).sum().item() for x, y in loader)
    return correct / len(loader.dataset)
