"""Networks of torchvision with a new head: building, freezing, parameter groups, counting."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from flowers_utils.config_check import check
from flowers_utils.errors import FlowersError

# The networks of the lesson, and where torchvision keeps the head of each.
HEADS = {
    "resnet18": "fc",
    "resnet50": "fc",
    "efficientnet_b0": "classifier.1",  # `classifier` is dropout, then this linear layer
    "efficientnet_b3": "classifier.1",
    "mobilenet_v2": "classifier.1",
}


def build_model(
    name: str = "resnet18", *, num_classes: int, weights: dict[str, Tensor] | None, seed: int = 0
) -> nn.Module:
    """A network of torchvision with a new head of `num_classes` outputs.

    `weights`: a state dict for the backbone (its head, if any, is ignored), or None for random
    ones. What is random is drawn from `seed` alone, so the same call gives the same network
    whatever ran before. Raises FlowersError for an unknown name, or weights that do not fit.
    """
    check(name in HEADS, f"BACKBONE must be one of {tuple(HEADS)}, but it is {name!r}.")
    with torch.random.fork_rng(devices=[]):  # afterwards torch's own generator is as it was
        torch.manual_seed(seed)
        model = get_model(name, weights=None)
        model.architecture = name  # to find its head later
        model.set_submodule(HEADS[name], nn.Linear(head_of(model).in_features, num_classes))
    if weights is not None:
        backbone = {k: v for k, v in weights.items() if not k.startswith(HEADS[name])}
        head = {k: v for k, v in model.state_dict().items() if k.startswith(HEADS[name])}
        try:
            model.load_state_dict(backbone | head)
        except RuntimeError as error:  # it names the tensors that are missing or do not fit
            raise FlowersError(f"These weights are for another network. {error}") from error
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
            f"damaged: delete it. Then run this cell again, or save {weights.url} there yourself. (A "
            "certificate error on macOS: run 'Install Certificates.command' in Python's folder.)"
        ) from error


def classifier_of(model: nn.Module) -> nn.Module:
    """The module that turns features into logits (in some families with dropout before it)."""
    return getattr(model, HEADS[model.architecture].split(".")[0])


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer."""
    return model.get_submodule(HEADS[model.architecture])


def check_head(model: nn.Module, num_classes: int) -> None:
    """Raise FlowersError for a network of other origin, or with another number of outputs."""
    outputs = head_of(model).out_features if hasattr(model, "architecture") else "unknown"
    told = f"The network's head must have {num_classes} outputs, one for each class, but it has "
    check(outputs == num_classes, f"{told}{outputs}; make the network with build_model().")


def freeze_backbone(model: nn.Module) -> None:
    """Let only the head learn: no gradients anywhere else."""
    model.requires_grad_(False)  # this freezes all parameters, the next line thaws the head's
    classifier_of(model).requires_grad_(True)


def train_mode(model: nn.Module) -> nn.Module:
    """Like `model.train()`, but what is frozen stays in eval mode.

    In train mode BatchNorm updates its running statistics in every forward pass, even if its
    parameters are frozen; and stochastic depth (in the EfficientNets) drops blocks of the backbone.
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

    All stages of the backbone share one rate. A frozen stage gets no group.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        stage = name.split(".")[0]  # "layer1.0.conv1.weight" belongs to "layer1"
        if stage in ("conv1", "bn1"):
            stage = "stem"
        if parameter.requires_grad:
            lr = head_lr if name.startswith(HEADS[model.architecture]) else backbone_lr
            group = groups.setdefault(stage, {"name": stage, "params": [], "lr": lr})
            group["params"].append(parameter)
    return list(groups.values())


def fingerprint(model: nn.Module) -> str:
    """A short hash of parameters and buffers (BatchNorm's statistics too): equal means unchanged."""
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(key.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
