"""Pretrained weights: judged by whether they load, fetched again when they do not."""

import io

import pytest
import torch
from faulty_server import FaultyServer
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from flowers_utils.errors import FlowersError
from flowers_utils.weights import imagenet_state_dict, weights_path, weights_status

WEIGHTS = MobileNet_V2_Weights.IMAGENET1K_V1  # the smallest file of those the lesson knows
NAME = "mobilenet_v2-b0353104.pth"
FAST = {"attempts": 2, "pause": 0.01, "timeout": 5.0}


def file_of(tensors: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tensors():
    """A substitute as a teacher may hand it out: float16, without BatchNorm's step counters."""
    state = mobilenet_v2(weights=None).state_dict()
    return {key: v.half() for key, v in state.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def good(tensors):
    return file_of(tensors)


@pytest.fixture
def server(good):
    with FaultyServer({NAME: good}) as running:
        yield running


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The place of the weights file in an empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / NAME


def load(server, **how):
    return imagenet_state_dict(WEIGHTS, url=server.url(NAME), **{**FAST, **how})


def put(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def test_missing_weights_are_downloaded_to_where_torch_hub_looks(server, cached):
    assert weights_status(WEIGHTS) == "missing"
    load(server)
    assert cached == weights_path(WEIGHTS)
    assert weights_status(WEIGHTS) == "on disk"
    assert [file.name for file in cached.parent.iterdir()] == [NAME]


def test_a_float16_substitute_loads_into_plain_torchvision(cached, good, tensors):
    put(cached, good)
    state = imagenet_state_dict(WEIGHTS)
    mobilenet_v2(weights=None).load_state_dict(state, strict=True)
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(state["features.0.0.weight"].half(), tensors["features.0.0.weight"])


def test_a_truncated_file_in_the_cache_is_replaced(server, cached, good):
    put(cached, good[: len(good) // 2])
    assert weights_status(WEIGHTS) == "damaged"
    load(server)
    assert cached.read_bytes() == good


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"not weights at all", "cannot be read"),
        (b"<!DOCTYPE html><html>Log in</html>", "it is a web page"),
        (file_of([1, 2, 3]), "holds a list"),
        (file_of({"conv1.weight": torch.zeros(2)}), "another network: 'conv1.weight'"),
        (file_of({}), r"'features\.0\.0\.weight' is missing"),
    ],
    ids=["empty", "text", "web page", "list", "foreign", "no tensors"],
)
def test_a_damaged_file_that_cannot_be_replaced_is_named(server, cached, content, reason):
    put(cached, content)
    server.misbehave(NAME, "404")
    with pytest.raises(FlowersError, match=reason) as raised:
        load(server)
    assert f"{cached} is damaged" in str(raised.value)
    assert server.url(NAME) in str(raised.value)
    assert cached.read_bytes() == content


def test_a_wrong_shape_is_named(server, cached, tensors):
    put(cached, file_of({**tensors, "classifier.1.bias": torch.zeros(7)}))
    server.misbehave(NAME, "404")
    with pytest.raises(FlowersError, match=r"'classifier\.1\.bias' has shape \(7,\) instead of"):
        load(server)


def test_values_that_are_no_numbers_count_as_damage(cached, tensors):
    broken = tensors["classifier.1.bias"].clone()
    broken[3] = float("nan")
    put(cached, file_of({**tensors, "classifier.1.bias": broken}))
    assert weights_status(WEIGHTS) == "damaged"


def test_a_file_that_would_run_code_is_not_opened(cached, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    put(cached, file_of({"features.0.0.weight": Evil()}))
    assert weights_status(WEIGHTS) == "damaged"
    assert not (tmp_path / "was_here").exists()


def test_wrong_bytes_from_the_server_never_reach_the_cache(server, cached):
    server.misbehave(NAME, "wrong")
    with pytest.raises(FlowersError, match="not the right file"):
        load(server)
    assert list(cached.parent.iterdir()) == []


def test_a_cut_download_of_weights_is_resumed(server, cached, good):
    server.misbehave(NAME, "cut", "good")
    load(server)
    assert server.requests[1] == (NAME, f"bytes={(len(good) + 1) // 2}-")


def test_without_network_and_file_one_message_says_what_goes_where(server, cached):
    server.misbehave(NAME, "404")
    with pytest.raises(FlowersError) as raised:
        load(server)
    message = str(raised.value)
    assert NAME in message and server.url(NAME) in message and str(cached) in message
    assert "USB stick" in message


def test_a_damaged_file_in_a_read_only_folder_says_where_to_go(cached, monkeypatch):
    put(cached, b"damaged")

    def read_only(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("flowers_utils.datasets.download.tempfile.TemporaryFile", read_only)
    with pytest.raises(FlowersError, match=r"is damaged.*Set TORCH_HOME to a folder of your own"):
        imagenet_state_dict(WEIGHTS, **FAST)
