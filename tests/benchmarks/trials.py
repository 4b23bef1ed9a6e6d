"""One trial of the study: Phase 1, Phase 2, a fitted head, each with one change at a time."""

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
from flowers_utils.evaluation import predict_logits
from flowers_utils.transforms import augment_batch, denormalise, normalise, shrink
from tests.benchmarks.photos import files_of

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
    "hue": config.AUGMENTATION["hue"],
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
    **{f"{count} epochs": {"epochs": count} for count in (8, 20, 30)},
    **{f"crops from {part} %": {"smallest_crop": part / 100} for part in (35, 60, 80)},
    "aspect kept": {"aspect": True},
    "aspect kept, crops from 35 %": {"aspect": True, "smallest_crop": 0.35},
    "no hue": {"hue": 0.0},
    "label smoothing": {"change": "smoothing"},
    "MixUp": {"change": "mixup"},
    "TrivialAugment": {"change": "trivial"},
    "RandAugment": {"change": "rand"},
    "weights averaged": {"ema": 0.98},
    **{f"trained at {size}": {"size": size} for size in (128, 160, 192, 256)},
    **{f"used at {size}": {"use": size} for size in (256, 288)},
}


def read_splits(data: str, *, aspect: bool) -> dict[str, Split]:
    """train, val and test at LARGEST pixels: squashed, or the middle square of each photograph."""
    shape = LARGEST if aspect else (LARGEST, LARGEST)
    steps, splits = v2.Compose([v2.Resize(shape), v2.CenterCrop(LARGEST)]), {}
    for name, (files, labels) in files_of(data).items():
        title = f"study-{Path(data).name}-{name}-{LARGEST}-{'aspect' if aspect else 'squashed'}.npy"
        path = Path(config.PATHS["cache"], title)
        if not path.is_file():
            photos = [np.asarray(steps(open_photo(file))).transpose(2, 0, 1) for file in files]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.stack(photos))
        splits[name] = Split(name, np.load(path, mmap_mode="r"), torch.tensor(labels))
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


def run_trial(name: str, fold: int, data: str, device: Device, **sizes: int) -> dict[str, Any]:
    """One change, trained on four fifths of train and val, measured on the rest; `fold` is the seed.

    The weights of the last epoch count, not those of the best: so a fold chooses nothing.
    """
    s = {**BASE, **TRIALS[name], **sizes}
    learn, measure = fold_of(read_splits(data, aspect=s["aspect"]), fold)
    began, room = time.perf_counter(), round(s["size"] * 256 / 224)  # the lesson's, at every size
    names, val = tuple(map(str, range(int(learn.labels.max()) + 1))), resized(measure, s["use"])
    train = FlowerData("folder", "study", names, resized(learn, room), val, val, room, s["size"])
    use = replace(train, train=resized(learn, s["use"]), resize_size=s["use"], image_size=s["use"])
    weights = models.imagenet_weights(config.BACKBONE)
    model = models.build_model(num_classes=len(names), weights=weights, seed=fold)
    model, generator = device.place(model), fu.seed_everything(fold)
    models.freeze_backbone(model)
    if s["start"] == "fitted":
        training.fit_head(model, use, device, c=s["head_c"])
    else:
        first = {**s, "epochs": s["head_epochs"], "head_lr": s["first_lr"], "ema": 0}
        _fine_tune(model, train, device, generator, first)
    model.requires_grad_(True)
    if s["batchnorm"] == "frozen":
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)
    model = _fine_tune(model, train, device, generator, s)
    row = {"accuracy, trained head": top1(model, val, device)}
    if s["fit_last"]:
        training.fit_head(model, use, device, c=s["head_c"])
    row |= {"seconds": time.perf_counter() - began, "accuracy": top1(model, val, device)}
    return row | {"accuracy, mirrored twin": top1(model, val, device, twin=True)}


def _fine_tune(model, data: FlowerData, device: Device, generator, s: dict[str, Any]):
    """Train what is not frozen for `epochs`; returns the network, or its averaged weights."""
    rates = {"backbone_lr": s["backbone_lr"], "head_lr": s["head_lr"]}
    optimizer = training.make_optimizer(models.parameter_groups(model, **rates), device)
    scheduler = _schedule(optimizer, s)
    decay = get_ema_multi_avg_fn(s["ema"])
    mean = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if s["ema"] else None
    config.AUGMENTATION["hue"] = s["hue"]
    crops = _crops(s["smallest_crop"] or 1.0, data.image_size)
    size, smoothing = config.TRAINING_CONFIG["batch_size"], 0.1 * (s["change"] == "smoothing")
    for _ in range(s["epochs"]):
        models.train_mode(model)
        shuffled = batches(data.train, device, batch_size=size, shuffle=True, generator=generator)
        for photos, labels in shuffled:
            if s["smallest_crop"]:
                images = torch.stack([crops(photo) for photo in photos])
            else:
                images = augment_batch(photos, generator, crop=data.image_size)
            images, labels = _changed(images, labels, s["change"], data.num_classes)
            optimizer.zero_grad()
            with device.autocast():
                logits = model(device.place_batch(images))
            F.cross_entropy(logits.float(), labels, label_smoothing=smoothing).backward()
            optimizer.step()
            if mean:
                mean.update_parameters(model)
        scheduler.step()
    return mean.module if mean else model


def _crops(smallest: float, size: int) -> v2.Compose:
    """The lesson's augmentation of one photograph, but with crops from `smallest` of its area up."""
    a = config.AUGMENTATION
    return v2.Compose(
        [
            v2.RandomRotation(a["rotation"], v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(size, (smallest, 1.0), ratio=(1.0, 1.0)),
            v2.RandomHorizontalFlip(a["flip"]),
            v2.ColorJitter(a["brightness"], a["contrast"], a["saturation"], a["hue"]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(**config.NORMALIZATION),
        ]
    )


def _schedule(optimizer, s: dict[str, Any]) -> LRScheduler:
    if s["schedule"] == "one cycle":
        phase = fu.Phase(2, s["epochs"], s["head_lr"], s["backbone_lr"], one_cycle=True)
        return training.make_scheduler(optimizer, phase)
    if s["schedule"] == "cosine":
        return CosineAnnealingLR(optimizer, s["epochs"])
    step = {"StepLR at 2/3": max(1, 2 * s["epochs"] // 3), "constant": 10**9}[s["schedule"]]
    return StepLR(optimizer, step, gamma=0.1)


def _changed(images, labels, change: str | None, classes: int):
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
        mirrored = replace(split, images=np.ascontiguousarray(split.images[..., ::-1]))
        logits = logits + predict_logits(model, mirrored, device)[0]
    return float((logits.argmax(dim=1) == labels).float().mean())
