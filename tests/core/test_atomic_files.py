import pytest

from melanoma_lab.core.files import replace_file, write_atomically, write_folder_atomically

pytestmark = pytest.mark.unit


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("content", ["naïve\r\nöde\n", b"\x00\xff"])
def test_a_file_is_replaced_as_a_whole(tmp_path, content, durable):
    path = tmp_path / "a.txt"
    path.write_text("an older and longer content")
    with path.open("rb") as reader:
        replace_file(path, content, durable=durable)
        assert reader.read() == b"an older and longer content"
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["a.txt"]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(error):
        with write_atomically(path) as scratch:
            scratch.write_text("half")
            raise error

    for error in (ValueError, KeyboardInterrupt, OSError):
        with pytest.raises(error):
            fail(error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_cannot_be_written_is_named_in_the_error(tmp_path):
    path = tmp_path / "gone" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught:
        replace_file(path, "text")
    assert caught.value.filename == str(path)
    assert not path.parent.exists()


def test_a_partial_file_of_one_name_is_written_over(tmp_path):
    (tmp_path / "writing").write_text("of a killed process")
    with write_atomically(tmp_path / "a.txt", partial="writing") as scratch:
        assert scratch == tmp_path / "writing"
        scratch.write_text("new")
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_write_to_two(tmp_path):
    path = tmp_path / "a.txt"
    with write_atomically(path) as first, write_atomically(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole(tmp_path):
    folder = tmp_path / "around" / "folder"
    with write_folder_atomically(folder) as scratch:
        (scratch / "a").write_text("new")
        assert not folder.exists()
    assert names(folder) == ["a"]
    assert names(folder.parent) == ["folder"]


def test_a_folder_with_content_is_replaced_only_on_request(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(OSError, match="not empty"), write_folder_atomically(folder) as scratch:
        (scratch / "new").touch()
    assert names(folder) == ["old"]
    with write_folder_atomically(folder, replace=True) as scratch:
        (scratch / "new").touch()
    assert names(folder) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_failed_block_leaves_the_old_folder_and_nothing_else(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "writing").mkdir()
    (tmp_path / "writing" / "of-a-killed-process").touch()

    def fail(error):
        with write_folder_atomically(folder, replace=True, partial="writing") as scratch:
            assert names(scratch) == []
            (scratch / "half").touch()
            raise error

    for error in (ValueError, KeyboardInterrupt, OSError):
        with pytest.raises(error):
            fail(error)
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    with (
        pytest.raises(FileNotFoundError),
        write_folder_atomically(folder, replace=True) as scratch,
    ):
        scratch.rmdir()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["folder"]
