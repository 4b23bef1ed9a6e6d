"""Training: an epoch, an evaluation, a whole phase (which storage/resume.py saves and restores)."""

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowers_utils import models, recipes
from flowers_utils.config_check import check_config, check_numbers
from flowers_utils.data import FlowerData
from flowers_utils.data_check import check_data, check_head
from flowers_utils.device import Device, seed_everything
from flowers_utils.errors import FlowersError, Stopped, out_of_memory_explained
from flowers_utils.progress import Progress, say
from flowers_utils.recipes import Phase
from flowers_utils.storage import resume
from flowers_utils.storage.checkpoints import make_checkpoint
from flowers_utils.storage.results import PhaseResult, best_row
from flowers_utils.transforms import Batches, evaluation_batches


@dataclass(frozen=True)
class EpochResult:
    """Means over the images of one pass: loss in nats, top-1 accuracy as a fraction 0..1.

    On train they are taken from augmented images, while weights change: so it can be worse than val.
    """

    loss: float
    top1: float


def train_one_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    device: Device,
    scaler: torch.amp.GradScaler | None = None,
) -> EpochResult:
    """One pass over `batches`, with one step of the optimizer for each.

    `scaler` scales the loss in float16 and adapts from epoch to epoch; elsewhere it does nothing.
    Raises FlowersError if the loss is no longer a finite number.
    """
    scaler = scaler or device.scaler()
    models.train_mode(model)  # model.train(), but what is frozen stays in eval mode
    loss_sum = right = count = 0  # tensors soon; to read one in every step would wait for a GPU
    for images, labels in batches:
        optimizer.zero_grad()
        with device.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss_sum += loss.detach() * len(labels)  # so a smaller last batch counts less
        right += (logits.argmax(dim=1) == labels).sum()
        count += len(labels)
    return _means(loss_sum, right, count)


def evaluate(model: nn.Module, batches: Batches, device: Device) -> EpochResult:
    """The same measures without learning: eval mode, no gradients."""
    loss_sum = right = count = 0
    with models.eval_mode(model), torch.no_grad():
        for images, labels in batches:
            with device.autocast():
                logits = model(images)
            loss_sum += F.cross_entropy(logits.float(), labels) * len(labels)
            right += (logits.argmax(dim=1) == labels).sum()
            count += len(labels)
    return _means(loss_sum, right, count)


def _means(loss_sum: Tensor, right: Tensor, count: int) -> EpochResult:
    loss = float(loss_sum) / count
    if not math.isfinite(loss):
        raise FlowersError(
            "The loss is no longer a finite number: training has diverged. Try a learning rate ten "
            "times smaller, or choose_device(fast=False)."
        )
    return EpochResult(loss, int(right) / count)


@out_of_memory_explained()
def train_phase(
    model: nn.Module, data: FlowerData, device: Device, phase: Phase, folder: str | Path = "models"
) -> PhaseResult:
    """Train a copy of `model` for one phase; the result's model is the one that was best on val.

    Writes `<network>_<phase's name>_best.pth` and `..._resume.pth` into `folder`: a phase that was
    stopped goes on after its last saved epoch, a finished one is loaded, and files of another run
    are renamed. Raises FlowersError for what cannot work, before the first step; Stopped for a stop.
    """
    check_config()
    check_numbers(phase.name, phase.numbers())
    check_data(data)
    check_head(model, data.num_classes)
    identity = resume.identity(model, data, device, phase.numbers())
    files = resume.PhaseFiles(Path(folder), f"{model.architecture}_{phase.stem}", identity)
    training = PhaseInProgress(model, data, device, phase)
    note = files.restore(training)
    if not training.history:  # make it anew: a damaged state may have been loaded in part
        training = PhaseInProgress(model, data, device, phase)
    say(note)
    training.run(files)
    model = training.model.eval()
    model.load_state_dict(training.best_weights, strict=False)  # of Phase 1 the head's alone
    note = f"{note} {files.problem}".strip()
    return PhaseResult(phase.name, phase.number, model, files.checkpoint, training.history, note)


class PhaseInProgress:
    """A phase between two epochs. It trains a copy: the original can start another phase."""

    def __init__(self, model: nn.Module, data: FlowerData, device: Device, phase: Phase):
        self.model = device.place(copy.deepcopy(model))
        self.data, self.device, self.phase = data, device, phase
        self.frozen = phase.backbone_lr is None
        if self.frozen:
            models.freeze_backbone(self.model)
        else:
            models.unfreeze(self.model)
        if phase.freeze_batchnorm:
            recipes.freeze_batchnorm(self.model)
        rates = {"backbone_lr": phase.backbone_lr or 0.0, "head_lr": phase.head_lr}
        groups = models.parameter_groups(self.model, **rates)  # none for what is frozen
        self.optimizer = models.make_optimizer(groups, device)
        self.scheduler = recipes.make_scheduler(self.optimizer, phase, len(data.train))
        self.scaler = device.scaler()
        self.history: list[dict[str, Any]] = []  # a row for each finished epoch
        self.best_weights: dict[str, Tensor] = {}  # what this phase changes, as in the best epoch
        self.val_features: list[tuple[Tensor, Tensor]] = []  # of a frozen backbone

    def run(self, files: resume.PhaseFiles) -> None:
        """Train the epochs that are left, and save as often as is cheap."""
        epochs, done = self.phase.epochs, len(self.history)
        counted = len(self.data.train) + (0 if self.frozen else len(self.data.val))
        if done == epochs:
            return files.save(self, self.checkpoint())  # again, in case the checkpoint is gone
        with Progress(epochs * counted, self.phase.name, unit="image") as bar:
            bar.skip(done * counted)
            for epoch in range(done + 1, epochs + 1):
                where = f"{self.phase.name}, epoch {epoch}:"
                try:
                    self.run_epoch(epoch, bar)
                    if files.saving_is_due() or epoch == epochs:
                        files.save(self, self.checkpoint())
                except KeyboardInterrupt as stop:
                    told = f"{where} stopped. {files.saved()} Run this cell again to go on."
                    raise Stopped(told) from stop
                except FlowersError as error:
                    raise FlowersError(f"{where} {error} {files.saved()}") from error

    def run_epoch(self, epoch: int, bar: Progress) -> None:
        """Train on every training photograph once, evaluate on val, remember the best weights."""
        start = time.perf_counter()
        # A seed for each epoch: a phase that goes on after a stop need not know what was drawn.
        generator = seed_everything(1_000_003 * self.phase.seed + 1009 * self.phase.number + epoch)
        groups = self.optimizer.param_groups if epoch <= self.phase.trained_epochs else []
        rates = {group["name"]: group["lr"] for group in groups}
        train = self.learn(epoch, generator, bar)
        val = self.validate(bar)
        row = {"phase": self.phase.number, "epoch": epoch, "learning_rates": rates}
        row |= {"train_loss": train.loss, "train_accuracy": train.top1, "val_loss": val.loss}
        row |= {"val_accuracy": val.top1, "seconds": time.perf_counter() - start}
        self.history.append(row)
        best = best_row(self.history)
        if best["epoch"] == epoch:
            self.best_weights = {key: value.clone() for key, value in self.learned().items()}
        bar.note(
            f"epoch {epoch}/{self.phase.epochs}, train loss {train.loss:.3f}, val {val.top1:.1%}, "
            f"best val {best['val_accuracy']:.1%} (epoch {best['epoch']})"
        )
        bar.line(bar.status())

    def learn(self, epoch: int, generator: torch.Generator, bar: Progress) -> EpochResult:
        """One epoch on augmented photographs, or the head fitted to the photographs as they are."""
        if epoch > self.phase.trained_epochs:
            size = {"image_size": self.data.image_size}
            pictures = bar.follow(evaluation_batches(self.data.train, self.device, **size))
            features = recipes.fit_head(self.model, pictures, self.device)
            return evaluate(models.classifier_of(self.model), [features], self.device)
        batches = recipes.epoch_batches(self.phase, epoch, self.data, self.device, generator)
        batches = recipes.stepping(bar.follow(batches), self.scheduler, self.phase)
        return train_one_epoch(self.model, batches, self.optimizer, self.device, self.scaler)

    def validate(self, bar: Progress) -> EpochResult:
        """Loss and accuracy on val. A frozen backbone's features of it are computed only once."""
        pictures = evaluation_batches(self.data.val, self.device)
        if not self.frozen:
            return evaluate(self.model, bar.follow(pictures), self.device)
        if not self.val_features:
            with models.eval_mode(self.model), torch.no_grad(), self.device.autocast():
                for images, labels in pictures:
                    self.val_features.append((models.backbone_features(self.model, images), labels))
        return evaluate(models.classifier_of(self.model), self.val_features, self.device)

    def learned(self) -> dict[str, Tensor]:
        """The tensors that this phase changes: in Phase 1 those of the head alone."""
        state = self.model.state_dict()
        learning = [name for name, p in self.model.named_parameters() if p.requires_grad]
        return {key: state[key] for key in learning} if self.frozen else state

    def checkpoint(self) -> dict[str, Any]:
        """The checkpoint of the best epoch."""
        row = best_row(self.history)
        metrics = {key: row[key] for key in ("val_accuracy", "val_loss")}
        content = {"epoch": row["epoch"], "metrics": metrics, "phase": self.phase.numbers()}
        return make_checkpoint(self.model, self.data, weights=self.best_weights, **content)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on after the last finished epoch."""
        return {
            "history": self.history,
            "model": self.learned(),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken; raises ValueError if it is of another phase."""
        if not self.learned().keys() == state["model"].keys() == state["best"].keys():
            raise ValueError("these are the tensors of another phase")
        self.optimizer.load_state_dict(state["optimizer"])
        resume.match_layout(self.optimizer)  # torch gives its averages the layout of the file
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.model.load_state_dict(state["model"], strict=False)
        self.history, self.best_weights = state["history"], state["best"]
