"""Where runs are recorded: the key, else MLflow's variable, else a file here."""

import pytest

from melanoma_lab.cli.help import format_help
from melanoma_lab.config.fingerprint import compute_fingerprint, config_to_dict
from melanoma_lab.config.schema.tracking import (
    DEFAULT_TRACKING_URI,
    Tracking,
    check_tracking_uri,
    describe_tracking_uri,
    mask_password,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.tracking.client import connect_for_reading

pytestmark = pytest.mark.integration

VARIABLE = "MLFLOW_TRACKING_URI"


def test_it_is_a_file_here_if_nobody_says_anything(composed, monkeypatch):
    assert composed().tracking.uri == Tracking().uri == "sqlite:///mlflow.db"
    monkeypatch.setenv(VARIABLE, "")
    assert composed().tracking.uri == Tracking().uri == "sqlite:///mlflow.db"
    assert composed("tracking.uri=").tracking.uri == "sqlite:///mlflow.db"


def test_the_variable_is_the_default_and_the_key_wins(composed, monkeypatch):
    monkeypatch.setenv(VARIABLE, "http://lab:5000")
    assert composed().tracking.uri == Tracking().uri == Tracking(uri="").uri == "http://lab:5000"
    assert composed("tracking.uri=sqlite:///x.db").tracking.uri == "sqlite:///x.db"
    monkeypatch.setenv(VARIABLE, "http://other:5000")  # read anew by every command of a process
    assert composed().tracking.uri == "http://other:5000"


def test_the_fingerprint_does_not_depend_on_it(composed, monkeypatch):
    before = compute_fingerprint(composed(), dataset_digest="d", split_hash="s")
    monkeypatch.setenv(VARIABLE, "http://lab:5000")
    assert compute_fingerprint(composed(), dataset_digest="d", split_hash="s") == before


@pytest.mark.parametrize("uri", ["runs", "./runs", "/data/runs", "file:runs", "file:///data/runs"])
def test_a_folder_is_refused_by_the_name_that_it_was_given_by(composed, monkeypatch, uri):
    expected = f"={uri}: MLflow no longer stores runs in a folder; expected a file, such as sqlite"
    with pytest.raises(UserError) as raised:
        composed(f"tracking.uri={uri}")
    assert str(raised.value).startswith(f"tracking.uri{expected}")
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(UserError) as raised:
        composed()
    assert str(raised.value).startswith(f"MLFLOW_TRACKING_URI{expected}")
    assert composed("tracking.uri=sqlite:///x.db").tracking.uri == "sqlite:///x.db"
    assert composed("task=audit").tracking.uri == uri  # records nothing
    with pytest.raises(UserError, match="MLflow no longer stores runs in a folder"):
        connect_for_reading(Tracking())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow's own permission
    assert composed().tracking.uri == uri


@pytest.mark.parametrize("uri", ["sqlite:x.db", "sqlite://x.db", "sqlite:///", "sqlite+pysqlite:x"])
def test_an_sqlite_uri_without_a_file_is_refused(composed, uri):
    with pytest.raises(UserError, match=r"names no file; expected .*sqlite:///runs\.db"):
        composed(f"tracking.uri={uri}")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////data/x.db",
        "sqlite+pysqlite:///x.db",
        "https://lab.example:5000/path",
        "postgresql://user@host/runs",
        "databricks",
        "databricks://profile",
    ],
)
def test_databases_and_servers_are_taken(uri):
    check_tracking_uri(uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/a", "https://me:***@host:5000/a"),
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db"),
    ],
)
def test_passwords_are_neither_shown_nor_recorded(composed, uri, shown):
    assert mask_password(uri) == shown
    assert describe_tracking_uri(uri) == f"tracking.uri={shown}"
    assert config_to_dict(composed(f'tracking.uri="{uri}"'))["tracking"]["uri"] == shown


def test_help_names_the_variable_and_the_file():
    text = format_help(["--help", "tracking"])
    assert f'  tracking.uri=${{oc.env:{VARIABLE},"{DEFAULT_TRACKING_URI}"}}  (text)\n' in text
