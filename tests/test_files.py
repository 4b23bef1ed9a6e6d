"""Files and disks: written complete or not at all, kept when replaced, made by one notebook at a time."""

import errno
import os
import threading

import pytest

from flowers_utils.errors import FlowersError
from flowers_utils.storage import files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.bin"


def refuse_fsync(patch, number):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    patch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EIO, "was not written .* is untouched"), (errno.ENOSPC, "The disk is full")],
)
def test_a_write_that_fails_leaves_the_earlier_file_alone(path, monkeypatch, number, told):
    path.write_text("earlier")
    refuse_fsync(monkeypatch, number)
    with pytest.raises(FlowersError, match=told):
        files.atomic_write(path, lambda part: part.write_text("new"))
    assert list(path.parent.iterdir()) == [path] and path.read_text() == "earlier"


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_drive_that_refuses_fsync_is_written_to_all_the_same(path, monkeypatch, number):
    refuse_fsync(monkeypatch, number)
    files.atomic_write(path, lambda part: part.write_text("content"))
    assert path.read_text() == "content"


def test_what_a_killed_run_left_half_written_does_not_stay(path):
    parts = []

    def write(part):
        parts.append(part)
        part.write_text("content")

    files.atomic_write(path, write)
    parts[0].write_text("half")
    files.atomic_write(path, write)
    assert list(path.parent.iterdir()) == [path]


def test_one_earlier_file_is_kept_and_the_one_before_it_goes(path):
    assert files.keep_earlier(path) is None
    for content in ("first", "second"):
        path.write_text(content)
        kept = files.keep_earlier(path)
    assert kept.name == "file.earlier.bin" and kept.read_text() == "second"
    assert list(path.parent.iterdir()) == [kept]


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_told_before_writing_starts(path):
    with pytest.raises(FlowersError, match=r"too full: 1,000,000,000,000 MB are needed"):
        files.atomic_write(path, pytest.fail, needed_bytes=10**18)
    path.write_text("a file where the folder should be")
    with pytest.raises(FlowersError, match=r"Nothing can be saved in .*Go away"):
        files.check_writable(path, advice="Go away.")


def test_two_notebooks_do_not_make_one_file_at_once(path, capsys):
    done = threading.Event()

    def second():
        with files.one_at_a_time(path):
            done.set()

    thread = threading.Thread(target=second)
    with files.one_at_a_time(path):
        thread.start()
        assert not done.wait(0.2)
    thread.join(5)
    assert done.is_set() and "Another notebook is making" in capsys.readouterr().out


def test_a_drive_without_locks_is_used_without(path, monkeypatch):
    def no_locks(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(files.FileLock, "acquire", no_locks)
    with files.one_at_a_time(path):
        pass
