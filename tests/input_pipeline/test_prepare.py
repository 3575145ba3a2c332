import dataclasses
import shutil

import numpy as np
import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import slugify
from melanoma_lab.input_pipeline import prepare as prepare_module
from melanoma_lab.input_pipeline.prepare import MANIFEST_COLUMNS, prepare_data
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def prepare(composed, session_cache):
    def run(*overrides):
        config = composed("dataset.image_size=16", *overrides)
        return prepare_data(config, cache=session_cache, threads=2)

    return run


@pytest.fixture
def on_tree(prepare, tree):
    return lambda *more: prepare("dataset=folder", f"dataset.root={tree}", *more)


def test_the_manifest_has_a_row_an_image(on_tree, tree):
    data = on_tree()
    assert tuple(data.manifest.columns) == MANIFEST_COLUMNS
    assert len(data.manifest) == 27
    assert data.classes == ("Vascular lesion", "melanoma", "nevus")
    assert data.slugs == ("vascular_lesion", "melanoma", "nevus")
    assert data.protocol == "ungrouped"
    assert [data.classes[label] for label in data.labels] == list(data.manifest["label"])


def test_rows_lead_to_the_decoded_image(on_tree, tree):
    from melanoma_lab.data.cache import decode_image

    data = on_tree()
    for position in (0, 13, 26):
        path = data.manifest["path"].iloc[position]
        np.testing.assert_array_equal(data.pixels[data.rows[position]], decode_image(path, 16))


def test_the_training_split_holds_training_images_only(on_tree):
    data = on_tree()
    train = data.training_split()
    ids = set(data.manifest.loc[data.manifest["split"] == "train", "image_id"])
    assert set(train.image_ids) == ids
    np.testing.assert_array_equal(train.rows, data.rows[data.select_split("train")])


def test_digest_and_split_hash_follow_what_they_name(on_tree):
    base, seed, lesions = on_tree(), on_tree("split.seed=1"), on_tree("dataset.groups=none")
    assert base.digest == seed.digest == lesions.digest
    assert base.split_hash != seed.split_hash
    fewer = on_tree("dataset.classes=[melanoma,nevus]")
    assert fewer.digest != base.digest


def test_the_root_does_not_count(on_tree, tree, tmp_path, prepare):
    (tmp_path / "elsewhere").symlink_to(tree)
    elsewhere = prepare("dataset=folder", f"dataset.root={tmp_path / 'elsewhere'}")
    assert elsewhere.digest == on_tree().digest
    assert elsewhere.split_hash == on_tree().split_hash


def test_known_groups_on_both_sides_make_the_protocol_leaking(prepare, tmp_path):
    for label in "ab":
        for i in range(12):
            path = paint(
                tmp_path / "twins" / label / f"{i}.png", (99, 9, 9), seed=1000 * i + ord(label)
            )
            path.with_name(f"{i}-again.png").write_bytes(path.read_bytes())
    root = f"dataset.root={tmp_path / 'twins'}"
    apart = prepare("dataset=folder", root)
    assert apart.protocol == "ungrouped"
    assert apart.manifest["group"].nunique() == 24
    leaking = prepare("dataset=folder", root, "dataset.groups=none")
    assert leaking.protocol == "leaking"
    assert prepare("dataset=folder", root, "dataset.groups=lesion").protocol == "leaking"


@pytest.fixture
def spoilt(tmp_path):
    for label in "ab":
        for i in range(8):
            paint(tmp_path / "spoilt" / label / f"{i}.png", (99, 9, 9), seed=1000 * i + ord(label))
    (tmp_path / "spoilt" / "a" / "empty.jpg").touch()
    (tmp_path / "spoilt" / "b" / "text.png").write_text("no image")
    return tmp_path / "spoilt"


def test_unreadable_images_are_all_listed(prepare, spoilt):
    with pytest.raises(UserError) as caught:
        prepare("dataset=folder", f"dataset.root={spoilt}")
    text = str(caught.value)
    assert "2 of 18 images cannot be read" in text
    assert f"{spoilt}/a/empty.jpg: an empty file" in text
    assert f"{spoilt}/b/text.png: not an image" in text
    assert "dataset.on_unreadable=skip" in text


def test_the_audit_lists_what_training_refuses(composed, spoilt, tmp_path, monkeypatch):
    from melanoma_lab.commands.audit import audit_dataset

    (spoilt / "a" / "gone.jpg").symlink_to(spoilt / "a" / "nowhere.jpg")
    whole = (spoilt / "b" / "0.png").read_bytes()
    (spoilt / "b" / "half.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    config = composed("dataset=folder", f"dataset.root={spoilt}", "dataset.image_size=16")
    listed = audit_dataset(dataclasses.replace(config, cache=str(tmp_path / "cache"))).unreadable
    with pytest.raises(UserError) as caught:
        prepare_data(config, cache=tmp_path / "cache", threads=2)
    refused = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert refused == [f"{spoilt}/{row['image_id']}: {row['reason']}" for row in listed]
    assert len(refused) == 4


def test_unreadable_images_are_skipped_when_told(prepare, spoilt):
    data = prepare("dataset=folder", f"dataset.root={spoilt}", "dataset.on_unreadable=skip")
    assert len(data.manifest) == 16
    assert "2 of 18 images cannot be read; skipped" in data.notes[0]


def test_a_table_that_names_other_images_than_the_folder_has_is_noted(prepare, tmp_path):
    rows = ["lesion_id,image_id,dx"]
    for n in range(24):
        paint(tmp_path / "images" / f"{n:02}.png", (99, 9, 9), seed=n)
        rows.append(f"L{n},{n:02},{('nv', 'mel')[n % 2]}")
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join([*rows[:-1], "LX,98,nv", "LX,99,nv"]))
    data = prepare(
        "dataset=ham10000", f"dataset.root={tmp_path}", "dataset.classes=[melanoma,nevus]"
    )
    assert data.notes[:2] == (
        "HAM10000_metadata.csv names images that do not exist: 2, such as 98.",
        "Left out, because HAM10000_metadata.csv does not name them: images/23.png.",
    )


def test_class_names_must_stay_apart_as_column_names(prepare, tmp_path):
    for label in ("Spitz nevus", "spitz_nevus"):
        for i in range(4):
            paint(
                tmp_path / "clash" / label / f"{i}.png",
                (99, 9, 9),
                seed=i + len(label) * ord(label[0]),
            )
    with pytest.raises(UserError, match="would share the column prob/spitz_nevus"):
        prepare("dataset=folder", f"dataset.root={tmp_path / 'clash'}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("melanoma", "melanoma"),
        ("pigmented benign keratosis", "pigmented_benign_keratosis"),
        ("BKL (all)", "bkl_all"),
        ("Spitz-Nevus, 2", "spitz_nevus_2"),
    ],
)
def test_slugs_are_fit_for_metric_names(name, expected):
    assert slugify(name) == expected


def test_a_melanoma_class_that_the_images_lack_is_refused(prepare, tree):
    asked = ("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16")
    with pytest.raises(UserError, match=r"positive_class=melanom: .* Did you mean melanoma\?"):
        prepare(*asked, "dataset.positive_class=melanom")
    assert prepare(*asked, "dataset.positive_class=Melanoma").positive_class == "melanoma"


def test_verified_labels_of_the_real_folder(prepare, real_isic9):
    data = prepare("dataset=isic9_verified", f"dataset.root={real_isic9}")
    assert len(data.classes) == 8
    assert "seborrheic keratosis" not in data.classes
    agreed = data.manifest["diagnosis"].isin(["", *data.classes])
    assert agreed.all()
    known = data.manifest["diagnosis"] != ""
    assert (data.manifest["label"] == data.manifest["diagnosis"])[known].all()
    assert data.manifest.groupby("digest")["label"].nunique().max() == 1
    assert data.protocol == "grouped"


def test_conflicts_of_the_real_folder_are_counted(prepare, real_isic9):
    with pytest.raises(UserError, match="310 images in 155 groups are identical but"):
        prepare("dataset=isic9", f"dataset.root={real_isic9}")
    kept = prepare("dataset=isic9", f"dataset.root={real_isic9}", "dataset.conflicts=keep")
    assert (len(kept.manifest), len(kept.classes)) == (2359, 9)


def test_the_published_test_images_of_the_real_folder_leak(prepare, real_isic9):
    overrides = ("dataset=isic9_verified", f"dataset.root={real_isic9}", "split=predefined")
    with pytest.raises(UserError, match="39 of 113 published test images belong together"):
        prepare(*overrides)
    assert prepare(*overrides, "dataset.groups=none").protocol == "leaking"
    assert prepare(*overrides, "split.leaking_test=drop").protocol == "grouped"


def test_a_process_prepares_the_same_only_once(on_tree, monkeypatch):
    first = on_tree("split.seed=41")
    monkeypatch.setattr(prepare_module, "audit_images", None)  # it would be called
    again = on_tree("split.seed=41")
    assert again.split_hash == first.split_hash
    assert again.manifest.equals(first.manifest)
    again.manifest["split"] = "train"  # what one run did to its table would be no other's
    assert on_tree("split.seed=41").manifest.equals(first.manifest)
    with pytest.raises(TypeError):
        on_tree("split.seed=42")


def test_what_has_changed_in_a_folder_is_seen_by_the_same_process(prepare, tree, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(tree, root)

    def look():
        return prepare("dataset=folder", f"dataset.root={root}")

    first = look()
    paint(root / "nevus" / "0.png", (1, 2, 3), seed=77)
    changed = look()
    assert changed.digest != first.digest
    (root / "nevus" / "1.png").unlink()
    assert len(look().manifest) == len(first.manifest) - 1


@pytest.mark.slow
def test_a_process_remembers_a_few_only(on_tree):
    for seed in range(50, 52 + prepare_module.MAX_PREPARED):
        on_tree(f"split.seed={seed}")
    assert len(prepare_module._prepared) == prepare_module.MAX_PREPARED
