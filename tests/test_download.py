"""Downloads over every kind of bad connection, against a server on this machine."""

import hashlib
import os
import socket
import threading
import time

import pytest
import requests
from faulty_server import FaultyServer

from flowers_utils.datasets import download
from flowers_utils.datasets.disk import one_at_a_time
from flowers_utils.datasets.download import Patience, download_file, reachable
from flowers_utils.errors import FlowersError

CONTENT = os.urandom(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
FAST = Patience(attempts=3, pause=0.01, timeout=0.3)


@pytest.fixture
def server():
    with FaultyServer({"file.bin": CONTENT}) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "file.bin"


def get(server, path, patience=FAST, **how):
    return download_file([server.url("file.bin")], path, md5=MD5, patience=patience, **how)


def seen_in(path):
    """What lies beside `path`, without hidden files."""
    return sorted(file.name for file in path.parent.iterdir() if not file.name.startswith("."))


def closed_port_url():
    """An address on this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"


def test_a_good_file_arrives_whole_and_is_not_fetched_again(server, path):
    for _ in range(2):
        assert get(server, path).read_bytes() == CONTENT
    assert seen_in(path) == ["file.bin"] and len(server.requests) == 1


def test_a_cut_download_is_resumed_about_where_it_stopped(server, path):
    server.misbehave("file.bin", "cut", "good")
    assert get(server, path).read_bytes() == CONTENT
    (_, first), (_, second) = server.requests
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    half = len(CONTENT) // 2
    assert first is None and half - download.CHUNK < start <= half


def test_cuts_that_still_bring_new_bytes_do_not_use_up_the_attempts(server, path):
    server.misbehave("file.bin", *["cut"] * 5, "good")
    assert get(server, path, Patience(2, 0.01, 0.3)).read_bytes() == CONTENT


@pytest.mark.parametrize("left_over", [CONTENT[:1000], CONTENT, CONTENT + b"more", b"other"])
def test_any_left_over_part_file_ends_in_the_right_file(server, path, left_over):
    path.parent.mkdir()
    path.with_name("file.bin.part").write_bytes(left_over)
    assert get(server, path).read_bytes() == CONTENT
    assert server.requests[0] == ("file.bin", f"bytes={len(left_over)}-")


@pytest.mark.parametrize(
    "faults",
    [("cut, no range", "no range"), ("wrong", "good"), ("no length",), ("500", "500", "good")],
)
def test_a_server_with_a_fault_still_gives_the_file(server, path, faults):
    server.misbehave("file.bin", *faults)
    assert get(server, path).read_bytes() == CONTENT


def test_without_a_length_no_share_is_shown(server, path, capsys):
    server.misbehave("file.bin", "no length")
    get(server, path)
    shown = capsys.readouterr()
    assert "Downloading file.bin" in shown.out and "%" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("fault", "words", "requests_made"),
    [
        ("cut, no range", "cut after 147 kB of 300 kB.* 147 kB have arrived and are kept", 4),
        ("wrong", "not the right file", 2),
        ("slow", r"silent for 0\.3 seconds", 3),
        ("404", "does not have it, HTTP 404", 1),
        ("500", "in trouble, HTTP 500", 3),
        ("login page", "login page", 2),
    ],
)
def test_a_fault_that_stays_is_told_with_the_way_out(server, path, fault, words, requests_made):
    server.misbehave("file.bin", fault)
    with pytest.raises(FlowersError, match=words) as raised:
        get(server, path)
    assert server.url("file.bin") in str(raised.value)
    assert f"save it as '{path}'" in str(raised.value)
    assert len(server.requests) == requests_made and not path.exists()


def test_pauses_grow(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "sleep", pauses.append)
    server.misbehave("file.bin", "500", "500", "500", "good")
    get(server, path, Patience(5, 1.0, 0.3))
    assert pauses == [1.0, 2.0, 4.0]


def test_a_refused_connection_and_a_mistyped_address_are_named(path):
    for url, words in ((closed_port_url(), "refused the connection"), ("file.bin", "no web addre")):
        with pytest.raises(FlowersError, match=words):
            download_file([url], path, patience=FAST)


def test_mirrors_are_tried_in_order_and_share_what_has_arrived(server, path):
    with FaultyServer({"file.bin": CONTENT}) as mirror:
        server.misbehave("file.bin", "cut", "404")
        urls = ["mistyped/file.bin", server.url("file.bin"), mirror.url("file.bin")]
        download_file(urls, path, md5=MD5, patience=FAST)
        assert len(server.requests) == len(mirror.requests) == 1
        assert mirror.requests[0][1].startswith("bytes=14")


def test_a_full_disk_is_noticed_before_the_download(server, path):
    with pytest.raises(FlowersError, match="too full"):
        get(server, path, size=10**18)
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_named(server, path):
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(FlowersError, match=r"Nothing can be saved in .*new"):
        get(server, path)


def test_two_notebooks_do_not_write_one_file_at_once(server, path, capsys):
    path.parent.mkdir()
    second = threading.Thread(target=get, args=(server, path))
    with one_at_a_time(path):
        second.start()
        second.join(0.3)
        assert server.requests == []
        path.write_bytes(CONTENT)  # this notebook has got it
    second.join(5)
    assert not second.is_alive() and server.requests == []
    assert "Another notebook is making" in capsys.readouterr().out


def test_a_drive_without_locks_is_used_without(server, path, monkeypatch):
    def no_locks(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("flowers_utils.datasets.disk.FileLock.acquire", no_locks)
    assert get(server, path).read_bytes() == CONTENT


def test_reachable_tells_the_truth_within_its_timeout(server):
    assert reachable(server.url("file.bin"))
    server.misbehave("file.bin", "login page", "slow")
    for url in (server.url("other.bin"), closed_port_url(), "mistyped", server.url("file.bin")):
        assert not reachable(url)
    start = time.monotonic()
    assert not reachable(server.url("file.bin"), timeout=0.2)
    assert time.monotonic() - start < 2


def test_reachable_does_not_wait_for_a_name_server_that_never_answers(monkeypatch):
    released = threading.Event()

    def silent(*_, **__):
        released.wait(5)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", silent)
    start = time.monotonic()
    assert not reachable("http://flowers.example/file.bin", timeout=0.1)
    released.set()
    assert time.monotonic() - start < 3
