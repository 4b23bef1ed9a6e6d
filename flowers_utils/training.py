"""One pass over the data: the loop that training and evaluation share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import train_mode

Prepare = Callable[[torch.Tensor], torch.Tensor]
STEPS_BETWEEN_CHECKS = 16  # how often a GPU is asked whether the loss is still a number


@dataclass(frozen=True)
class EpochResult:
    """Means over the images of one pass: loss in nats, accuracies as fractions, and their count."""

    loss: float
    top1: float
    top5: float
    count: int


def run_epoch(
    model: nn.Module,
    data: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: Device,
    *,
    prepare: Prepare = lambda images: images,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler | None = None,
    after_step: Callable[[int], None] = lambda count: None,
) -> EpochResult:
    """One pass over `data`: training if there is an optimizer, evaluation if there is none.

    `data` yields (inputs, labels) on the device and `prepare` turns inputs into what the model
    takes. Sums stay on the device until the end, so that no step waits for it.
    Raises FlowersError as soon as the loss is seen not to be finite.
    """
    training = optimizer is not None
    train_mode(model) if training else model.eval()
    sums, step = torch.zeros(4, device=device.torch_device), 0
    for step, (inputs, labels) in enumerate(data, start=1):
        with torch.set_grad_enabled(training):
            with device.autocast():
                logits = model(prepare(inputs))
            loss = F.cross_entropy(logits.float(), labels)
        if training:
            take_step(loss, optimizer, scaler)
        sums += batch_sums(logits.detach(), loss.detach(), labels)
        if device.torch_device.type == "cpu" or step % STEPS_BETWEEN_CHECKS == 0:
            check_finite(sums[0], step)
        after_step(len(labels))
    if step == 0:
        raise FlowersError("There is nothing to train or evaluate on: no batch of images came.")
    check_finite(sums[0], step)
    loss_sum, top1, top5, count = sums.tolist()
    return EpochResult(loss_sum / count, top1 / count, top5 / count, int(count))


def take_step(
    loss: torch.Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None
) -> None:
    """Backpropagate and update the weights once, with loss scaling where float16 needs it."""
    optimizer.zero_grad(set_to_none=True)
    if scaler is None or not scaler.is_enabled():
        loss.backward()
        optimizer.step()
        return
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def batch_sums(logits: torch.Tensor, loss: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums over a batch, shape `(4,)`: loss, right at first guess, right in five, images."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = best == labels[:, None]
    count = len(labels)
    return torch.stack(
        [loss * count, right[:, 0].sum(), right.sum(), torch.full_like(loss, count)]
    ).float()


def check_finite(loss_sum: torch.Tensor, step: int) -> None:
    """Raise FlowersError if the running loss is no longer a number."""
    if not torch.isfinite(loss_sum):
        raise FlowersError(
            f"The loss is no longer a finite number (seen at step {step}): training has diverged. "
            "Try a learning rate ten times smaller, or choose_device(fast=False)."
        )
