"""A look inside a network, which stays in eval mode: gradients, places that matter, mistakes."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock

from flowers_utils.device import Device
from flowers_utils.evaluation import Z_95, Estimate, Metrics
from flowers_utils.transforms import eval_batch


class PlainBlock(BasicBlock):
    """torchvision's BasicBlock without its skip connection."""

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


def gradient_at_each_block(*, skip: bool, blocks: int = 16, seed: int = 0) -> list[float]:
    """How much of the gradient arrives at each block of an untrained stack, first block first.

    Mean absolute gradient at the block's input, divided by the one behind the last block. Weights
    and BatchNorm (in train mode) are as in an untrained ResNet.
    """
    kind = BasicBlock if skip else PlainBlock
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stack = nn.Sequential(*(kind(16, 16) for _ in range(blocks)))
        for module in stack.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        values = [torch.randn(8, 16, 16, 16, requires_grad=True)]
        for block in stack:
            values.append(block(values[-1]))
        loss = (values[-1] * torch.randn(8, 16, 16, 16)).mean()  # stands for any loss
    sizes = [gradient.abs().mean() for gradient in torch.autograd.grad(loss, values)]
    return [float(size / sizes[-1]) for size in sizes[:-1]]


@dataclass(frozen=True)
class Heat:
    """Which places of one photograph the prediction, class `target`, depends on."""

    values: Tensor  # (S, S), 0..1
    target: int
    method: str


def heat_map(model: nn.Module, photo: Tensor | np.ndarray, device: Device) -> Heat:
    """What speaks for the predicted class of `photo`, uint8 `(3, S, S)`.

    Grad-CAM from 224 pixels on, where the last stage has 7 x 7 places; on smaller ones occlusion,
    because Grad-CAM cannot tell fewer places apart.
    """
    return (grad_cam if photo.shape[-1] >= 224 else occlusion)(model, photo, device)


def grad_cam(model: nn.Module, photo: Tensor | np.ndarray, device: Device) -> Heat:
    """Grad-CAM (Selvaraju et al. 2017) on the last stage: its maps, weighted by their gradients."""
    images = _normalised(photo, device).requires_grad_()  # or a frozen network has no gradients
    stage, head = ("layer4", "fc") if hasattr(model, "layer4") else ("features", "classifier")
    device.place(model).eval()
    with torch.enable_grad(), device.autocast():
        split = create_feature_extractor(model, {stage: "maps", head: "logits"})
        maps, logits = split(images).values()
        target = int(logits.argmax())
        (gradient,) = torch.autograd.grad(logits[0, target], maps)
    importance = gradient.float().mean(dim=(2, 3), keepdim=True)  # of each map for this class
    heat = (importance * maps.detach().float()).sum(dim=1, keepdim=True).relu()
    heat = F.interpolate(heat, photo.shape[-2:], mode="bilinear")[0, 0].cpu()
    return Heat(heat / heat.max().clamp_min(1e-12), target, f"Grad-CAM on {stage}")


def occlusion(model: nn.Module, photo: Tensor | np.ndarray, device: Device) -> Heat:
    """Move a grey square over the photograph and see where the prediction suffers most.

    After Zeiler and Fergus 2014. The heat of a pixel is by how much the log-probability of the
    class falls, on average over the squares that cover this pixel.
    """
    image, side = _normalised(photo, device), photo.shape[-1]
    width = max(4, 3 * side // 16)
    # Squares start outside, so that pixels at the border are covered as often as others.
    edges = [slice(max(0, i), i + width) for i in range(1 - width, side, round(0.4 * width))]
    squares = [(rows, columns) for rows in edges for columns in edges]
    hidden = image.repeat(1 + len(squares), 1, 1, 1)  # the first one stays complete
    for picture, (rows, columns) in zip(hidden[1:], squares, strict=True):
        picture[:, rows, columns] = 0  # ImageNet's mean colour, after normalisation
    device.place(model).eval()
    with torch.inference_mode(), device.autocast():
        logits = torch.cat([model(some).float() for some in hidden.split(64)])
    target = int(logits[0].argmax())
    scores = logits.log_softmax(dim=1)[:, target]
    total, times = np.zeros((side, side)), np.zeros((side, side))
    for square, fall in zip(squares, (scores[0] - scores[1:]).tolist(), strict=True):
        total[square] += fall
        times[square] += 1
    heat = torch.from_numpy(total / times).float().relu()
    return Heat(heat / heat.max().clamp_min(1e-12), target, "occlusion")


def _normalised(photo: Tensor | np.ndarray, device: Device) -> Tensor:
    """One uint8 photograph (3, S, S) as a batch for the network."""
    photo = torch.as_tensor(np.array(photo))
    return device.place_batch(eval_batch(photo[None].to(device.torch_device), photo.shape[-1]))


def most_confused_pairs(metrics: Metrics, k: int) -> list[tuple[int, int, list[int], list[int]]]:
    """The k pairs of classes (a, b) with the most mistakes; only pairs with any.

    With each, the positions of the a that were predicted as b, and of the b predicted as a.
    """

    def taken(true: int, predicted: int) -> list[int]:
        both = (metrics.labels == true) & (metrics.predictions == predicted)
        return np.flatnonzero(both).tolist()

    mistakes = np.triu(metrics.confusion + metrics.confusion.T, k=1)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:k]
    pairs = [divmod(int(i), len(mistakes)) for i in order if mistakes.flat[i] > 0]
    return [(a, b, taken(a, b), taken(b, a)) for a, b in pairs]


def auroc(known_confidence: Tensor, unknown_confidence: Tensor) -> Estimate:
    """How well confidence separates photographs of known classes from those of unknown ones.

    The probability that a known one has the higher confidence: 0.5 is no better than guessing, 1 is
    perfect. The 95 % interval is by Hanley and McNeil 1982. Each needs at least one photograph.
    """
    known, unknown = (np.asarray(x, dtype=float) for x in (known_confidence, unknown_confidence))
    n, m = len(known), len(unknown)
    area = float(roc_auc_score(np.repeat([1, 0], [n, m]), np.concatenate([known, unknown])))
    above, below = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    half = Z_95 * ((area * (1 - area) + (n - 1) * above + (m - 1) * below) / (n * m)) ** 0.5
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))
