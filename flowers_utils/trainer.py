"""A phase of training in progress: network, optimizer, history, and the best weights on val."""

import contextlib
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData, batches, on_card
from flowers_utils.device import Device, seed_everything
from flowers_utils.errors import FlowersError
from flowers_utils.models import (
    BACKBONES,
    classifier_of,
    freeze_backbone,
    frozen_trunk,
    parameter_groups,
    unfreeze,
)
from flowers_utils.progress import Progress, clock
from flowers_utils.storage.checkpoints import load_checkpoint, make_checkpoint
from flowers_utils.storage.files import save_tensors
from flowers_utils.training import EpochResult, run_epoch
from flowers_utils.transforms import augment_batch, draw_augmentation, eval_batch

SAVING_SHARE = 0.05  # of the time at most; so where an epoch takes only seconds, not each is saved


@dataclass
class PhaseResult:
    """What a phase leaves behind; `model` holds the weights of the epoch that was best on val."""

    phase: int
    title: str
    model: nn.Module
    checkpoint: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_val_accuracy: float = -1.0
    note: str = ""  # what the student should know: resumed, already finished, disk full

    @property
    def seconds(self) -> float:
        """Time spent training, in seconds, over all sittings."""
        return sum(row["seconds"] for row in self.history)


class FrozenBackbone(nn.Module):
    """A trunk that never learns, then a classifier that does; the trunk always stays in eval mode.

    Takes normalised images `(B, 3, H, W)` and gives logits `(B, classes)`. The trunk runs without
    recording anything for gradients, which is why Phase 1 is fast.
    """

    def __init__(self, trunk: nn.Module, classifier: nn.Module):
        super().__init__()
        self.trunk, self.classifier = trunk, classifier

    def train(self, mode: bool = True) -> "FrozenBackbone":
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.trunk(images)
        return self.classifier(features)


class PhaseTrainer:
    """A phase in progress. It trains a copy of the model it is given, so that an interrupted phase
    can be started once more from the very same weights."""

    def __init__(self, model: nn.Module, data: FlowerData, device: Device, *, phase: int,
                 title: str, checkpoint: Path, backbone_lr: float | None, head_lr: float,
                 epochs: int, seed: int):  # fmt: skip
        self.model = device.place(copy.deepcopy(model))
        self.result = PhaseResult(phase, title, self.model, checkpoint)
        self.data, self.device, self.epochs, self.seed = data, device, epochs, seed
        self.train, self.val = on_card(data.train, device), on_card(data.val, device)
        self.frozen = backbone_lr is None
        freeze_backbone(self.model) if self.frozen else unfreeze(self.model)
        training = config.TRAINING_CONFIG
        groups = parameter_groups(self.model, backbone_lr=backbone_lr or 0.0, head_lr=head_lr)
        fused = device.torch_device.type != "mps"
        decay = training["weight_decay"]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=decay, fused=fused)
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, training["step_size"], training["gamma"]
        )
        self.scaler = device.scaler()
        self.best_state: dict[str, torch.Tensor] = {}
        self.best_saved = False  # whether the checkpoint on disk is the best one
        self.saving, self.saved_at = 0.0, 0.0  # seconds that the last save took; when it ended
        self.unsaved: dict[str, str] = {}  # file -> why its newest content is not on disk
        self.epoch = 0  # the last finished one

    def learned(self) -> dict[str, torch.Tensor]:
        """The tensors that this phase changes: in Phase 1 those of the head alone."""
        head = f"{BACKBONES[self.model.architecture].classifier}."
        tensors = self.model.state_dict()
        return {key: tensors[key] for key in tensors if not self.frozen or key.startswith(head)}

    def network(self) -> nn.Module:
        """What is trained: in Phase 1 the head behind a frozen trunk, in Phase 2 the whole model."""
        if not self.frozen:
            return self.model
        trunk = self.device.place(frozen_trunk(self.model))
        return FrozenBackbone(trunk, classifier_of(self.model))

    def validation(self, network: nn.Module) -> Any:
        """A function that evaluates on val; with a frozen backbone its features are computed once.

        That is exact: the backbone does not move and the evaluation transform draws nothing.
        """
        size, device = self.data.image_size, self.device
        val = batches(self.val, batch_size=self.batch_size, device=device)

        def prepare(images: torch.Tensor) -> torch.Tensor:
            return device.place_batch(eval_batch(images, size))

        if not self.frozen:
            return lambda after_step: run_epoch(
                network, val, device, prepare=prepare, after_step=after_step
            )
        with torch.no_grad(), device.autocast():
            features = [(network.trunk(prepare(images)), labels) for images, labels in val]
        return lambda after_step: run_epoch(network.classifier, features, device)

    @property
    def batch_size(self) -> int:
        return config.TRAINING_CONFIG["batch_size"]

    def train_epoch(self, network: nn.Module, epoch: int, after_step: Any) -> EpochResult:
        """Train on every training photograph once, freshly augmented."""
        generator = seed_everything(1_000_003 * self.seed + 1009 * self.result.phase + epoch)
        data, device = self.data, self.device
        loader = batches(self.train, batch_size=self.batch_size, device=device,
                         shuffle=True, generator=generator)  # fmt: skip

        def prepare(images: torch.Tensor) -> torch.Tensor:
            draws = draw_augmentation(
                len(images), generator, resize=data.resize_size, crop=data.image_size
            )
            return device.place_batch(augment_batch(images, draws, crop=data.image_size))

        return run_epoch(network, loader, device, prepare=prepare, optimizer=self.optimizer,
                         scaler=self.scaler, after_step=after_step)  # fmt: skip

    def run(self, save_state: Callable[["PhaseTrainer"], None]) -> None:
        """Train the epochs that are left; save the best weights and a state to go on from."""
        network = self.network()
        validate = self.validation(network)
        per_epoch = len(self.data.train) + (0 if self.frozen else len(self.data.val))
        with Progress(per_epoch * self.epochs, self.result.title, unit="image") as bar:
            bar.skip(per_epoch * self.epoch)
            for epoch in range(self.epoch + 1, self.epochs + 1):
                start = time.perf_counter()
                rates = {g["name"]: g["lr"] for g in self.optimizer.param_groups}
                with self.named_faults(epoch):
                    train = self.train_epoch(network, epoch, bar.update)
                    val = validate(bar.update)
                self.scheduler.step()
                self.record(epoch, train, val, rates, time.perf_counter() - start)
                self.epoch = epoch
                self.report(bar)
                if self.saving_is_due():
                    self.save_all(save_state)

    def saving_is_due(self) -> bool:
        """After the last epoch, and whenever saving takes a small share of the time."""
        since = time.perf_counter() - self.saved_at
        return self.epoch == self.epochs or self.saving <= SAVING_SHARE * since

    def save_all(self, save_state: Callable[["PhaseTrainer"], None]) -> None:
        """Write the best checkpoint, if it is a new one, and the state."""
        start = time.perf_counter()
        if not self.best_saved:
            self.save_best()
        self.save("state", lambda: save_state(self))
        self.saved_at = time.perf_counter()
        self.saving = self.saved_at - start

    @contextlib.contextmanager
    def named_faults(self, epoch: int) -> Iterator[None]:
        """Say in which epoch training failed, and what is kept."""
        try:
            yield
        except FlowersError as error:
            kept = f" The best weights so far (epoch {self.result.best_epoch}) are kept in " \
                   f"'{self.result.checkpoint}'." if self.best_saved else ""  # fmt: skip
            raise FlowersError(f"{self.result.title}, epoch {epoch}: {error}{kept}") from error

    def record(self, epoch: int, train: EpochResult, val: EpochResult,
               rates: dict[str, float], seconds: float) -> None:  # fmt: skip
        """Add an epoch to the history; remember its weights if they are the best on val so far."""
        self.result.history.append(
            {
                "phase": self.result.phase,
                "epoch": epoch,
                "train_loss": train.loss,
                "train_accuracy": train.top1,
                "val_loss": val.loss,
                "val_accuracy": val.top1,
                "learning_rates": rates,
                "seconds": seconds,
            }
        )
        if val.top1 > self.result.best_val_accuracy:
            self.result.best_epoch, self.result.best_val_accuracy = epoch, val.top1
            self.best_state = copy.deepcopy(self.learned())
            self.best_saved = False

    def save_best(self) -> None:
        """Write the checkpoint of the best epoch."""
        row = self.result.history[self.result.best_epoch - 1]
        content = make_checkpoint(
            self.model,
            self.data,
            epoch=row["epoch"],
            metrics={"val_accuracy": row["val_accuracy"], "val_loss": row["val_loss"]},
            weights=self.best_state,
        )
        self.best_saved = self.save(
            "checkpoint", lambda: save_tensors(self.result.checkpoint, content)
        )

    def best_is_on_disk(self) -> bool:
        """Whether the checkpoint file holds the best weights, and not those of another run."""
        try:
            saved = load_checkpoint(self.result.checkpoint)["state_dict"]
        except FlowersError:
            return False
        best = {**self.model.state_dict(), **self.best_state}
        return saved.keys() == best.keys() and all(
            torch.equal(saved[key], best[key].cpu()) for key in best
        )

    def save(self, file: str, write: Callable[[], None]) -> bool:
        """Write a file; a full disk is told but does not stop training, as memory holds the best."""
        try:
            write()
        except FlowersError as error:
            self.unsaved[file] = str(error)
            warnings.warn(f"Training goes on, but: {error}", stacklevel=2)
            return False
        self.unsaved.pop(file, None)  # an earlier failure is made good
        return True

    def report(self, bar: Progress) -> None:
        """Show the epoch that just ended, the best so far and the time left."""
        row, result = self.result.history[-1], self.result
        best = f"best {result.best_val_accuracy:.1%} (epoch {result.best_epoch})"
        bar.note(f"epoch {self.epoch}/{self.epochs}, loss {row['train_loss']:.3f}, "
                 f"val {row['val_accuracy']:.1%}, {best}")  # fmt: skip
        bar.line(
            f"{result.title}, epoch {self.epoch:2d}/{self.epochs}: "
            f"train loss {row['train_loss']:.3f}, train {row['train_accuracy']:.1%}, "
            f"val {row['val_accuracy']:.1%}, {best}, {clock(bar.seconds_left())} left"
        )

    def finish(self) -> PhaseResult:
        """The result, with the best weights in its model and on disk."""
        self.model.load_state_dict(self.best_state, strict=False)
        self.model.eval()
        if not self.best_saved:
            self.save_best()
        if self.unsaved:
            told = f"Not everything could be saved: {' '.join(self.unsaved.values())}"
            self.result.note = f"{self.result.note} {told}".strip()
        return self.result
