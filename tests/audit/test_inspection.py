"""Files are judged by content, once: the second look finds the first one's answer."""

import numpy as np
import pytest
from PIL import Image

from melanoma_lab.audit import inspection
from melanoma_lab.audit.inspection import inspect_files
from melanoma_lab.data.cache import compute_file_digests

pytestmark = pytest.mark.unit


@pytest.fixture
def inspect(tmp_path):
    def run(paths):
        digests = compute_file_digests([str(path) for path in paths], 2)
        found = inspect_files(
            [str(path) for path in paths], digests, cache=tmp_path / "cache", threads=2
        )
        return found, digests

    return run


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(seed, shape=(48, 64, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_facts_of_a_file(inspect, tmp_path):
    paths = [
        save(tmp_path / "a.png", noise(0)),
        save(tmp_path / "grey.jpg", np.full((20, 30, 3), 127, np.uint8), quality=30),
        tmp_path / "text.jpg",
    ]
    paths[2].write_text("no picture")
    found, (noisy, grey, text) = inspect(paths)
    assert list(found.files.index) == sorted([noisy, grey, text])
    assert found.files.loc[noisy].tolist() == ["", "PNG", 64, 48, "", False, ""]
    assert found.files.loc[grey].tolist() == ["", "JPEG", 30, 20, "", True, ""]
    assert found.files.loc[text].tolist() == ["not an image", "", 0, 0, "", False, ""]
    assert found.unreadable == {text: "not an image"}
    assert found.pairs.empty


def test_identical_pixels_of_different_bytes(inspect, tmp_path):
    first = save(tmp_path / "a.png", noise(1))
    second = save(tmp_path / "b.png", noise(1), compress_level=0)
    other = save(tmp_path / "c.png", noise(2))
    found, (a, b, c) = inspect([first, second, other])
    assert found.files.loc[a, "pixels"] == found.files.loc[b, "pixels"] != ""
    assert found.files.loc[c, "pixels"] == ""
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [sorted([a, b])]


def test_pictures_that_only_look_identical_when_resized_are_not_the_same_pixels(inspect, tmp_path):
    small = save(tmp_path / "small.png", np.full((40, 40, 3), 9, np.uint8))
    large = save(tmp_path / "large.png", np.full((80, 80, 3), 9, np.uint8))
    found, digests = inspect([small, large])
    assert len(found.pairs) == 1
    assert set(found.files.loc[digests, "pixels"]) == {""}


def test_an_unreadable_file_is_no_copy_of_a_black_picture(inspect, tmp_path):
    """Both are zeros in the decode cache; black pictures stay tied to each other."""
    for n in range(6):  # of random digests, some come before the black pictures' and some after
        (tmp_path / f"{n}.jpg").write_text(f"no picture {n}")
    black = [
        save(tmp_path / f"black{n}.png", np.zeros((40, 40, 3), np.uint8), compress_level=n)
        for n in (0, 1, 9)
    ]
    found, digests = inspect([*black, *(tmp_path / f"{n}.jpg" for n in range(6))])
    tied = set(found.pairs["first"]) | set(found.pairs["second"])
    assert tied == set(digests[:3])
    assert len(found.pairs) == 2
    assert min(digests[3:]) < min(digests[:3]), "the case that the test is for"


def test_the_second_look_does_not_compare_again(inspect, tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{n}.png", noise(n)) for n in range(4)]
    paths.append(save(tmp_path / "again.png", noise(0), compress_level=0))
    first, _ = inspect(paths)

    def forbidden(*_args, **_options):
        raise AssertionError("compared again")

    monkeypatch.setattr(inspection, "find_near_duplicates", forbidden)
    second, _ = inspect(list(reversed(paths)))
    assert second.files.equals(first.files)
    assert second.pairs.equals(first.pairs)
    with pytest.raises(AssertionError, match="compared again"):
        inspect(paths[:-1])


def test_a_damaged_answer_is_found_anew(inspect, tmp_path):
    paths = [save(tmp_path / f"{n}.png", noise(n)) for n in range(3)]
    first, _ = inspect(paths)
    (kept,) = (tmp_path / "cache" / "inspections").glob("*.json")
    kept.write_text(kept.read_text()[:40])
    assert inspect(paths)[0].files.equals(first.files)
    assert not list(kept.parent.glob("*.partial"))


def test_one_image_has_no_pairs(inspect, tmp_path):
    assert inspect([save(tmp_path / "a.png", noise(0))])[0].pairs.empty


def test_all_images_identical(inspect, tmp_path):
    paths = [save(tmp_path / f"{n}.png", noise(0)) for n in range(3)]
    found, digests = inspect(paths)
    assert len(set(digests)) == len(found.files) == 1
    assert found.pairs.empty


def test_a_file_that_cannot_be_opened_is_unreadable_and_shifts_nothing(inspect, tmp_path):
    paths = [save(tmp_path / f"{n}.png", noise(0), compress_level=n) for n in (0, 9)]
    alone, _ = inspect(paths)
    found, (gone, first, second) = inspect([tmp_path / "gone.png", *paths])
    assert gone == ""
    assert list(found.unreadable) == [""]
    assert found.files.loc[first, "pixels"] == found.files.loc[second, "pixels"] != ""
    assert found.pairs.equals(alone.pairs)


def test_colours_that_are_not_as_photographed_are_noted(inspect, tmp_path):
    Image.new("CMYK", (50, 40), (0, 99, 99, 0)).save(tmp_path / "print.jpg")
    found, (printed,) = inspect([tmp_path / "print.jpg"])
    assert "CMYK" in found.files.loc[printed, "colours"]
