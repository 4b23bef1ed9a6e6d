"""Where a package is missing, one sentence says which, and how to get it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowers_utils.machine.installed import NEEDED

ROOT = Path(__file__).parent.parent
# Like `python -m flowers_utils` or `import flowers_utils` where a package is not installed.
RUN = "runpy.run_module('flowers_utils', run_name='__main__', alter_sys=True)"


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", NEEDED)
def test_the_check_names_the_missing_package_in_one_sentence(name):
    done = python(f"import runpy, sys; sys.modules[{name!r}] = None; sys.argv[0] = '-m'; {RUN}")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert f"'{NEEDED[name]}' is not installed" in sentence
    assert sentence.endswith("python -m pip install -r requirements.txt")


def test_an_import_names_the_missing_package_in_its_last_line():
    done = python("import sys; sys.modules['torch'] = None; import flowers_utils")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: The package 'torch' is not installed")


def test_every_package_that_is_imported_at_the_top_is_looked_for():
    found = set()
    for path in (ROOT / "flowers_utils").glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    own = {"flowers_utils", "transfer_learning_config"}
    assert found - own - set(sys.stdlib_module_names) <= set(NEEDED)


def test_every_package_that_is_looked_for_is_required():
    required = (ROOT / "requirements.txt").read_text("utf-8")
    comes_along = {"pillow"}  # with torchvision and matplotlib
    assert all(re.search(rf"^{p}>=", required, re.M) for p in {*NEEDED.values()} - comes_along)
