"""What a phase needs in order to go on after an interruption, and when it may be used."""

from pathlib import Path
from typing import Any

from flowers_utils.errors import FlowersError
from flowers_utils.files import load_tensors, save_tensors

STATE_VERSION = 1  # raise it when training or the content of a state changes
KEYS = {
    "epoch": int,
    "model": dict,
    "best": dict,
    "best_epoch": int,
    "best_val_accuracy": float,
    "history": list,
    "optimizer": dict,
    "scheduler": dict,
    "scaler": dict,
}


def save_state(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write `state` with the `identity` of the run it belongs to, atomically.

    Without waiting for the disk: a state lost in a power cut costs time, not a result.
    """
    content = {"state_version": STATE_VERSION, "identity": identity, **state}
    save_tensors(path, content, flush=False)


def load_state(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The state at `path` and an empty line, or None and a line on why it is not used.

    It is used only by the run it belongs to: same configuration, data, seed and version.
    """
    if not path.exists():
        return None, ""
    try:
        state = load_tensors(path)
    except FlowersError as error:
        return None, f"Starting anew: {error}"
    theirs = state.get("identity")
    if not isinstance(theirs, dict) or any(
        not isinstance(state.get(key), kind) for key, kind in KEYS.items()
    ):
        return None, f"Starting anew: '{path}' is not a training state of this lesson."
    theirs = {"state version": state.get("state_version"), **theirs}
    ours = {"state version": STATE_VERSION, **identity}
    changes = [
        f"{key} was {theirs.get(key)!r} and is now {ours[key]!r}"
        for key in ours
        if repr(theirs.get(key)) != repr(ours[key])
    ]
    if changes:
        return None, f"Starting anew: the saved state is of another run ({'; '.join(changes)})."
    return state, ""
