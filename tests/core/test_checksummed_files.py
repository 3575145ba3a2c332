"""Cache files: whole, or noticed not to be and made again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.core import checksummed_files
from melanoma_lab.core.checksummed_files import (
    is_folder_intact,
    load_or_compute,
    open_array,
    read_checksummed_json,
    write_array,
    write_checksummed_json,
    write_folder_checksums,
)
from melanoma_lab.core.errors import RunError
from melanoma_lab.data.cache import compute_file_digests, load_pixels

pytestmark = pytest.mark.unit

SHAPE = (40, 20, 24, 3)  # 57,600 bytes


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Nothing has been checked yet."""
    monkeypatch.setattr(checksummed_files, "_checked", {})
    monkeypatch.setattr(checksummed_files, "_warned", set())
    monkeypatch.setattr(checksummed_files, "_BLOCK", 4096)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def path(tmp_path, pixels):
    path = tmp_path / "cache" / "images.npy"
    with write_array(path, SHAPE) as file:
        for first in (30, 0, 10, 20):
            file.write(first, pixels[first : first + 10])
    return path


def test_a_whole_array_is_mapped(path, pixels):
    found = open_array(path, SHAPE)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(np.load(path), pixels)  # any program can read it
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("where", [0.0, 0.001, 0.3, 0.999, 1.0])
def test_a_flipped_bit_is_noticed_wherever_it_is(path, caplog, where):
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 4
    path.write_bytes(content)
    assert open_array(path, SHAPE) is None
    assert f"{path} is damaged; it is recreated" in caplog.text


@pytest.mark.parametrize("kept_share", [0.0, 0.01, 0.5, 0.9995])
def test_a_file_cut_short_is_noticed(path, kept_share):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept_share * len(content))])
    assert open_array(path, SHAPE) is None


def test_zeros_and_a_longer_file_are_noticed(path):
    content = path.read_bytes()
    path.write_bytes(content[:9000] + bytes(4096) + content[9000 + 4096 :])
    assert open_array(path, SHAPE) is None
    path.write_bytes(content + b"\n")
    assert open_array(path, SHAPE) is None


def test_an_array_of_another_form_or_without_a_seal_is_refused(path, tmp_path, pixels):
    assert open_array(path, (40, 24, 20, 3)) is None
    np.save(tmp_path / "plain.npy", pixels)
    assert open_array(tmp_path / "plain.npy", SHAPE) is None
    assert open_array(tmp_path / "nothing.npy", SHAPE) is None


def test_a_process_checks_a_file_once(path, monkeypatch):
    assert open_array(path, SHAPE) is not None
    monkeypatch.setattr(checksummed_files, "_checksums", None)
    assert open_array(path, SHAPE) is not None


def test_what_fails_in_the_making_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), write_array(tmp_path / "a.npy", SHAPE):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_comes_back_as_it_was(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_checksummed_json(path, content)
    assert read_checksummed_json(path) == content


def test_damaged_json_is_noticed_though_it_still_parses(tmp_path):
    path = tmp_path / "a.json"
    write_checksummed_json(path, {"score": 0.93})
    path.write_text(path.read_text().replace("0.93", "0.13"))
    assert read_checksummed_json(path) is None
    path.write_bytes(b"\xff\xfe")
    assert read_checksummed_json(path) is None
    assert read_checksummed_json(tmp_path / "nothing.json") is None


def test_a_folder_is_whole_or_not(tmp_path):
    folder = tmp_path / "folder"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"abc")
    assert not is_folder_intact(tmp_path / "nothing")
    assert not is_folder_intact(folder)
    write_folder_checksums(folder)
    assert is_folder_intact(folder)
    (folder / "images" / "a.png").write_bytes(b"abd")
    assert not is_folder_intact(folder)
    (folder / "images" / "a.png").unlink()
    assert not is_folder_intact(folder)


def test_a_disk_that_damages_everything_is_named(tmp_path):
    with pytest.raises(RunError, match=r"just written and already damaged.*cache=DIR"):
        load_or_compute(tmp_path / "a", lambda: None, lambda: None)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_damaged_pixels_are_decoded_again(tmp_path, tree, suffix):
    paths = [str(path) for path in sorted((tree / "nevus").iterdir())]

    def load(told):
        return load_pixels(
            paths,
            compute_file_digests(paths, 2),
            size=16,
            cache=tmp_path,
            threads=2,
            progress=lambda *_: told.append(1),
        )

    told = []
    first = np.array(load(told).images)
    (file,) = (tmp_path / "pixels").glob(f"*{suffix}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = load(told)
    assert len(told) == 2 * len(paths)
    np.testing.assert_array_equal(again.images, first)
    load(told)
    assert len(told) == 2 * len(paths)
