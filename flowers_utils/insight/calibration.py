"""How sure the network may be: the temperature by which its logits are divided."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from flowers_utils.evaluation import check_logits

TEMPERATURES = (0.05, 20.0)  # where the best one is searched
FEWEST_TO_CALIBRATE = 50  # val photographs; one number fitted on fewer is mostly chance


def fit_temperature(val_logits: Tensor, val_labels: Tensor) -> tuple[float, str]:
    """The T that makes softmax(logits / T) most likely on val (Guo et al. 2017), and a remark.

    It changes no prediction, only how sure the network claims to be. Where val cannot tell which T
    is best, T stays 1.0 and the remark says why; else the remark is empty.
    """
    logits, labels = check_logits(val_logits, val_labels, torch.as_tensor(val_logits).shape[-1])
    kept = "Temperature stays 1, so the probabilities are the network's own: "
    if len(labels) < FEWEST_TO_CALIBRATE:
        return 1.0, f"{kept}{len(labels)} val photographs are too few to fit it."
    low, high = (math.log(edge) for edge in TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(low, high),
        method="bounded",
    )
    # Without a mistake a smaller T is always better, and soon too little better to be seen.
    no_mistake = bool((logits.argmax(dim=1) == labels).all())
    if no_mistake or min(found.x - low, high - found.x) < 0.01 * (high - low):
        return 1.0, f"{kept}val does not say where the best one lies (no mistake, or no skill)."
    return math.exp(found.x), ""
