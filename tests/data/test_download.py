"""A download appears whole or not at all, writes over nothing, and goes on where it broke off."""

import os
import sys
import types
from pathlib import Path

import pytest
from filelock import FileLock

from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.data.download import download_from_kaggle, make_kaggle_client
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


@pytest.fixture
def client():
    """A client that keeps its files where Kaggle's does; the first call breaks off half-way."""
    calls = []

    def fetch(handle):
        cache = Path(os.environ["KAGGLEHUB_CACHE"])
        calls.append(handle)
        folder = cache / "datasets" / handle / "versions" / "1" / "Skin cancer ISIC"
        paint(folder / "Train" / "nevus" / "a.jpg", (9, 9, 9), seed=0)
        if len(calls) == 1:
            raise ConnectionError(f"no route to host\n{handle} is far away")
        assert (folder / "Train" / "nevus" / "a.jpg").exists()
        paint(folder / "Test" / "nevus" / "b.jpg", (9, 9, 9), seed=1)
        return str(folder.parent)

    fetch.calls = calls
    return fetch


def test_a_broken_download_is_told_kept_and_gone_on_with(tmp_path, client):
    root = tmp_path / "isic9"
    with pytest.raises(RunError) as caught:
        download_from_kaggle("isic9", root, lambda: client)
    assert "was not downloaded from Kaggle: no route to host\n" in str(caught.value)
    assert "the same command resumes the download" in str(caught.value)
    assert not root.exists()
    assert (tmp_path / ".isic9.download").is_dir()
    download_from_kaggle("isic9", root, lambda: client)
    assert {p.relative_to(root).as_posix() for p in root.rglob("*.jpg")} == {
        "Train/nevus/a.jpg",
        "Test/nevus/b.jpg",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["isic9"]
    assert client.calls == ["nodoubttome/skin-cancer9-classesisic"] * 2
    assert "KAGGLEHUB_CACHE" not in os.environ


def test_an_empty_folder_is_filled_and_a_mounted_copy_is_not_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", "mine")
    for part in ("Train", "Test"):
        paint(tmp_path / "input" / "set" / part / "nevus" / "a.jpg", (9, 9, 9), seed=0)
    (tmp_path / "root").mkdir()
    download_from_kaggle(
        "isic9_verified", tmp_path / "root", lambda: lambda handle: tmp_path / "input"
    )
    assert (tmp_path / "root" / "Test" / "nevus" / "a.jpg").exists()
    assert (tmp_path / "input" / "set" / "Test" / "nevus" / "a.jpg").exists()
    assert os.environ["KAGGLEHUB_CACHE"] == "mine"


def test_nothing_is_written_over(tmp_path):
    def never():
        pytest.fail("connected")

    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for name, message in (("file", "a file"), ("full", "is not empty")):
        with pytest.raises(UserError, match=message):
            download_from_kaggle("isic9", tmp_path / name, never)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="dataset=folder: it cannot be downloaded; expected isic9"):
        download_from_kaggle("folder", tmp_path / "new", never)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_something_else_than_expected_is_no_dataset(tmp_path):
    def fetch(handle):
        (tmp_path / "else").mkdir()
        return str(tmp_path / "else")

    with pytest.raises(RunError, match="no Train and Test in the download"):
        download_from_kaggle("isic9", tmp_path / "root", lambda: fetch)
    assert not (tmp_path / "root").exists()


def test_two_at_once_do_not_mix(tmp_path, client):
    (tmp_path / ".root.download").mkdir()
    with (
        FileLock(tmp_path / ".root.download" / "lock"),
        pytest.raises(UserError, match="another process is downloading"),
    ):
        download_from_kaggle("isic9", tmp_path / "root", lambda: client)


def test_the_client_is_kaggles(monkeypatch):
    asked = []
    fake = types.SimpleNamespace(dataset_download=lambda handle: asked.append(handle) or "folder")
    monkeypatch.setitem(sys.modules, "kagglehub", fake)
    assert make_kaggle_client()("owner/set") == "folder"
    assert asked == ["owner/set"]


def test_a_missing_client_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match=r"python -m pip install .*\[download\]'"):
        make_kaggle_client()
