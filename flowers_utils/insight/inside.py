"""A look inside: what the network answers to, and where it looks.

Every function leaves the model as it was: hooks removed, each layer in its mode, no gradient
stored, also when an error is raised on the way.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import BACKBONES, eval_mode
from flowers_utils.transforms import eval_batch

SMALLEST_MAP = 7  # places across, below which a heat map says next to nothing


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Four stages of the backbone, from edges to parts of flowers; in a ResNet layer1 to layer4."""
    if hasattr(model, "layer4"):
        return {f"layer{i}": getattr(model, f"layer{i}") for i in range(1, 5)}
    chosen = np.linspace(1, len(model.features) - 1, 4).round().astype(int)
    return {f"features.{i}": model.features[i] for i in chosen.tolist()}


@contextmanager
def observing(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, a forward pass leaves the stages' outputs in the dict that this yields."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        # where all before it is frozen, gradients must still reach this output
        outputs[name] = output if output.requires_grad else output.detach().requires_grad_()
        return outputs[name].clone()  # a later in-place ReLU must not change what was kept

    with ExitStack() as undo:
        for name, layer in stages(model).items():
            undo.callback(layer.register_forward_hook(partial(keep, name)).remove)
        undo.enter_context(eval_mode(model))
        undo.enter_context(torch.enable_grad())
        yield outputs


def _logits(model: nn.Module, photo: Tensor | np.ndarray, device: Device) -> Tensor:
    """The answer (C,) to one uint8 photograph (3, S, S), in the precision of the evaluation."""
    photo = torch.as_tensor(np.array(photo))
    if photo.dtype != torch.uint8 or photo.ndim != 3 or photo.shape[0] != 3:
        raise FlowersError(
            f"One photograph is needed, uint8 of shape (3, S, S), but this is {photo.dtype} of "
            f"shape {tuple(photo.shape)}. Take one from a split: data.test.images[0]."
        )
    batch = device.place_batch(eval_batch(photo[None].to(device.torch_device), photo.shape[-1]))
    with device.autocast():
        return device.place(model)(batch)[0].float()


def first_layer_filters(model: nn.Module) -> Tensor:
    """The first convolution's filters (K, 3, h, w) as images 0..1; 0.5 (grey) is weight 0.

    Each is stretched by its own largest weight; those that are nearly dead stay grey.
    """
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    weight = first.weight.detach().float().cpu()
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return 0.5 + 0.5 * weight / largest.clamp_min(largest.max().item() * 0.05 + 1e-12)


def feature_maps(model: nn.Module, photo: Tensor | np.ndarray, device: Device) -> dict[str, Tensor]:
    """The answers (C, H, W) of each stage to one uint8 photograph (3, S, S), in order."""
    with observing(model) as outputs:
        _logits(model, photo, device)
    return {name: output[0].detach().float().cpu() for name, output in outputs.items()}


@dataclass(frozen=True)
class Explanation:
    """Why one photograph got its answer."""

    heat: Tensor  # (S, S), 0..1: how much each place spoke for `target`
    target: int  # the class that is explained
    probabilities: Tensor  # (C,)
    stage: str  # the stage whose maps were weighed

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())


def grad_cam(
    model: nn.Module,
    photo: Tensor | np.ndarray,
    device: Device,
    *,
    target: int | None = None,
    temperature: float = 1.0,
) -> Explanation:
    """Where the network looked for class `target` (default: its own answer) in one photograph.

    Grad-CAM, Selvaraju et al. 2017, on the last stage that still has 7 x 7 places; if nothing there
    speaks for the class, on the stage before it. The probabilities are softmax(logits /
    `temperature`). Raises FlowersError for a class that is not there.
    """
    with observing(model) as outputs:
        logits = _logits(model, photo, device)
        target = int(logits.argmax()) if target is None else target
        if not 0 <= target < len(logits):
            raise FlowersError(f"There is no class {target}: there are {len(logits)}, from 0.")
        roomy = [name for name, maps in outputs.items() if min(maps.shape[-2:]) >= SMALLEST_MAP]
        for stage in reversed(roomy[-2:] or [*outputs][-1:]):
            maps = outputs[stage]
            (gradient,) = torch.autograd.grad(logits[target], maps, retain_graph=True)
            # A map counts as much as the logit rises with it: on average over its places in the
            # last stage (Grad-CAM), place by place in an earlier one (LayerCAM, Jiang et al. 2021).
            gradient = gradient.float()
            last = stage == [*outputs][-1]
            weights = gradient.mean(dim=(2, 3), keepdim=True) if last else gradient.relu()
            heat = (weights * maps.detach().float()).sum(dim=1, keepdim=True).relu()
            if heat.max() > 0:
                break
    heat = F.interpolate(heat, photo.shape[-2:], mode="bilinear", align_corners=False)[0, 0].cpu()
    probabilities = (logits.detach().cpu() / temperature).softmax(dim=0)
    return Explanation(heat / heat.max().clamp_min(1e-12), target, probabilities, stage)


def gradient_at_each_block(*, skip: bool, blocks: int = 16, seed: int = 0) -> list[float]:
    """How much of the gradient reaches each block of an untrained stack, first block first.

    Mean absolute gradient at the input of the block, as a share of that behind the last block.
    The blocks are the same with and without `skip`: convolution, ReLU, convolution, with weights
    as wide as PyTorch's default for a convolution, and no BatchNorm.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(4, 8, 16, 16, generator=generator, requires_grad=True)]
    for _ in range(blocks):
        kernels = torch.randn(2, 8, 8, 3, 3, generator=generator) * (1 / (3 * 8 * 3 * 3)) ** 0.5
        change = F.conv2d(values[-1], kernels[0], padding=1).relu()
        change = F.conv2d(change, kernels[1], padding=1)
        values.append(values[-1] + change if skip else change)
    sizes = [g.abs().mean() for g in torch.autograd.grad(values[-1].square().mean(), values)]
    return [float(size / sizes[-1]) for size in sizes[:-1]]


def output_shapes(model: nn.Module, size: int) -> list[tuple[str, tuple[int, ...]]]:
    """Name and output shape (without the batch) of each stage, for an image `(3, size, size)`."""
    shapes = [("image", (3, size, size))]
    stages = dict(model.named_children())
    blocks = stages.pop("features", nn.Module()).named_children()
    stages |= {f"features.{name}": block for name, block in blocks}
    names = {stage: name for name, stage in stages.items()}

    def note(stage: nn.Module, inputs: tuple, output: Tensor) -> None:
        shapes.append((names[stage], tuple(output.shape[1:])))

    with ExitStack() as hooks, eval_mode(model), torch.no_grad():
        for stage in names:
            hooks.enter_context(stage.register_forward_hook(note))
        model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    return shapes


def how_far_each_group_moved(before: nn.Module, after: nn.Module) -> dict[str, float]:
    """Relative change of each stage's parameters: the norm of the difference over the norm."""

    def values(model: nn.Module, modules: tuple[str, ...]) -> Tensor:
        stage = [p for path in modules for p in model.get_submodule(path).parameters()]
        return torch.cat([p.detach().cpu().flatten() for p in stage])  # any memory layout

    moved = {}
    for name, modules in BACKBONES[after.architecture].groups.items():
        old, new = values(before, modules), values(after, modules)
        moved[name] = float((new - old).norm() / old.norm())
    return moved
