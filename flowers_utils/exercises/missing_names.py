"""What the notebook says when a cell is run before the cell that makes its names."""

import json
import re
import symtable
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "resnet18_training.ipynb"


def explain_missing_names(shell: Any = None, notebook: Path = NOTEBOOK) -> None:
    """Let a NameError in IPython's `shell` say which section of `notebook` makes the name."""
    from IPython import get_ipython  # slow to import

    def explain(shell: Any, kind: type, error: NameError, traceback: Any, tb_offset: Any) -> None:
        section = sections_of_names(notebook).get(error.name)
        if section and error.name not in shell.user_ns:  # otherwise it is an error in a function
            error.args = (f"'{error.name}' does not exist yet: run section \"{section}\" first.",)
            traceback = None  # the cell is in view, so its lines need no repetition
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    if shell := shell or get_ipython():  # None in a plain script
        shell.set_custom_exc((NameError,), explain)


def sections_of_names(notebook: Path) -> dict[str, str]:
    """Each name that a cell makes, and the heading above the first such cell; {} without a file."""
    sections: dict[str, str] = {}
    heading = ""
    for cell in json.loads(notebook.read_text("utf-8"))["cells"] if notebook.is_file() else []:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = [heading, *re.findall(r"(?m)^#{2,3} (.*)", source)][-1]
        elif cell["cell_type"] == "code" and heading:
            sections = dict.fromkeys(names_made(source), heading) | sections
    return sections


def names_made(source: str) -> set[str]:
    """The variables that a cell leaves behind, without those inside of its functions."""
    try:
        symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    except SyntaxError:  # a line for IPython alone, such as %time
        return set()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
