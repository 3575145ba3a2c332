"""Augmentor balancing: exact counts, deterministic, cached, nothing else touched."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lab.config.schema.training_images import AugmentorBalancing
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.input_pipeline import augmentor
from melanoma_lab.input_pipeline.augmentor import plan_copies
from melanoma_lab.input_pipeline.balanced_set import BalancedSet, TrainingSplit
from melanoma_lab.input_pipeline.balancing import balance

pytestmark = pytest.mark.unit

MakeSplit = Callable[..., TrainingSplit]

ROTATE = {"rotate": {"probability": 1, "max_left_rotation": 25, "max_right_rotation": 25}}


def balanced(
    split: TrainingSplit,
    cache_dir: Path,
    *,
    per_class: int = 8,
    operations: list[Any] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> BalancedSet:
    options = AugmentorBalancing(
        name="augmentor", per_class=per_class, operations=operations or [ROTATE]
    )
    return balance(options, split, seed=seed, cache_dir=cache_dir, **kwargs)


def images(result: BalancedSet) -> np.ndarray:
    return result.gather(np.arange(len(result)))[0]


def cached_file(cache_dir: Path) -> Path:
    (path,) = (cache_dir / "balanced").iterdir()
    return path


def test_every_class_has_exactly_per_class_images(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([12, 8, 3, 1])
    result = balanced(split, tmp_path / "cache")
    assert result.class_counts().tolist() == [8, 8, 8, 8]
    assert result.class_weight is None


def test_originals_come_first_and_as_they_were(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([12, 8, 3])
    result = balanced(split, tmp_path / "cache")
    n_originals = 8 + 8 + 3
    assert (result.rows[:n_originals] < len(split.pixels)).all()
    assert (result.rows[n_originals:] >= len(split.pixels)).all()
    for label in (1, 2):  # classes that are not cut keep every original
        kept = result.rows[:n_originals][result.labels[:n_originals] == label]
        assert sorted(kept) == sorted(split.rows[split.labels == label])
    label_of = dict(zip(split.rows, split.labels, strict=True))
    assert [label_of[row] for row in result.rows[:n_originals]] == result.labels[
        :n_originals
    ].tolist()


def test_copies_are_their_class_s_originals_changed(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([9, 2])
    flip = [{"flip_left_right": {"probability": 1}}]
    result = balanced(split, tmp_path / "cache", per_class=9, operations=flip)
    copies = images(result)[result.rows >= len(split.pixels)]
    originals = split.pixels[split.rows[split.labels == 1]]
    mirrored = [image.tobytes() for image in originals[:, :, ::-1]]
    used = [mirrored.index(copy.tobytes()) for copy in copies]
    assert sorted(np.bincount(used)) == [3, 4]


def test_rotation_changes_the_copies(make_split: MakeSplit, tmp_path: Path) -> None:
    result = balanced(make_split([2, 1]), tmp_path / "cache", per_class=20)
    stored = {image.tobytes() for image in result.sources[0]}
    copies = [image.tobytes() for image in result.sources[1]]
    unchanged = sum(copy in stored for copy in copies)
    assert unchanged < len(copies) / 4  # a rotation by 0 degrees is drawn now and then
    assert len(set(copies)) > len(copies) / 2


def test_a_class_is_cut_to_a_random_subset(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([40, 40])
    kept = [
        set(balanced(split, tmp_path / "cache", per_class=20, seed=seed).rows) for seed in (0, 1)
    ]
    assert kept[0] != kept[1]
    assert not (tmp_path / "cache").exists()  # no copies, nothing to keep


def test_the_seed_decides(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([10, 4])
    first, again, other = (
        images(balanced(split, tmp_path / cache, seed=seed))
        for cache, seed in (("a", 0), ("b", 0), ("a", 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    per_class=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_originals_are_copied_evenly(counts: list[int], per_class: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    split = TrainingSplit(
        pixels=np.zeros((1, 1, 1, 3), np.uint8),
        rows=np.zeros(len(labels), np.int64),
        labels=labels,
        image_ids=tuple(f"{i:03}" for i in range(len(labels))),
        digests=tuple(f"{i}" for i in range(len(labels))),
        class_names=tuple(f"{i}" for i in range(len(counts))),
    )
    plan = plan_copies(split, per_class, seed)
    assert len(set(plan.kept)) == len(plan.kept)
    assert len(set(plan.seeds)) == len(plan.copied)
    for label, count in enumerate(counts):
        assert (labels[plan.kept] == label).sum() == min(count, per_class)
        copies = np.bincount(plan.copied, minlength=len(labels))[labels == label]
        assert copies.sum() == max(0, per_class - count)
        assert copies.max() - copies.min() <= 1


def test_copies_of_identical_files_differ(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([4, 2])
    twins = np.flatnonzero(split.labels == 1)
    rows, digests = split.rows.copy(), list(split.digests)
    rows[twins[1]], digests[twins[1]] = rows[twins[0]], digests[twins[0]]
    split = replace(split, rows=rows, digests=tuple(digests))
    zoom = [{"zoom_random": {"probability": 1, "percentage_area": 0.5}}]
    result = balanced(split, tmp_path / "cache", per_class=4, operations=zoom)
    first, second = images(result)[-2:]
    assert (first != second).any()


def test_a_cached_set_is_not_made_again(
    make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split([10, 4])
    first = images(balanced(split, tmp_path / "cache"))
    written = cached_file(tmp_path / "cache").stat().st_mtime_ns

    def unexpected(*_args: object, **_kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(augmentor, "make_copies", unexpected)
    result = balanced(split, tmp_path / "cache")
    np.testing.assert_array_equal(images(result), first)
    assert cached_file(tmp_path / "cache").stat().st_mtime_ns == written
    assert isinstance(result.sources[1], np.memmap)


def test_the_cache_knows_what_copies_depend_on(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([8, 1])  # the same original, whatever the seed
    darker = replace(split, pixels=np.array(split.pixels) // 2)
    renamed = replace(split, digests=tuple(digest[::-1] for digest in split.digests))
    flip = [{"flip_left_right": {"probability": 1}}]
    variants: list[tuple[TrainingSplit, dict[str, Any]]] = [
        (split, {}),
        (split, {"seed": 1}),
        (split, {"per_class": 9}),
        (split, {"operations": flip}),
        (darker, {}),
        (renamed, {}),
    ]
    for made, (variant, options) in enumerate(variants, start=1):
        balanced(variant, tmp_path / "cache", **options)
        assert len(list((tmp_path / "cache" / "balanced").iterdir())) == made


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_truncated_file_is_made_again(make_split: MakeSplit, tmp_path: Path, length: int) -> None:
    split = make_split([10, 4])
    first = images(balanced(split, tmp_path / "cache"))
    path = cached_file(tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:length])
    np.testing.assert_array_equal(images(balanced(split, tmp_path / "cache")), first)


def test_another_run_may_finish_the_same_copies_first(
    make_split: MakeSplit, tmp_path: Path
) -> None:
    split = make_split([10, 4])
    others: list[np.ndarray] = []

    def meanwhile(_done: int, _total: int) -> None:
        others.append(images(balanced(split, tmp_path / "cache")))

    mine = images(balanced(split, tmp_path / "cache", progress=meanwhile))
    np.testing.assert_array_equal(mine, others[0])
    assert cached_file(tmp_path / "cache").suffix == ".npy"


def test_two_processes_may_make_the_same_copies(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([10, 4])
    np.savez(tmp_path / "split.npz", rows=split.rows, labels=split.labels, digests=split.digests)
    program = f"""
import hashlib, sys
from pathlib import Path
import numpy as np
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.config.schema.training_images import AugmentorBalancing
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit
stored = np.load({str(tmp_path / "split.npz")!r})
digests = tuple(stored["digests"].tolist())
pixels = np.load({str(split.pixels.filename)!r}, mmap_mode="r")
split = TrainingSplit(pixels, stored["rows"], stored["labels"], digests, digests, ("a", "b"))
options = AugmentorBalancing(name="augmentor", per_class=40, operations=[{ROTATE!r}])
print("ready", flush=True)
sys.stdin.readline()
result = balance(options, split, seed=0, cache_dir=Path({str(tmp_path / "cache")!r}))
print(hashlib.sha256(result.gather(np.arange(len(result)))[0]).hexdigest())
"""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:  # both at once: nothing waits for the first to end
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    assert cached_file(tmp_path / "cache").suffix == ".npy"


def test_global_generators_are_untouched(make_split: MakeSplit, tmp_path: Path) -> None:
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    balanced(make_split([5, 2]), tmp_path / "cache")
    assert random.getstate() == python_state
    np.testing.assert_equal(np.random.get_state(), numpy_state)  # noqa: NPY002


def test_pixels_of_the_split_stay_as_they_were(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split([5, 2])
    before = Path(str(split.pixels.filename)).read_bytes()
    balanced(
        split,
        tmp_path / "cache",
        operations=[{"random_erasing": {"probability": 1, "rectangle_area": 0.9}}],
    )
    assert Path(str(split.pixels.filename)).read_bytes() == before


def test_an_empty_class_is_named(make_split: MakeSplit, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image of class 1 and class 3"):
        balanced(make_split([3, 0, 2, 0]), tmp_path / "cache")


def test_a_wrong_operation_is_the_users_mistake(make_split: MakeSplit, tmp_path: Path) -> None:
    too_large = {"crop_by_size": {"probability": 1, "width": 10, "height": 40, "centre": False}}
    for operations in ([{"rotat": {}}], [too_large]):
        with pytest.raises(UserError, match=r"balancing\.operations"):
            balanced(make_split([3, 2]), tmp_path / "cache", operations=operations)


def test_a_cache_that_cannot_be_written_fails_the_run(
    make_split: MakeSplit, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be written .*cache=DIR"):
        balanced(make_split([3, 2]), tmp_path / "cache")
