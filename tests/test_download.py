"""Downloads over every kind of bad connection, against a server on this machine."""

import hashlib
import os

import pytest
from faulty_server import FaultyServer

from flowers_utils.datasets import download
from flowers_utils.datasets.download import download_file, reachable
from flowers_utils.errors import FlowersError

CONTENT = os.urandom(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
NOBODY_LISTENS = "http://127.0.0.1:9/file.bin"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0, 0, 0))
    monkeypatch.setattr(download, "SILENCE", 0.2)
    with FaultyServer({"file.bin": CONTENT}) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.bin"


def get(server, path):
    download_file([server.url("file.bin")], path, md5=MD5)
    return path.read_bytes()


def test_a_cut_download_is_resumed_about_where_it_stopped(server, path):
    server.misbehave("file.bin", "cut", "good")
    assert get(server, path) == CONTENT
    start = int(server.requests[1][1].removeprefix("bytes=").removesuffix("-"))
    half = len(CONTENT) // 2
    assert len(server.requests) == 2 and half - download.CHUNK < start <= half
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("left_over", [CONTENT[:1000], CONTENT + b"more", b"other"])
def test_any_left_over_part_file_ends_in_the_correct_file(server, path, left_over):
    path.with_name("file.bin.part").write_bytes(left_over)
    assert get(server, path) == CONTENT
    assert server.requests[0] == ("file.bin", f"bytes={len(left_over)}-")


@pytest.mark.parametrize("faults", ["cut, no range/no range", "500/500/good"])
def test_a_server_with_a_passing_fault_still_gives_the_file(server, path, faults):
    server.misbehave("file.bin", *faults.split("/"))
    assert get(server, path) == CONTENT


@pytest.mark.parametrize(
    ("fault", "words", "requests_made"),
    [
        ("cut, no range", r"cut: .* What has arrived is kept \(147 kB\)", 3),
        ("wrong", "not the correct file", 1),
        ("slow", "connection failed", 3),
        ("404", "404 Client Error", 3),
        ("login page", "login page", 1),
    ],
)
def test_a_fault_that_stays_is_told_with_the_way_out(server, path, fault, words, requests_made):
    server.misbehave("file.bin", fault)
    with pytest.raises(FlowersError, match=words) as raised:
        get(server, path)
    assert server.url("file.bin") in str(raised.value)
    assert f"save it as '{path}'" in str(raised.value)
    assert len(server.requests) == requests_made and not path.exists()


def test_mirrors_are_tried_in_order_and_share_what_has_arrived(server, path):
    with FaultyServer({"file.bin": CONTENT}) as mirror:
        server.misbehave("file.bin", "cut", "404")
        urls = ["mistyped/file.bin", NOBODY_LISTENS, server.url("file.bin"), mirror.url("file.bin")]
        download_file(urls, path, md5=MD5)
        assert mirror.requests[0][1].startswith("bytes=14") and len(mirror.requests) == 1


def test_reachable_tells_the_truth_within_its_timeout(server, monkeypatch):
    assert reachable(server.url("file.bin"))
    server.misbehave("file.bin", "login page", "slow")
    for url in (server.url("other.bin"), NOBODY_LISTENS, "mistyped", server.url("file.bin")):
        assert not reachable(url)
    assert not reachable(server.url("file.bin"), timeout=0.2)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "gone.pem")
    assert not reachable("https://127.0.0.1:9/")
