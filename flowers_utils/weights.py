"""Pretrained ImageNet weights, through torchvision's enums and the cache of torch hub.

A file is judged by whether it loads with the right names and shapes, not by its hash, so that a
teacher can hand out a substitute (float16, say) under the name that torchvision looks for.
"""

from pathlib import Path
from typing import Any

import torch
from torchvision.models import WeightsEnum, get_model

from flowers_utils.datasets.download import check_writable, download_file
from flowers_utils.errors import FlowersError

COUNTER = "num_batches_tracked"  # older files lack these entries of BatchNorm; they are not used


class _DamagedFile(Exception):
    """A weights file that does not load into its network; the message says why, in one phrase."""


def weights_path(weights: WeightsEnum, *, url: str | None = None) -> Path:
    """Where torch hub keeps the file of `weights` (TORCH_HOME moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url or weights.url).name


def weights_status(weights: WeightsEnum, *, url: str | None = None) -> str:
    """`"on disk"`, `"damaged"` or `"missing"`; reads the file."""
    path = weights_path(weights, url=url)
    if not path.is_file():
        return "missing"
    return "on disk" if _is_usable(path, weights) else "damaged"


def imagenet_state_dict(
    weights: WeightsEnum, *, url: str | None = None, **how: Any
) -> dict[str, torch.Tensor]:
    """The tensors of `weights`, under torchvision's names, on the CPU, in the network's own dtypes.

    Taken from the torch hub cache, else downloaded into it; a damaged file there is replaced.
    `url` overrides the address, `how` goes to `download_file`. Raises FlowersError.
    """
    path = weights_path(weights, url=url)
    if not path.is_file():
        _fetch(path, weights, url or weights.url, how)
        return _load(path, weights)
    try:
        return _load(path, weights)
    except _DamagedFile as damage:
        try:
            _fetch(path, weights, url or weights.url, how)
        except FlowersError as error:
            raise FlowersError(f"The weights file {path} is damaged: {damage}. {error}") from error
    return _load(path, weights)


def _fetch(path: Path, weights: WeightsEnum, url: str, how: dict[str, Any]) -> None:
    check_writable(path.parent, advice="Set TORCH_HOME to a folder of your own and run this again.")
    megabytes = weights.meta.get("_file_size", 0)  # in units of 2**20 bytes
    download_file(
        [url],
        path,
        check=lambda file: _is_usable(file, weights),
        size=int(megabytes * 2**20),
        **how,
    )


def _is_usable(path: Path, weights: WeightsEnum) -> bool:
    try:
        _load(path, weights)
    except _DamagedFile:
        return False
    return True


def _load(path: Path, weights: WeightsEnum) -> dict[str, torch.Tensor]:
    """Read a weights file; raises _DamagedFile that says what is wrong with it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise FlowersError(
            f"The weights file {path} may not be read ({error.strerror}). Change its permissions, "
            "or set TORCH_HOME to a folder of your own."
        ) from error
    except Exception as error:  # torch.load raises almost anything on a damaged file
        start = path.read_bytes()[:64].lstrip().lower()
        is_page = start.startswith((b"<!doctype", b"<html"))
        reason = "it is a web page" if is_page else f"it cannot be read ({type(error).__name__})"
        raise _DamagedFile(reason) from error
    return _matched(content, weights)


def _expected(weights: WeightsEnum) -> dict[str, torch.Tensor]:
    """The state dict of the network that belongs to `weights`: names, shapes, dtypes, no numbers."""
    architecture = type(weights).__name__.removesuffix("_Weights").lower()
    with torch.device("meta"):
        return get_model(architecture, weights=None).state_dict()


def _matched(content: Any, weights: WeightsEnum) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, converted to the network's dtypes.

    Raises _DamagedFile with the first entry that is missing, foreign, of another shape or no number.
    """
    expected = _expected(weights)
    if not isinstance(content, dict):
        raise _DamagedFile(f"it holds a {type(content).__name__} instead of named tensors")
    foreign = next((key for key in content if key not in expected), None)
    if foreign is not None:
        raise _DamagedFile(f"it is for another network: '{foreign}' does not belong to it")
    result = {}
    for name, tensor in expected.items():
        given = content.get(name)
        if given is None and name.endswith(COUNTER):
            given = torch.zeros(tensor.shape, dtype=tensor.dtype)
        if not isinstance(given, torch.Tensor):
            raise _DamagedFile(f"it is for another network: '{name}' is missing")
        if given.shape != tensor.shape:
            shapes = f"{tuple(given.shape)} instead of {tuple(tensor.shape)}"
            raise _DamagedFile(f"it is for another network: '{name}' has shape {shapes}")
        if not torch.isfinite(given).all():
            raise _DamagedFile(f"'{name}' contains values that are no numbers")
        result[name] = given.to(tensor.dtype)
    return result
