"""The exercises: the notebook's own solutions are correct, typical wrong answers get their hint."""

import re

import nbformat
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import transfer_learning_config as config
from flowers_utils.exercises import check, explain_missing_names
from flowers_utils.exercises.missing_names import NOTEBOOK, sections_of_names

NUMBERS = range(1, 9)
# The beginning of each answer in WRONG.
STARTS = {
    2: "def normalise(images): return ",
    4: "def freeze(model, names):\n    for n in names: getattr(model, n).",
    5: "",
    6: "def groups_of(model, head_lr): return ",
    7: "def top_k(logits, labels, k): return ",
    8: "def smooth_loss(logits, labels): return ",
}
LOOP = """
def one_epoch(model, batches, optimizer):
    total, count = 0.0, 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        total += loss.item() * len(labels); count += len(labels)
    return total / count
"""
BEST = "(logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)"
WRONG = [
    (1, "31", "last, smaller batch"),
    (1, "'32'", "leads to an error, TypeError"),
    (1, "torch.tensor([32, 32])", "shape of the answer is (2,), but () is needed"),
    (2, "(images - MEAN) / STD", "from 0 to 1"),
    (2, "(images / 255 - MEAN.flatten()) / STD", "error, RuntimeError"),
    (3, "5120", "also has a bias"),
    (4, "requires_grad_(False)", "BatchNorm must be in eval mode"),
    (4, "eval()", "still changes"),
    (4, "eval(); model.requires_grad_(False)", "no longer changes"),
    (5, LOOP.replace("optimizer.zero_grad(); ", ""), "use zero_grad"),
    (5, LOOP.replace("loss.backward(); ", ""), "zero_grad, backward, step"),
    (5, LOOP.replace("loss.item() * len(labels)", "loss.item() * 19 / 3"), "as much as one of 8"),
    (5, LOOP.replace("/ count", ""), "Return the mean loss"),
    (6, "[{'params': model.fc.parameters(), 'lr': head_lr}]", "in no group"),
    (6, "[{'params': model.fc.parameters()}] * 2", "more than one parameter group"),
    (6, "[{'params': model.parameters(), 'lr': head_lr}]", "is 0.002, not 0.064"),
    (7, "(logits.argmax(dim=1) == labels).float().mean()", "this is top-1"),
    (7, f"{BEST}.sum()", "This is a count"),
    (8, "F.cross_entropy(logits, labels)", "without any smoothing"),
    (8, "-logits.log_softmax(dim=1).mean()", "Add 0.9 of the usual loss"),
]


def checked(number, source):
    """The line of the check about an answer, given as the code that makes it."""
    mean, std = (torch.tensor(config.NORMALIZATION[key]).view(3, 1, 1) for key in ("mean", "std"))
    names = {"torch": torch, "nn": nn, "F": F, "MEAN": mean, "STD": std, "config": config}
    exec(source, names)
    return check(number, list(names.values())[-1])  # what was defined last


def cells(kind):
    return [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == kind]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_folded_solution_is_correct(number):
    text = "\n".join(cell.source for cell in cells("markdown"))
    source = re.search(rf"(?s)Exercise {number}: [^\n]*</summary>.*?```python\n(.*?)```", text)[1]
    assert checked(number, source).startswith(f"Exercise {number}: correct."), source


@pytest.mark.parametrize("number", NUMBERS)
def test_the_gap_as_it_stands_is_not_answered_yet(number):
    (gap,) = [c.source for c in cells("code") if f"fu.exercises.check({number}," in c.source]
    source = re.sub(r"(?m)^print.*$", "", gap.split(f"print(fu.exercises.check({number},")[0])
    assert checked(number, source).startswith(f"Exercise {number}: not answered yet.")


@pytest.mark.parametrize(("number", "source", "hint"), WRONG)
def test_a_typical_wrong_answer_gets_its_hint(number, source, hint):
    line = checked(number, STARTS.get(number, "answer = ") + source)
    assert line.startswith(f"Exercise {number}: not yet.") and hint in line


@pytest.mark.parametrize("answer", [None, "text", torch.zeros(200), object()])
def test_no_answer_raises_an_error(answer):
    for number in NUMBERS:
        for given in (answer, lambda *_: answer):
            assert re.match(rf"Exercise {number}: not (yet|answered yet)\.", check(number, given))


def test_a_cell_run_too_early_names_the_section_that_makes_its_name_first(tmp_path, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    heading, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [heading("### 2. The photographs\nWords."), code("for data in [1]: pass")]
    cells += [heading("## Part two"), code("import math\ndata = 2\ndef area(radius): inner = 1")]
    lesson = tmp_path / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lesson)
    names = {"data": "2. The photographs", "math": "Part two", "area": "Part two"}
    assert sections_of_names(lesson) == names
    shell = InteractiveShell(ipython_dir=str(tmp_path))  # not the user's own
    explain_missing_names(shell, lesson)
    shell.run_cell("print(len(data))")
    shell.run_cell("print(len(unknown))")
    printed = capsys.readouterr().out
    assert "'data' does not exist yet: run section \"2. The photographs\" first." in printed
    assert "name 'unknown' is not defined" in printed
