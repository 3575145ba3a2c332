"""A folder of runs that is moved, renamed or copied keeps its artifacts, for everybody."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import make_url

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.model_source import find_model
from melanoma_lab.tracking import locations
from melanoma_lab.tracking.client import connect_for_reading
from melanoma_lab.tracking.locations import (
    identify_study,
    local_folder,
    make_absolute_uri,
    relocate_artifacts,
    sqlite_path,
    sqlite_uri,
)
from melanoma_lab.tracking.offline_store import load_offline_runs, save_offline_run
from melanoma_lab.tracking.run_reader import fetch_artifact, read_run
from melanoma_lab.tracking.tracker import connect

pytestmark = pytest.mark.integration


def uri_of(folder):
    return sqlite_uri(folder / "mlflow.db")


def record(folder, name="predictions.csv", *, study="study", artifacts=None):
    """Record a run with one artifact, in a project's folder."""
    where = Tracking(uri=uri_of(folder), artifacts=artifacts)
    tracker = connect(where, study).result()
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    (out / name).write_text(f"of {folder.name}")
    with tracker.run("arm seed=0", {"arm": "arm"}, {}) as run_id:
        tracker.log_folder(out)
    shutil.rmtree(out)
    return run_id


def read(folder, run_id, name="predictions.csv"):
    """Where an artifact is found by the database of a folder, for the lab and for MLflow."""
    client = connect_for_reading(Tracking(uri=uri_of(folder)))
    run = client.get_run(run_id)
    path = fetch_artifact(client, run, name, folder)
    theirs = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name)
    assert Path(theirs).read_text() == path.read_text()
    return path


@pytest.fixture
def project(tmp_path):
    """A project's folder with one run, and the run's id."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder, record(folder)


def test_a_moved_folder_finds_its_artifacts_and_new_runs_write_into_it(project, tmp_path, capsys):
    before, run_id = project
    after = before.rename(tmp_path / "renamed here")
    path = read(after, run_id)
    assert path == after / "mlruns" / "study" / run_id / "artifacts" / "predictions.csv"
    assert path.read_text() == "of project"
    said = " ".join(capsys.readouterr().out.split())
    assert f"{after}/mlflow.db was moved or copied: the artifacts of its 1 run are now read" in said
    new = record(after)
    assert (after / "mlruns" / "study" / new / "artifacts" / "predictions.csv").is_file()
    assert not before.exists()
    assert relocate_artifacts(uri_of(after)) == 0
    assert capsys.readouterr().out == ""


def test_a_moved_database_that_may_only_be_read_says_what_to_do(project, tmp_path, monkeypatch):
    before, _ = project
    monkeypatch.setattr(
        locations,
        "_open_database",
        lambda path: sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None),
    )
    assert relocate_artifacts(uri_of(before)) == 0  # nothing to write
    after = before.rename(tmp_path / "after")
    with pytest.raises(UserError, match=r"you may not write to it\. Copy its folder to a place"):
        relocate_artifacts(uri_of(after))


def test_a_copy_reads_its_own_artifacts_and_leaves_the_originals_alone(project, tmp_path):
    original, run_id = project
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    database = (original / "mlflow.db").read_bytes()
    (copy / "mlruns" / "study" / run_id / "artifacts" / "predictions.csv").write_text("copied")
    assert read(copy, run_id).read_text() == "copied"
    new = record(copy)
    assert (copy / "mlruns" / "study" / new).is_dir()
    assert [path.name for path in (original / "mlruns" / "study").iterdir()] == [run_id]
    assert (original / "mlflow.db").read_bytes() == database
    assert read(original, run_id).read_text() == "of project"


def test_models_and_their_registered_versions_move_too(project, tmp_path):
    before, run_id = project
    client = connect_for_reading(Tracking(uri=uri_of(before)))
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    (before / "mlruns" / "study" / "models" / model.model_id / "artifacts").mkdir(parents=True)
    client.create_registered_model("net")
    client.create_model_version("net", f"models:/{model.model_id}", run_id, model_id=model.model_id)
    after = before.rename(tmp_path / "after")
    client = connect_for_reading(Tracking(uri=uri_of(after)))
    place = str(after / "mlruns" / "study" / "models" / model.model_id / "artifacts")
    assert client.get_logged_model(model.model_id).artifact_location == place
    assert client.get_model_version_download_uri("net", "1") == place


def test_artifacts_of_a_chosen_folder_in_the_project_move_with_it(tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    run_id = record(before, artifacts=str(before / "files"))
    after = before.rename(tmp_path / "after")
    assert read(after, run_id).is_relative_to(after / "files" / "study")


def test_artifacts_that_lie_elsewhere_stay_known_there(tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    run_id = record(before, artifacts=str(tmp_path / "big disk"))
    after = before.rename(tmp_path / "after")
    assert read(after, run_id).is_relative_to(tmp_path / "big disk" / "study")


def test_a_database_moved_alone_finds_what_stayed_and_writes_beside_itself(project, tmp_path):
    before, run_id = project
    after = tmp_path / "after"
    after.mkdir()
    (before / "mlflow.db").rename(after / "mlflow.db")
    assert read(after, run_id).is_relative_to(before)
    assert (after / "mlruns" / "study" / record(after)).is_dir()
    shutil.move(before / "mlruns" / "study" / run_id, after / "mlruns" / "study" / run_id)
    assert read(after, run_id).is_relative_to(after)  # brought later


def test_experiments_of_others_in_the_database_are_not_touched(project, tmp_path):
    before, _ = project
    client = connect_for_reading(Tracking(uri=uri_of(before)))
    theirs = client.create_experiment("theirs", str(before / "mlruns" / "theirs"))
    run = client.create_run(theirs)
    after = before.rename(tmp_path / "after")
    (after / "mlruns" / "theirs" / run.info.run_id / "artifacts").mkdir(parents=True)
    client = connect_for_reading(Tracking(uri=uri_of(after)))
    assert client.get_experiment(theirs).artifact_location == str(before / "mlruns" / "theirs")
    assert client.get_run(run.info.run_id).info.artifact_uri == run.info.artifact_uri


def test_where_artifacts_are_gone_the_message_says_where_they_were_expected(
    project, tmp_path, capsys
):
    before, run_id = project
    after = before.rename(tmp_path / "after")
    shutil.rmtree(after / "mlruns")
    where = Tracking(uri=uri_of(after))
    expected = after / "mlruns" / "study" / run_id / "artifacts"
    with pytest.raises(OSError, match="is not in") as raised:
        read_run(run_id, where, tmp_path).require_artifact("predictions.csv")
    message = str(raised.value)
    assert message.startswith(
        f"predictions.csv is not in {expected}, a folder that no longer exists: restore "
    )
    assert f"mlflow runs delete --run-id {run_id}) and train it again" in message
    client = connect_for_reading(where)
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.finalize_logged_model(model.model_id, "READY")
    with pytest.raises(UserError, match=f"its network is not in {model.artifact_location}, a fol"):
        find_model(run_id, where, tmp_path)
    client.create_registered_model("net")
    client.create_model_version("net", f"models:/{model.model_id}", run_id, model_id=model.model_id)
    client.set_registered_model_alias("net", "best", "1")
    for typed in ("models:/net/1", "models:/net@best", f"models:/{model.model_id}"):
        with pytest.raises(
            UserError, match=f"^model={typed}: its network is not in /.*: restore it"
        ):
            find_model(typed, where, tmp_path)
    assert "was moved or copied" not in capsys.readouterr().out


def test_a_study_is_known_by_where_it_was_begun_unless_that_is_still_there(project, tmp_path):
    before, _ = project
    assert identify_study(uri_of(before), "study") == uri_of(before)
    copy = Path(shutil.copytree(before, tmp_path / "copy"))
    assert identify_study(uri_of(copy), "study") == uri_of(copy)
    after = before.rename(tmp_path / "after")
    assert identify_study(uri_of(after), "study") == uri_of(before)
    assert identify_study(uri_of(after), "new") == uri_of(after)
    assert identify_study(uri_of(tmp_path / "none"), "study") == uri_of(tmp_path / "none")
    assert identify_study("http://localhost:5000", "study") == "http://localhost:5000"


def test_a_link_at_the_old_place_is_no_copy(project, tmp_path):
    before, _ = project
    begun = uri_of(before)
    after = before.rename(tmp_path / "after")
    before.symlink_to(after)
    assert identify_study(f"sqlite:///{before}/mlflow.db", "study") == begun
    assert identify_study(uri_of(after), "study") == begun


@pytest.mark.parametrize("content", ["CREATE TABLE runs (run_uuid)", "CREATE TABLE a (b)"])
def test_a_database_of_something_else_is_left_alone(tmp_path, content):
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(content)
        connection.commit()
    before = database.read_bytes()
    assert relocate_artifacts(uri_of(tmp_path)) == 0
    assert identify_study(uri_of(tmp_path), "study") == uri_of(tmp_path)
    assert database.read_bytes() == before


def kept_in(project):
    """A run that a project keeps on disk, to be recorded in the project's database."""
    project.mkdir()
    where = Tracking(
        uri=uri_of(project), artifacts=str(project / "files"), unsent=str(project / "unsent"),
        offline=True,
    )  # fmt: skip
    with connect(where, "study").result().run("arm seed=0", {}, {}):
        pass


def test_kept_runs_are_sent_to_where_their_project_is_now(tmp_path):
    kept_in(tmp_path / "before")
    after = (tmp_path / "before").rename(tmp_path / "after")
    ((_, record),) = load_offline_runs(after / "unsent")
    assert record.uri == uri_of(after)
    assert record.artifacts == str(after / "files")


def test_kept_runs_that_are_taken_out_of_their_project_are_sent_there(tmp_path):
    kept_in(tmp_path / "project")
    (tmp_path / "project" / "mlflow.db").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project" / "unsent").rename(tmp_path / "elsewhere" / "unsent")
    ((folder, record),) = load_offline_runs(tmp_path / "elsewhere" / "unsent")
    assert record.uri == uri_of(tmp_path / "project")
    save_offline_run(record, folder, tmp_path / "elsewhere" / "unsent")  # kept again, it stays so
    ((_, record),) = load_offline_runs(tmp_path / "elsewhere" / "unsent")
    assert record.uri == uri_of(tmp_path / "project")


#: Names of folders that URIs, SQL or shells would take for something else.
ODD_NAMES = ("n#1", "q?r", "50%41", "a b'c\"é", "x :y")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_project_of_any_name_keeps_its_files_and_moves(tmp_path, monkeypatch, name):
    before = tmp_path / name
    before.mkdir()
    monkeypatch.chdir(before)
    assert sqlite_path("sqlite:///mlflow.db") == before / "mlflow.db"
    run_id = record(before, study="100%41")
    assert sorted(path.name for path in before.iterdir()) == ["mlflow.db", "mlruns"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    path = read(before, run_id)
    assert path == before / "mlruns" / "100%41" / run_id / "artifacts" / "predictions.csv"
    assert identify_study("sqlite:///mlflow.db", "100%41") == uri_of(before)
    after = before.rename(tmp_path / f"{name} moved")
    assert read(after, run_id).is_relative_to(after / "mlruns" / "100%41")
    assert identify_study(uri_of(after), "100%41") == uri_of(before)
    assert relocate_artifacts(uri_of(after)) == 0


@pytest.mark.parametrize("name", ODD_NAMES)
def test_sqlalchemy_and_the_lab_read_a_uri_alike(tmp_path, name):
    path = tmp_path / name / "my runs.db"
    assert make_url(sqlite_uri(path)).database == str(path)
    assert sqlite_path(sqlite_uri(path)) == path
    assert make_absolute_uri(f"{sqlite_uri(path)}?timeout=5") == f"{sqlite_uri(path)}?timeout=5"


def test_an_encoded_path_is_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///my%20runs.db") == tmp_path / "my runs.db"
    assert make_absolute_uri("sqlite:///my%20runs.db") == f"sqlite:///{tmp_path}/my runs.db"


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("/x/n#1/a", "/x/n#1/a"),
        ("/x :y/q?r", "/x :y/q?r"),
        ("/50%2541", "/50%41"),
        ("file:///a%20b/c", "/a b/c"),
        ("file:/a", "/a"),
        ("s3://bucket/a", None),
        ("mlflow-artifacts:/1/a", None),
    ],
)
def test_which_artifact_uris_are_folders(uri, folder):
    assert local_folder(uri) == (folder and Path(folder))
