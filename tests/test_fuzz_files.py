"""Files that are read may be cut, damaged, foreign or hostile: each is used whole or told in words."""

import io
import os
import pickle
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import NAME, small_data

from flowers_utils.deploy.predictor import Predictor
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model
from flowers_utils.storage.checkpoints import (
    load_checkpoint,
    make_checkpoint,
    model_from_checkpoint,
)
from flowers_utils.storage.files import load_tensors

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 200)
HUGE = 10**400  # more than any float can hold
SEED = int(os.environ.get("FUZZ_SEED") or 0)


@pytest.fixture
def checkpoint(small_net):
    """A whole checkpoint of a network so small that reading it takes a millisecond."""
    model = build_model(NAME, num_classes=4, weights=None)
    return make_checkpoint(model, small_data(), epoch=3, metrics={"val_accuracy": 0.5})


def saved(content, *, zipped=True) -> bytes:
    """What `torch.save` writes, in its present or its old format."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def written(folder: Path, content: bytes, name: str = "model.pth") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def told(function, *args, **kwargs) -> str:
    """The FlowersError that a call raises: at most two sentences and no traceback in them."""
    with pytest.raises(FlowersError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "Traceback" not in message
    assert 20 < len(message) < 600
    return message


def told_by_checkpoint(path: Path, **kwargs) -> str:
    return told(lambda: model_from_checkpoint(load_checkpoint(path), **kwargs))


# Checkpoints


def test_a_whole_checkpoint_gives_a_working_network(checkpoint, tmp_path):
    path = written(tmp_path, saved(checkpoint))
    assert works(load_checkpoint(path), checkpoint)


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"hello, a text\n"],
    ids=["empty", "cut", "text"],
)
def test_a_damaged_checkpoint_is_named(checkpoint, tmp_path, damage):
    path = written(tmp_path, damage(saved(checkpoint)))
    for read in (load_tensors, load_checkpoint):
        message = told(read, path)
        assert "model.pth" in message and "damaged" in message


def test_one_flipped_bit_in_the_weights_is_noticed(checkpoint, tmp_path):
    whole = bytearray(saved(checkpoint))
    weight = checkpoint["state_dict"]["conv1.weight"].numpy().tobytes()
    whole[whole.index(weight)] ^= 1
    assert "damaged" in told(load_checkpoint, written(tmp_path, bytes(whole)))


def test_a_missing_file_or_a_folder_is_told_as_such(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        assert f"There is no file '{path}'" in told(load_checkpoint, path)


def test_a_checkpoint_without_permission_is_told(checkpoint, tmp_path, monkeypatch):
    path = written(tmp_path, saved(checkpoint))
    monkeypatch.setattr(torch, "load", denied)
    assert "no permission" in told(load_checkpoint, path)


def denied(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        ([1, 2, 3], "not a file of tensors that this lesson saved"),
        ({"conv1.weight": torch.zeros(3)}, "lacks 'format_version'"),
        ({"epoch": 3, "model_state_dict": {}, "loss": 0.1}, "lacks 'format_version'"),
    ],
)
def test_a_checkpoint_of_another_program_is_told_and_not_to_be_deleted(tmp_path, foreign, said):
    message = told(load_checkpoint, written(tmp_path, saved(foreign)))
    assert "model.pth" in message and said in message
    assert "elete" not in message or "If this lesson made it, delete it" in message


class Hostile:
    """Unpickling this makes a file: harmless, but seen."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def hostile_files(checkpoint: dict, marker: Path) -> dict[str, bytes]:
    """The same attack in each dress that `torch.load` knows."""
    inside = {**checkpoint, "config": {"epochs": Hostile(marker)}}
    return {
        "zip": saved(inside),
        "old format": saved(inside, zipped=False),
        "pickle": pickle.dumps(inside),
        "alone": pickle.dumps(Hostile(marker), protocol=2),
        "eval": b"cbuiltins\neval\n(S'open(%r, \"w\")'\ntR." % str(marker).encode(),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("dress", ["zip", "old format", "pickle", "alone", "eval"])
def test_a_hostile_file_runs_nothing(checkpoint, tmp_path, dress):
    marker = tmp_path / "harm"
    path = written(tmp_path, hostile_files(checkpoint, marker)[dress])
    for read in (load_tensors, load_checkpoint):
        message = told(read, path)
        assert "model.pth" in message
        assert "could run code" in message
    assert not marker.exists()


def test_the_hostile_file_would_do_harm_if_it_could(tmp_path):
    marker = tmp_path / "harm"
    torch.load(io.BytesIO(saved(Hostile(marker))), weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("architecture", ["resnet18", "vgg99"])
def test_another_architecture_is_told(checkpoint, tmp_path, architecture):
    message = told_by_checkpoint(
        written(tmp_path, saved({**checkpoint, "architecture": architecture}))
    )
    assert architecture in message
    assert "do not fit" in message or "does not know" in message


def test_another_number_of_classes_than_the_data_is_told(checkpoint, tmp_path):
    message = told_by_checkpoint(written(tmp_path, saved(checkpoint)), num_classes=102)
    assert "knows 4 classes, but the data has 102" in message


@pytest.mark.parametrize("classes", [3, 5000])
def test_a_head_of_another_size_than_it_says_is_told(checkpoint, tmp_path, classes):
    names = [f"flower {i}" for i in range(classes)]
    content = {**checkpoint, "num_classes": classes, "class_names": names}
    message = told_by_checkpoint(written(tmp_path, saved(content)))
    assert f"do not fit a {NAME} with {classes} classes" in message


def test_names_that_do_not_number_the_classes_are_told(checkpoint, tmp_path):
    path = written(tmp_path, saved({**checkpoint, "num_classes": 5}))
    assert "'num_classes' is not what it should be" in told_by_checkpoint(path)


WRONG_TENSORS = {
    "nan": lambda t: torch.full_like(t, float("nan")),
    "beyond float32": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "endless": lambda t: torch.zeros(1).expand(2**50),
    "a list": lambda t: t.tolist(),
    "turned": lambda t: t.unsqueeze(0),
}


@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:TypedStorage")
@pytest.mark.parametrize("kind", WRONG_TENSORS)
def test_a_tensor_that_is_none_of_this_network_is_told(checkpoint, tmp_path, kind):
    tensors, key = checkpoint["state_dict"], "conv1.weight"
    content = {**checkpoint, "state_dict": {**tensors, key: WRONG_TENSORS[kind](tensors[key])}}
    message = told_by_checkpoint(written(tmp_path, saved(content)))
    assert "'state_dict'" in message or "do not fit" in message or "damaged" in message


def test_a_variance_below_zero_is_told(checkpoint, tmp_path):
    """It would make every probability nan."""
    checkpoint["state_dict"]["bn1.running_var"].neg_()
    message = told_by_checkpoint(written(tmp_path, saved(checkpoint)))
    assert "'state_dict'" in message


@pytest.mark.parametrize("value", [None, HUGE, float("nan")])
@pytest.mark.parametrize(
    "key", ["num_classes", "normalization", "image_size", "data", "class_names"]
)
def test_a_key_of_another_kind_is_named(checkpoint, tmp_path, key, value):
    message = told_by_checkpoint(written(tmp_path, saved({**checkpoint, key: value})))
    assert key in message or "classes" in message


@pytest.mark.parametrize("value", [HUGE, 0, "1"])
def test_a_temperature_or_a_mean_that_is_no_number_is_named(checkpoint, tmp_path, value):
    path = written(tmp_path, saved({**checkpoint, "temperature": value}))
    assert "'temperature'" in told(load_checkpoint, path)
    normalization = {**checkpoint["normalization"], "std": [0.2, value, 0.2]}
    path = written(tmp_path, saved({**checkpoint, "normalization": normalization}))
    assert "'normalization'" in told(load_checkpoint, path)


# Fuzzed checkpoints


def mutated_bytes(whole: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, inserted, doubled or zeroed at random places."""
    content = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(content) + 1)
        length = rng.choice((1, 4, 64, 512))
        how = rng.choice(("flip", "flip", "cut", "end", "insert", "double", "zero"))
        if how == "flip" and start < len(content):
            content[start] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del content[start : start + length]
        elif how == "end":
            del content[max(start, 1) :]
        elif how == "insert":
            content[start:start] = rng.randbytes(length)
        elif how == "double":
            content[start:start] = content[start : start + length]
        elif how == "zero":
            content[start : start + length] = bytes(len(content[start : start + length]))
    return bytes(content)


def mutated_inside(whole: bytes, rng: random.Random) -> bytes:
    """One member of the archive mutated, with a checksum that fits what it is now."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        pickled = next(name for name in names if name.endswith("data.pkl"))
        chosen = rng.choice((pickled, pickled, rng.choice(names)))
        for name in names:
            content = old.read(name)
            new.writestr(name, mutated_bytes(content, rng) if name == chosen else content)
    return out.getvalue()


ODD_VALUES = (
    lambda: None,
    lambda: HUGE,
    lambda: -1,
    lambda: 0,
    lambda: "text",
    lambda: float("nan"),
    lambda: True,
    lambda: [],
    lambda: {},
    lambda: {1: 2, "a": None},
    lambda: torch.empty(0),
    lambda: torch.zeros(8, 3, 3, 3, dtype=torch.complex64),
    lambda: torch.zeros(8).to_sparse(),
    lambda: torch.zeros(4, requires_grad=True),
    lambda: torch.full((8,), float("nan")),
    lambda: torch.zeros(8).to(torch.float8_e4m3fn),
    lambda: torch.tensor(0),
)


def mutated_structure(value, rng: random.Random):
    """`value` with something in it replaced, left out or renamed, at any depth."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return rng.choice(ODD_VALUES)()
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [mutated_structure(v, rng) if i == place else v for i, v in enumerate(value)]
    chosen = rng.choice(list(value))
    how = rng.random()
    if how < 0.1:
        return {key: v for key, v in value.items() if key != chosen}
    if how < 0.2:
        return {(rng.choice((f"{k}_", 7)) if k == chosen else k): v for k, v in value.items()}
    return {key: mutated_structure(v, rng) if key == chosen else v for key, v in value.items()}


def fuzzed(checkpoint: dict, hostile: list[bytes], rng: random.Random) -> tuple[str, bytes]:
    """The kind of mutation and a file that has suffered it."""
    kind = rng.choice(("bytes", "inside", "old format", "hostile", "structure", "structure"))
    if kind == "structure":
        return kind, saved(mutated_structure(checkpoint, rng), zipped=rng.random() < 0.8)
    if kind == "bytes":
        return kind, mutated_bytes(saved(checkpoint), rng)
    if kind == "inside":
        return kind, mutated_inside(saved(checkpoint), rng)
    if kind == "old format":
        return kind, mutated_bytes(saved(checkpoint, zipped=False), rng)
    attack = rng.choice(hostile)  # half of the time left whole, so that it could still strike
    return kind, rng.choice((mutated_bytes(attack, rng), attack + rng.randbytes(8)))


def works(loaded: dict, whole: dict) -> bool:
    """Whether `loaded` has all that `whole` has, and its network gives probabilities."""
    pixels = np.full((20, 30, 3), 99, np.uint8)
    predictor = Predictor(loaded)
    assert loaded.keys() >= whole.keys()
    for key, tensor in loaded["state_dict"].items():
        assert whole["state_dict"][key].shape == tensor.shape
    probabilities = predictor.probabilities([pixels])
    assert probabilities.shape == (1, loaded["num_classes"])
    assert torch.isfinite(probabilities).all()
    return len(predictor(pixels)) == min(5, loaded["num_classes"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:Detected pickle protocol")
def test_a_fuzzed_checkpoint_works_or_is_told(checkpoint, tmp_path):
    rng = random.Random(SEED)
    marker = tmp_path / "harm"
    hostile = list(hostile_files(checkpoint, marker).values())
    outcomes = Counter()
    for number in range(EXAMPLES):
        kind, content = fuzzed(checkpoint, hostile, rng)
        path = written(tmp_path, content)
        try:
            assert works(load_checkpoint(path), checkpoint)
            outcomes[kind, "loaded"] += 1
        except FlowersError as error:
            assert len(str(error)) > 20
            outcomes[kind, "told"] += 1
        except Exception as error:
            raise AssertionError(f"{kind} mutation {number} of seed {SEED}") from error
        assert not marker.exists()
    assert sum(count for (_, what), count in outcomes.items() if what == "told") > EXAMPLES / 3
