"""Training: a phase from its first line to its last, then the epoch and the evaluation it is made of.

`storage/resume.py` writes a phase to the disk and reads it back, so that a stopped one can go on.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW, Optimizer, lr_scheduler

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.config_check import check_config, check_numbers
from flowers_utils.data import FlowerData, check_data
from flowers_utils.device import Device, keep_freed_memory, seed_everything
from flowers_utils.errors import out_of_memory_explained
from flowers_utils.evaluation import features_of
from flowers_utils.fitted_head import fit_final_head
from flowers_utils.phases import EpochResult, Phase, PhaseResult, best_row, epoch_result
from flowers_utils.progress import Progress
from flowers_utils.storage.checkpoints import make_checkpoint
from flowers_utils.storage.resume import PhaseFiles
from flowers_utils.transforms import Batches, evaluation_batches, training_batches


@out_of_memory_explained()
def train_phase(
    model: nn.Module, data: FlowerData, device: Device, phase: Phase, folder: Path | None = None
) -> PhaseResult:
    """Train a copy of `model` for one phase; the result's model is the one that was best on val.

    Phase 2 is given the model of Phase 1's result. Writes `<network>_<phase's name>_best.pth` into
    `folder` (None: the config's). A stopped phase goes on after its last saved epoch, a finished one
    is loaded, and files of other settings are kept under another name. Raises FlowersError for input
    that cannot work, before the first step; Stopped if you interrupt it.
    """
    check_config()
    check_numbers(phase.name, phase.numbers())
    check_data(data)
    models.check_head(model, data.num_classes)
    folder = Path(folder or config.PATHS["models"])
    files = PhaseFiles(folder, model, data, device, phase)
    model = device.place(copy.deepcopy(model))  # the original can start another phase
    model.requires_grad_(True)  # Phase 2 gets a model whose backbone Phase 1 froze
    if phase.backbone_lr is None:
        models.freeze_backbone(model)
    saved = files.finished()
    if saved is None:
        with files.explain_stops():
            saved = run_phase(model, data, device, phase, files)
    model.load_state_dict(saved["state_dict"])
    return PhaseResult(
        name=phase.name,
        number=phase.number,
        model=model.eval(),
        checkpoint=files.checkpoint,
        history=saved["history"],
        val_correct=torch.stack(saved["val_correct"]),
        val_logits=saved["val_logits"],
        note=f"{files.note} {files.problem}".strip(),
    )


def run_phase(
    model: nn.Module, data: FlowerData, device: Device, phase: Phase, files: PhaseFiles
) -> dict[str, Any]:
    """The loop over epochs; returns a checkpoint: weights of the best epoch, history of all."""
    rates = {"backbone_lr": phase.backbone_lr or 0.0, "head_lr": phase.head_lr}
    optimizer = make_optimizer(models.parameter_groups(model, **rates), device)
    scheduler, scaler = make_scheduler(optimizer, phase), device.scaler()
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    # After a stop, restore() loads what was saved into these four, and returns the checkpoint.
    checkpoint = files.restore(state) or {"history": [], "val_correct": []}
    history = checkpoint["history"]
    keep_freed_memory()
    validate = _validation(model, data, device, frozen=phase.backbone_lr is None)
    with Progress(phase.rows * len(data.train), phase.name, unit="image") as bar:
        bar.skip(len(history) * len(data.train))
        for epoch in range(len(history) + 1, phase.rows + 1):
            start = time.perf_counter()
            # A seed for each epoch: going on after a stop draws what it would have drawn.
            generator = seed_everything(1_000_003 * phase.seed + 1009 * phase.number + epoch)
            lrs = {group["name"]: group["lr"] for group in optimizer.param_groups}
            if epoch <= phase.epochs:
                batches = bar.follow(training_batches(data, device, generator))
                train = train_one_epoch(model, batches, optimizer, device, scaler)
                scheduler.step()  # here, once an epoch, the learning rates may change
                val = validate()
            else:  # the row after the last epoch, from the weights of the last epoch
                train, val = fit_final_head(model, data, device)
                lrs = {}
                bar.update(len(data.train))
            row = {"phase": phase.number, "epoch": epoch, "learning_rates": lrs}
            row |= {"train_loss": train.loss, "train_accuracy": train.top1}
            row |= {"val_loss": val.loss, "val_accuracy": val.top1}
            history.append(row | {"seconds": time.perf_counter() - start})
            bar.note(f"epoch {epoch}/{phase.rows}, train loss {train.loss:.3f}, val {val.top1:.1%}")
            checkpoint["val_correct"].append(val.correct.cpu())
            if best_row(history)["epoch"] == epoch:
                metrics = {"val_accuracy": val.top1, "val_loss": val.loss}
                checkpoint |= make_checkpoint(model, data, epoch=epoch, metrics=metrics)  # a copy
                checkpoint["val_logits"] = val.logits.cpu()
            files.save(state, checkpoint, finished=epoch == phase.rows)
    return checkpoint


def _validation(model: nn.Module, data: FlowerData, device: Device, *, frozen: bool) -> Callable:
    """A function that evaluates `model` on val as it is at that moment."""
    if not frozen:
        return lambda: evaluate(model, evaluation_batches(data.val, device), device)
    # The features of a frozen backbone never change, so they are computed only once.
    features, labels = features_of(model, evaluation_batches(data.val, device), device)
    batch = (features.to(device.torch_device), labels.to(device.torch_device))
    return lambda: evaluate(models.classifier_of(model), [batch], device)


def train_one_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: Optimizer,
    device: Device,
    scaler: torch.amp.GradScaler | None = None,
) -> EpochResult:
    """One pass over `batches`, with one step of the optimizer for each.

    `scaler` scales the loss in float16 and adapts in every step, so a phase hands the same one to
    each epoch; elsewhere it does nothing. Raises FlowersError if the loss is not finite.
    """
    scaler = scaler or device.scaler()
    models.train_mode(model)  # model.train(), but what is frozen stays in eval mode
    outputs, targets = [], []  # their values are read at the end: in each step a GPU would wait
    for images, labels in batches:
        optimizer.zero_grad()  # otherwise the gradients of all steps would add up
        with device.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)  # float32: 16 bits are too coarse for it
        scaler.scale(loss).backward()  # without scaling: loss.backward()
        scaler.step(optimizer)  # optimizer.step(), unless a scaled gradient has become infinite
        scaler.update()  # then the next scale is smaller
        outputs.append(logits.detach().float())
        targets.append(labels)
    return epoch_result(torch.cat(outputs), torch.cat(targets))


def evaluate(model: nn.Module, batches: Batches, device: Device) -> EpochResult:
    """The same measures without learning: no gradients, and the model is put into eval mode."""
    outputs, targets = [], []
    model.eval()  # no dropout, and BatchNorm uses its running statistics
    with torch.no_grad():
        for images, labels in batches:
            with device.autocast():
                logits = model(images)
            outputs.append(logits.float())
            targets.append(labels)
    return epoch_result(torch.cat(outputs), torch.cat(targets))


def make_optimizer(groups: list[dict], device: Device) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019) for parameter groups, with the config's weight decay."""
    fused = device.torch_device.type != "mps"  # one kernel for all parameters; too new on MPS
    return AdamW(groups, weight_decay=config.TRAINING_CONFIG["weight_decay"], fused=fused)


def make_scheduler(optimizer: Optimizer, phase: Phase) -> lr_scheduler.LRScheduler:
    """What changes the learning rates after each epoch: StepLR of the config, or one cycle."""
    recipe = config.TRAINING_CONFIG
    if not phase.one_cycle:
        return lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    return lr_scheduler.LambdaLR(optimizer, lambda epoch: one_cycle((epoch + 0.5) / phase.epochs))


def one_cycle(done: float) -> float:
    """Factor of the learning rates when the proportion `done` (0..1) of training is over (Smith 2018).

    It rises from 0.1 to 1 in the first fifth, then falls to 0 along half a cosine. The scheduler
    reads it in the middle of each epoch: 7 epochs have 0.42, 1.00, 0.91, 0.69, 0.42, 0.17, 0.02.
    """
    if done < 0.2:
        return 0.1 + 0.9 * done / 0.2
    return (1 + math.cos(math.pi * (done - 0.2) / 0.8)) / 2
