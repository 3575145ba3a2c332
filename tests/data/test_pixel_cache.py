import hashlib
import multiprocessing
import os

import numpy as np
import pytest
from PIL import Image

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.checksummed_files import read_checksummed_json
from melanoma_lab.data import cache as pixels_module
from melanoma_lab.data.cache import compute_file_digests, decode_image, load_pixels

pytestmark = pytest.mark.unit


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def load(paths, cache, size=16, **more):
    paths = [str(p) for p in paths]
    return load_pixels(
        paths, compute_file_digests(paths, 2), size=size, cache=cache, threads=2, **more
    )


def test_decoding_is_pillows_bilinear(picture):
    expected = Image.open(picture).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_image(str(picture), 16), np.asarray(expected))


def test_a_picture_of_the_right_size_is_left_alone(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image(str(tmp_path / "a.png"), 16), pixels)


def test_how_a_photograph_becomes_a_square(tmp_path):
    """Red, green, green, blue from left to right, twice as wide as high."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    for channel, columns in ((0, slice(0, 4)), (1, slice(4, 12)), (2, slice(12, 16))):
        pixels[:, columns, channel] = 255
    path = str(tmp_path / "wide.png")
    Image.fromarray(pixels).save(path)
    squashed, cropped, padded = (decode_image(path, 8, resize) for resize in Resize)
    np.testing.assert_array_equal(squashed[:, [0, 3, 4, 7]].argmax(axis=2), [[0, 1, 1, 2]] * 8)
    np.testing.assert_array_equal(cropped, np.broadcast_to([0, 255, 0], (8, 8, 3)))
    assert not padded[[0, 1, 6, 7]].any()
    np.testing.assert_array_equal(padded[2:6], squashed[2:6])
    np.testing.assert_array_equal(decode_image(path, 8), squashed)
    upright = str(tmp_path / "high.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(upright)
    for resize, expected in zip(Resize, (squashed, cropped, padded), strict=True):
        np.testing.assert_array_equal(decode_image(upright, 8, resize), expected.transpose(1, 0, 2))


def test_the_cache_holds_each_kind_of_square_apart(tmp_path, picture):
    kinds = [load([picture], tmp_path / "cache", resize=resize).images[0] for resize in Resize]
    assert len({kind.tobytes() for kind in kinds}) == 3
    for resize, kind in zip(Resize, kinds, strict=True):
        np.testing.assert_array_equal(kind, decode_image(str(picture), 16, resize))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_colour_models_become_rgb(tmp_path, picture, mode):
    path = tmp_path / f"other.{'tif' if mode == 'CMYK' else 'png'}"
    Image.open(picture).convert(mode).save(path)
    assert decode_image(str(path), 16).shape == (16, 16, 3)


def test_the_cameras_orientation_is_applied(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    decoded = decode_image(str(tmp_path / "turned.jpg"), 32)
    assert decoded[:14].max() < 50
    assert decoded[18:].min() > 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "an empty file"), (b"not a picture", "not an image")],
)
def test_what_is_no_image_says_why(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        decode_image(str(path), 16)


def test_a_truncated_image_is_refused(tmp_path, picture):
    path = tmp_path / "half.png"
    path.write_bytes(picture.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"truncated|broken|cut"):
        decode_image(str(path), 16)


def test_images_are_decoded_once(tmp_path, picture):
    cache = tmp_path / "cache"
    told = []
    first = load([picture], cache, progress=lambda *t: told.append(t))
    files = {path: path.stat().st_mtime_ns for path in (cache / "pixels").iterdir()}
    again = load([picture], cache, progress=lambda *t: told.append(t))
    assert told == [(1, 1)]
    assert {path: path.stat().st_mtime_ns for path in (cache / "pixels").iterdir()} == files
    np.testing.assert_array_equal(first.images, again.images)
    assert isinstance(again.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again.images[0] = 0


def test_identical_files_share_a_row_and_the_name_does_not_matter(tmp_path, picture):
    twin = tmp_path / "twin.png"
    twin.write_bytes(picture.read_bytes())
    both = load([picture, twin], tmp_path / "cache")
    assert len(both.images) == len(both.row) == 1
    assert len(list((tmp_path / "cache" / "pixels").glob("*.npy"))) == 1
    picture.rename(tmp_path / "renamed.png")
    load([tmp_path / "renamed.png"], tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "pixels").glob("*.npy"))) == 1


def test_the_size_and_the_content_make_another_entry(tmp_path, picture):
    load([picture], tmp_path / "cache", size=16)
    load([picture], tmp_path / "cache", size=8)
    Image.new("RGB", (9, 9)).save(picture)
    load([picture], tmp_path / "cache", size=16)
    assert len(list((tmp_path / "cache" / "pixels").glob("*.npy"))) == 3


def test_a_file_is_read_again_only_where_it_has_changed(tmp_path, picture, monkeypatch):
    def digest_of(*paths):
        return compute_file_digests([str(path) for path in paths], 1)

    reads = []
    monkeypatch.setattr(
        pixels_module, "SETTLED_SECONDS", -1.0
    )  # as if the files had been there for long
    once = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: reads.append(given) or once(*given))
    other = tmp_path / "other.png"
    other.write_bytes(b"one")
    first = digest_of(picture, other)
    assert digest_of(picture, other) == first
    assert len(reads) == 2
    before = other.stat()
    other.write_bytes(b"two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some tools do
    assert digest_of(picture, other) == [first[0], hashlib.sha256(b"two").hexdigest()]
    assert len(reads) == 3
    other.unlink()
    assert digest_of(picture, other) == [first[0], ""]


def test_a_file_that_was_just_written_is_read_again(tmp_path):
    file = tmp_path / "a.png"
    for content in (b"one", b"two"):  # within a tick of the disk's clock, perhaps
        file.write_bytes(content)
        assert compute_file_digests([str(file)], 1) == [hashlib.sha256(content).hexdigest()]
    assert str(file) not in pixels_module._digests


def test_unreadable_files_are_kept_apart(tmp_path, picture):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no")
    for _ in range(2):  # decoded, then from the cache
        pixels = load([bad, picture], tmp_path / "cache")
        assert list(pixels.unreadable.values()) == ["not an image"]
        assert len(pixels.row) == 1
        row = pixels.row[compute_file_digests([str(picture)], 1)[0]]
        np.testing.assert_array_equal(pixels.images[row], decode_image(str(picture), 16))


def test_a_missing_file_has_no_digest_and_is_unreadable(tmp_path):
    pixels = load([tmp_path / "gone.jpg"], tmp_path / "cache")
    assert "cannot be opened" in pixels.unreadable[""]


def test_a_file_that_cannot_be_opened_says_nothing_about_its_content(tmp_path, picture):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    paths = [tmp_path / "gone.jpg", tmp_path / "pipe.jpg", picture]
    pixels = load(paths, tmp_path / "cache")
    assert list(pixels.unreadable) == [""]
    assert len(pixels.row) == len(pixels.images) == 1
    load([picture], tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "pixels").glob("*.npy"))) == 1


def test_nothing_that_can_be_opened_is_no_image(tmp_path):
    pixels = load([tmp_path / "gone.jpg"], tmp_path / "cache")
    assert pixels.images.shape == (0, 16, 16, 3)
    assert not pixels.row


def test_what_a_killed_process_left_is_not_used(tmp_path, picture):
    folder = tmp_path / "cache" / "pixels" / ".building-dead"
    folder.mkdir(parents=True)
    (folder / "images.npy").write_bytes(b"half")
    pixels = load([picture], tmp_path / "cache")
    np.testing.assert_array_equal(pixels.images[0], decode_image(str(picture), 16))


def _load_in_process(arguments):
    paths, cache = arguments
    decoded = []
    pixels = load(paths, cache, progress=lambda done, total: decoded.append(done))
    return np.asarray(pixels.images).sum(), len(decoded)


def test_of_two_processes_one_decodes_and_the_other_waits(tmp_path):
    paths = []
    for seed in range(40):
        paths.append(tmp_path / f"{seed}.png")
        noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(paths[-1])
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = pool.map(_load_in_process, [(paths, tmp_path / "cache")] * 2, chunksize=1)
    assert done[0][0] == done[1][0]
    assert sorted(decoded for _, decoded in done) == [0, 40]
    left = sorted(path.name for path in (tmp_path / "cache" / "pixels").iterdir())
    assert [name.split(".")[-1] for name in left] == ["json", "npy"]
    assert read_checksummed_json(tmp_path / "cache" / "pixels" / left[0]) == {}
