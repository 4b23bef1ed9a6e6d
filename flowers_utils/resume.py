"""What a phase needs in order to go on after an interruption, and when it may be used."""

from pathlib import Path
from typing import Any

from flowers_utils.errors import FlowersError
from flowers_utils.files import load_tensors, save_tensors


def state_path(folder: Path, backbone: str, phase: int) -> Path:
    """Where the running state of a phase lies."""
    return folder / f"{backbone}_phase{phase}_resume.pth"


def save_state(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write `state` with the `identity` of the run it belongs to, atomically."""
    save_tensors(path, {"identity": identity, **state})


def load_state(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The state at `path` and a line about it, or None and why it is not used.

    It is used only by the run it belongs to: same configuration, data, seed and version.
    """
    if not path.exists():
        return None, ""
    try:
        state = load_tensors(path)
    except FlowersError as error:
        return None, f"Starting anew: {error}"
    theirs = state.get("identity")
    if not isinstance(theirs, dict):
        return None, f"Starting anew: '{path}' is not a training state of this lesson."
    differing = [key for key in identity if theirs.get(key) != identity[key]]
    if differing:
        changes = "; ".join(f"{key} was {theirs.get(key)!r}" for key in differing)
        return None, f"Starting anew: the saved state in '{path}' is of another run ({changes})."
    return state, ""
