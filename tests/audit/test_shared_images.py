import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lab.audit.inspection import find_shared_images
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.cache import compute_file_digests

pytestmark = pytest.mark.unit


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def overlap(tmp_path):
    def run(against):
        ids = sorted(
            p.relative_to(tmp_path / "own").as_posix() for p in (tmp_path / "own").rglob("*.*")
        )
        paths = [str(tmp_path / "own" / image_id) for image_id in ids]
        table = pd.DataFrame(
            {"image_id": ids, "path": paths, "digest": compute_file_digests(paths, 2)}
        )
        return find_shared_images(table, str(against), cache=tmp_path / "cache", threads=2)

    return run


def test_shared_images_are_found_at_another_size_and_cut(overlap, tmp_path, drawn):
    for n, pixels in enumerate(drawn[:10]):
        save(tmp_path / "own" / f"{n}.png", pixels)
    (tmp_path / "own" / "text.png").write_text("no picture")
    other = tmp_path / "other"
    save(other / "a" / "same.png", drawn[0])
    save(other / "b" / "small.jpg", np.asarray(Image.fromarray(drawn[1]).resize((100, 100))))
    save(other / "b" / "cut.jpg", drawn[2][6:-6, 6:-6], quality=80)
    save(other / "b" / "strange.png", drawn[20])
    save(other / "b" / "black.png", np.zeros((64, 64, 3), np.uint8))
    found = overlap(other)
    assert [(row["image_id"], row["other"]) for row in found] == [
        ("0.png", "a/same.png"),
        ("1.png", "b/small.jpg"),
        ("2.png", "b/cut.jpg"),
    ]
    assert found[0]["score"] == 1.0
    assert overlap(other) == found


def test_a_folder_that_is_none_is_refused(overlap, tmp_path, drawn):
    save(tmp_path / "own" / "a.png", drawn[0])
    with pytest.raises(UserError, match=r"against=.*nowhere: no such folder"):
        overlap(tmp_path / "nowhere")
