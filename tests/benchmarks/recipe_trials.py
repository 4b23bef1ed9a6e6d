"""Parts of `study_recipe`: ways to train the head, and fine-tuning with one change at a time."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torchvision.transforms import v2

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils import models, recipes
from flowers_utils.data import FlowerData, Split
from flowers_utils.device import Device
from flowers_utils.evaluation import features_of, predict_features, predict_logits
from flowers_utils.insight.experiments import train_head
from flowers_utils.transforms import Batches, denormalise, normalise

SIZE, EPOCHS = 96, 8  # of a trial
BASE = {"one_cycle": True, "freeze_batchnorm": True, "smallest_crop": 0.6}
BASE |= {"backbone_lr": 6e-4, "head_lr": 3e-4}

# Name -> what it does otherwise than BASE: fields of fu.Phase, of the config, or one of EXTRAS.
EXTRAS = {"batches": None, "growth": 1.0, "averaged": 0.0, "reestimated": False}
TRIALS: dict[str, dict[str, Any]] = {
    "improved": {},
    "BatchNorm learns": {"freeze_batchnorm": False},
    "StepLR": {"one_cycle": False},
    "lesson's crop": {"smallest_crop": 0.0},
    "crops from 35 %": {"smallest_crop": 0.35},
    "backbone 1e-4": {"backbone_lr": 1e-4},
    "backbone 3e-4": {"backbone_lr": 3e-4},
    "backbone 1e-3": {"backbone_lr": 1e-3},
    "backbone 2e-3": {"backbone_lr": 2e-3},
    "head 1e-3": {"head_lr": 1e-3},
    "label smoothing": {"batches": "smoothing"},
    "MixUp": {"batches": "mixup"},
    "CutMix": {"batches": "cutmix"},
    "TrivialAugment": {"batches": "trivial"},
    "no hue": {"hue": 0.0},
    "no rotation": {"rotation": 0.0},
    "batches of 64": {"batch_size": 64},
    "weight decay 0.1": {"weight_decay": 0.1},
    "small to large": {"sizes": (0.67, 0.83, 1.0)},
    "head fitted again": {"epochs": EPOCHS + 1, "fit_head": True},
    "rates grow with depth": {"growth": 2.0},
    "weights averaged": {"averaged": 0.98},
    "BatchNorm re-estimated": {"reestimated": True},
    "4 epochs": {"epochs": 4},
    "16 epochs": {"epochs": 16},
}


def mixed(how: str, classes: int) -> Callable[[Batches], Batches]:
    """Batches mixed in pairs, or with labels smoothed by a tenth, or changed by TrivialAugment."""
    mix = {"mixup": v2.MixUp(alpha=0.2, num_classes=classes)}
    mix |= {"cutmix": v2.CutMix(alpha=1.0, num_classes=classes)}
    trivial = v2.TrivialAugmentWide()

    def changed(batches: Batches) -> Iterator:
        for images, labels in batches:
            if how == "trivial":
                pictures = torch.stack([trivial(one) for one in denormalise(images)])
                yield normalise(pictures.float() / 255), labels
            elif how == "smoothing":
                yield images, F.one_hot(labels, classes) * 0.9 + 0.1 / classes
            else:
                yield mix[how](images, labels)

    return changed


def start_of(data: FlowerData, seed: int, device: Device) -> torch.nn.Module:
    """ImageNet's ResNet18 with a new head, on the device."""
    weights = fu.starting_weights(data, device, backbone="resnet18", seed=seed)
    model = fu.build_model("resnet18", num_classes=data.num_classes, weights=weights, seed=seed)
    return device.place(model)


def fit_head(
    model: torch.nn.Module, data: FlowerData, device: Device, *, penalty: float = recipes.PENALTY
) -> None:
    """The head fitted to the training photographs, at the size at which the network is used."""
    pictures = fu.evaluation_batches(data.train, device, image_size=data.image_size)
    recipes.fit_head(model, pictures, device, penalty=penalty)


def trial(changes: dict[str, Any], seed: int, device: Device) -> dict[str, Any]:
    """A fitted head, then EPOCHS of fine-tuning at SIZE pixels; val at the end, not at its best."""
    settings = {"epochs": EPOCHS, **BASE, **changes}
    how, growth, decay, reestimated = (settings.pop(k, usual) for k, usual in EXTRAS.items())
    for part in (config.TRAINING_CONFIG, config.AUGMENTATION):
        part.update({key: settings.pop(key) for key in list(settings) if key in part})
    data = fu.load_data("flowers102")
    phase = fu.Phase(2, seed=seed, **settings)
    model, generator = start_of(data, seed, device), fu.seed_everything(seed)
    if reestimated:  # the statistics of the new photographs in the place of ImageNet's
        update_bn(recipes.epoch_batches(phase, 1, data, device, generator), model)
    fit_head(model, data, device, penalty=0.012)  # as when the first of these trials ran
    start = accuracy(model, data.val, device)
    if phase.freeze_batchnorm:
        recipes.freeze_batchnorm(model)
    rates = {"backbone_lr": phase.backbone_lr, "head_lr": phase.head_lr}
    groups = fu.parameter_groups(model, **rates)
    for below_layer4, group in enumerate(reversed(groups[:-1])):
        group["lr"] /= growth**below_layer4
    optimizer = models.make_optimizer(groups, device)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    scheduler = recipes.make_scheduler(optimizer, phase, len(data.train))
    began, losses = time.perf_counter(), []
    for epoch in range(1, phase.trained_epochs + 1):
        batches = recipes.epoch_batches(phase, epoch, data, device, generator)
        batches = mixed(how, data.num_classes)(batches) if how else batches
        batches = recipes.stepping(batches, scheduler, phase)
        batches = averaging(batches, mean, model) if decay else batches
        losses.append(train_on_any_labels(model, batches, optimizer, device))
    model = mean.module if decay else model
    if phase.fit_head:
        fit_head(model, data, device)
    row = {"head_val": start, "val": accuracy(model, data.val, device)}
    row |= {"mirrored_val": accuracy(model, mirrored(data.val), device, and_with=data.val)}
    return row | {"train_loss": losses[-1], "seconds": time.perf_counter() - began}


def train_on_any_labels(model, batches: Batches, optimizer, device: Device) -> float:
    """`fu.train_one_epoch`, but labels may be `(B,)` or `(B, C)`; returns the mean of the losses."""
    models.train_mode(model)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        with device.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def averaging(batches: Batches, mean: AveragedModel, model: torch.nn.Module) -> Batches:
    """The same batches; after the optimizer's step on each, `mean` takes up the new weights."""
    for batch in batches:
        yield batch
        mean.update_parameters(model)


def heads(seed: int, device: Device) -> dict[str, dict[str, Any]]:
    """Ways to train the head alone on stored features: name -> val after 20 epochs, and seconds."""
    data = fu.load_data("flowers102")
    model, size = start_of(data, seed, device), {"image_size": data.image_size}
    train = predict_features(model, data.train, device, **size)
    val = predict_features(model, data.val, device, **size)
    generator = fu.seed_everything(seed)
    views = [
        features_of(model, fu.training_batches(data, device, generator), device) for _ in range(8)
    ]
    mean, std = train[0].mean(dim=0), train[0].std(dim=0) + 1e-6
    standard = [((x - mean) / std, y) for x, y in (train, val)]
    cases = {f"rate {rate:g}": ((train, val), rate) for rate in (1e-3, 3e-3, 1e-2, 3e-2)}
    cases |= {f"standardised, rate {rate:g}": (standard, rate) for rate in (1e-3, 1e-2)}
    for count in (1, 3, 8):
        seen = tuple(torch.cat(parts) for parts in zip(*views[:count], strict=True))
        cases[f"{count} augmented view{'s' * (count > 1)}"] = ((seen, val), 1e-3)
    found, usual = {}, copy.deepcopy(models.head_of(model)).cpu()
    for name, (splits, rate) in cases.items():
        start = time.perf_counter()
        history = train_head(copy.deepcopy(usual), splits, rate=rate, epochs=20, seed=seed)
        val_accuracy = history[-1]["val_accuracy"]
        found[name] = {"val": val_accuracy, "seconds": time.perf_counter() - start}
    start = time.perf_counter()
    fit_head(model, data, device)
    fitted = {"seconds": time.perf_counter() - start}  # with its two passes through the backbone
    return found | {"logistic regression": fitted | {"val": accuracy(model, data.val, device)}}


def mirrored(split: Split) -> Split:
    return replace(split, images=np.ascontiguousarray(split.images[..., ::-1]))


def accuracy(model, split: Split, device: Device, *, and_with: Split | None = None) -> float:
    """Top-1 on a split; `and_with`: of the mean of the logits on both."""
    logits, labels = predict_logits(model, split, device)
    if and_with is not None:
        logits = logits + predict_logits(model, and_with, device)[0]
    return float((logits.argmax(dim=1) == labels).float().mean())
