"""Findings of small tables, and of the real folders."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.audit.dataset_audit import audit_images
from melanoma_lab.audit.findings import describe_unresolved
from melanoma_lab.audit.inspection import FILE_COLUMNS, PAIR_COLUMNS, Inspection
from melanoma_lab.audit.problems import find_problems
from melanoma_lab.data.listing import LISTING_COLUMNS, Listing
from melanoma_lab.data.readers import read_listing

pytestmark = pytest.mark.unit

COLUMNS = (*LISTING_COLUMNS, "digest")


def table(*rows):
    """A manifest from (image_id, label, lesion, digest, published)."""
    unknown = dict.fromkeys(COLUMNS, "")
    keys = ("image_id", "label", "lesion", "digest", "published")
    return pd.DataFrame([unknown | dict(zip(keys, row, strict=True)) for row in rows])


def audit(manifest, pairs=(), classes=None):
    digests = sorted(set(manifest["digest"]))
    files = [["", "PNG", 90, 90, "", False, ""] for _ in digests]
    inspection = Inspection(
        files=pd.DataFrame(files, columns=list(FILE_COLUMNS), index=digests),
        pairs=pd.DataFrame([(*p, 0.9, "cropped") for p in pairs], columns=list(PAIR_COLUMNS)),
    )
    return audit_images(Listing(manifest), inspection, name="folder", classes=classes)[0]


CHAIN = table(
    # a and b one lesion, b and c one photograph, c and d the same file: all belong together.
    ("a", "nevus", "L1", "1", "train"),
    ("b", "nevus", "L1", "2", "train"),
    ("c", "nevus", "", "3", "val"),
    ("d", "melanoma", "", "3", "test"),
    ("e", "melanoma", "", "4", "test"),
)


def test_groups_are_transitive_over_every_kind_of_link():
    found = audit(CHAIN, [("2", "3")])
    assert found.groups == found.cross_split_groups == [["a", "b", "c", "d"]]
    assert found.exact_duplicate_groups == [["c", "d"]]
    assert found.near_duplicate_groups == [["b", "c", "d"]]
    assert found.label_conflicts == [["c", "d"]]
    assert found.near_label_conflicts == [["b", "c", "d"]]
    assert (found.test_images_leaking, found.val_images_leaking) == (["d"], ["c"])
    assert found.near_duplicate_pairs == [
        {"first": "b", "second": "c", "score": 0.9, "kind": "cropped"}
    ]


def test_test_images_that_leak_have_a_training_image_and_not_only_a_validation_image():
    found = audit(CHAIN)
    assert found.groups == [["a", "b"], ["c", "d"]]
    assert found.cross_split_groups == [["c", "d"]]
    assert (found.test_images_leaking, found.val_images_leaking) == ([], [])
    assert found.leaks


def test_without_a_published_split_random_ones_are_judged():
    rows = [(f"i{n:02}", "xy"[n % 2], f"L{n // 2}", f"{n}", "") for n in range(40)]
    found = audit(table(*rows))
    assert found.judged_split == "random"
    assert found.class_counts == {"all": {"x": 20, "y": 20}}
    # Of pairs, a test image's twin is in training with 32 / 39, on average.
    assert found.random_splits.leaking_share_mean == pytest.approx(32 / 39, abs=0.08)
    assert 0 < len(found.test_images_leaking) <= 8
    assert set(found.test_images_leaking) <= {i for g in found.cross_split_groups for i in g}
    assert found.leaks


def test_lone_images_do_not_leak():
    found = audit(table(*[(f"i{n}", "xy"[n % 2], "", f"{n}", "") for n in range(10)]))
    assert not found.leaks
    assert found.random_splits.leaking_share_max == 0
    assert len(found.unknown) == 3


def test_one_image_only():
    found = audit(table(("a", "x", "", "1", "")))
    assert found.n_images == 1
    assert not found.leaks


def test_the_digest_follows_what_was_found_and_not_the_order_of_the_rows():
    assert audit(CHAIN).digest == audit(CHAIN.iloc[::-1].reset_index(drop=True)).digest
    assert audit(CHAIN).digest != audit(CHAIN, [("2", "3")]).digest


def test_it_is_written_as_json_with_a_number_for_every_list(tmp_path):
    found = audit(CHAIN, classes=["melanoma", "nevus", "wart"])
    found.write(tmp_path / "audit.json")
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written == found.as_json()
    assert (written["n_groups"], written["classes_without_images"]) == (2, ["wart"])


def test_problems_come_with_their_effect_and_a_way_out():
    problems = find_problems(audit(CHAIN, [("2", "3")]))
    assert {"cross_split_groups", "label_conflicts", "class_sizes"} <= {p.key for p in problems}
    assert all(problem.effect and problem.remedies for problem in problems)


@pytest.mark.parametrize(
    ("overrides", "protocol", "says"),
    [
        (["dataset.conflicts=drop"], "grouped", ""),
        ([], "grouped", "1 group of copies under different labels (dataset.conflicts=error)"),
        (["dataset.conflicts=keep"], "grouped", "2 groups of copies under different labels"),
        (["dataset.conflicts=drop"], "leaking", "both sides of the split"),
    ],
)
def test_a_run_says_what_it_leaves_unresolved(composed, overrides, protocol, says):
    dataset = composed("dataset=folder", "dataset.root=here", *overrides).dataset
    line = describe_unresolved(audit(CHAIN, [("2", "3")]), dataset, protocol)
    assert says in line
    assert "\n" not in line
    assert bool(line) == bool(says)


def real(composed, name, root, session_cache):
    from melanoma_lab.audit.inspection import inspect_files
    from melanoma_lab.data.cache import compute_file_digests

    dataset = composed(f"dataset={name}", f"dataset.root={root}").dataset
    listing = read_listing(dataset, session_cache)
    manifest = listing.images
    manifest["digest"] = compute_file_digests(list(manifest["path"]), 2)
    inspection = inspect_files(
        list(manifest["path"]), list(manifest["digest"]), cache=session_cache, threads=2
    )
    return audit_images(listing, inspection, name=name, classes=dataset.classes)[0]


def test_the_real_nine_class_folder(composed, real_isic9, session_cache):
    found = real(composed, "isic9", real_isic9, session_cache)
    assert (found.n_images, found.unreadable, found.judged_split) == (2359, [], "published")
    assert len(found.exact_duplicate_groups) == 159
    assert len(found.label_conflicts) == 155
    assert sum(map(len, found.label_conflicts)) == 310
    assert len(found.metadata_conflicts) == 102
    # Copies under other archive ids, which no metadata tells: at least these.
    together = {frozenset(group) for group in found.near_duplicate_groups}
    pair = {f"Train/melanoma/ISIC_{n}.jpg" for n in ("0000399", "0001124")}
    assert any(pair <= group for group in together)
    assert 39 <= len(found.test_images_leaking) <= 50
    assert found.sources.single_source_classes["melanoma"] == "other"
    assert found.sources.cramers_v == pytest.approx(0.93, abs=0.01)
    assert not found.class_sizes["seborrheic keratosis"].measurable
    assert found.random_splits.leaking_share_mean == pytest.approx(0.35, abs=0.03)


def test_near_duplicates_of_real_ham10000_are_of_one_lesion(
    composed, real_ham10000, session_cache, tmp_path
):
    images = sorted((real_ham10000 / "images").iterdir())[:1200]
    (tmp_path / "images").mkdir()
    for image in images:
        shutil.copy(image, tmp_path / "images")
    table = real_ham10000 / "HAM10000_metadata.csv"
    (tmp_path / table.name).write_bytes(table.read_bytes())
    found = real(composed, "ham10000", tmp_path, session_cache)
    assert (found.n_images, found.judged_split) == (1200, "random")

    lesion = pd.read_csv(table, index_col="image_id")["lesion_id"]
    of = {f"images/{image.name}": lesion[image.stem] for image in images}
    same = [of[pair["first"]] == of[pair["second"]] for pair in found.near_duplicate_pairs]
    assert len(same) >= 8
    assert np.mean(same) >= 0.9
    assert found.random_splits.leaking_share_mean > 0
    assert len(found.unknown) == 1
