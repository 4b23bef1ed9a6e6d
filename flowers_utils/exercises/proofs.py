"""What the notebook proves, and what it says when a cell is run too early."""

import ast
import json
from pathlib import Path
from typing import Any

from torch import nn

from flowers_utils.errors import FlowersError
from flowers_utils.models import fingerprint

NOTEBOOK = Path(__file__).parents[2] / "resnet18_training.ipynb"


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

    `shell` is `get_ipython()`. Every other NameError keeps its ordinary traceback, and the cell
    fails either way.
    """

    def explain(shell: Any, kind: type, error: NameError, traceback: Any, tb_offset: Any) -> None:
        section = sections_of_names(notebook).get(error.name)
        if section and error.name not in shell.user_ns:  # else it is a slip in some function
            error.args = (f"'{error.name}' is not there yet: run section \"{section}\" first.",)
            traceback = None  # where a name was missing is plain to see
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    shell.set_custom_exc((NameError,), explain)


def sections_of_names(notebook: Path) -> dict[str, str]:
    """Each name that a cell makes -> the heading it stands under first; {} if unreadable."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return {}
    found: dict[str, str] = {}
    section = ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.startswith("### "):
            section = source.splitlines()[0].removeprefix("### ")
        elif cell["cell_type"] == "code" and section:
            found = dict.fromkeys(names_made(source), section) | found
    return found


def names_made(source: str) -> set[str]:
    """The variables that a cell leaves behind, those inside of its functions not counted."""
    made: set[str] = set()
    try:
        nodes: list[ast.AST] = list(ast.parse(source).body)
    except SyntaxError:  # a line for IPython alone, such as %time
        return made
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        if not isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            nodes += ast.iter_child_nodes(node)
    return made
