"""Backbones with a new head: building, freezing, parameter groups, counting."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models as tv

from flowers_utils.errors import FlowersError
from flowers_utils.one_pixel_maps import skip_padding
from flowers_utils.weights import imagenet_state_dict

NORM_LAYERS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Backbone:
    """One family of networks: how it is built, and what its parts are called in torchvision."""

    build: Callable[..., nn.Module]
    weights: tv.WeightsEnum
    classifier: str  # the module that turns features into logits
    groups: dict[str, tuple[str, ...]]  # name of a parameter group -> modules in it, first to last


def _resnet_groups() -> dict[str, tuple[str, ...]]:
    return {"stem": ("conv1", "bn1"), **{f"layer{i}": (f"layer{i}",) for i in range(1, 5)}}


def _feature_groups(count: int) -> dict[str, tuple[str, ...]]:
    blocks = {f"features.{i}": (f"features.{i}",) for i in range(1, count)}
    return {"stem": ("features.0",), **blocks}


BACKBONES = {
    "resnet18": Backbone(tv.resnet18, tv.ResNet18_Weights.IMAGENET1K_V1, "fc", _resnet_groups()),
    "resnet50": Backbone(tv.resnet50, tv.ResNet50_Weights.IMAGENET1K_V1, "fc", _resnet_groups()),
    "efficientnet_b0": Backbone(
        tv.efficientnet_b0,
        tv.EfficientNet_B0_Weights.IMAGENET1K_V1,
        "classifier",
        _feature_groups(9),
    ),
    "efficientnet_b3": Backbone(
        tv.efficientnet_b3,
        tv.EfficientNet_B3_Weights.IMAGENET1K_V1,
        "classifier",
        _feature_groups(9),
    ),
    "mobilenet_v2": Backbone(
        tv.mobilenet_v2, tv.MobileNet_V2_Weights.IMAGENET1K_V1, "classifier", _feature_groups(19)
    ),
}


def build_model(
    name: str = "resnet18",
    *,
    num_classes: int,
    weights: str | dict[str, torch.Tensor] | None = "imagenet",
    seed: int = 0,
) -> nn.Module:
    """A torchvision network with a new head of `num_classes` outputs.

    `weights`: `"imagenet"`, a state dict for the backbone (its head, if any, is ignored), or None
    for random ones. What is random is drawn from `seed` alone, so the same call gives the same
    network whatever ran before.
    Raises FlowersError for an unknown name, or if weights cannot be had.
    """
    if name not in BACKBONES:
        raise FlowersError(f"BACKBONE must be one of {', '.join(BACKBONES)}, but it is {name!r}.")
    backbone = BACKBONES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = backbone.build(weights=None)
        replace_head(model, backbone.classifier, num_classes)
    if weights == "imagenet":
        weights = imagenet_state_dict(backbone.weights)
    if weights is not None:
        _load_backbone(model, weights, backbone.classifier)
    model.architecture = name
    return skip_padding(model)


def _load_backbone(model: nn.Module, weights: dict[str, torch.Tensor], classifier: str) -> None:
    """Load all but the head; complain if a tensor of the backbone is missing or unknown."""
    kept = {key: value for key, value in weights.items() if not key.startswith(f"{classifier}.")}
    outcome = model.load_state_dict(kept, strict=False)
    missing = [key for key in outcome.missing_keys if not key.startswith(f"{classifier}.")]
    if missing or outcome.unexpected_keys:
        wrong = (missing + outcome.unexpected_keys)[0]
        raise FlowersError(f"These weights are for another network: '{wrong}' does not match.")


def replace_head(model: nn.Module, classifier: str, num_classes: int) -> None:
    """Put a new linear layer with `num_classes` outputs in the place of the last one."""
    old = getattr(model, classifier)
    if isinstance(old, nn.Sequential):  # Dropout, then Linear
        old[-1] = nn.Linear(old[-1].in_features, num_classes)
    else:
        setattr(model, classifier, nn.Linear(old.in_features, num_classes))


def classifier_of(model: nn.Module) -> nn.Module:
    """The module that turns features into logits (in some families with dropout before it)."""
    return getattr(model, BACKBONES[model.architecture].classifier)


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer."""
    classifier = classifier_of(model)
    return classifier[-1] if isinstance(classifier, nn.Sequential) else classifier


def freeze_backbone(model: nn.Module) -> None:
    """Let only the head learn: no gradients anywhere else."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    for parameter in classifier_of(model).parameters():
        parameter.requires_grad = True


def unfreeze(model: nn.Module) -> None:
    """Let every parameter learn."""
    for parameter in model.parameters():
        parameter.requires_grad = True


def train_mode(model: nn.Module) -> nn.Module:
    """Like `model.train()`, but frozen BatchNorm layers stay in eval mode.

    In train mode a BatchNorm layer updates its running statistics on every forward pass, whether
    or not its parameters are frozen, so a "frozen" backbone would drift.
    See https://keras.io/guides/transfer_learning/ on BatchNorm.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, NORM_LAYERS) and not module.weight.requires_grad:
            module.eval()
    return model


def backbone_features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the classifier gets to see: normalised images `(B, 3, H, W)` -> features `(B, F)`."""
    caught: list[torch.Tensor] = []
    hook = classifier_of(model).register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0])
    )
    try:
        model(images)
    finally:
        hook.remove()
    return caught[0]


def frozen_trunk(model: nn.Module) -> nn.Module:
    """A copy of the backbone alone, in eval mode, for inference: images -> features `(B, F)`.

    Each BatchNorm is folded into the convolution before it (Markus 2018), which gives the same
    features within rounding and saves a pass over memory a layer.
    """
    from torch.fx.experimental.optimization import fuse

    trunk = copy.deepcopy(model).eval()
    setattr(trunk, BACKBONES[model.architecture].classifier, nn.Identity())
    for parameter in trunk.parameters():
        parameter.requires_grad = False
    return fuse(trunk)


def parameter_groups(model: nn.Module, *, backbone_lr: float, head_lr: float) -> list[dict]:
    """Groups for the optimizer, one a stage of the network, each `{"name", "params", "lr"}`.

    Raises FlowersError unless every trainable parameter stands in exactly one group.
    """
    backbone = BACKBONES[model.architecture]
    groups = []
    for name, modules in backbone.groups.items():
        params = [p for path in modules for p in model.get_submodule(path).parameters()]
        groups.append({"name": name, "params": params, "lr": backbone_lr})
    head = list(classifier_of(model).parameters())
    groups.append({"name": backbone.classifier, "params": head, "lr": head_lr})
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    groups = [group for group in groups if group["params"]]
    check_groups_cover(model, groups)
    return groups


def check_groups_cover(model: nn.Module, groups: list[dict]) -> None:
    """Raise FlowersError unless every trainable parameter stands in exactly one of `groups`."""
    listed = [id(p) for group in groups for p in group["params"]]
    for name, parameter in model.named_parameters():
        times = listed.count(id(parameter))
        if parameter.requires_grad and times != 1:
            raise FlowersError(
                f"Parameter '{name}' stands in {times} parameter groups instead of one, so the "
                "optimizer would not train it as meant; see BACKBONES in models.py."
            )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of parameters: (all, trainable)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trainable in sizes if trainable)


def fingerprint(model: nn.Module, *, backbone_only: bool = True) -> str:
    """A short hash of all parameters and buffers (BatchNorm statistics too): equal means unmoved."""
    classifier = BACKBONES[model.architecture].classifier
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        if not (backbone_only and key.startswith(f"{classifier}.")):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def how_far_each_group_moved(before: nn.Module, after: nn.Module) -> dict[str, float]:
    """Relative change of each stage's parameters: the norm of the difference over the norm."""
    old = dict(before.named_parameters())
    moved = {}
    for name, modules in BACKBONES[after.architecture].groups.items():
        pairs = [
            (old[key].detach().cpu().float(), value.detach().cpu().float())
            for key, value in after.named_parameters()
            if any(key.startswith(f"{path}.") for path in modules)
        ]
        change = sum((new - was).square().sum() for was, new in pairs)
        moved[name] = float((change / sum(was.square().sum() for was, _ in pairs)).sqrt())
    return moved
