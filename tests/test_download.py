"""Downloads over every kind of bad connection, against a server on this machine."""

import hashlib
import os
import socket
import threading
import time
import urllib.request

import pytest
from faulty_server import FaultyServer

from flowers_utils.datasets import download
from flowers_utils.datasets.download import download_file, reachable
from flowers_utils.errors import FlowersError

CONTENT = os.urandom(300_000)
FAST = {"attempts": 3, "pause": 0.01, "timeout": 0.3}


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server():
    with FaultyServer({"file.bin": CONTENT}) as running:
        yield running


def get(server, path, **how):
    return download_file([server.url("file.bin")], path, md5=md5_of(CONTENT), **{**FAST, **how})


def closed_port_url():
    """An address on this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"


def test_a_good_file_arrives_whole_and_leaves_nothing_else(server, tmp_path):
    path = get(server, tmp_path / "new" / "file.bin")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file.bin"]


def test_a_right_file_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    get(server, tmp_path / "file.bin")
    assert server.requests == []


def test_a_cut_download_is_resumed_where_it_stopped(server, tmp_path):
    server.misbehave("file.bin", "cut", "good")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={len(CONTENT) // 2}-"]


def test_cuts_that_still_bring_new_bytes_do_not_use_up_the_attempts(server, tmp_path):
    server.misbehave("file.bin", "cut", "cut", "cut", "cut", "cut", "good")
    assert get(server, tmp_path / "file.bin", attempts=2).read_bytes() == CONTENT


def test_half_a_file_of_an_earlier_run_is_resumed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.requests == [("file.bin", "bytes=1000-")]


@pytest.mark.parametrize("left_over", [CONTENT, CONTENT + b"more", b"other bytes"])
def test_any_left_over_part_file_ends_in_the_right_file(server, tmp_path, left_over):
    (tmp_path / "file.bin.part").write_bytes(left_over)
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(server, tmp_path):
    server.misbehave("file.bin", "cut, no range", "no range")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_connection_that_is_always_cut_names_how_far_it_came(server, tmp_path):
    server.misbehave("file.bin", "cut, no range")
    with pytest.raises(FlowersError, match=r"connection was cut after 150 kB of 300 kB") as raised:
        get(server, tmp_path / "file.bin")
    assert "150 kB have arrived and are kept" in str(raised.value)
    assert not (tmp_path / "file.bin").exists()


def test_wrong_bytes_are_thrown_away_and_fetched_again(server, tmp_path):
    server.misbehave("file.bin", "wrong", "good")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_wrong_bytes_every_time_never_become_the_file(server, tmp_path):
    server.misbehave("file.bin", "wrong")
    with pytest.raises(FlowersError, match="not the right file") as raised:
        get(server, tmp_path / "file.bin")
    assert server.url("file.bin") in str(raised.value)
    assert str(tmp_path / "file.bin") in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 2


def test_a_server_error_is_waited_out_with_growing_pauses(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "sleep", pauses.append)
    server.misbehave("file.bin", "500", "500", "500", "good")
    assert get(server, tmp_path / "file.bin", attempts=5, pause=1.0).read_bytes() == CONTENT
    assert pauses == [1.0, 2.0, 4.0]


def test_a_silent_server_is_given_up_after_the_timeout(server, tmp_path):
    server.misbehave("file.bin", "slow")
    start = time.monotonic()
    with pytest.raises(FlowersError, match=r"silent for 0\.2 seconds"):
        get(server, tmp_path / "file.bin", attempts=2, timeout=0.2)
    assert time.monotonic() - start < 3


def test_a_file_that_is_gone_is_not_asked_for_twice(server, tmp_path):
    server.misbehave("file.bin", "404")
    with pytest.raises(FlowersError, match="does not have it, HTTP 404"):
        get(server, tmp_path / "file.bin")
    assert len(server.requests) == 1


def test_a_refused_connection_is_named(tmp_path):
    with pytest.raises(FlowersError, match="refused the connection"):
        download_file([closed_port_url()], tmp_path / "file.bin", **FAST)


def test_a_mistyped_mirror_is_named_and_the_next_one_used(server, tmp_path):
    with pytest.raises(FlowersError, match="unknown url type"):
        download_file(["flowers/file.bin"], tmp_path / "file.bin", **FAST)
    download_file(["flowers/file.bin", server.url("file.bin")], tmp_path / "file.bin", **FAST)


def test_the_login_page_of_a_network_is_not_taken_for_the_file(server, tmp_path):
    server.misbehave("file.bin", "login page")
    with pytest.raises(FlowersError, match="login page"):
        get(server, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_mirrors_are_tried_in_order_and_share_what_has_arrived(server, tmp_path):
    with FaultyServer({"file.bin": CONTENT}) as mirror:
        server.misbehave("file.bin", "cut", "404")
        urls = [server.url("file.bin"), mirror.url("file.bin")]
        download_file(urls, tmp_path / "file.bin", md5=md5_of(CONTENT), **FAST)
        assert len(server.requests) == 1
        assert mirror.requests == [("file.bin", f"bytes={len(CONTENT) // 2}-")]


def test_a_full_disk_is_noticed_before_the_download(server, tmp_path):
    with pytest.raises(FlowersError, match="too full"):
        get(server, tmp_path / "file.bin", size=10**18)
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    with pytest.raises(FlowersError, match=r"Nothing can be saved in .*blocked"):
        get(server, tmp_path / "blocked" / "file.bin")


def test_reachable_tells_the_truth_within_its_timeout(server):
    assert reachable(server.url("file.bin"))
    assert not reachable(server.url("other.bin"))
    assert not reachable(closed_port_url())
    server.misbehave("file.bin", "login page", "slow")
    assert not reachable(server.url("file.bin"))
    start = time.monotonic()
    assert not reachable(server.url("file.bin"), timeout=0.2)
    assert time.monotonic() - start < 2


def test_reachable_does_not_wait_for_a_name_server_that_never_answers(monkeypatch):
    released = threading.Event()

    def silent(*_, **__):
        released.wait(5)
        raise OSError("no answer")

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    start = time.monotonic()
    assert not reachable("http://flowers.example/file.bin", timeout=0.1)
    assert time.monotonic() - start < 3
    released.set()
