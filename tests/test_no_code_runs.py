"""Nothing that lies in a cache, a dataset or a file of weights is run: files are data.

PyTorch's files of weights are pickles. They are not unpickled but carried out by a machine that
can call nothing: tests/models/test_torch_file.py.
"""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import melanoma_lab
from melanoma_lab.audit.inspection import inspect_files
from melanoma_lab.core.checksummed_files import open_array
from melanoma_lab.data.cache import compute_file_digests, load_pixels
from tests.support.pictures import paint

pytestmark = pytest.mark.unit

PACKAGE = Path(melanoma_lab.__file__).parent


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.fixture
def traps(tmp_path):
    """Files that run code where they are unpickled: bare, and as NumPy saves objects."""
    sprung = tmp_path / "sprung"
    (tmp_path / "bare").write_bytes(pickle.dumps(Trap(sprung)))
    array = np.empty(1, dtype=object)
    array[0] = Trap(sprung)
    np.save(tmp_path / "array.npy", array, allow_pickle=True)
    yield [(tmp_path / "bare").read_bytes(), (tmp_path / "array.npy").read_bytes()]
    assert not sprung.exists(), "code from a cache file was run"


def test_the_traps_work(tmp_path, traps):
    np.load(tmp_path / "array.npy", allow_pickle=True)
    (tmp_path / "sprung").rmdir()


@pytest.mark.parametrize("which", [0, 1])
def test_every_kind_of_cache_file_is_found_out_and_made_anew(tmp_path, traps, which):
    cache = tmp_path / "cache"
    paths = [str(paint(tmp_path / f"{i}.png", (90, 90, 90), seed=i)) for i in range(3)]
    digests = compute_file_digests(paths, 1)

    def everything():
        pixels = load_pixels(paths, digests, size=16, cache=cache, threads=1)
        found = inspect_files(paths, digests, cache=cache, threads=1)
        return np.array(pixels.images), found.files.to_csv(), found.pairs.to_csv()

    before = everything()
    kept = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.suffix for path in kept} >= {".npy", ".json"}
    for path in kept:
        path.write_bytes(traps[which])
    after = everything()
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("which", [0, 1])
def test_balanced_copies_are_found_out(tmp_path, traps, which):
    path = tmp_path / "copies.npy"
    path.write_bytes(traps[which])
    assert open_array(path, (1, 16, 16, 3)) is None


def test_no_module_loads_what_could_run_code():
    """``numpy.load`` says so at every call, and nothing else that unpickles is there at all."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for call in re.findall(r"\bnp\.load\([^)]*\)", text):
            assert "allow_pickle=False" in call, path
        for name in ("joblib.", "read_pickle", "dill", "marshal", "yaml.load("):
            assert name not in text, path
        assert not re.search(r"(import|from) joblib", text), path
        # pickletools is allowed: it takes instructions apart and carries none out.
        assert not re.search(r"(import|from) _?\w*pickle\b|\bpickle\.\w|Unpickler", text), path
        assert not re.search(r"(?<![.\w])(eval|exec)\(", text), path
