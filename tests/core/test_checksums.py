import hashlib
import io
import zlib

import pytest

from melanoma_lab.core.files import (
    DamagedFileError,
    compute_crc32,
    hash_file,
    hash_text,
    read_checksummed_text,
    write_checksummed_text,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_stream_has_the_checksum_of_its_bytes(length):
    content = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
    assert compute_crc32(io.BytesIO(content)) == compute_crc32(content) == zlib.crc32(content)
    assert compute_crc32(memoryview(content)) == zlib.crc32(content)


@pytest.mark.parametrize("text", ["", "one line", "naïve\r\nöde\n\n", "\n"])
def test_a_text_comes_back_as_it_was(tmp_path, text):
    path = tmp_path / "a"
    write_checksummed_text(path, text, durable=True)
    assert path.read_bytes() == f"{zlib.crc32(text.encode()):08x}\n{text}".encode()
    assert read_checksummed_text(path) == text


@pytest.mark.parametrize("content", [b"", b"\n", b"00000001", b"\xff\xfe", b"1234abcd\ntext"])
def test_a_damaged_text_is_noticed(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="checksum is wrong"):
        read_checksummed_text(path)


def test_a_text_that_is_not_there_is_none_and_a_folder_an_error(tmp_path):
    assert read_checksummed_text(tmp_path / "gone") is None
    with pytest.raises(IsADirectoryError):
        read_checksummed_text(tmp_path)


def test_digests_are_those_of_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes("öde".encode())
    whole = hashlib.sha256("öde".encode()).hexdigest()
    assert hash_file(path) == hash_file(str(path)) == hash_text("öde") == whole
    assert hash_text("öde", 16) == whole[:16]
    with pytest.raises(FileNotFoundError):
        hash_file(tmp_path / "gone")
