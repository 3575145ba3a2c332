import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from melanoma_lab.core.locks import describe_process, get_lock_path, get_process_id, hold_lock

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HOLD = """
import sys
from pathlib import Path
from melanoma_lab.core.locks import hold_lock
with hold_lock(Path(sys.argv[1]), on_busy=print):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a.lock")],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def refuse(name):
    raise BlockingIOError(name)


def test_who_has_the_lock_is_named_to_one_that_gives_up(tmp_path, holder):
    with (
        pytest.raises(BlockingIOError, match=f"^Process {holder.pid} on {socket.gethostname()}$"),
        hold_lock(tmp_path / "a.lock", on_busy=refuse),
    ):
        pass
    (tmp_path / "a.holder").write_bytes(b"\xff")
    with (
        pytest.raises(BlockingIOError, match=r"^another process$"),
        hold_lock(tmp_path / "a.lock", on_busy=refuse),
    ):
        pass


def test_one_that_waits_is_told_once_and_gets_the_lock(tmp_path, holder):
    told = []

    def wait(name):
        told.append(name)
        holder.stdin.write("\n")
        holder.stdin.flush()

    with hold_lock(tmp_path / "a.lock", on_busy=wait):
        assert told == [f"Process {holder.pid} on {socket.gethostname()}"]
        assert (tmp_path / "a.holder").read_text() == describe_process()
    assert not (tmp_path / "a.holder").exists()


def test_a_lock_ends_with_its_process(tmp_path, holder):
    holder.kill()
    holder.wait()
    with hold_lock(tmp_path / "a.lock", on_busy=refuse):
        pass


def test_a_lock_ends_with_an_error_and_leaves_only_its_file(tmp_path):
    path = tmp_path / "a.lock"
    with pytest.raises(ValueError, match="in the block"), hold_lock(path, on_busy=refuse):
        raise ValueError("in the block")
    with hold_lock(path, on_busy=refuse):
        pass
    assert not set(tmp_path.iterdir()) - {path}


def test_threads_take_turns_at_a_lock_that_is_deleted(tmp_path):
    path = tmp_path / "a.lock"
    inside, most = [], []

    def work():
        with hold_lock(path, remove=True):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 4
    assert not path.exists()


def test_a_thread_that_has_a_lock_that_is_deleted_may_take_it_again(tmp_path):
    path = tmp_path / "a.lock"
    with hold_lock(path, remove=True), hold_lock(path, remove=True):
        pass
    assert not path.exists()


def test_a_lock_of_a_name_lies_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = get_lock_path("/data/secret.db")
    assert path.parent == tmp_path
    assert "secret" not in path.name
    assert path == get_lock_path("/data/secret.db") != get_lock_path("/data/other.db")


def test_a_process_has_one_name_for_messages_and_one_for_tags():
    assert describe_process() == f"Process {os.getpid()} on {socket.gethostname()}"
    assert get_process_id() == f"{socket.gethostname()}:{os.getpid()}"
