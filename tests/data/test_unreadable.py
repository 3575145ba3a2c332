"""Files that cannot be read are refused together, or left out together."""

import pandas as pd
import pytest

from melanoma_lab.config.schema.data import FolderDataset, OnUnreadable
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.data.cache import N_SHOWN, drop_unreadable

pytestmark = pytest.mark.unit


def dataset(choice):
    return FolderDataset(name="folder", root="my images", on_unreadable=OnUnreadable(choice))


def manifest(n):
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)], "digest": map(str, range(n))})


def test_thousands_are_counted_some_named_and_the_audit_has_all():
    with pytest.raises(UserError) as caught:
        drop_unreadable(manifest(5000), {str(i): "cut" for i in range(4000)}, dataset("error"))
    text = str(caught.value)
    assert text.startswith("4000 of 5000 images cannot be read:\n  0.jpg: cut\n")
    assert text.count(": cut") == N_SHOWN
    assert f"and 3990 more, all listed by: {format_lab_command('audit', 'dataset=folder')}" in text
    assert "dataset.root='my images'" in text


def test_what_is_skipped_is_noted_in_few_words():
    kept, (note,) = drop_unreadable(
        manifest(5000), {str(i): "cut" for i in range(4000)}, dataset("skip")
    )
    assert kept["path"].tolist() == [f"{i}.jpg" for i in range(4000, 5000)]
    assert "4000 of 5000 images cannot be read; skipped" in note
    assert len(note) < 2000  # MLflow keeps it in a tag


def test_nothing_left_is_a_mistake_even_when_skipping():
    with pytest.raises(UserError, match="none of 3 images can be read"):
        drop_unreadable(manifest(3), {"0": "a", "1": "b", "2": "c"}, dataset("skip"))


def test_nothing_to_say_where_all_can_be_read():
    table = manifest(3)
    assert drop_unreadable(table, {}, dataset("error")) == (table, ())
