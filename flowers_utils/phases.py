"""A whole phase of training: the best weights on val are kept, and an interruption costs an epoch."""

import contextlib
import copy
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import transfer_learning_config as config
from flowers_utils.checkpoints import make_checkpoint, versions
from flowers_utils.data import FlowerData, batches, check_split
from flowers_utils.device import PRECISION_NAMES, Device, seed_everything
from flowers_utils.errors import FlowersError
from flowers_utils.files import save_tensors
from flowers_utils.models import (
    classifier_of,
    fingerprint,
    freeze_backbone,
    frozen_trunk,
    parameter_groups,
    unfreeze,
)
from flowers_utils.progress import Progress, clock
from flowers_utils.resume import load_state, save_state
from flowers_utils.training import EpochResult, run_epoch
from flowers_utils.transforms import augment_batch, draw_augmentation, eval_batch


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
    """A phase in progress: the network, its optimizer, and everything that a resume needs."""

    def __init__(self, result: PhaseResult, data: FlowerData, device: Device, *,
                 backbone_lr: float | None, head_lr: float, epochs: int, seed: int):  # fmt: skip
        self.result, self.data, self.device = result, data, device
        self.epochs, self.seed = epochs, seed
        self.model = device.place(result.model)
        self.frozen = backbone_lr is None
        freeze_backbone(self.model) if self.frozen else unfreeze(self.model)
        training = config.TRAINING_CONFIG
        groups = parameter_groups(self.model, backbone_lr=backbone_lr or 0.0, head_lr=head_lr)
        fused = device.torch_device.type != "mps"
        self.optimizer = torch.optim.AdamW(
            groups, weight_decay=training["weight_decay"], fused=fused
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, training["step_size"], training["gamma"]
        )
        self.scaler = device.scaler()
        self.best_state: dict[str, torch.Tensor] = {}
        self.epoch = 0  # the last finished one

    def identity(self) -> dict[str, Any]:
        """What a saved state must share with this run to be used for it."""
        return {
            "network": self.model.architecture,
            "phase": self.result.phase,
            "epochs": self.epochs,
            "seed": self.seed,
            "data": self.data.fingerprint,
            "training config": dict(config.TRAINING_CONFIG),
            "augmentation": dict(config.AUGMENTATION),
            "normalization": {k: list(v) for k, v in config.NORMALIZATION.items()},
            "learning rates": {g["name"]: g["initial_lr"] for g in self.optimizer.param_groups},
            "starting weights": fingerprint(self.model, backbone_only=False),
            "device": f"{self.device.torch_device.type} {PRECISION_NAMES[self.device.precision]}",
            "torch": versions()["torch"],
        }

    def state(self) -> dict[str, Any]:
        """Everything needed to go on after this epoch. Each epoch draws from its own seed, so no
        random state has to be kept."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "best": self.best_state,
            "best_epoch": self.result.best_epoch,
            "best_val_accuracy": self.result.best_val_accuracy,
            "history": self.result.history,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_state, self.epoch = state["best"], state["epoch"]
        self.result.history = state["history"]
        self.result.best_epoch = state["best_epoch"]
        self.result.best_val_accuracy = state["best_val_accuracy"]

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
        val = batches(self.data.val, batch_size=self.batch_size, device=device)

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
        loader = batches(data.train, batch_size=self.batch_size, device=device,
                         shuffle=True, generator=generator)  # fmt: skip

        def prepare(images: torch.Tensor) -> torch.Tensor:
            draws = draw_augmentation(
                len(images), generator, resize=data.resize_size, crop=data.image_size
            )
            return device.place_batch(augment_batch(images, draws, crop=data.image_size))

        return run_epoch(network, loader, device, prepare=prepare, optimizer=self.optimizer,
                         scaler=self.scaler, after_step=after_step)  # fmt: skip

    def run(self, state_file: Path, identity: dict[str, Any]) -> None:
        """Train the epochs that are left, keeping the best weights and a state after each."""
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
                self.save(lambda: save_state(state_file, identity, self.state()))

    @contextlib.contextmanager
    def named_faults(self, epoch: int) -> Iterator[None]:
        """Say in which epoch training failed, and what to try when memory ran out."""
        try:
            yield
        except torch.OutOfMemoryError:
            pass  # leave the block first, so that the failed step's tensors can be freed
        except FlowersError as error:
            best = f" The best weights so far (epoch {self.result.best_epoch}) are kept in " \
                   f"'{self.result.checkpoint}'." if self.result.best_epoch else ""  # fmt: skip
            raise FlowersError(
                f"Phase {self.result.phase}, epoch {epoch}: {error}{best}"
            ) from error
        else:
            return
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        raise FlowersError(
            f"The device ran out of memory at batch size {self.batch_size}. Set "
            f"TRAINING_CONFIG['batch_size'] = {max(2, self.batch_size // 2)}, restart the kernel, "
            "and close other programs that use the device."
        )

    def record(self, epoch: int, train: EpochResult, val: EpochResult,
               rates: dict[str, float], seconds: float) -> None:  # fmt: skip
        """Add an epoch to the history; keep its weights if they are the best on val so far."""
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
            self.best_state = copy.deepcopy(self.model.state_dict())
            self.save(self.save_best)

    def save_best(self) -> None:
        metrics = {"val_accuracy": self.result.best_val_accuracy,
                   "val_loss": self.result.history[-1]["val_loss"]}  # fmt: skip
        content = make_checkpoint(
            self.model, self.data, epoch=self.result.best_epoch, metrics=metrics
        )
        save_tensors(self.result.checkpoint, content)

    def save(self, write: Any) -> None:
        """Write a file; a full disk is told but does not stop training, as memory holds the best."""
        try:
            write()
        except FlowersError as error:
            self.result.note = f"Not everything could be saved: {error}"
            warnings.warn(f"Training goes on, but: {error}", stacklevel=2)

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


def train_phase(
    model: nn.Module,
    data: FlowerData,
    device: Device,
    *,
    phase: int,
    epochs: int,
    head_lr: float,
    backbone_lr: float | None = None,
    seed: int = 0,
    folder: str | Path = "models",
    title: str | None = None,
    fresh: bool = False,
) -> PhaseResult:
    """Train one phase with its own optimizer and schedule; returns the weights best on val.

    `backbone_lr=None` freezes the backbone (Phase 1); else everything learns (Phase 2). A phase
    that was interrupted goes on after its last whole epoch, and a finished one is loaded, if its
    saved state is of this very run; `fresh=True` trains anew. Writes `<network>_phase<N>_best.pth`
    and `..._resume.pth` into `folder` (`title` replaces "Phase N", also in the file names). Raises ConfigError or FlowersError before the first step
    if something cannot work.
    """
    config.check_config()
    for split in (data.train, data.val):
        check_split(split, data.num_classes)
    title = title or f"Phase {phase}"
    stem = Path(folder) / f"{model.architecture}_{title.lower().replace(' ', '')}"
    result = PhaseResult(phase, title, model, stem.with_name(f"{stem.name}_best.pth"))
    trainer = PhaseTrainer(result, data, device, backbone_lr=backbone_lr, head_lr=head_lr,
                           epochs=epochs, seed=seed)  # fmt: skip
    identity = trainer.identity()
    state_file = stem.with_name(f"{stem.name}_resume.pth")
    state, result.note = (None, "") if fresh else load_state(state_file, identity)
    if state is not None:
        trainer.restore(state)
        result.note = _how_it_goes_on(trainer)
    if trainer.epoch < epochs:
        trainer.run(state_file, identity)
    model.load_state_dict(trainer.best_state)
    model.eval()
    if not result.checkpoint.exists():
        trainer.save(trainer.save_best)
    return result


def _how_it_goes_on(trainer: PhaseTrainer) -> str:
    if trainer.epoch == trainer.epochs:
        return (
            f"{trainer.result.title} was already trained and is loaded as it was; "
            "to train it anew, add fresh=True."
        )
    return f"{trainer.result.title}: going on after epoch {trainer.epoch} of {trainer.epochs}, where training stopped."
