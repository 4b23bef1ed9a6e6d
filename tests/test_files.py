"""Files and disks: written complete or not at all, kept when replaced, made by one notebook at a time."""

import errno
import os
import threading
import time

import pytest

from flowers_utils.errors import FlowersError
from flowers_utils.storage import files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.bin"


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(path):
    path.write_text("earlier")

    def write(part):
        part.write_text("half")
        raise OSError(errno.EIO, "a broken disk")

    with pytest.raises(FlowersError, match=r"was not written .*broken disk.* is untouched"):
        files.atomic_write(path, write)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "earlier"


def test_a_disk_without_room_is_told_before_writing_starts(path):
    with pytest.raises(FlowersError, match=r"disk is full.*1,000,000,000,000 MB are needed"):
        files.atomic_write(path, pytest.fail, needed_bytes=10**18)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_drive_that_refuses_fsync_is_written_to_all_the_same(path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(number))
    files.atomic_write(path, lambda part: part.write_text("content"))
    assert path.read_text() == "content"


def test_a_disk_that_turns_out_full_at_fsync_is_told(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(FlowersError, match="disk is full"):
        files.atomic_write(path, lambda part: part.write_text("content"))
    assert not path.exists()


def test_what_a_killed_run_left_half_written_is_removed_but_not_what_is_in_progress(path):
    old, new = (path.with_name(f".file-{digits}.bin") for digits in ("01234567", "89abcdef"))
    for part in (old, new):
        part.write_text("half")
    os.utime(old, (time.time() - 2 * files.LEFTOVER_AFTER,) * 2)
    files.atomic_write(path, lambda part: part.write_text("content"))
    assert new.exists() and not old.exists()


def test_one_earlier_file_is_kept_and_the_one_before_it_goes(path):
    assert files.keep_earlier(path) is None
    for content in ("first", "second"):
        path.write_text(content)
        kept = files.keep_earlier(path)
    assert kept.name == "file.earlier.bin" and kept.read_text() == "second"
    assert list(path.parent.iterdir()) == [kept]


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_told(path):
    with pytest.raises(FlowersError, match=r"too full: 1,000,000,000,000 MB are needed"):
        files.check_writable(path.parent, 10**18)
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
