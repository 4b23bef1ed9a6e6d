"""Says in one sentence which package is missing, before an import can fail in the middle of another.

The package's `__init__` imports this module first; it needs nothing but Python.
"""

import sys
from importlib.util import find_spec

# What `import flowers_utils` cannot do without: the name to import -> the name to install.
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
    "scipy": "scipy",
    "PIL": "pillow",
}

for _name, _package in NEEDED.items():
    if find_spec(_name) is None:
        _sentence = (
            f"The package '{_package}' is not installed for {sys.executable}. "
            "Run: python -m pip install -r requirements.txt"
        )
        if sys.argv[0] == "-m":  # so while `python -m flowers_utils` is still being found
            sys.exit(_sentence)
        raise ModuleNotFoundError(_sentence, name=_name)
