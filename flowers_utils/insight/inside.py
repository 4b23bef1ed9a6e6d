"""A look inside: what the network answers to, and where it looks.

Every function leaves the model as it was: hooks removed, each layer in its mode, no gradient
stored, the random numbers where they stood, also when an error is raised on the way.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.models import eval_mode
from flowers_utils.transforms import eval_batch

SMALLEST_MAP = 4  # places across, below which a heat map says next to nothing


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Four stages of the backbone, from edges to parts of flowers; in a ResNet layer1 to layer4."""
    named = dict(model.named_children())
    if "layer4" in named:
        return {f"layer{i}": named[f"layer{i}"] for i in range(1, 5)}
    if "features" not in named:
        raise FlowersError(
            "This network has neither 'layer4' nor 'features', so its stages are unknown; "
            "name the layers yourself, as in layers={'my stage': model.my_stage}."
        )
    blocks = named["features"]
    chosen = np.linspace(1, len(blocks) - 1, 4).round().astype(int)
    return {f"features.{i}": blocks[i] for i in chosen.tolist()}


@contextmanager
def observing(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Inside, each forward pass leaves the named layers' outputs in the dict that this yields.

    Each output is the start of a new graph: a gradient reaches the last of them even where all the
    layers are frozen. The model is in eval mode inside.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            outputs[name] = output.detach().requires_grad_(output.is_floating_point())
            return outputs[name].clone()  # a later in-place ReLU must not change what was kept

        return hook

    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(keep(name)))
        with (
            torch.random.fork_rng(devices=[]),
            eval_mode(model),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _as_batch(photo: Tensor | np.ndarray, device: Device) -> Tensor:
    """One uint8 photograph (3, S, S) as a normalised batch (1, 3, S, S) on the device."""
    photo = torch.as_tensor(np.array(photo))
    if photo.dtype != torch.uint8 or photo.ndim != 3 or photo.shape[0] != 3:
        raise FlowersError(
            f"One photograph is needed, uint8 of shape (3, S, S), but this is {photo.dtype} of "
            f"shape {tuple(photo.shape)}. Take one from a split: data.test.images[0]."
        )
    return device.place_batch(eval_batch(photo[None].to(device.torch_device), photo.shape[-1]))


def first_layer_filters(model: nn.Module) -> Tensor:
    """The first convolution's filters (K, 3, h, w) as images 0..1; 0.5 (grey) is weight 0.

    Each is stretched by its own largest weight; those that are nearly dead stay grey.
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        raise FlowersError(
            "The first layer is no convolution over colours, so it has no filters to draw; "
            "call this with a network for photographs, such as resnet18."
        )
    weight = first.weight.detach().float().cpu()
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return 0.5 + 0.5 * weight / largest.clamp_min(largest.max().item() * 0.05 + 1e-12)


def feature_maps(
    model: nn.Module,
    photo: Tensor | np.ndarray,
    device: Device,
    *,
    layers: Mapping[str, nn.Module] | None = None,
) -> dict[str, Tensor]:
    """The answers (C, H, W) of each stage to one uint8 photograph (3, S, S), in order."""
    device.place(model)
    with observing(model, layers or stages(model)) as outputs:
        batch = _as_batch(photo, device)
        with device.autocast():
            model(batch)
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

    @property
    def blank(self) -> bool:
        """Whether no place spoke for the class: what was found all speaks against it."""
        return not bool(self.heat.max() > 0)


def grad_cam(
    model: nn.Module,
    photo: Tensor | np.ndarray,
    device: Device,
    *,
    target: int | None = None,
    temperature: float = 1.0,
) -> Explanation:
    """Where the network looked for class `target` (default: its own answer) in one photograph.

    Grad-CAM, Selvaraju et al. 2017, on the last stage that still has 4 x 4 places (the last one
    if none has); if nothing there speaks for the class, on the stage before it. The precision is
    the evaluation's, so the answer is too. The probabilities are softmax(logits / `temperature`).
    Raises FlowersError for a class that is not there.
    """
    maps = feature_maps(model, photo, device)
    roomy = [name for name, answers in maps.items() if min(answers.shape[-2:]) >= SMALLEST_MAP]
    roomy = roomy or [list(maps)[-1]]
    logits, heat = None, None
    for name in reversed(roomy[-2:]):
        logits, heat = _logits_and_heat(model, photo, device, stage=name, target=target)
        if heat.max() > 0:
            break
    target = int(logits.argmax()) if target is None else target
    probabilities = (logits / temperature).softmax(dim=0)
    return Explanation(heat / heat.max().clamp_min(1e-12), target, probabilities, name)


def _logits_and_heat(
    model: nn.Module,
    photo: Tensor | np.ndarray,
    device: Device,
    *,
    stage: str,
    target: int | None,
) -> tuple[Tensor, Tensor]:
    """Logits (C,), and the heat (S, S) of a stage: not negative, not scaled."""
    with observing(model, {"maps": stages(model)[stage]}) as outputs:
        batch = _as_batch(photo, device)
        with device.autocast():
            logits = model(batch)[0].float()
        wanted = int(logits.argmax()) if target is None else target
        if not 0 <= wanted < len(logits):
            raise FlowersError(f"There is no class {wanted}: they run from 0 to {len(logits) - 1}.")
        (gradient,) = torch.autograd.grad(logits[wanted], outputs["maps"])
    # A map counts as much as the logit rises with it, on average over its places.
    weights = gradient.float().mean(dim=(2, 3), keepdim=True)
    heat = (weights * outputs["maps"].detach().float()).sum(dim=1, keepdim=True).relu()
    heat = F.interpolate(heat, batch.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return logits.detach().cpu(), heat.cpu()


def compare_phases(
    before: nn.Module,
    after: nn.Module,
    photo: Tensor | np.ndarray,
    device: Device,
    *,
    label: int,
) -> tuple[Explanation, Explanation]:
    """The same photograph after Phase 1 and after Phase 2, both explained for its true class."""
    return tuple(grad_cam(model, photo, device, target=label) for model in (before, after))


def gradient_at_each_block(*, skip: bool, blocks: int = 16, seed: int = 0) -> list[float]:
    """How much of the gradient reaches each block of an untrained stack, first block first.

    Mean absolute gradient at the input of the block, as a share of that behind the last block.
    The blocks are the same with and without `skip`: convolution, ReLU, convolution, with weights
    as wide as PyTorch's default for a convolution, and no BatchNorm.
    """
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(4, 8, 16, 16, generator=generator, requires_grad=True)
    inputs, width = [], (1 / (3 * 8 * 3 * 3)) ** 0.5
    for _ in range(blocks):
        value.retain_grad()
        inputs.append(value)
        kernels = [torch.randn(8, 8, 3, 3, generator=generator) * width for _ in range(2)]
        change = F.conv2d(value, kernels[0], padding=1).relu()
        change = F.conv2d(change, kernels[1], padding=1)
        value = value + change if skip else change
    value.retain_grad()
    value.square().mean().backward()
    behind = value.grad.abs().mean()
    return [float(block.grad.abs().mean() / behind) for block in inputs]
