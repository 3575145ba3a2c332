"""The embedded dataset: the same from the same seed, unbalanced, whole or absent, and hard."""

import csv
import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melanoma_lab.core.errors import UserError
from melanoma_lab.data import synthetic_dataset as dataset
from melanoma_lab.data.synthetic_classes import CLASSES, choose_lesion_classes, sample_lesion
from melanoma_lab.data.synthetic_dataset import (
    apportion_lesions,
    draw_dataset,
    draw_lesion,
    ensure_dataset,
)
from melanoma_lab.data.synthetic_pictures import (
    dots,
    draw_curve,
    draw_strokes,
    net,
    rotate_hue,
    smooth_step,
)

pytestmark = pytest.mark.unit

ISIC = tuple(CLASSES)
SMALL = {"classes": ("melanoma", "nevus", "mole"), "lesions": 9, "image_size": 24, "seed": 5}


def rows_of(folder):
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    """Every file's digest under its path, relative to the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A dataset of all nine classes: folder, rows of the table, and the pictures."""
    folder = tmp_path_factory.mktemp("synthetic")
    draw_dataset(folder, classes=ISIC, lesions=300, image_size=32, seed=0)
    rows = rows_of(folder)
    pictures = []
    for row in rows:
        with Image.open(folder / "images" / f"{row['image_id']}.png") as picture:
            pictures.append(np.asarray(picture))
    return folder, rows, np.stack(pictures)


# What is written


@pytest.mark.slow
def test_the_table_names_every_file_once(drawn):
    folder, rows, pictures = drawn
    assert list(rows[0]) == ["image_id", "lesion_id", "label", "source"]
    assert sorted(row["image_id"] + ".png" for row in rows) == sorted(
        path.name for path in (folder / "images").iterdir()
    )
    assert pictures.dtype == np.uint8
    assert pictures.shape == (len(rows), 32, 32, 3)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    draw_dataset(tmp_path / "a", **SMALL)
    draw_dataset(tmp_path / "b", **SMALL)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_another_seed_gives_other_pictures(tmp_path):
    draw_dataset(tmp_path / "a", **SMALL)
    draw_dataset(tmp_path / "b", **SMALL | {"seed": 6})
    a, b = (set(content(tmp_path / name).values()) for name in "ab")
    assert not a & b


def test_more_lesions_change_none_of_the_first(tmp_path):
    draw_dataset(tmp_path / "few", **SMALL)
    draw_dataset(tmp_path / "many", **SMALL | {"lesions": 14})
    few, many = content(tmp_path / "few"), content(tmp_path / "many")
    assert len(many) > len(few)
    assert all(many[path] == digest for path, digest in few.items() if path.endswith(".png"))
    rows = rows_of(tmp_path / "few")
    assert rows_of(tmp_path / "many")[: len(rows)] == rows


def test_a_lesion_can_be_drawn_alone(tmp_path):
    draw_dataset(tmp_path, **SMALL)
    last = [row for row in rows_of(tmp_path) if row["lesion_id"] == "SYNL_000008"]
    label = SMALL["classes"].index(last[0]["label"])
    source, pictures = draw_lesion(choose_lesion_classes(SMALL["classes"])[label], 8, 24, seed=5)
    assert source == last[0]["source"]
    for row, picture in zip(last, pictures, strict=True):
        with Image.open(tmp_path / "images" / f"{row['image_id']}.png") as written:
            np.testing.assert_array_equal(np.asarray(written), picture)


# Classes


def test_seats_worked_by_hand():
    # Shares 2 and 1. One each; then 2/sqrt(2) > 1/sqrt(2), 2/sqrt(6) > 1/sqrt(2), and
    # 2/sqrt(12) < 1/sqrt(2).
    assert list(apportion_lesions([2, 1], 5)) == [0, 1, 0, 0, 1]


@given(st.lists(st.floats(0.5, 20), min_size=2, max_size=12), st.integers(0, 200))
def test_every_class_gets_a_lesion_and_a_greater_share_no_fewer(shares, more):
    lesions = len(shares) + more
    counts = np.bincount(list(apportion_lesions(shares, lesions)), minlength=len(shares))
    assert counts.sum() == lesions
    assert counts.min() >= 1
    assert (np.diff(counts[np.argsort(shares, kind="stable")]) >= -1).all()


def test_classes_are_as_unbalanced_as_declared(drawn):
    _, rows, _ = drawn
    lesions = Counter(label for _, label in {(row["lesion_id"], row["label"]) for row in rows})
    shares = np.array([CLASSES[name].share for name in ISIC])
    expected = 300 * shares / shares.sum()
    assert np.abs(np.array([lesions[name] for name in ISIC]) - expected).max() < 1.5
    assert 6 <= lesions["nevus"] / lesions["dermatofibroma"] <= 8


@pytest.mark.parametrize("n", [2, 9, 10, 25])
def test_any_number_of_classes_all_different(n):
    table = choose_lesion_classes([f"class {i}" for i in range(n)])
    assert len({row.appearance for row in table}) == n


def test_a_known_name_is_drawn_as_itself_and_another_as_what_is_left():
    table = choose_lesion_classes(["naevus", "Vascular_Lesion", "actinic keratosis"])
    assert table[1] is CLASSES["vascular lesion"]
    assert table[2] is CLASSES["actinic keratosis"]
    assert table[0] == CLASSES["basal cell carcinoma"]


def test_each_look_alike_is_another_class():
    assert all(row.look_alike in CLASSES.keys() - {name} for name, row in CLASSES.items())


def test_a_lesion_keeps_its_hue_and_strays_in_everything_else():
    (*_, row) = choose_lesion_classes([f"class {i}" for i in range(10)])
    lesions = [sample_lesion(np.random.default_rng(seed), row) for seed in range(5)]
    assert {lesion.hue for lesion in lesions} == {1.0}
    assert len({lesion.radius for lesion in lesions}) == 5


# Photographs of one lesion


def test_photographs_of_a_lesion_share_all_but_the_pixels(drawn):
    _, rows, pictures = drawn
    lesions = defaultdict(list)
    for row, picture in zip(rows, pictures, strict=True):
        lesions[row["lesion_id"]].append((row["label"], row["source"], picture.tobytes()))
    assert {len(photographs) for photographs in lesions.values()} == {1, 2, 3, 4}
    for photographs in lesions.values():
        labels, sources, pixels = map(set, zip(*photographs, strict=True))
        assert len(labels) == len(sources) == 1
        assert len(pixels) == len(photographs)


def test_photographs_of_a_lesion_are_more_alike_than_lesions_of_a_class():
    row = CLASSES["nevus"]
    lesions = [draw_lesion(row, index, 32, seed=0)[1] for index in range(60)]
    darkness = [
        [picture[12:20, 12:20].mean() for picture in pictures]
        for pictures in lesions
        if len(pictures) > 1
    ]
    within = np.mean([np.var(values, ddof=1) for values in darkness])
    between = np.var([values[0] for values in darkness], ddof=1)
    assert within < 0.6 * between


def test_the_source_does_not_tell_the_class(drawn):
    _, rows, _ = drawn
    sources = {row["lesion_id"]: row["source"] for row in rows}
    labels = {row["lesion_id"]: row["label"] for row in rows}
    share = Counter(sources.values())["clinic_b_contact"] / len(sources)
    assert 0.4 < share < 0.6
    for name in ISIC:
        mine = [
            sources[lesion] == "clinic_b_contact" for lesion in sources if labels[lesion] == name
        ]
        # Three standard errors of a binomial share.
        assert abs(np.mean(mine) - share) < 3 * np.sqrt(share * (1 - share) / len(mine))


# Difficulty


def test_colour_tells_every_class_from_the_rest_but_far_from_perfectly():
    y_true = np.repeat(np.arange(len(ISIC)), 30)
    histograms = []
    for index, label in enumerate(y_true):
        _, pictures = draw_lesion(CLASSES[ISIC[label]], index, 32, seed=0)
        pixels = pictures[0][8:24, 8:24].reshape(-1, 3)
        histograms.append(np.histogramdd(pixels, bins=5, range=[(0, 256)] * 3)[0].ravel())
    y_score = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500)),
        np.sqrt(histograms),
        y_true,
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        method="predict_proba",
    )
    aurocs = {name: roc_auc_score(y_true == k, y_score[:, k]) for k, name in enumerate(ISIC)}
    assert min(aurocs.values()) > 0.6, aurocs
    assert max(aurocs.values()) < 0.98, aurocs
    assert 0.3 < balanced_accuracy_score(y_true, y_score.argmax(axis=1)) < 0.7


# The cache


def test_the_cache_is_drawn_once(tmp_path):
    calls = []
    first = ensure_dataset(tmp_path, **SMALL, progress=lambda *done: calls.append(done))
    assert calls == [(n, 9) for n in range(1, 10)]
    second = ensure_dataset(tmp_path, **SMALL, progress=lambda *done: calls.append(done))
    assert len(calls) == 9
    assert first == second
    assert first.parent == tmp_path / "synthetic"
    draw_dataset(tmp_path / "direct", **SMALL)
    assert content(first) == content(tmp_path / "direct")


def test_every_argument_and_the_version_make_another_folder(tmp_path, monkeypatch):
    variants = [
        SMALL,
        SMALL | {"classes": ("nevus", "melanoma", "mole")},
        SMALL | {"lesions": 8},
        SMALL | {"image_size": 16},
        SMALL | {"seed": 0},
    ]
    folders = {ensure_dataset(tmp_path, **variant) for variant in variants}
    monkeypatch.setattr(dataset, "DRAWING_VERSION", dataset.DRAWING_VERSION + 1)
    folders.add(ensure_dataset(tmp_path, **SMALL))
    assert len(folders) == 6


def process(cache, progress):
    """Another interpreter that ensures the small dataset."""
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from melanoma_lab.data.synthetic_dataset import ensure_dataset\n"
        f"folder = ensure_dataset(Path(sys.argv[1]), **{SMALL!r}, progress={progress})\n"
        "print(folder, flush=True)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(cache)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_draw_it_once(tmp_path):
    report = "lambda done, _: print('drew', flush=True) or time.sleep(0.05)"
    both = [process(tmp_path, report) for _ in range(2)]
    outputs = [one.communicate(timeout=60)[0].split("\n") for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sum(output.count("drew") for output in outputs) == SMALL["lesions"]
    folders = {output[-2] for output in outputs}
    assert len(folders) == 1
    draw_dataset(tmp_path / "direct", **SMALL)
    assert content(Path(folders.pop())) == content(tmp_path / "direct")
    assert not list(tmp_path.rglob("*.partial"))


def test_what_a_killed_process_left_is_not_used(tmp_path):
    killed = process(tmp_path, "lambda *_: print('drew', flush=True) or time.sleep(60)")
    assert killed.stdout.readline() == "drew\n"
    killed.kill()
    killed.communicate(timeout=60)
    (partial,) = (tmp_path / "synthetic").glob("*.partial")
    assert list(partial.rglob("*.png"))
    (partial / "images" / "SYN_9999999.png").write_bytes(b"of another day")
    folder = ensure_dataset(tmp_path, **SMALL)
    draw_dataset(tmp_path / "direct", **SMALL)
    assert content(folder) == content(tmp_path / "direct")
    assert not partial.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ("nevus",)}, "at least two classes"),
        ({"classes": ("nevus", "Nevus", "melanoma")}, "all different"),
        ({"lesions": 2}, "each of its 3 classes: 2 asked for"),
        ({"image_size": 15}, "at least 16 pixels wide: 15"),
        ({"seed": -1}, "not negative: -1"),
    ],
)
def test_an_argument_out_of_range_is_refused_before_anything_is_written(tmp_path, wrong, message):
    for write in (draw_dataset, ensure_dataset):
        with pytest.raises(UserError, match=message):
            write(tmp_path / "new", **SMALL | wrong)
    assert not (tmp_path / "new").exists()


# The brushes


@given(st.integers(0, 2**32 - 1))
def test_masks_lie_between_nothing_and_all(seed):
    rng = np.random.default_rng(seed)
    line = draw_curve(rng, np.zeros(2), 0.3, 0.4, 1.0)
    for mask in (dots(rng, 24, 10, 0.05), net(rng, 24, 0.2), draw_strokes(24, [line], 0.05)):
        assert mask.shape == (24, 24)
        assert mask.min() >= 0
        assert mask.max() <= 1


def test_step_is_half_at_zero_and_flat_far_off():
    np.testing.assert_allclose(
        smooth_step(np.array([-9.0, 0.0, 9.0]), 0.5), [0, 0.5, 1], atol=1e-12
    )


def test_a_stroke_covers_its_line_and_nothing_else():
    mask = draw_strokes(20, [np.array([[-0.5, 0.025], [0.5, 0.025]])], 0.05)
    assert (mask[10] > 0.9).all()
    assert not mask[:8].any()
    assert not mask[13:].any()


def test_turning_by_a_third_of_a_circle_exchanges_the_channels():
    colour = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(rotate_hue(colour, 0.0), colour)
    np.testing.assert_allclose(rotate_hue(colour, 2 * np.pi / 3), colour[[2, 0, 1]])
    np.testing.assert_allclose(rotate_hue(np.full(3, 0.4), 1.0), 0.4)


@pytest.mark.parametrize("name", ["metadata.csv", "images/SYN_0000003.png"])
def test_a_dataset_that_was_damaged_is_drawn_again(tmp_path, caplog, name):
    folder = ensure_dataset(tmp_path, **SMALL)
    whole = content(folder)
    damaged = bytearray((folder / name).read_bytes())
    damaged[-9] ^= 2
    (folder / name).write_bytes(damaged)
    assert content(ensure_dataset(tmp_path, **SMALL)) == whole
    assert "is damaged; it is recreated" in caplog.text
