"""Networks of torchvision with a new head: building, freezing, parameter groups, counting."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from flowers_utils.config_check import check
from flowers_utils.errors import FlowersError


@dataclass(frozen=True)
class Backbone:
    """What the parts of one family of networks are called in torchvision."""

    classifier: str  # the module that turns features into logits
    groups: dict[str, tuple[str, ...]]  # parameter group -> its modules, first to last


_RESNET = {"stem": ("conv1", "bn1")}
_RESNET |= {stage: (stage,) for stage in ("layer1", "layer2", "layer3", "layer4")}
# These two are one list of blocks, and each block is a group.
_EFFICIENTNET = {f"features.{i}": (f"features.{i}",) for i in range(9)}
_MOBILENET = {f"features.{i}": (f"features.{i}",) for i in range(19)}
BACKBONES = {
    "resnet18": Backbone("fc", _RESNET),
    "resnet50": Backbone("fc", _RESNET),
    "efficientnet_b0": Backbone("classifier", _EFFICIENTNET),
    "efficientnet_b3": Backbone("classifier", _EFFICIENTNET),
    "mobilenet_v2": Backbone("classifier", _MOBILENET),
}


def build_model(
    name: str = "resnet18", *, num_classes: int, weights: dict[str, Tensor] | None, seed: int = 0
) -> nn.Module:
    """A network of torchvision with a new head of `num_classes` outputs.

    `weights`: a state dict for the backbone (its head, if any, is ignored), or None for random
    ones. What is random is drawn from `seed` alone, so the same call gives the same network
    whatever ran before. Raises FlowersError for an unknown name, or weights that do not fit.
    """
    check(name in BACKBONES, f"BACKBONE must be one of {tuple(BACKBONES)}, but it is {name!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_model(name, weights=None)
        model.architecture = name
        head = nn.Linear(head_of(model).in_features, num_classes)
    if isinstance(classifier_of(model), nn.Sequential):  # dropout, then the linear layer
        classifier_of(model)[-1] = head
    else:
        setattr(model, BACKBONES[name].classifier, head)
    if weights is not None:
        prefix = f"{BACKBONES[name].classifier}."
        new_head = {k: v for k, v in model.state_dict().items() if k.startswith(prefix)}
        backbone = {k: v for k, v in weights.items() if not k.startswith(prefix)}
        try:
            model.load_state_dict({**backbone, **new_head})
        except RuntimeError as error:  # its last line names a tensor that does not fit
            wrong = str(error).splitlines()[-1].strip()
            raise FlowersError(f"These weights are for another network. {wrong}") from error
    return model


def weights_file(name: str) -> Path:
    """Where torch keeps the ImageNet weights of a network (TORCH_HOME moves it)."""
    url = get_model_weights(name).IMAGENET1K_V1.url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of a network, from torch's cache or else downloaded into it.

    A file in the cache is not compared with its hash, so that an instructor can hand out a
    substitute; a download is. Raises FlowersError that says what to do.
    """
    weights, file = get_model_weights(name).IMAGENET1K_V1, weights_file(name)
    try:
        return weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, urllib and pickle raise almost anything here
        raise FlowersError(
            f"The ImageNet weights of {name} could not be read ({error}). If '{file}' exists, it is "
            f"damaged: delete it. Then connect to the network and run this cell again, or save "
            f"{weights.url} there yourself. (TORCH_HOME moves the folder.)"
        ) from error


def classifier_of(model: nn.Module) -> nn.Module:
    """The module that turns features into logits (in some families with dropout before it)."""
    return getattr(model, BACKBONES[model.architecture].classifier)


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer."""
    classifier = classifier_of(model)
    return classifier[-1] if isinstance(classifier, nn.Sequential) else classifier


def check_head(model: nn.Module, num_classes: int) -> None:
    """Raise FlowersError for a network of other origin, or with another number of outputs."""
    outputs = head_of(model).out_features if hasattr(model, "architecture") else "unknown"
    told = f"The network's head must have {num_classes} outputs, one for each class, but it has "
    check(outputs == num_classes, f"{told}{outputs}; make the network with build_model().")


def freeze_backbone(model: nn.Module) -> None:
    """Let only the head learn: no gradients anywhere else."""
    model.requires_grad_(False)
    classifier_of(model).requires_grad_(True)


def train_mode(model: nn.Module) -> nn.Module:
    """Like `model.train()`, but what is frozen stays in eval mode.

    In train mode a BatchNorm layer updates its running statistics on every forward pass, even when
    its parameters are frozen, so a "frozen" backbone would change; and stochastic depth (in the
    EfficientNets) would go on dropping blocks of it.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()  # and all that is in it
    return model


def backbone_features(model: nn.Module, images: Tensor) -> Tensor:
    """The input of the classifier: normalised images `(B, 3, H, W)` -> features `(B, F)`."""
    caught: list[Tensor] = []
    # A pre-hook is called with the inputs of a module, just before the module runs.
    with classifier_of(model).register_forward_pre_hook(lambda _, given: caught.append(given[0])):
        model(images)
    return caught[0]


def parameter_groups(model: nn.Module, *, backbone_lr: float, head_lr: float) -> list[dict]:
    """Groups for the optimizer, one for each stage of the network, each `{"name", "params", "lr"}`.

    All stages of the backbone share one rate. A frozen stage gets no group. Every trainable
    parameter is in exactly one group.
    """
    backbone = BACKBONES[model.architecture]
    stages = {**backbone.groups, backbone.classifier: (backbone.classifier,)}
    groups = []
    for name, modules in stages.items():
        params = [p for path in modules for p in model.get_submodule(path).parameters()]
        lr = head_lr if name == backbone.classifier else backbone_lr
        if trainable := [p for p in params if p.requires_grad]:
            groups.append({"name": name, "params": trainable, "lr": lr})
    listed = [id(p) for group in groups for p in group["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(listed) == sorted(trainable), "BACKBONES misses a part of this network"
    return groups


def fingerprint(model: nn.Module, *, backbone_only: bool = True) -> str:
    """A short hash of parameters and buffers (BatchNorm's statistics too): equal means unchanged."""
    head = f"{BACKBONES[model.architecture].classifier}."
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        if not (backbone_only and key.startswith(head)):
            digest.update(key.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
