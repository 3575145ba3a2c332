"""Folders that nobody should have to audit, and that somebody will."""

import json

import numpy as np
import pytest
from PIL import Image

from melanoma_lab.commands.audit import audit_dataset
from melanoma_lab.core.errors import RunError, UserError
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def audit(composed, tmp_path, monkeypatch):
    """Audit the folder root/; the result is audit.json, once the page was written too."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides, name="folder"):
        audit_dataset(
            composed(
                f"dataset={name}", "dataset.root=root", "cache=cache", "task=audit", *overrides
            )
        )
        folder = tmp_path / "experiments" / f"audit-{name}"
        assert "not a medical device" in (folder / "audit.html").read_text()
        return json.loads((folder / "audit.json").read_text())

    return run


def test_one_image(audit, tmp_path, capsys):
    paint(tmp_path / "root" / "nevus" / "a.png", (9, 9, 9), seed=0)
    found = audit()
    assert "dataset.classes=[" not in capsys.readouterr().out  # no class would be left
    assert (found["n_images"], found["n_groups"], found["n_test_images_leaking"]) == (1, 0, 0)


def test_one_file_that_is_no_image(audit, tmp_path):
    (tmp_path / "root" / "nevus").mkdir(parents=True)
    (tmp_path / "root" / "nevus" / "a.png").write_text("text")
    found = audit()
    assert (found["n_images"], found["n_unreadable"], found["n_groups"]) == (1, 1, 0)


def test_all_images_identical(audit, tmp_path):
    ids = [f"{label}/{n}.png" for label in ("melanoma", "nevus") for n in range(4)]
    for image_id in ids:
        paint(tmp_path / "root" / image_id, (90, 60, 50), seed=0)
    found = audit()
    assert found["groups"] == found["exact_duplicate_groups"] == found["label_conflicts"] == [ids]
    assert found["random_splits"]["leaking_share_mean"] == 1.0


def test_all_pixels_identical_in_different_files(audit, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    (tmp_path / "root" / "nevus").mkdir(parents=True)
    for level in (0, 9):
        path = tmp_path / "root" / "nevus" / f"{level}.png"
        Image.fromarray(pixels).save(path, compress_level=level)
    found = audit()
    assert (found["n_exact_duplicate_groups"], found["n_pixel_duplicate_groups"]) == (0, 1)
    assert found["groups"] == [["nevus/0.png", "nevus/9.png"]]


def test_very_long_names_and_folders(audit, tmp_path):
    deep = "/".join(["d" * 200] * 3)
    ids = [f"{deep}/nevus/{'n' * 250}.png", f"{'melanoma' * 30}/{'é' * 120}.png"]
    for image_id in ids:
        paint(tmp_path / "root" / image_id, (90, 60, 50), seed=0)
    assert audit()["exact_duplicate_groups"] == [sorted(ids)]


def test_names_that_are_no_utf8_are_refused_by_name(audit, tmp_path):
    path = paint(tmp_path / "root" / "nevus" / "a.png", (9, 9, 9), seed=0)
    path.rename(path.with_name("caf\udce9.png"))
    with pytest.raises(UserError, match=r"caf\\udce9\.png: this name is not UTF-8"):
        audit()


def test_links_that_loop_or_leave_the_root_do_not_count(audit, tmp_path):
    outside = paint(tmp_path / "outside" / "x.png", (9, 9, 9), seed=0)
    inside = paint(tmp_path / "root" / "nevus" / "a.png", (9, 9, 9), seed=1)
    for name, target in (("loop", tmp_path / "root"), ("b.png", outside), ("self.png", "self.png")):
        (inside.parent / name).symlink_to(target)
    found = audit()
    assert found["class_counts"] == {"all": {"nevus": 2}}
    assert [row["image_id"] for row in found["unreadable"]] == ["nevus/self.png"]
    assert any("nevus/b.png leads out of dataset.root" in said for said in found["unknown"])


def test_no_place_to_write(audit, tmp_path):
    paint(tmp_path / "root" / "nevus" / "a.png", (9, 9, 9), seed=0)
    (tmp_path / "experiments").write_text("a file in the way; root may write anywhere else")
    with pytest.raises(RunError, match=r"experiments/audit-folder: cannot be created \(.*\); run"):
        audit()


def test_metadata_is_not_needed_and_its_lack_is_told(audit, tmp_path):
    for n, label in enumerate(("melanoma", "nevus")):
        paint(tmp_path / "root" / "Train" / label / f"{n}.png", (9, 9, 9), seed=n)
    found = audit(name="isic9")
    assert found["n_unknown"] == 3
    assert found["n_missing_images"] == 0


def test_metadata_of_images_that_are_not_there(audit, tmp_path, capsys):
    paint(tmp_path / "root" / "images" / "ISIC_1.png", (9, 9, 9), seed=0)
    paint(tmp_path / "root" / "images" / "ISIC_9.png", (9, 9, 9), seed=1)
    (tmp_path / "root" / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx\nL1,ISIC_1,mel\nL2,ISIC_2,nv\nL3,ISIC_3,nv\n"
    )
    found = audit(name="ham10000")
    assert found["missing_images"] == ["ISIC_2", "ISIC_3"]
    assert found["unlisted_images"] == ["images/ISIC_9.png"]
    assert found["n_images"] == 1
    told = capsys.readouterr().out
    assert "names 2 images not in the folder" in told
    assert "1 image in the folder not named" in told


def test_one_image_with_two_lesions_is_refused(audit, tmp_path):
    paint(tmp_path / "root" / "images" / "ISIC_1.png", (9, 9, 9), seed=0)
    (tmp_path / "root" / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx\nL1,ISIC_1,mel\nL2,ISIC_1,mel\n"
    )
    with pytest.raises(UserError, match="ISIC_1 occurs twice, with lesion L1 and L2"):
        audit(name="ham10000")
