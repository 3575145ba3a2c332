"""Networks from elsewhere that come to far more than their file are refused before they are made.

That none of their code is run: tests/inference/test_network_files.py.
"""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.models import safe_loading
from melanoma_lab.models.safe_loading import (
    WEIGHTS,
    check_keras_file,
    check_weights_file,
    load_safely,
)
from tests.support.memory import at_most

pytestmark = pytest.mark.component

MIB = 2**20


@pytest.fixture(scope="module")
def network():
    """A small network whose last layer lies in a network within it."""
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Dropout(0.5, seed=1)(keras.layers.Flatten()(pixels))
    last = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="last")])
    return keras.Model(pixels, last(keras.layers.Dense(3)(x)))


@pytest.fixture(scope="module")
def members(network, tmp_path_factory):
    """What its file holds."""
    path = tmp_path_factory.mktemp("sound") / "network.keras"
    network.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return path


def refused(path, told, more=256 * MIB):
    """Refused by a message with the path, within so much more memory."""
    with at_most(more), pytest.raises(UserError, match=told) as error:
        load_safely(check_keras_file(path))
    assert str(path) in str(error.value)


def test_a_sound_network_is_loaded(tmp_path, members, network):
    loaded = load_safely(check_keras_file(packed(tmp_path / "a.keras", members)))
    for found, expected in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", WEIGHTS])
def test_a_compressed_member_is_refused(tmp_path, members, name):
    path = tmp_path / "a.keras"
    packed(path, members | {name: b" " * 40 * MIB}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MIB
    refused(path, "not packed again. Received metadata.json compressed", 16 * MIB)


@pytest.mark.parametrize(("name", "limit"), [("config.json", 16), ("metadata.json", 1)])
def test_a_long_member_is_refused(tmp_path, members, name, limit):
    path = packed(tmp_path / "a.keras", members | {name: b" " * (limit * MIB + 1)})
    refused(path, f"Received {name} of {limit * MIB + 1:,} bytes", 64 * MIB)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, members):
    path = packed(tmp_path / "a.keras", members)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", b"{}")
    refused(path, "the same member twice")


def test_what_its_directory_says_of_a_size_is_not_believed(tmp_path, members):
    path = packed(tmp_path / "a.keras", members)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\1\2")  # of the weights, in the directory
    content[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, f"Received {WEIGHTS} compressed")
    content[entry + 20 : entry + 24] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, "the same member twice|damaged|no archive")


def test_a_network_of_far_more_weights_than_its_file_is_refused(tmp_path, members):
    config = members["config.json"].decode()
    grown = config.replace('"units": 2,', '"units": 100000000,')
    assert grown != config
    path = packed(tmp_path / "a.keras", members | {"config.json": grown})
    refused(path, r"its network has weights of 1,6[\d,]+ bytes, and the file has [\d,]+\.")


def test_a_network_of_little_weight_that_needs_much_memory_is_refused(tmp_path):
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.UpSampling2D(2, name="up")(pixels)
    path = tmp_path / "a.keras"
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    grown = content["config.json"].decode().replace('"size": [2, 2]', '"size": [9999, 9999]')
    packed(path, content | {"config.json": grown})
    refused(path, "layer up makes .* of its input")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("[" * 100_000, "levels deep"),
        ("[" + "[]," * 2_100_000 + "[]]", "more than 2,000,000 values"),
        ("{", "Expecting"),
        (b"\xff", "decode"),
        ('{"class_name": "Functional"}', "safe mode"),
        ("3", "safe mode|expected a network"),
    ],
    ids=["deep", "values", "cut", "no text", "empty", "number"],
)
def test_a_description_that_is_none_is_refused(tmp_path, members, config, told):
    refused(packed(tmp_path / "a.keras", members | {"config.json": config}), told)


def weights(fill):
    """A file of weights that a function fills."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    return content.getvalue()


def nested(file):
    for _ in range(200):
        file = file.create_group("a")


def in_circles(file):
    for name in "abcd":
        file[name] = file


HDF5 = {
    "compressed": (
        lambda f: f.create_dataset(
            "a", data=np.zeros(50 * MIB, "f4"), chunks=(MIB,), compression="gzip"
        ),
        r"its arrays come to 209,715,200 bytes and more",
    ),
    "not written": (lambda f: f.create_dataset("a", (2**50,), "f4", chunks=(MIB,)), "come to"),
    "many": (
        lambda f: [f.create_dataset(str(i), (MIB,), "f4", chunks=(MIB,)) for i in range(99)],
        "come to",
    ),
    "a link to a file": (
        lambda f: f.update({"a": h5py.ExternalLink("/etc/passwd", "a")}),
        "a holds no numbers of this file",
    ),
    "a link": (lambda f: f.update({"a": h5py.SoftLink("/b")}), "a holds no numbers of this file"),
    "another file's": (
        lambda f: f.create_dataset("a", (8,), "u1", external=[("/etc/passwd", 0, 8)]),
        "a holds no numbers of this file",
    ),
    "texts": (lambda f: f.create_dataset("a", data=["b"]), "a holds no numbers of this file"),
    "deep": (nested, "more groups and arrays"),
    "in circles": (in_circles, "more groups and arrays"),
}


@pytest.mark.parametrize(("fill", "told"), HDF5.values(), ids=HDF5)
def test_weights_that_come_to_far_more_than_their_file_are_refused(tmp_path, members, fill, told):
    content = weights(fill)
    assert len(content) < MIB
    refused(packed(tmp_path / "a.keras", members | {WEIGHTS: content}), told)
    path = tmp_path / "a.weights.h5"
    path.write_bytes(content)
    with at_most(64 * MIB), pytest.raises(ValueError, match=told):
        check_weights_file(path, len(content))


@pytest.mark.parametrize("cut", [0, 100, 2000])
def test_weights_that_are_cut_short_are_refused(tmp_path, members, cut):
    content = members[WEIGHTS][:cut]
    refused(packed(tmp_path / "a.keras", members | {WEIGHTS: content}), "safe mode")


def test_sound_weights_are_taken(tmp_path):
    """Half as wide as the network's own, and compressed by somebody."""
    numbers = np.random.default_rng(0).normal(size=(1000, 1000)).astype("f2")
    content = weights(lambda f: f.create_dataset("a", data=numbers, compression="gzip"))
    check_weights_file(io.BytesIO(content), len(content))
    content = weights(lambda f: f.create_dataset("a", data=h5py.Empty("f4")))
    check_weights_file(io.BytesIO(content), len(content))


def test_a_part_of_a_file_reads_as_a_file(tmp_path):
    whole = io.BytesIO(bytes(range(100)))
    window = io.BufferedReader(safe_loading._Window(whole, 10, 20), 7)
    assert window.read() == bytes(range(10, 30))
    assert window.seek(-5, io.SEEK_END) == 15
    assert window.read(3) == bytes([25, 26, 27])
    assert window.seek(1, io.SEEK_CUR) == 19
    assert window.read(9) == bytes([29])
    assert window.seek(50) == 50
    assert window.read(9) == b""
