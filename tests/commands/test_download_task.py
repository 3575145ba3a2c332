import sys
import types
from pathlib import Path

import pytest

from melanoma_lab.commands.download import download_dataset
from melanoma_lab.core.errors import UserError
from tests.support.pictures import paint

pytestmark = pytest.mark.unit


def test_the_images_are_put_where_the_root_says(composed, tmp_path, monkeypatch, capsys):
    def fetch(handle):
        for part in ("Train", "Test"):
            paint(tmp_path / "remote" / part / "nevus" / f"{part}.jpg", (9, 9, 9), seed=0)
        return str(tmp_path / "remote")

    fake = types.SimpleNamespace(dataset_download=fetch)
    monkeypatch.setitem(sys.modules, "kagglehub", fake)
    monkeypatch.chdir(tmp_path)
    download_dataset(composed("dataset=isic9", "dataset.root='my images'"))
    assert len(list(Path("my images").rglob("*.jpg"))) == 2
    out = capsys.readouterr().out
    assert "my images: 2 images." in out
    assert "audit dataset=isic9 dataset.root='my images'" in out


def test_where_to_is_asked_for(composed):
    with pytest.raises(UserError, match=r"dataset\.root is not set"):
        download_dataset(composed("dataset=isic9"))
