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
from flowers_utils.fitted_head import HEAD_C, fit_head
from flowers_utils.transforms import MEAN, STD, augment_batch
from tests.benchmarks.photos import files_of
from tests.benchmarks.textbook import train_transform

FOLDS, LARGEST = 5, 320  # pixels: every trial is cut from photographs of this size
BASE: dict[str, Any] = {
    "size": 224,  # pixels in training
    "use": 224,  # pixels in use; the head is fitted at this size too
    "aspect": False,  # True: the middle square of the photograph; False: all of it, squashed
    "start": "trained",  # or "fitted": the head before Phase 2
    "epochs": 12,  # of Phase 2; a Phase 1 has 6 at 3e-3
    "backbone_lr": 3e-4,
    "head_lr": 1e-3,
    "schedule": "one cycle",  # or "cosine", "StepLR at 2/3"
    "batchnorm": "learns",  # or "frozen"
    "fit_last": True,
    "head_c": HEAD_C,
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
    "cosine": {"schedule": "cosine"},
    "StepLR at 2/3": {"schedule": "StepLR at 2/3"},
    "BatchNorm frozen": {"batchnorm": "frozen"},
    "head fitted first": {"start": "fitted"},
    "head not fitted last": {"fit_last": False},
    "penalty 3 times": {"head_c": HEAD_C / 3},
    "penalty a third": {"head_c": HEAD_C * 3},
    **{f"{count} epochs": {"epochs": count} for count in (8, 20, 30)},
    **{f"crops from {part} %": {"smallest_crop": part / 100} for part in (35, 60, 80)},
    "aspect kept": {"aspect": True},
    "no hue": {"hue": 0.0},
    "label smoothing": {"change": "smoothing"},
    "MixUp": {"change": "mixup"},
    "TrivialAugment": {"change": "trivial"},
    "RandAugment": {"change": "rand"},
    "weights averaged": {"ema": 0.98},
    **{f"trained at {size}": {"size": size} for size in (128, 160, 192, 256)},
    **{f"used at {size}": {"use": size} for size in (256, 288)},
}


def start(data: FlowerData, seed: int, *, pretrained: bool = True) -> torch.nn.Module:
    """A ResNet18 with a new head; with ImageNet's weights or random ones."""
    weights = models.imagenet_weights(config.BACKBONE) if pretrained else None
    return models.build_model(num_classes=data.num_classes, weights=weights, seed=seed)


def train_and_val(data: str, *, aspect: bool) -> Split:
    """Both splits together at LARGEST pixels: squashed, or the middle square of each photograph."""
    found = files_of(data)
    files, labels = (found["train"][i] + found["val"][i] for i in (0, 1))
    shape = "aspect" if aspect else "squashed"
    path = Path(config.PATHS["cache"], f"study-{Path(data).name}-{LARGEST}-{shape}.npy")
    if not path.is_file():
        resize = v2.Resize(LARGEST if aspect else (LARGEST, LARGEST))
        steps = v2.Compose([resize, v2.CenterCrop(LARGEST)])
        photos = [np.asarray(steps(open_photo(file))).transpose(2, 0, 1) for file in files]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack(photos))
    return Split("train", np.load(path, mmap_mode="r"), torch.tensor(labels))


def resized(split: Split, size: int) -> Split:
    """The same photographs at `size` pixels, uint8."""
    parts = torch.from_numpy(split.images).split(64)  # as float32 all would not fit in memory
    images = [v2.functional.resize(part.float(), [size, size]).round() for part in parts]
    return replace(split, images=torch.cat(images).to(torch.uint8).numpy())


def run_trial(name: str, fold: int, data: str, device: Device, size: int) -> dict[str, Any]:
    """One change, trained on four fifths of train and val, measured on the rest; `fold` is the seed.

    The weights of the last epoch count, not those of the best: so a fold chooses nothing.
    """
    s = {**BASE, "size": size, "use": size, **TRIALS[name]}
    both = train_and_val(data, aspect=s["aspect"])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(both.labels, both.labels)
    learn, measure = (both.subset(part) for part in list(folds)[fold])
    began, room = time.perf_counter(), round(s["size"] * 256 / 224)  # the lesson's, at every size
    names, val = tuple(map(str, range(int(learn.labels.max()) + 1))), resized(measure, s["use"])
    train = FlowerData("folder", "study", names, resized(learn, room), val, val, room, s["size"])
    use = replace(train, train=learn, image_size=s["use"])
    model, generator = device.place(start(train, fold)), fu.seed_everything(fold)
    models.freeze_backbone(model)
    if s["start"] == "fitted":
        fit_head(model, use, device, c=s["head_c"])
    else:
        phase_1 = {**s, "epochs": 6, "head_lr": 3e-3, "ema": 0}
        _fine_tune(model, train, device, generator, phase_1)
    model.requires_grad_(True)
    if s["batchnorm"] == "frozen":
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)
    model = _fine_tune(model, train, device, generator, s)
    if s["fit_last"]:
        fit_head(model, use, device, c=s["head_c"])
    row = {"seconds": time.perf_counter() - began, "accuracy": top1(model, val, device)}
    return row | {"accuracy, mirrored twin": top1(model, val, device, twin=True)}


def _fine_tune(model, data: FlowerData, device: Device, generator, s: dict[str, Any]):
    """Train what is not frozen for `epochs`; returns the network, or its averaged weights."""
    rates = {"backbone_lr": s["backbone_lr"], "head_lr": s["head_lr"]}
    optimizer = training.make_optimizer(models.parameter_groups(model, **rates), device)
    scheduler = _schedule(optimizer, s)
    decay = get_ema_multi_avg_fn(s["ema"])
    mean = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if s["ema"] else None
    size, smoothing = config.TRAINING_CONFIG["batch_size"], 0.1 * (s["change"] == "smoothing")
    for _ in range(s["epochs"]):
        models.train_mode(model)
        shuffled = batches(data.train, device, batch_size=size, generator=generator)
        for photos, labels in shuffled:
            images, labels = _augmented(photos, labels, generator, data, s)
            optimizer.zero_grad()
            with device.autocast():
                logits = model(device.place_batch(images))
            F.cross_entropy(logits.float(), labels, label_smoothing=smoothing).backward()
            optimizer.step()
            if mean:
                mean.update_parameters(model)
        scheduler.step()
    return mean.module if mean else model


def _augmented(photos, labels, generator, data: FlowerData, s: dict[str, Any]):
    """A batch as the lesson augments it, but with the trial's crops, hue and `change`."""
    config.AUGMENTATION["hue"] = s["hue"]
    if s["smallest_crop"]:
        crops = _crops(s["smallest_crop"], data.crop_size)
        images = torch.stack([crops(photo) for photo in photos])
    else:
        images = augment_batch(photos, generator, crop=data.crop_size)
    if s["change"] == "mixup":
        return v2.MixUp(alpha=0.2, num_classes=data.num_classes)(images, labels)
    if s["change"] in ("trivial", "rand"):
        strong = v2.TrivialAugmentWide() if s["change"] == "trivial" else v2.RandAugment()
        images = (images.cpu() * STD + MEAN) * 255
        pixels = images.round().clamp(0, 255).to(torch.uint8)
        pictures = torch.stack([strong(image) for image in pixels])
        images = v2.functional.normalize(pictures.float() / 255, **config.NORMALIZATION)
    return images, labels


def _crops(smallest: float, size: int) -> v2.Compose:
    """The lesson's augmentation of one photograph, but with crops from `smallest` of its area up."""
    crop = v2.RandomResizedCrop(size, (smallest, 1.0), ratio=(1.0, 1.0))
    lesson = train_transform(size).transforms
    return v2.Compose([crop if isinstance(t, v2.RandomCrop) else t for t in lesson[1:]])


def _schedule(optimizer, s: dict[str, Any]) -> LRScheduler:
    if s["schedule"] == "cosine":
        return CosineAnnealingLR(optimizer, s["epochs"])
    if s["schedule"] == "StepLR at 2/3":
        return StepLR(optimizer, 2 * s["epochs"] // 3, gamma=0.1)
    phase = fu.Phase(2, s["epochs"], s["head_lr"], s["backbone_lr"], one_cycle=True)
    return training.make_scheduler(optimizer, phase)


def top1(model, split: Split, device: Device, *, twin: bool = False) -> float:
    """Accuracy on a split; `twin`: of the mean of the logits of each picture and its mirror image."""
    logits, labels = predict_logits(model, split, device)
    if twin:
        mirrored = replace(split, images=np.ascontiguousarray(split.images[..., ::-1]))
        logits = logits + predict_logits(model, mirrored, device)[0]
    return float((logits.argmax(dim=1) == labels).float().mean())
