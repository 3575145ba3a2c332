"""Copies on disk: the same bits from any process, whole or not at all."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melanoma_lab.core.errors import RunError
from melanoma_lab.input_pipeline import augmentor
from melanoma_lab.input_pipeline.augmentor import make_copies
from melanoma_lab.input_pipeline.augmentor_operations import parse_operations
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit

pytestmark = pytest.mark.unit

MakeSplit = Callable[..., TrainingSplit]

OPERATIONS = parse_operations(
    [
        {"rotate": {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}},
        {"random_contrast": {"probability": 0.5, "min_factor": 0.5, "max_factor": 1.5}},
    ]
)
N = 30
SHAPE = (N, 12, 16, 3)


@pytest.fixture
def arguments(make_split: MakeSplit) -> dict[str, Any]:
    split = make_split([10])
    return {
        "originals": split.pixels,
        "rows": split.rows[np.arange(N) % 10],
        "seeds": tuple(range(N)),
        "operations": OPERATIONS,
    }


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentor, "CHUNK", 2)


@pytest.mark.usefixtures("small_chunks")
def test_any_number_of_workers_makes_the_same_file(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    paths = [tmp_path / f"{workers}.npy" for workers in (1, 2, 3)]
    for workers, path in enumerate(paths, start=1):
        make_copies(path, **arguments, workers=workers)
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[1] == contents[2]
    made = np.load(paths[0])
    assert (made != arguments["originals"][arguments["rows"]]).any(axis=(1, 2, 3)).mean() > 0.5


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_progress_reaches_the_total(
    tmp_path: Path, arguments: dict[str, Any], workers: int
) -> None:
    seen: list[tuple[int, int]] = []
    make_copies(
        tmp_path / "copies.npy",
        **arguments,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (N, N)
    assert seen == sorted(seen)


def test_originals_in_memory_are_fine(tmp_path: Path, arguments: dict[str, Any]) -> None:
    make_copies(tmp_path / "mapped.npy", **arguments, workers=1)
    in_memory = arguments | {"originals": np.array(arguments["originals"])}
    make_copies(tmp_path / "memory.npy", **in_memory, workers=2)
    assert (tmp_path / "mapped.npy").read_bytes() == (tmp_path / "memory.npy").read_bytes()


def test_a_full_disk_fails_the_run_and_leaves_nothing(
    tmp_path: Path, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(augmentor, "augment_image", full)
    folder = tmp_path / "balanced"
    with pytest.raises(RunError, match="No space left"):
        make_copies(folder / "copies.npy", **arguments, workers=1)
    assert list(folder.iterdir()) == []


def test_the_file_appears_whole(tmp_path: Path, arguments: dict[str, Any]) -> None:
    seen: list[int] = []

    def look(_done: int, _total: int) -> None:
        (partial,) = tmp_path.glob("balanced/*")
        assert partial.suffix == ".partial"
        seen.append(partial.stat().st_ino)

    path = tmp_path / "balanced" / "copies.npy"
    make_copies(path, **arguments, workers=1, progress=look)
    assert list(path.parent.iterdir()) == [path]
    assert set(seen) == {path.stat().st_ino}  # renamed, not copied


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupt_stops_the_threads_and_leaves_nothing(
    tmp_path: Path, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def slow_copy(pixels: np.ndarray, _operations: object, seed: int) -> np.ndarray:
        time.sleep(0.02)
        made.append(seed)
        return pixels

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(augmentor, "augment_image", slow_copy)
    folder = tmp_path / "balanced"
    with pytest.raises(KeyboardInterrupt):
        make_copies(folder / "copies.npy", **arguments, workers=2, progress=interrupt)
    assert len(made) < N / 2
    assert list(folder.iterdir()) == []


def test_no_worker_is_a_breach(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected at least 1 worker"):
        make_copies(tmp_path / "copies.npy", **arguments, workers=0)
