"""Claims that the notebook shows to hold, and answers to its exercises."""

import dis
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowers_utils.errors import FlowersError
from flowers_utils.models import (
    NORM_LAYERS,
    build_model,
    count_parameters,
    fingerprint,
    freeze_backbone,
)
from flowers_utils.training import batch_sums

NOTEBOOK = Path(__file__).parents[1] / "resnet18_training.ipynb"


def backbone_unmoved(before: str, model: nn.Module) -> str:
    """A sentence that the backbone's fingerprint is still `before`; FlowersError if it is not."""
    after = fingerprint(model)
    if after != before:
        raise FlowersError(
            f"The frozen backbone moved: its fingerprint was {before} and is now {after}. Run the "
            "notebook again from the top; if it still moves, some cell trains the backbone."
        )
    return f"Backbone before Phase 1: {before}, after: {after}. Not one number moved."


def explain_missing_names(shell: Any, notebook: Path = NOTEBOOK) -> None:
    """Let a NameError say which section of `notebook` to run first, if a cell there makes the name.

    `shell` is the notebook's `get_ipython()`. The cell still fails, with its ordinary traceback;
    every other NameError, and all of them if the notebook cannot be read, stays as it is.
    """

    def explain(shell: Any, kind: type, error: NameError, traceback: Any, tb_offset: Any) -> None:
        section = section_of_each_name(notebook).get(error.name)
        if section and error.name not in shell.user_ns:  # else it is a slip in some function
            sentence = (
                f"'{error.name}' is not there yet: run the section \"{section}\" above first."
            )
            error.args = (sentence,)
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    shell.set_custom_exc((NameError,), explain)


def section_of_each_name(notebook: Path) -> dict[str, str]:
    """The heading under which each of the notebook's names is made first; empty if unreadable."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return {}
    found, section = {}, ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.startswith("## "):
            section = source.splitlines()[0].removeprefix("## ")
        elif cell["cell_type"] == "code" and section:
            found = dict.fromkeys(names_made(source), section) | found
    return found


def names_made(source: str) -> list[str]:
    """The variables a cell leaves behind; none for a cell that plain Python cannot compile."""
    try:
        code = compile(source, "cell", "exec")
    except SyntaxError:
        return []
    return [step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"]


def check_head_size(answer: int | None) -> str:
    """Exercise 1: how many parameters would train in Phase 1 with 10 classes instead of 102?"""
    if answer is None:
        return "Exercise 1: not answered yet."
    model = build_model("resnet18", num_classes=10, weights=None)
    freeze_backbone(model)
    if answer == count_parameters(model)[1]:
        return "Exercise 1: right. Weights and biases of one linear layer, 512 to 10."
    return "Exercise 1: not yet. The head has 512 inputs; count its weights, then its biases."


def check_top_k(function: Callable[[torch.Tensor, torch.Tensor, int], float] | None) -> str:
    """Exercise 2: `function(logits, labels, k)` gives the share of labels among the k best."""
    if function is None:
        return "Exercise 2: not answered yet."
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(200, 10, generator=generator)
    labels = torch.randint(10, (200,), generator=generator)
    sums = batch_sums(logits, torch.tensor(0.0), labels)
    for k, expected in ((1, sums[1] / sums[3]), (5, sums[2] / sums[3])):
        given = float(function(logits, labels, k))
        if abs(given - float(expected)) > 1e-6:
            return f"Exercise 2: not yet. For k={k} yours gives {given:.3f}, not {expected:.3f}."
    return "Exercise 2: right, for k=1 and for k=5."


def check_freeze(function: Callable[[nn.Module], Any] | None) -> str:
    """Exercise 3: `function(model)` freezes a network whose running statistics must not move."""
    if function is None:
        return "Exercise 3: not answered yet."
    torch.manual_seed(7)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    function(model)
    model(torch.randn(8, 3, 8, 8) + 3)
    moved = [key for key, value in model.state_dict().items() if not value.equal(before[key])]
    if moved:
        return f"Exercise 3: not yet. '{moved[0]}' moved during a forward pass."
    if any(parameter.requires_grad for parameter in model.parameters()):
        return "Exercise 3: not yet. Some parameters would still get gradients."
    kept = all(not m.training for m in model.modules() if isinstance(m, NORM_LAYERS))
    return "Exercise 3: right." if kept else "Exercise 3: not yet. BatchNorm is in train mode."
