"""Checkpoint files: whole or not there, and never taken for what they are not."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.core.files import DamagedFileError
from melanoma_lab.training import checkpoint as module
from melanoma_lab.training.checkpoint import (
    Checkpoint,
    CheckpointManager,
    read_checkpoint,
    write_checkpoint,
)

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def state(epoch):
    arrays = {"variable/0": np.full((3, 2), epoch, np.float32), "variable/1": np.int64(7 + epoch)}
    return Checkpoint(epoch, arrays, {"best": {"score": -np.inf}, "losses": [0.1, float("nan")]})


@pytest.fixture
def said():
    return []


def kept(folder, said, *epochs):
    with CheckpointManager(folder, said.append) as checkpoints:
        for epoch in epochs:
            checkpoints.save_if_affordable(lambda epoch=epoch: state(epoch))


def newest(folder, said):
    with CheckpointManager(folder, said.append) as checkpoints:
        return checkpoints.load_newest()


def test_what_is_read_is_what_was_written(tmp_path):
    read = read_checkpoint(write_checkpoint(state(3), tmp_path))
    assert read.epoch == 3
    assert {name: (a.dtype, a.shape) for name, a in read.arrays.items()} == {
        "variable/0": (np.float32, (3, 2)),
        "variable/1": (np.int64, ()),
    }
    np.testing.assert_array_equal(read.arrays["variable/0"], 3)
    assert read.facts["best"] == {"score": -np.inf}
    np.testing.assert_equal(read.facts["losses"], [0.1, np.nan])


def test_the_newest_is_found_and_two_are_kept(tmp_path, said):
    assert newest(tmp_path / "none", said) is None
    kept(tmp_path, said, 8, 9, 10, 11)
    assert newest(tmp_path, said).epoch == 11
    assert sorted(path.name[:11] for path in tmp_path.iterdir()) == ["epoch-00010", "epoch-00011"]
    assert said == []


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(tmp_path_factory, position, bit):
    path = write_checkpoint(state(1), tmp_path_factory.mktemp("flipped"))
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_damage_is_noticed_anywhere_in_a_large_file(tmp_path, place):
    """It is read in parts of 1 MiB, and has three."""
    large = Checkpoint(1, {"large": np.zeros(3 * 2**20, np.uint8)}, {})
    path = write_checkpoint(large, tmp_path)
    read_checkpoint(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_file_cut_short_gives_way_to_the_one_before(tmp_path, said, left):
    kept(tmp_path, said, 1, 2)
    path = max(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:left])
    assert newest(tmp_path, said).epoch == 1
    assert said == [f"A checkpoint of this run was ignored: {path.name} is damaged."]
    assert not path.exists()
    write_checkpoint(state(1), tmp_path).write_bytes(b"")
    assert newest(tmp_path, said) is None


def test_nothing_unpickles(tmp_path, said):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_checkpoint(Checkpoint(1, {"x": np.array([{}], object)}, {}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_take_it_costs_a_warning_and_nothing_else(tmp_path, said, monkeypatch):
    kept(tmp_path, said, 1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointManager(tmp_path, said.append) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", full)
            checkpoints.save_if_affordable(lambda: state(2))
            checkpoints.save_if_affordable(lambda: state(3))
        checkpoints.save_if_affordable(lambda: state(4))
        checkpoints.save_if_affordable(lambda: state(5))
        assert len(said) == 1
        assert "No space left on device" in said[0]
        assert "Training continues" in said[0]
    assert newest(tmp_path, said).epoch == 5
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_file_that_grows_too_large_leaves_the_one_before(tmp_path, said):
    """A real refusal by the system in mid-write, in a process of its own."""
    kept(tmp_path, said, 1)
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from melanoma_lab.training.checkpoint import Checkpoint, CheckpointManager
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with CheckpointManager(Path(sys.argv[1]), print) as checkpoints:
    checkpoints.save_if_affordable(lambda: Checkpoint(2, {"large": np.ones(100_000)}, {}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in done.stdout
    assert newest(tmp_path, said).epoch == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_training_does_not_wait_for_ever(tmp_path, said, monkeypatch):
    """Where it has waited more than its share, an epoch goes without a checkpoint."""
    monkeypatch.setattr(module, "ALLOWANCE", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e-9)
    taken = []

    def take(epoch):
        taken.append(epoch)
        return state(epoch)

    with CheckpointManager(tmp_path, said.append) as checkpoints:
        for epoch in (1, 2, 3):
            checkpoints.save_if_affordable(lambda epoch=epoch: take(epoch))
    assert taken == [1]
    assert newest(tmp_path, said).epoch == 1


@pytest.mark.parametrize("final", [True, False])
def test_training_waits_for_the_last_state_where_that_is_wanted(tmp_path, said, monkeypatch, final):
    monkeypatch.setattr(module, "ALLOWANCE", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e-9)
    with CheckpointManager(tmp_path, said.append, final=final) as checkpoints:
        for epoch in (1, 2, 3):
            checkpoints.save_if_affordable(lambda epoch=epoch: state(epoch), last=epoch == 3)
    assert newest(tmp_path, said).epoch == (3 if final else 1)


def interrupted(folder, said):
    with CheckpointManager(folder, said.append) as checkpoints:
        checkpoints.save_if_affordable(lambda: state(4))
        raise KeyboardInterrupt


def test_an_interruption_says_how_to_go_on(tmp_path, said):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, said)
    assert said == ["Interrupted; the same command resumes from epoch 5."]
