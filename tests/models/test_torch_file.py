import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.core.errors import UserError
from melanoma_lab.models.torch_file import read_torch_file
from tests.support import torch_files as made

pytestmark = pytest.mark.unit

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "fc.bias": np.array([1.5, -2.5]),
}
FOUR = np.arange(4, dtype="<f4").tobytes(), 4


@pytest.fixture
def read(tmp_path):
    def from_bytes(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_torch_file(path)

    return from_bytes


@pytest.fixture
def refused(read):
    def refuse(content, reason):
        with pytest.raises(UserError, match=reason) as caught:
            read(content)
        assert "weights.pth" in str(caught.value)

    return refuse


@pytest.mark.parametrize("archive", [False, True])
def test_a_state_dictionary_comes_back(read, archive):
    found = read(made.saved(ARRAYS, archive=archive))
    assert list(found) == list(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype
        assert found[key].shape == array.shape


@pytest.mark.parametrize("write", [made.plain, made.zipped])
def test_tensors_are_views_of_shared_storages(read, write):
    legacy = write is made.plain
    items = {
        "turned": made.tensor("a", 6, (3, 2), (1, 3), legacy=legacy),
        "last": made.tensor("a", 6, (2,), (1,), offset=4, legacy=legacy),
        "one": made.tensor("a", 6, (1, 2), (10**30, 1), legacy=legacy),
        "none": made.tensor("a", 6, (0,), (1,), legacy=legacy),
    }
    found = read(write(made.ordered(items), {"a": (np.arange(6, dtype="<f4").tobytes(), 6)}))
    np.testing.assert_array_equal(found["turned"], np.arange(6).reshape(2, 3).T)
    np.testing.assert_array_equal(found["last"], [4, 5])
    np.testing.assert_array_equal(found["one"], [[0, 1]])
    assert found["none"].shape == (0,)
    assert not found["turned"].flags.writeable


def test_the_weights_of_a_checkpoint_are_found(read):
    inner = made.dictionary({"w": made.tensor("a", 4, (4,), (1,))})
    found = read(
        made.plain(made.dictionary({"epoch": made.number(3), "state_dict": inner}), {"a": FOUR})
    )
    np.testing.assert_array_equal(found["w"], range(4))


def mkdir(path):
    """Instructions that make a folder when they are unpickled."""
    return made.name("os", "mkdir") + b"(" + made.text(str(path)) + b"tR"


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("where", ["whole", "value", "attribute"])
def test_nothing_is_run(tmp_path, read, where, archive):
    sprung = tmp_path / "sprung"
    weights = made.tensor("a", 4, (4,), (1,), legacy=not archive)
    found = {
        "whole": mkdir(sprung),
        "value": made.ordered({"w": weights, "v": mkdir(sprung)}),
        "attribute": made.ordered({"w": weights}) + mkdir(sprung) + b"b",
    }[where]
    with pytest.raises(UserError, match=r"names os\.mkdir.*No code of it was run"):
        read((made.zipped if archive else made.plain)(found, {"a": FOUR}))
    assert not sprung.exists()


@pytest.mark.parametrize(
    "part", [made.number(made.MAGIC), made.number(1001), b"](" + made.text("a") + b"e"]
)
def test_none_of_the_other_pickles_is_run_either(tmp_path, refused, part):
    content = made.plain(made.ordered({"w": made.tensor("a", 4, (4,), (1,))}), {"a": FOUR})
    assert made.pickled(part) in content
    hostile = content.replace(made.pickled(part), made.pickled(mkdir(tmp_path / "sprung")))
    refused(hostile, r"names os\.mkdir")
    assert not (tmp_path / "sprung").exists()


def test_the_trap_works(tmp_path):
    pickle.loads(made.pickled(mkdir(tmp_path / "sprung")))  # noqa: S301
    assert (tmp_path / "sprung").exists()


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "call",
    [Calls(os.system, "true"), Calls(eval, "1"), Calls(getattr, {}, "clear")],
    ids=["system", "eval", "getattr"],
)
def test_what_pickle_writes_is_refused(refused, call, protocol):
    refused(pickle.dumps({"state_dict": call}, protocol), "cannot be trusted")


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.update"),
        ("torch.serialization", "os.system"),
        ("", ""),
    ],
)
def test_names_near_the_allowed_ones_are_refused(refused, module, attribute):
    refused(made.plain(made.name(module, attribute), {}), f"names {module}.{attribute}")


@pytest.mark.parametrize(
    "found",
    [
        made.name("collections", "OrderedDict") + made.numbers([1]) + b"R",
        made.name("torch", "FloatStorage") + b")R",
        made.name("torch._utils", "_rebuild_tensor_v2") + b")R",
        made.name("torch._utils", "_rebuild_parameter") + made.numbers([1]) + b"R",
        made.dictionary({}) + b")R",
        made.text("os.system") + b")R",
    ],
)
def test_allowed_names_do_nothing_but_what_they_are_for(refused, found):
    refused(made.plain(found, {}), "calls")


@pytest.mark.parametrize(
    "found",
    [
        made.name("collections", "OrderedDict") + b")\x81",  # NEWOBJ
        b"(" + made.name("collections", "OrderedDict") + b"o",  # OBJ
        b"(icollections\nOrderedDict\n",  # INST
        made.text("os") + made.text("system") + b"\x93",  # STACK_GLOBAL
        b"\x82\x01",  # EXT1
        b"P0\n",  # PERSID
    ],
)
def test_other_ways_to_make_an_object_are_refused(refused, found):
    refused(made.plain(found, {}), "uses the instruction")


@pytest.mark.parametrize(
    "found", [b"}u", b"t", b"Q", b"R", b"b", b"h\x05", b"q\x05", b"(", b"", b"}0"]
)
def test_instructions_that_make_no_sense_are_refused(refused, found):
    refused(made.plain(found, {}), "cannot be trusted")


@pytest.mark.parametrize(
    "key", [made.numbers([1, 2]), b"N", made.number(3), b"]", made.name("torch", "FloatStorage")]
)
def test_only_strings_are_keys(refused, key):
    """A tuple of the same two tuples, and so on, would take for ever to hash."""
    refused(made.plain(b"}" + key + b"Ns", {}), "strings as keys")


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (made.tensor("a", 4, (5,), (1,)), "beyond its storage"),
        (made.tensor("a", 4, (4,), (1,), offset=1), "beyond its storage"),
        (made.tensor("a", 4, (2, 2), (3, 1)), "beyond its storage"),
        (made.tensor("a", 4, (10**12,), (0,)), "beyond its storage"),
        (made.tensor("a", 4, (2**40, 2**40), (0, 0)), "beyond its storage"),
        (made.tensor("a", 4, (0, 2**70), (1, 1)), "beyond its storage"),
        (made.tensor("a", 4, (1,) * 9, (1,) * 9), "beyond its storage"),
        (made.tensor("a", 4, (2,), (-1,), offset=1), "an invalid shape"),
        (made.tensor("a", 4, (2,), (1,), offset=-1), "an invalid shape"),
        (made.tensor("a", 4, (-1,), (1,)), "an invalid shape"),
        (made.tensor("a", 4, (2,), (1, 1)), "an invalid shape"),
        (made.tensor("a", 10**15, (2,), (1,)), "differs from what its tensors declare"),
        (made.tensor("b", 4, (2,), (1,)), "not those of its tensors"),
    ],
)
def test_tensors_that_lie_outside_their_storage_are_refused(refused, weights, reason):
    refused(made.plain(made.ordered({"w": weights}), {"a": FOUR}), reason)


@pytest.mark.parametrize("length", [2**40, 2**62, -1, -(2**40)])
def test_absurd_sizes_take_no_memory(tmp_path, refused, length):
    description = made.tensor("a", length, (2,), (1,))
    content = made.plain(made.ordered({"w": description}), {"a": (FOUR[0], length)})
    tracemalloc.start()
    refused(content, "beyond the file")
    refused(
        made.zipped(
            made.ordered({"w": made.tensor("a", length, (2,), (1,), legacy=False)}), {"a": FOUR}
        ),
        "beyond the file",
    )
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_a_long_row_of_instructions_takes_no_memory(refused):
    refused(made.plain(b"N" * 1_000_001, {}), "more than 1,000,000 instructions")
    tracemalloc.start()
    refused(made.plain(b"}r\xff\xff\xff\xff", {}), "no dictionary of tensors")
    assert tracemalloc.get_traced_memory()[1] < 2**21  # Python's own makes a list of that length
    tracemalloc.stop()


@pytest.mark.parametrize("archive", [False, True])
@given(data=st.data())
def test_whatever_is_cut_or_changed_is_read_or_refused(tmp_path_factory, archive, data):
    content = bytearray(made.saved(ARRAYS, archive=archive))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[at] = value
    path = tmp_path_factory.mktemp("damaged", numbered=True) / "weights.pth"
    path.write_bytes(content[:cut])
    try:
        found = read_torch_file(path)
    except UserError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


@pytest.mark.parametrize("archive", [False, True])
def test_a_truncated_file_is_refused(refused, archive):
    content = made.saved(ARRAYS, archive=archive)
    for length in (0, 1, 20, len(content) // 2, len(content) - 1):
        refused(content[:length], "cannot be trusted")


def test_a_compressed_archive_is_refused(refused):
    found = made.ordered({"w": made.tensor("a", 4, (4,), (1,), legacy=False)})
    refused(made.zipped(found, {"a": FOUR}, compression=zipfile.ZIP_DEFLATED), "compressed")


@pytest.mark.parametrize(
    "content",
    [
        made.plain(made.ordered({}), {}, begin=7),
        made.plain(made.ordered({}), {}),
        made.plain(made.ordered({"epoch": made.number(3)}), {}),
        made.plain(made.numbers([1]), {}),
        made.plain(made.name("torch", "FloatStorage"), {}),
    ],
)
def test_what_holds_no_weights_is_refused(refused, content):
    refused(content, "does not begin like|no dictionary of tensors")


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth: cannot be read \(No such file"):
        read_torch_file(tmp_path / "nowhere.pth")


def test_members_that_lie_over_each_other_are_refused(refused):
    """Each of a thousand members of a file would be read as all of it."""
    content = made.zipped(made.ordered({"w": made.tensor("a", 8, (8,), (1,), legacy=False)}), {
        "a": (bytes(32), 8), "b": (bytes(10_000), 8),
    })  # fmt: skip
    start = content.rindex(b"PK\1\2", 0, content.rindex(b"PK\1\2"))  # of b, in the directory
    grown = bytearray(content)
    for place in (start + 20, start + 24):
        grown[place : place + 4] = (20_000).to_bytes(4, "little")
    refused(bytes(grown), "the members of its archive overlap")
