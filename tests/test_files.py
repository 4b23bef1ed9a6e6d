"""Files and disks: written complete or not at all, kept when replaced, made by one notebook at a time."""

import errno
import threading

import pytest

from flowers_utils.errors import FlowersError
from flowers_utils.storage import files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.bin"


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EIO, "was not written .* is untouched"), (errno.ENOSPC, "The disk is full")],
)
def test_a_write_that_fails_leaves_the_earlier_file_alone(path, number, told):
    def fail(part):
        part.write_text("half")
        raise OSError(number, "told by the system")

    path.write_text("earlier")
    with pytest.raises(FlowersError, match=told):
        files.atomic_write(path, fail)
    assert list(path.parent.iterdir()) == [path] and path.read_text() == "earlier"


def test_one_earlier_file_is_kept_and_the_one_before_it_goes(path):
    assert files.keep_earlier(path) is None
    for content in ("first", "second"):
        path.write_text(content)
        kept = files.keep_earlier(path)
    assert kept.name == "file.earlier.bin" and kept.read_text() == "second"
    assert list(path.parent.iterdir()) == [kept]


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(path):
    path.write_text("a file where the folder should be")
    with pytest.raises(FlowersError, match=r"Nothing can be saved in .*Go away"):
        files.check_writable(path, advice="Go away.")


def test_two_notebooks_do_not_make_one_file_at_once(path):
    done = threading.Event()

    def second():
        with files.one_at_a_time(path):
            done.set()

    thread = threading.Thread(target=second)
    with files.one_at_a_time(path):
        thread.start()
        assert not done.wait(0.2)
    thread.join(5)
    assert done.is_set()


def test_a_drive_without_locks_is_used_without(path, monkeypatch):
    def no_locks(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(files.FileLock, "acquire", no_locks)
    with files.one_at_a_time(path):
        pass
