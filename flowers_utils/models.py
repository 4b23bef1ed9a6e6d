"""Networks of torchvision with a new head: building, freezing, parameter groups, counting."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models as tv

import transfer_learning_config as config
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError


@dataclass(frozen=True)
class Backbone:
    """One family of networks: how it is built, and what its parts are called in torchvision."""

    build: Callable[..., nn.Module]
    weights: tv.WeightsEnum
    classifier: str  # the module that turns features into logits
    groups: dict[str, tuple[str, ...]]  # parameter group -> its modules, first to last


def _stages(stem: tuple[str, ...], stages: list[str]) -> dict[str, tuple[str, ...]]:
    return {"stem": stem, **{stage: (stage,) for stage in stages}}


_RESNET = _stages(("conv1", "bn1"), ["layer1", "layer2", "layer3", "layer4"])
_EFFICIENTNET = _stages(("features.0",), [f"features.{i}" for i in range(1, 9)])
_MOBILENET = _stages(("features.0",), [f"features.{i}" for i in range(1, 19)])
BACKBONES = {
    "resnet18": Backbone(tv.resnet18, tv.ResNet18_Weights.IMAGENET1K_V1, "fc", _RESNET),
    "resnet50": Backbone(tv.resnet50, tv.ResNet50_Weights.IMAGENET1K_V1, "fc", _RESNET),
    "efficientnet_b0": Backbone(
        tv.efficientnet_b0, tv.EfficientNet_B0_Weights.IMAGENET1K_V1, "classifier", _EFFICIENTNET
    ),
    "efficientnet_b3": Backbone(
        tv.efficientnet_b3, tv.EfficientNet_B3_Weights.IMAGENET1K_V1, "classifier", _EFFICIENTNET
    ),
    "mobilenet_v2": Backbone(
        tv.mobilenet_v2, tv.MobileNet_V2_Weights.IMAGENET1K_V1, "classifier", _MOBILENET
    ),
}


def build_model(
    name: str = "resnet18",
    *,
    num_classes: int,
    weights: dict[str, torch.Tensor] | None,
    seed: int = 0,
) -> nn.Module:
    """A network of torchvision with a new head of `num_classes` outputs.

    `weights`: a state dict for the backbone (its head, if any, is ignored), or None for random
    ones. What is random is drawn from `seed` alone, so the same call gives the same network
    whatever ran before. Raises FlowersError for an unknown name, or weights that do not fit.
    """
    if name not in BACKBONES:
        raise FlowersError(f"BACKBONE must be one of {', '.join(BACKBONES)}, but it is {name!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BACKBONES[name].build(weights=None)
        model.architecture = name
        _replace_head(model, num_classes)
    if weights is not None:
        _load_backbone(model, weights)
    return model


def _replace_head(model: nn.Module, num_classes: int) -> None:
    """Put a new linear layer with `num_classes` outputs in the place of the last one."""
    new = nn.Linear(head_of(model).in_features, num_classes)
    if isinstance(classifier_of(model), nn.Sequential):  # dropout, then the linear layer
        classifier_of(model)[-1] = new
    else:
        setattr(model, BACKBONES[model.architecture].classifier, new)


def _load_backbone(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load all but the head; a tensor that is missing, unknown or of another shape is an error."""
    head = f"{BACKBONES[model.architecture].classifier}."
    backbone = {key: value for key, value in weights.items() if not key.startswith(head)}
    new_head = {key: value for key, value in model.state_dict().items() if key.startswith(head)}
    try:
        model.load_state_dict({**backbone, **new_head})
    except RuntimeError as error:  # torch names each tensor that does not fit, a line each
        wrong = str(error).splitlines()[-1].strip()
        raise FlowersError(f"These weights are for another network. {wrong}") from error


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
    """Like `model.train()`, but what is frozen stays in eval mode.

    In train mode a BatchNorm layer updates its running statistics on every forward pass, whether
    or not its parameters may learn, so a "frozen" backbone would drift; and stochastic depth (in
    the EfficientNets) would go on dropping blocks of it.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()  # and all that is in it
    return model


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode inside; afterwards each layer has the mode that it had before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def backbone_features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the classifier gets to see: normalised images `(B, 3, H, W)` -> features `(B, F)`."""
    caught: list[torch.Tensor] = []
    with classifier_of(model).register_forward_pre_hook(lambda _, given: caught.append(given[0])):
        model(images)
    return caught[0]


def parameter_groups(model: nn.Module, *, backbone_lr: float, head_lr: float) -> list[dict]:
    """Groups for the optimizer, one a stage of the network, each `{"name", "params", "lr"}`.

    A frozen stage gets no group. Raises FlowersError unless every parameter that may learn stands
    in exactly one group.
    """
    backbone = BACKBONES[model.architecture]
    stages = {**backbone.groups, backbone.classifier: (backbone.classifier,)}
    groups = []
    for name, modules in stages.items():
        params = [p for path in modules for p in model.get_submodule(path).parameters()]
        lr = head_lr if name == backbone.classifier else backbone_lr
        if learning := [p for p in params if p.requires_grad]:
            groups.append({"name": name, "params": learning, "lr": lr})
    check_groups_cover(model, groups)
    return groups


def check_groups_cover(model: nn.Module, groups: list[dict]) -> None:
    """Raise FlowersError unless every parameter that may learn stands in exactly one of `groups`."""
    listed = [id(p) for group in groups for p in group["params"]]
    for name, parameter in model.named_parameters():
        times = listed.count(id(parameter))
        if parameter.requires_grad and times != 1:
            raise FlowersError(
                f"Parameter '{name}' stands in {times} parameter groups instead of one, so the "
                "optimizer would not train it as meant; see BACKBONES in models.py."
            )


def make_optimizer(
    groups: list[dict], device: Device, *, weight_decay: float | None = None
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) for parameter groups; None: the config's weight decay."""
    decay = config.TRAINING_CONFIG["weight_decay"] if weight_decay is None else weight_decay
    fused = device.torch_device.type != "mps"  # one kernel for all parameters; too new on MPS
    return torch.optim.AdamW(groups, weight_decay=decay, fused=fused)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of parameters: (all, those that may learn)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)


def fingerprint(model: nn.Module, *, backbone_only: bool = True) -> str:
    """A short hash of parameters and buffers (BatchNorm's statistics too): equal means unmoved."""
    head = f"{BACKBONES[model.architecture].classifier}."
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        if not (backbone_only and key.startswith(head)):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]
