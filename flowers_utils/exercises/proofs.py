"""What the notebook says when a cell is run too early."""

import json
import symtable
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "resnet18_training.ipynb"


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
    try:
        symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    except SyntaxError:  # a line for IPython alone, such as %time
        return set()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
