"""A look inside: what the network answers to, where it looks, and which mistakes teach most.

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
from flowers_utils.evaluation import Evaluation
from flowers_utils.predictions import eval_mode
from flowers_utils.transforms import normalise_batch

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
        with eval_mode(model), torch.inference_mode(False), torch.enable_grad():
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
    return device.place_batch(normalise_batch(photo[None]))


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
        model(_as_batch(photo, device))
    return {name: output[0].detach().float().cpu() for name, output in outputs.items()}


@dataclass(frozen=True)
class Explanation:
    """Why one photograph got its answer."""

    heat: Tensor  # (S, S), 0..1: how much each place spoke for `target`
    target: int  # the class that is explained
    probabilities: Tensor  # (C,)

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())


def grad_cam(
    model: nn.Module,
    photo: Tensor | np.ndarray,
    device: Device,
    *,
    target: int | None = None,
    layer: nn.Module | None = None,
    temperature: float = 1.0,
) -> Explanation:
    """Where the network looked for class `target` (default: its own answer) in one photograph.

    Grad-CAM, Selvaraju et al. 2017: the maps of the last stage (of those with
    at least 4 x 4 places, if there are any), each weighted by the mean gradient
    of the target's logit; what speaks against it is cut off. The gradient starts at that stage, so
    frozen layers do not matter. The probabilities are softmax(logits / `temperature`).
    Raises FlowersError for a class that is not there.
    """
    device.place(model)
    layer = layer or _last_stage_with_room(model, photo, device)
    with observing(model, {"maps": layer}) as outputs:
        batch = _as_batch(photo, device)
        logits = model(batch)[0].float()
        target = int(logits.argmax()) if target is None else target
        if not 0 <= target < len(logits):
            raise FlowersError(f"There is no class {target}: they run from 0 to {len(logits) - 1}.")
        maps = outputs["maps"]
        (gradient,) = torch.autograd.grad(logits[target], maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weights * maps.detach()).sum(dim=1, keepdim=True).float().relu()
    heat = F.interpolate(heat, batch.shape[-2:], mode="bilinear", align_corners=False)[0, 0].cpu()
    probabilities = (logits.detach() / temperature).softmax(dim=0).cpu()
    return Explanation(heat / heat.max().clamp_min(1e-12), target, probabilities)


def _last_stage_with_room(
    model: nn.Module, photo: Tensor | np.ndarray, device: Device
) -> nn.Module:
    """The last stage that still tells places apart: small pictures shrink to one place at the end."""
    maps = feature_maps(model, photo, device)
    roomy = [name for name, map_ in maps.items() if min(map_.shape[-2:]) >= SMALLEST_MAP]
    return stages(model)[roomy[-1] if roomy else list(maps)[-1]]


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


def nearest_neighbours(
    queries: Tensor, train_features: Tensor, k: int = 5
) -> tuple[Tensor, Tensor]:
    """For features (Q, F) the k most similar of (N, F): positions and cosines, both (Q, k)."""
    if queries.ndim != 2 or queries.shape[1:] != train_features.shape[1:]:
        raise FlowersError(
            f"Features of shape {tuple(queries.shape)} and {tuple(train_features.shape)} cannot be "
            "compared; compute both with the same network."
        )
    cosines = F.normalize(queries.float()) @ F.normalize(train_features.float()).T
    found = cosines.topk(min(k, len(train_features)), dim=1)
    return found.indices, found.values


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes taken for one another; the examples are positions in the split, or None."""

    first: int
    second: int
    first_as_second: int  # photographs of `first` called `second`
    second_as_first: int
    first_example: int | None
    second_example: int | None


def most_confused_pairs(evaluation: Evaluation, k: int = 10) -> list[ConfusedPair]:
    """The k pairs with the most mistakes, both directions together; only pairs with any."""
    wrong = evaluation.confusion
    both = np.triu(wrong + wrong.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:k]
    pairs = [divmod(int(i), len(wrong)) for i in order if both.flat[i] > 0]
    return [
        ConfusedPair(
            a, b, int(wrong[a, b]), int(wrong[b, a]),
            _example(evaluation, a, b), _example(evaluation, b, a),
        )
        for a, b in pairs
    ]  # fmt: skip


def _example(evaluation: Evaluation, true: int, predicted: int) -> int | None:
    """A photograph of class `true`, preferably one that was taken for `predicted`."""
    own = np.flatnonzero(evaluation.labels == true)
    confused = own[evaluation.predictions[own] == predicted]
    return next((int(found[0]) for found in (confused, own) if len(found)), None)


def most_confident_mistakes(evaluation: Evaluation, k: int = 10) -> list[int]:
    """Positions of the wrong predictions, surest first: the most instructive photographs."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    return wrong[np.argsort(-evaluation.confidences[wrong], kind="stable")][:k].tolist()
