"""A head fitted by logistic regression: at the end of the faster recipes, and in experiments."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from flowers_utils import models
from flowers_utils.data import FlowerData, Split
from flowers_utils.device import Device
from flowers_utils.evaluation import features_of
from flowers_utils.phases import EpochResult, epoch_result
from flowers_utils.transforms import evaluation_batches

HEAD_C = 0.1  # scikit-learn's C: smaller is a stronger penalty of the weights
FOLDS = 5  # parts of val in the cross-validation


def fit_head(
    model: nn.Module, data: FlowerData, device: Device, *, c: float = HEAD_C
) -> EpochResult:
    """Replace the head by logistic regression on the features of all training photographs.

    Each photograph and its mirror image count, not augmented, so loss and accuracy on train cannot
    be compared with those of the epochs. With its penalty of the squared weights this problem is
    convex, so it has one best answer and needs no learning rate.
    """
    features, labels = mirrored_features(model, data.train, device, image_size=data.image_size)
    fit_to_features(model, features, labels, c=c)
    return epoch_result(_logits(model, features, device), labels)


def fit_final_head(
    model: nn.Module, data: FlowerData, device: Device
) -> tuple[EpochResult, EpochResult]:
    """Fit the head like `fit_head`, but to train and val together; the measures on train and on val.

    A head cannot be measured on photographs that it was fitted to. So each fifth of val is
    classified by another head, fitted to train and the rest of val (cross-validation). The last
    head, fitted to all, stays. Copies of a photograph within val make its measures too high.
    """
    size, count = data.image_size, len(data.val)
    train_x, train_y = mirrored_features(model, data.train, device, image_size=size)
    val_x, val_y = mirrored_features(model, data.val, device, image_size=size)
    fold = data.val.labels.argsort(stable=True).argsort() % FOLDS  # each has every class
    logits = torch.zeros(count, data.num_classes)
    for part in fold.unique():
        others = (fold != part).repeat(2)  # without the mirror images of the fifth, too
        features, labels = torch.cat([train_x, val_x[others]]), torch.cat([train_y, val_y[others]])
        fit_to_features(model, features, labels)
        logits[fold == part] = _logits(model, val_x[:count][fold == part], device)
    fit_to_features(model, torch.cat([train_x, val_x]), torch.cat([train_y, val_y]))
    train = epoch_result(_logits(model, train_x, device), train_y)
    return train, epoch_result(logits, data.val.labels)


def mirrored_features(
    model: nn.Module, split: Split, device: Device, *, image_size: int
) -> tuple[Tensor, Tensor]:
    """Features `(2N, F)` and labels `(2N,)`: of all photographs, then of their mirror images."""
    parts = []
    for images in (split.images, split.images[..., ::-1]):  # from right to left: mirrored
        batches = evaluation_batches(replace(split, images=images), device, image_size=image_size)
        parts.append(features_of(model, batches, device)[0])
    return torch.cat(parts), split.labels.repeat(2)


def fit_to_features(model: nn.Module, x: Tensor, y: Tensor, *, c: float = HEAD_C) -> None:
    """Fit scikit-learn's logistic regression, and write its weights into the head."""
    standard = StandardScaler().fit(x)  # the penalty needs features of equal scale
    solver = LogisticRegression(C=c, max_iter=1000).fit(standard.transform(x), y)
    weight, bias = solver.coef_, solver.intercept_
    if len(solver.classes_) == 2:  # scikit-learn returns one row, for the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / standard.scale_  # standardising is linear too, so the head takes it over
    bias = bias - weight @ standard.mean_
    head = models.head_of(model)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-10.0)  # so a class without photographs is never predicted
        head.weight[solver.classes_] = torch.from_numpy(weight).to(head.weight)
        head.bias[solver.classes_] = torch.from_numpy(bias).to(head.bias)


def _logits(model: nn.Module, features: Tensor, device: Device) -> Tensor:
    """What the classifier makes of stored features, on the CPU."""
    with torch.no_grad(), device.autocast():
        return models.classifier_of(model)(features.to(device.torch_device)).float().cpu()
