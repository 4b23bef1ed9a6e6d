"""Opening an exported file as its user will: in a new Python process that knows nothing of the lesson."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from flowers_utils.errors import FlowersError

RELOAD_SECONDS = 300

# What the fresh process runs: no module of this lesson, only the library that an application uses.
OPEN_PROGRAM = """
import torch
module = torch.export.load(path).module()
def run(images):
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()
"""
OPEN_ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
def run(images):
    return session.run(None, {"images": images})[0]
"""
_RELOAD = """
import sys, time
import numpy as np
path, photographs, answers = sys.argv[1:]
images = np.load(photographs)
{open}
together, alone, seconds = run(images), run(images[:1]), []
while len(seconds) < 3 or (len(seconds) < 20 and sum(seconds) < 3):
    start = time.perf_counter()
    run(images[:1])
    seconds.append(time.perf_counter() - start)
np.savez(answers, together=together, alone=alone, seconds=seconds)
"""


def reopen(
    path: Path, images: np.ndarray, opener: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open an exported file in a fresh Python process and run it there.

    Returns the probabilities of all images together, those of the first alone, and the seconds
    that one image took, call by call. Raises FlowersError if the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        photographs, answers = Path(folder) / "photographs.npy", Path(folder) / "answers.npz"
        np.save(photographs, images)
        script = _RELOAD.format(open=opener)
        command = [
            sys.executable,
            "-c",
            script,
            str(path.resolve()),
            str(photographs),
            str(answers),
        ]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=RELOAD_SECONDS, check=False
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise FlowersError(
                f"A fresh Python process could not run the exported file ({last}); "
                "check that the packages of requirements.txt are installed."
            )
        with np.load(answers) as saved:
            return saved["together"], saved["alone"], saved["seconds"]
