"""One trial of the study: Phase 1, Phase 2, a fitted head, each with one change at a time."""

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

import flowers_utils as fu
import transfer_learning_config as config
from flowers_utils import models, training
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.datasets.photos import open_photo
from flowers_utils.device import Device
from flowers_utils.evaluation import compute_metrics, fit_temperature, predict_logits
from flowers_utils.transforms import augment_batch, denormalise, normalise, shrink

FOLDS, LARGEST = 5, 320  # pixels: every trial is cut from photographs of this size
BASE: dict[str, Any] = {
    "size": 224,  # pixels in training
    "use": 224,  # pixels in use; the head is fitted at this size too
    "aspect": False,  # True: the middle square of the photograph; False: all of it, squashed
    "start": "trained",  # or "fitted": the head before Phase 2
    "head_epochs": 6,
    "first_lr": 3e-3,  # of Phase 1
    "epochs": 12,
    "backbone_lr": 3e-4,
    "head_lr": 1e-3,
    "schedule": "one cycle",  # or "cosine", "StepLR at 2/3", "constant"
    "batchnorm": "learns",  # or "frozen"
    "fit_last": True,
    "head_c": training.HEAD_C,
    "smallest_crop": None,
    "hue": None,
    "change": None,  # "smoothing", "mixup", "trivial", "rand"
    "ema": 0.0,  # decay of a running mean of the weights
}
TRIALS: dict[str, dict[str, Any]] = {
    "base": {},
    "backbone 1e-4": {"backbone_lr": 1e-4},
    "backbone 1e-3": {"backbone_lr": 1e-3},
    "head 3e-4": {"head_lr": 3e-4},
    "head 3e-3": {"head_lr": 3e-3},
    "constant rate": {"schedule": "constant"},
    "cosine": {"schedule": "cosine"},
    "StepLR at 2/3": {"schedule": "StepLR at 2/3"},
    "BatchNorm frozen": {"batchnorm": "frozen"},
    "head fitted first": {"start": "fitted"},
    "head not fitted last": {"fit_last": False},
    "penalty 3 times": {"head_c": training.HEAD_C / 3},
    "penalty a third": {"head_c": training.HEAD_C * 3},
    "8 epochs": {"epochs": 8},
    "20 epochs": {"epochs": 20},
    "30 epochs": {"epochs": 30},
    "crops from 35 %": {"smallest_crop": 0.35},
    "crops from 60 %": {"smallest_crop": 0.6},
    "crops from 80 %": {"smallest_crop": 0.8},
    "aspect kept": {"aspect": True},
    "aspect kept, crops from 35 %": {"aspect": True, "smallest_crop": 0.35},
    "no hue": {"hue": 0.0},
    "label smoothing": {"change": "smoothing"},
    "MixUp": {"change": "mixup"},
    "TrivialAugment": {"change": "trivial"},
    "RandAugment": {"change": "rand"},
    "weights averaged": {"ema": 0.98},
    "trained at 128": {"size": 128},
    "trained at 160": {"size": 160},
    "trained at 192": {"size": 192},
    "trained at 256": {"size": 256},
    "used at 256": {"use": 256},
    "used at 288": {"use": 288},
}


def read_folder(folder: Path, cache: Path, *, aspect: bool) -> dict[str, Split]:
    """train, val and test of a folder at LARGEST pixels: squashed, or their middle square."""
    splits = {}
    for name in ("train", "val", "test"):
        files = sorted((folder / name).glob("*/*.jpg"))
        classes = sorted({file.parent.name for file in files})
        labels = torch.tensor([classes.index(file.parent.name) for file in files])
        path = cache / f"study-{name}-{LARGEST}-{'aspect' if aspect else 'squashed'}.npy"
        if not path.is_file():
            steps = [v2.Resize(LARGEST if aspect else (LARGEST, LARGEST)), v2.CenterCrop(LARGEST)]
            photos = (np.asarray(v2.Compose(steps)(open_photo(file))) for file in files)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.stack([photo.transpose(2, 0, 1) for photo in photos]))
        splits[name] = Split(name, np.load(path, mmap_mode="r"), labels)
    return splits


def fold_of(splits: dict[str, Split], fold: int) -> tuple[Split, Split]:
    """Train and val together, then cut anew: (learn from four fifths, measure on the rest)."""
    images = np.concatenate([splits[name].images for name in ("train", "val")])
    labels = torch.cat([splits[name].labels for name in ("train", "val")])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    learn, measure = list(folds)[fold]
    both = Split("train", images, labels)
    return both.subset(learn), replace(both.subset(measure), name="val")


def resized(split: Split, size: int) -> Split:
    """The same photographs at `size` pixels, uint8."""
    parts = [
        shrink(torch.from_numpy(np.array(split.images[i : i + 64])), size).round().to(torch.uint8)
        for i in range(0, len(split), 64)
    ]
    return replace(split, images=torch.cat(parts).numpy())


def trial(
    learn: Split, measured: dict[str, Split], settings: dict[str, Any], seed: int, device: Device
) -> tuple[dict[str, Any], torch.nn.Module]:
    """Train on `learn`; a row with the results on each of `measured`, and the network.

    The weights of the last epoch count, not those of the best: so a fold chooses nothing.
    """
    s, began = {**BASE, **settings}, time.perf_counter()
    room = round(s["size"] * 256 / 224)  # the lesson's, at every size
    train, use = resized(learn, room), resized(learn, s["use"])
    names = tuple(str(label) for label in range(int(learn.labels.max()) + 1))
    sizes = {"resize_size": room, "image_size": s["size"]}
    data = FlowerData("folder", "study", names, train, use, use, **sizes)
    weights = models.imagenet_weights(config.BACKBONE)
    model = models.build_model(num_classes=len(names), weights=weights, seed=seed)
    model, generator = device.place(model), fu.seed_everything(seed)
    at_use = replace(data, train=use, resize_size=s["use"], image_size=s["use"])
    models.freeze_backbone(model)
    if s["start"] == "fitted":
        training.fit_head(model, at_use, device, c=s["head_c"])
    else:
        _fine_tune(model, data, device, generator, {**s, "epochs": s["head_epochs"], "ema": 0})
    models.unfreeze(model)
    if s["batchnorm"] == "frozen":
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)
    model = _fine_tune(model, data, device, generator, {**s, "first_lr": s["head_lr"]})
    row: dict[str, Any] = {"seconds": time.perf_counter() - began}
    measured = {name: resized(split, s["use"]) for name, split in measured.items()}
    row |= {f"{name}, trained head": top1(model, x, device) for name, x in measured.items()}
    if s["fit_last"]:
        training.fit_head(model, at_use, device, c=s["head_c"])
    row["seconds"] = time.perf_counter() - began
    for name, split in measured.items():
        row[name] = top1(model, split, device)
        row[f"{name}, mirrored twin"] = top1(model, split, device, twin=True)
    return row, model


def _fine_tune(model, data: FlowerData, device: Device, generator, s: dict[str, Any]):
    """Train what is not frozen for `epochs`; returns the network, or its averaged weights."""
    rates = {"backbone_lr": s["backbone_lr"], "head_lr": s["first_lr"]}
    optimizer = training.make_optimizer(models.parameter_groups(model, **rates), device)
    scheduler = _schedule(optimizer, s)
    decay = get_ema_multi_avg_fn(s["ema"])
    mean = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if s["ema"] else None
    for _ in range(s["epochs"]):
        models.train_mode(model)
        size = config.TRAINING_CONFIG["batch_size"]
        shuffled = {"batch_size": size, "shuffle": True, "generator": generator}
        for photos, labels in batches(data.train, device, **shuffled):
            views = {"smallest_crop": s["smallest_crop"], "hue": s["hue"]}
            images = augment_batch(photos, generator, crop=data.image_size, **views)
            images, labels = _changed(images, labels, s["change"], data.num_classes)
            optimizer.zero_grad()
            with device.autocast():
                logits = model(device.place_batch(images))
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            if mean:
                mean.update_parameters(model)
        scheduler.step()
    return mean.module if mean else model


def _schedule(optimizer, s: dict[str, Any]) -> LRScheduler:
    if s["schedule"] == "one cycle":
        phase = fu.Phase(2, s["epochs"], s["head_lr"], s["backbone_lr"], one_cycle=True)
        return training.make_scheduler(optimizer, phase)
    if s["schedule"] == "cosine":
        return CosineAnnealingLR(optimizer, s["epochs"])
    step = {"StepLR at 2/3": max(1, 2 * s["epochs"] // 3), "constant": 10**9}[s["schedule"]]
    return StepLR(optimizer, step, gamma=0.1)


def _changed(images, labels, change: str | None, classes: int):
    if change == "smoothing":
        return images, F.one_hot(labels, classes) * 0.9 + 0.1 / classes
    if change == "mixup":
        return v2.MixUp(alpha=0.2, num_classes=classes)(images, labels)
    if change in ("trivial", "rand"):
        strong = v2.TrivialAugmentWide() if change == "trivial" else v2.RandAugment()
        pictures = torch.stack([strong(image) for image in denormalise(images)])
        return normalise(pictures.float() / 255), labels
    return images, labels


def top1(model, split: Split, device: Device, *, twin: bool = False) -> float:
    """Accuracy on a split; `twin`: of the mean of the logits of each picture and its mirror image."""
    logits, labels = predict_logits(model, split, device)
    if twin:
        logits = logits + predict_logits(model, mirrored(split), device)[0]
    return float((logits.argmax(dim=1) == labels).float().mean())


def mirrored(split: Split) -> Split:
    return replace(split, images=np.ascontiguousarray(split.images[..., ::-1]))


def calibration(model, val: Split, test: Split, device: Device) -> dict[str, float]:
    """ECE on test before and after a temperature that is fitted on val."""
    model = copy.deepcopy(model)
    names = tuple(str(i) for i in range(models.head_of(model).out_features))
    temperature, _ = fit_temperature(*predict_logits(model, val, device))
    logits, labels = predict_logits(model, test, device)
    before, after = (
        compute_metrics(x, labels, class_names=names).ece for x in (logits, logits / temperature)
    )
    return {"temperature": temperature, "ece": before, "ece after temperature": after}
