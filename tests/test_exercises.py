"""The exercises: the notebook's own solutions are right, typical wrong answers get their hint."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import transfer_learning_config as config
from flowers_utils import exercises

NOTEBOOK = Path(__file__).parents[1] / "resnet18_training.ipynb"
EXERCISES = {
    1: ("answer", exercises.check_steps),
    2: ("normalise", exercises.check_normalise),
    3: ("answer", exercises.check_head_size),
    4: ("freeze", exercises.check_freeze),
    5: ("one_epoch", exercises.check_loop),
    6: ("groups_of", exercises.check_groups),
    7: ("top_k", exercises.check_top_k),
    8: ("smooth_loss", exercises.check_smoothing),
}
LOOP = """
def one_epoch(model, batches, optimizer):
    total, count = 0.0, 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        {steps}
        {counting}
    return {returned}
"""
RIGHT_STEPS = "optimizer.zero_grad(); loss.backward(); optimizer.step()"
RIGHT_COUNT = "total += loss.item() * len(labels); count += len(labels)"


def loop(steps=RIGHT_STEPS, counting=RIGHT_COUNT, returned="total / count"):
    return LOOP.format(steps=steps, counting=counting, returned=returned)


def function(head, body):
    return f"def {head}:\n    {body}"


def normalise(body):
    return function("normalise(images)", body)


def freeze(body):
    start = "for module in [getattr(model, name) for name in names]:\n        "
    return function("freeze(model, names)", start + body)


def groups(body):
    return function("groups_of(model, head_lr)", body)


def top_k(body):
    return function("top_k(logits, labels, k)", body)


def smooth(body):
    return function("smooth_loss(logits, labels)", body)


NO_GRADIENT = "module.requires_grad_(False)"
ALL_STAGES = """stages = [[model.conv1, model.bn1], *([getattr(model, f"layer{i}")] for i in range(1, 5))]
    stages.append([model.fc])
    made = [{"params": [p for part in parts for p in part.parameters()], "lr": head_lr / 2**(5 - i)}
            for i, parts in enumerate(stages)]
    return """
BEST = "right = (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)\n    return "
WRONG = [
    (1, "answer = 31", "last, smaller batch"),
    (1, "answer = 1020 / 32", "Round up"),
    (1, "answer = 1020", "number of photographs"),
    (1, "answer = '32'", "without quotes"),
    (1, "answer = [32]", "without quotes or brackets"),
    (1, "answer = torch.tensor([32, 32])", "shape (2,)"),
    (2, normalise("return (images - MEAN) / STD"), "scale of 0 to 1"),
    (2, normalise("return images / 255 - MEAN"), "now divide by the spread"),
    (2, normalise("return images / 255 - MEAN / STD"), "mind the brackets"),
    (2, normalise("return (images / 255 - MEAN.flatten()) / STD"), "the shape (3, 1, 1)"),
    (2, normalise("return images.tolist()"), "no tensor"),
    (2, normalise("return (images / 255 - MEAN) * STD"), "divide by 255, take MEAN away"),
    (3, "answer = 5120", "also has a bias"),
    (3, "answer = 52326", "for 102 classes"),
    (3, "answer = 11181642", "whole network"),
    (3, "answer = 5632", "belong to the outputs"),
    (4, freeze(NO_GRADIENT), "BatchNorm must be in eval mode"),
    (4, freeze("module.eval()"), "still learns"),
    (4, freeze(f"model.requires_grad_(False); {NO_GRADIENT}"), "Nothing learns any more"),
    (4, freeze(f"{NO_GRADIENT}; model.eval()"), "BatchNorm is to go on learning"),
    (4, freeze(f"{NO_GRADIENT}; module.eval(); model.layer4.requires_grad_(False)"), "no longer"),
    (4, freeze("module.frozen()"), "AttributeError"),
    (4, freeze("module.requires_grad = False"), "On a module `requires_grad` does nothing"),
    (5, loop(returned="None"), "returns nothing"),
    (5, loop(steps="loss.backward(); optimizer.step()"), "gradients of the batches before"),
    (5, loop(steps="loss.backward(); optimizer.zero_grad(); optimizer.step()"), "No weight moved"),
    (5, loop(counting="total += loss.item(); count += 1"), "counts as much as one of 8"),
    (5, loop(returned="total"), "still to be divided"),
    (5, loop(returned="loss.item()"), "last batch alone"),
    (6, groups("return [{'params': model.fc.parameters(), 'lr': head_lr}]"), "in no group"),
    (6, groups(ALL_STAGES + "made + [{'params': model.bn1.parameters(), 'lr': 1}]"), "than one"),
    (6, groups(ALL_STAGES.replace("5 - i", "i") + "made"), "should learn at"),
    (6, groups("return [{'params': model.parameters(), 'lr': head_lr}]"), "should learn at"),
    (6, groups("return {'params': model.parameters(), 'lr': head_lr}"), "list of dicts"),
    (6, groups("return [{'params': model.parameters()}]"), "the keys 'params' and 'lr'"),
    (6, groups("return [{'params': model.named_parameters(), 'lr': 1}]"), "not their names"),
    (6, groups("return [{'params': model.fc, 'lr': head_lr}]"), "call its `.parameters()`"),
    (6, groups("return [{'params': 3, 'lr': head_lr}]"), "cannot be read"),
    (7, top_k("return (logits.topk(k, dim=1).indices == labels).float()"), "labels[:, None]"),
    (7, top_k("return (logits.argmax(dim=1) == labels).float().mean()"), "that is top-1"),
    (7, top_k(BEST.replace("k,", "5,") + "right.float().mean()"), "`k` is ignored"),
    (7, top_k(BEST + "right.sum()"), "counts the photographs"),
    (7, top_k(BEST + "100 * right.float().mean()"), "percentage"),
    (7, top_k(BEST + "right"), "one value for each photograph"),
    (7, top_k(BEST + "right.tolist()"), "without quotes or brackets"),
    (8, smooth("return F.cross_entropy(logits, labels)"), "nothing is smoothed"),
    (
        8,
        smooth(
            "p = logits.log_softmax(1)\n    return 0.9 * F.nll_loss(p, labels) + 0.1 * p.mean()"
        ),
        "a minus is missing",
    ),
    (8, smooth("return -logits.log_softmax(dim=1).mean()"), "All of the truth"),
    (8, smooth("return F.cross_entropy(logits, labels, label_smoothing=0.9)"), "swapped"),
    (
        8,
        smooth("return F.cross_entropy(logits, labels, label_smoothing=0.1, reduction='none')"),
        "one value for each photograph",
    ),
    (
        8,
        smooth("return F.cross_entropy(logits, labels, label_smoothing=0.1, reduction='sum')"),
        "take their mean",
    ),
]


def checked(number, source):
    """What the check of an exercise says to an answer, given as the code that makes it."""
    mean, std = (torch.tensor(config.NORMALIZATION[key]).view(3, 1, 1) for key in ("mean", "std"))
    names = {"torch": torch, "nn": nn, "F": F, "MEAN": mean, "STD": std, "config": config}
    exec(source, names)
    name, check = EXERCISES[number]
    return check(names[name])


def cell(cell_id):
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return next(cell.source for cell in cells if cell.id == cell_id)


@pytest.mark.parametrize("number", EXERCISES)
def test_the_folded_solution_is_right(number):
    folded = cell(f"exercise-{number}-solution")
    (source,) = re.findall(r"<details>.*```python\n(.*?)```.*</details>", folded, re.DOTALL)
    assert checked(number, source).startswith(f"Exercise {number}: right."), source


@pytest.mark.parametrize("number", EXERCISES)
def test_the_gap_as_it_stands_is_not_answered_yet(number):
    source = cell(f"exercise-{number}").split("print(fu.exercises.check")[0]
    assert checked(number, source).startswith(f"Exercise {number}: not answered yet.")


@pytest.mark.parametrize(("number", "source", "hint"), WRONG)
def test_a_typical_wrong_answer_gets_its_hint(number, source, hint):
    said = checked(number, source)
    assert said.startswith(f"Exercise {number}: not yet.")
    assert hint in said


@pytest.mark.parametrize("answer", [None, ..., [1], "text", torch.zeros(200), object()])
def test_no_check_stops_with_an_error(answer):
    for number, (_, check) in EXERCISES.items():
        assert re.match(rf"Exercise {number}: not (yet|answered yet)\.", check(answer)), answer
        assert check(lambda *_, answer=answer: answer).startswith(f"Exercise {number}: not ")
