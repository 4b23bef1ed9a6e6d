"""The exercises: the notebook's own solutions are correct, typical wrong answers get their hint."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import transfer_learning_config as config
from flowers_utils.errors import FlowersError
from flowers_utils.exercises import check, explain_missing_names
from flowers_utils.exercises.missing_names import NOTEBOOK, sections_of_names

ANSWERS = (
    "answer",
    "normalise",
    "answer",
    "freeze",
    "one_epoch",
    "groups_of",
    "top_k",
    "smooth_loss",
)
NUMBERS = range(1, 9)
LOOP = """
def one_epoch(model, batches, optimizer):
    total, count = 0.0, 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        {steps}
        {counting}
    return {returned}
"""
CORRECT_STEPS = "optimizer.zero_grad(); loss.backward(); optimizer.step()"
CORRECT_COUNT = "total += loss.item() * len(labels); count += len(labels)"


def loop(steps=CORRECT_STEPS, counting=CORRECT_COUNT, returned="total / count"):
    return LOOP.format(steps=steps, counting=counting, returned=returned)


def normalise(returned):
    return f"def normalise(images): return {returned}"


def freeze(line):
    return f"def freeze(model, names):\n    for name in names:\n        getattr(model, name).{line}"


def groups(returned):
    return f"def groups_of(model, head_lr): return {returned}"


def top_k(returned):
    best = "(logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)"
    return f"def top_k(logits, labels, k): return {returned.replace('BEST', best)}"


def smooth(returned):
    return f"def smooth_loss(logits, labels): return {returned}"


WRONG = [
    (1, "answer = 31", "last, smaller batch"),
    (1, "answer = 1020 / 32", "Round up"),
    (1, "answer = 1020", "remainder"),
    (1, "answer = '32'", "without quotes"),
    (1, "answer = torch.tensor([32, 32])", "take their mean"),
    (2, normalise("(images - MEAN) / STD"), "from 0 to 1"),
    (2, normalise("images / 255 - MEAN"), "Now divide"),
    (2, normalise("(images / 255 - MEAN.flatten()) / STD"), "raises RuntimeError"),
    (2, normalise("images.tolist()"), "not a list"),
    (2, normalise("(images / 255 - MEAN) * STD"), "Divide by 255"),
    (3, "answer = 5120", "also has a bias"),
    (3, "answer = 52326", "for 102 classes"),
    (4, freeze("requires_grad_(False)"), "BatchNorm must be in eval mode"),
    (4, freeze("eval()"), "still changes"),
    (4, freeze("requires_grad_(False).eval(); model.layer4.requires_grad_(False)"), "no longer"),
    (4, freeze("eval(); model.requires_grad_(False)"), "no longer changes"),
    (4, freeze("frozen()"), "AttributeError"),
    (5, loop(steps="loss.backward(); optimizer.step()"), "use zero_grad"),
    (
        5,
        loop(steps="loss.backward(); optimizer.zero_grad(); optimizer.step()"),
        "No weight changed",
    ),
    (5, loop(counting="total += loss.item(); count += 1"), "as much as one of 8"),
    (5, loop(returned="None"), "Return the mean loss"),
    (5, loop(returned="total"), "over all photographs"),
    (6, groups("[{'params': model.fc.parameters(), 'lr': head_lr}]"), "in no group"),
    (6, groups("[{'params': model.fc.parameters()}] * 2"), "duplicate parameters"),
    (6, groups("[{'params': model.parameters(), 'lr': head_lr}]"), "is 0.002, not 0.064"),
    (6, groups("{'params': model.parameters(), 'lr': head_lr}"), "cannot be used"),
    (7, top_k("(logits.argmax(dim=1) == labels).float().mean()"), "this is top-1"),
    (7, top_k("BEST.sum()"), "This is a count"),
    (7, top_k("BEST"), "take their mean"),
    (7, top_k("100 * BEST.float().mean()"), "is correct"),
    (8, smooth("F.cross_entropy(logits, labels)"), "without any smoothing"),
    (
        8,
        smooth("0.9 * F.cross_entropy(logits, labels) + 0.1 * logits.log_softmax(1).mean()"),
        "minus",
    ),
    (8, smooth("-logits.log_softmax(dim=1).mean()"), "Add 0.9 of the usual loss"),
]


def checked(number, source):
    """The line of the check about an answer, given as the code that makes it."""
    mean, std = (torch.tensor(config.NORMALIZATION[key]).view(3, 1, 1) for key in ("mean", "std"))
    names = {"torch": torch, "nn": nn, "F": F, "MEAN": mean, "STD": std, "config": config}
    exec(source, names)
    return check(number, names[ANSWERS[number - 1]])


def cells(kind):
    return [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == kind]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_folded_solution_is_correct(number):
    text = "\n".join(cell.source for cell in cells("markdown"))
    solution = rf"Solution of exercise {number}\b.*?```python\n(.*?)```"
    source = re.search(solution, text, re.DOTALL)[1]
    assert checked(number, source).startswith(f"Exercise {number}: correct."), source


@pytest.mark.parametrize("number", NUMBERS)
def test_the_gap_as_it_stands_is_not_answered_yet(number):
    (gap,) = [cell.source for cell in cells("code") if cell.id == f"exercise-{number}"]
    source = gap.split("print(fu.exercises.check")[0]
    assert checked(number, source).startswith(f"Exercise {number}: not answered yet.")


@pytest.mark.parametrize(("number", "source", "hint"), WRONG)
def test_a_typical_wrong_answer_gets_its_hint(number, source, hint):
    line = checked(number, source)
    assert line.startswith(f"Exercise {number}: not yet.")
    assert hint in line


@pytest.mark.parametrize("answer", [None, ..., [1], "text", torch.zeros(200), object()])
def test_no_answer_raises_an_error(answer):
    for number in NUMBERS:
        pattern = rf"Exercise {number}: not (yet|answered yet)\."
        assert re.match(pattern, check(number, answer)), answer
        assert re.match(pattern, check(number, lambda *_, answer=answer: answer)), answer


def test_an_unknown_exercise_is_an_error_that_says_how_many_there_are():
    with pytest.raises(FlowersError, match="from 1 to 8"):
        check(9, 1)


# A cell that is run too early.


@pytest.fixture
def lesson(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("### 2. The photographs\nWords."),
        nbformat.v4.new_code_cell("data = [1]\nfor image in data: shown = image"),
        nbformat.v4.new_markdown_cell("## Part two\n"),
        nbformat.v4.new_code_cell("import math\ndata = [2]\ndef area(radius): inner = radius"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "lesson.ipynb")
    return tmp_path / "lesson.ipynb"


def test_each_name_belongs_to_the_section_that_makes_it_first(lesson):
    first, second = "2. The photographs", "Part two"
    names = {"data": first, "image": first, "shown": first, "math": second, "area": second}
    assert sections_of_names(lesson) == names
    assert sections_of_names(lesson.with_name("renamed.ipynb")) == {}


def test_a_cell_run_too_early_names_the_section_that_it_needs(lesson, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    explain_missing_names(shell, lesson)
    shell.run_cell("print(len(data))")
    shell.run_cell("print(len(unknown))")
    printed = capsys.readouterr().out
    assert "'data' does not exist yet: run section \"2. The photographs\" first." in printed
    assert "name 'unknown' is not defined" in printed


def test_a_plain_script_needs_no_shell():
    explain_missing_names()
