"""One process trains a run; what an earlier one left is found, or tidied away."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from melanoma_lab.core.errors import RunError
from melanoma_lab.runs.run_lock import KEPT_DAYS, acquire_run_lock

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HOLD = """
import sys
from pathlib import Path
from melanoma_lab.runs.run_lock import acquire_run_lock
with acquire_run_lock(Path(sys.argv[1]), study="s", tracked="db", fingerprint="f", wait=None):
    print("claimed", flush=True)
    sys.stdin.readline()
"""


def claim(cache, *, study="s", tracked="db", fingerprint="f", wait=None):
    return acquire_run_lock(cache, study=study, tracked=tracked, fingerprint=fingerprint, wait=wait)


@pytest.fixture
def holder(tmp_path):
    """A process that has claimed a run, until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_was_first(tmp_path, holder):
    message = rf"^Process {holder.pid} on .* is training this run\. Let it finish"
    with pytest.raises(RunError, match=message), claim(tmp_path):
        pass
    for other in ({"study": "t"}, {"tracked": "db2"}, {"fingerprint": "g"}):
        with claim(tmp_path, **other):
            pass


def test_one_that_waits_gets_the_run_when_the_other_ends(tmp_path, holder):
    told = []

    def wait(who):
        told.append(who)
        holder.stdin.write("\n")
        holder.stdin.flush()

    with claim(tmp_path, wait=wait):
        assert told[0].startswith(f"Process {holder.pid} on ")
        with pytest.raises(RunError, match=f"^Process {os.getpid()} on "), claim(tmp_path):
            pass


def test_a_claim_dies_with_its_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with claim(tmp_path):
        pass


def test_what_was_begun_is_known_to_the_next(tmp_path):
    with claim(tmp_path) as first:
        assert first.read_interrupted_run() is None
        first.record_run("run", {"threads": "2"})
    with claim(tmp_path) as second:
        assert second.read_interrupted_run() == ("run", {"threads": "2"})
        second.delete_checkpoints()
        assert second.read_interrupted_run() is None
        assert not second.folder.exists()
        second.delete_checkpoints()  # nothing is there: nothing to do


def test_a_note_that_cannot_be_read_is_none(tmp_path):
    with claim(tmp_path) as first:
        first.record_run("run", {})
        (first.folder / "run.json").write_text('{"run_id": "ru')
        assert first.read_interrupted_run() is None


def test_what_nobody_has_continued_for_long_is_deleted(tmp_path):
    folders = {}
    for name, days in (("recent", KEPT_DAYS - 1), ("old", KEPT_DAYS + 1), ("used", 99)):
        with claim(tmp_path, fingerprint=name) as some:
            some.record_run(name, {})
        when = time.time() - days * 86400
        folders[name] = some.folder
        for path in (some.folder / "run.json", some.folder):
            os.utime(path, (when, when))
    with claim(tmp_path, fingerprint="used"), claim(tmp_path, fingerprint="another"):
        left = {name for name, folder in folders.items() if folder.exists()}
    assert left == {"recent", "used"}
