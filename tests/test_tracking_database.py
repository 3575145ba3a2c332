"""A database of runs is made whole or not at all, and one that cannot be used is told as such."""

import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.config.schema import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.ensembles.build_ensembles import make_ensembles
from melanoma_lab.tracking import database
from melanoma_lab.tracking import tracker as tracker_module
from melanoma_lab.tracking.client import connect_for_reading, locked_access
from melanoma_lab.tracking.locations import make_absolute_uri
from melanoma_lab.tracking.run_reader import refuse_unknown_study
from tests.support.processes import REPOSITORY, run_python

pytestmark = pytest.mark.integration

#: What a process runs to be killed when SQLite begins its statement of a number.
DYING = """
import os, signal, sqlite3, sys
from sqlite3 import dbapi2

connect, left = sqlite3.connect, int(sys.argv[1])

def count(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(*args, **kwargs):
    connection = connect(*args, **kwargs)
    connection.set_trace_callback(count)
    return connection

sqlite3.connect = dbapi2.connect = counted
"""
FIRST_USE = """
from pathlib import Path
from melanoma_lab.tracking.database import create_or_check_tables
create_or_check_tables(Path(sys.argv[2]))
"""
BY_MLFLOW = """
import mlflow.db
mlflow.db.upgrade.main(["sqlite:///" + sys.argv[2]], standalone_mode=False)
"""
BY_MLFLOWS_FIRST_USE = """
mlflow.MlflowClient("sqlite:///" + sys.argv[2]).search_experiments()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "mlflow.db"


def kill_at(statement, script, path, **environment):
    """Run a script until SQLite begins this statement; returns whether it was killed there."""
    done = run_python("-c", DYING + script, str(statement), str(path), **environment)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


def half_made(path):
    """A database whose process was killed among MLflow's migrations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert kill_at(400, BY_MLFLOW, path)


def connect(path):
    return tracker_module.connect(Tracking(uri=f"sqlite:///{path}"), "study").result()


def assert_works(path):
    with connect(path).run("name", {"arm": "a"}, {}) as run_id:
        pass
    assert mlflow.MlflowClient(f"sqlite:///{path}").get_run(run_id).info.status == "FINISHED"


def refused(path):
    """What is said of a database that cannot be used, whether to read or to write."""
    where = Tracking(uri=f"sqlite:///{path}")
    content = path.read_bytes()
    tracker_module._PROVEN.clear()  # as in another process
    with pytest.raises(database.TrackingError) as writing:
        tracker_module.connect(where, "study").result()
    with pytest.raises(database.TrackingError) as reading:
        connect_for_reading(where)
    assert str(writing.value) == str(reading.value)
    assert path.read_bytes() == content  # nothing is done to it
    return str(writing.value)


def follow(message, folder):
    """Type the commands at the end of a message."""
    command = message.rpartition(": ")[2]
    subprocess.run(["bash", "-ec", command], cwd=folder, check=True)


def test_the_tables_and_the_default_experiment_are_those_that_mlflow_makes(path, tmp_path):
    database.create_or_check_tables(path)
    script = "import sys\n" + BY_MLFLOW + BY_MLFLOWS_FIRST_USE
    assert run_python("-c", script, "", str(tmp_path / "m.db"), folder=tmp_path).returncode == 0
    with closing(sqlite3.connect(path)) as ours, closing(sqlite3.connect(tmp_path / "m.db")) as its:
        assert schema(ours) == schema(its)
        for (name,) in its.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            rows = f'SELECT * FROM "{name}"'  # noqa: S608 - of our own
            if name != "experiments":
                assert ours.execute(rows).fetchall() == its.execute(rows).fetchall()
        (default,), (theirs,) = (rows_of(c, "experiments") for c in (ours, its))
    created = default["creation_time"]
    assert created == default["last_update_time"]
    assert abs(created / 1000 - path.stat().st_mtime) < 60
    assert theirs["artifact_location"] == str(tmp_path / "mlruns" / "0")
    place = {"artifact_location": str(path.parent / "mlruns" / "0")}
    times = {"creation_time": created, "last_update_time": created}
    assert default == theirs | place | times
    assert_works(path)


def rows_of(connection, table):
    connection.row_factory = sqlite3.Row
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]  # noqa: S608


def schema(connection):
    """What a database consists of; MLflow lists the values of an enumeration in any order."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")
    return [(*row[:3], sorted(re.findall(r"\w+", row[3] or ""))) for row in rows]


def test_a_process_killed_at_any_statement_leaves_what_the_next_one_can_use(path):
    n_statements = len(database._tables()["statements"])
    assert n_statements > 50
    killed = 0
    for statement in [2, 3, n_statements // 2, n_statements + 2, n_statements + 3]:
        killed += kill_at(statement, FIRST_USE, path)
        assert database.is_empty(path)
    assert killed == 5
    assert_works(path)
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == ["mlflow.db"]


@pytest.mark.slow
def test_a_process_killed_while_it_commits_leaves_what_the_next_one_can_use(path):
    database._tables()
    draw = random.Random(0)  # noqa: S311 - no secret
    for _ in range(12):
        script = "import sys\n" + FIRST_USE
        process = subprocess.Popen([sys.executable, "-c", script, "", str(path)], cwd=REPOSITORY)
        while process.poll() is None and not Path(f"{path}-journal").exists():
            pass
        time.sleep(draw.random() * 0.03)  # a commit takes about that
        process.kill()
        process.wait()
        database.create_or_check_tables(path)  # raises where it is neither empty nor whole
        path.unlink()  # a journal that stays is no journal of the next one
    assert_works(path)


@pytest.mark.slow
def test_a_process_killed_while_mlflow_makes_its_first_tables_leaves_nothing(path, tmp_path):
    for statement in (1, 100, 400):
        cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
        assert kill_at(statement, FIRST_USE, path, **cache)
        assert not path.exists()
    done = run_python("-c", "import sys\n" + FIRST_USE, "", str(path), **cache)
    assert done.returncode == 0, done.stderr
    assert_works(path)


def test_an_empty_file_and_the_rest_of_another_database_are_no_hindrance(path):
    path.parent.mkdir()
    path.touch()
    Path(f"{path}-journal").write_bytes(b"of a database that is no more")
    with pytest.raises(UserError, match=r"this file is empty; nothing has been trained"):
        connect_for_reading(Tracking(uri=f"sqlite:///{path}"))
    assert_works(path)


def test_the_tables_are_kept_for_the_next_database(path, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    database.create_or_check_tables(path)
    (kept,) = (tmp_path / "cache").rglob("database-*.json")
    assert mlflow.__version__ in kept.name
    monkeypatch.setattr(database, "_dump_tables", lambda: pytest.fail("they are kept"))
    database.create_or_check_tables(path.with_name("other.db"))
    monkeypatch.undo()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.write_text(kept.read_text().replace("experiments", "exporiments"))
    database.create_or_check_tables(path.with_name("third.db"))
    assert f"{kept} is damaged; it is recreated" in caplog.text
    assert_works(path.with_name("third.db"))


def test_no_cache_folder_is_needed(path, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_works(path)


def test_a_half_made_database_is_told_and_moved_aside(path, tmp_path):
    half_made(path)
    told = refused(path)
    assert told.startswith(f"tracking.uri=sqlite:///{path}: MLflow's tables in this database are ")
    assert (
        "incomplete, and no run is recorded in it: the process that created them was killed" in told
    )
    assert told.endswith(f"Move it aside, and a new one will be created: mv {path} {path}.aside")
    follow(told, tmp_path)
    assert_works(path)


def test_what_was_moved_aside_before_is_not_overwritten(path, tmp_path):
    path.parent.mkdir()
    for content in ("first", "second"):
        path.write_text(f"{content}, of no use {'.' * 600}")
        follow(refused(path), tmp_path)
    assert not path.exists()
    assert Path(f"{path}.aside").read_text().startswith("first")
    assert Path(f"{path}.aside-2").read_text().startswith("second")


def test_what_sqlite_keeps_beside_a_database_is_moved_with_it(path, tmp_path):
    path.parent.mkdir()
    for suffix in ("", "-journal", "-wal"):
        Path(f"{path}{suffix}").write_text(suffix)
    error = sqlite3.DatabaseError()
    error.sqlite_errorname = "SQLITE_NOTADB"
    follow(database.explain_damage(path, error), tmp_path)
    left = {file.name: file.read_text() for file in path.parent.iterdir()}
    assert left == {f"mlflow.db.aside{suffix}": suffix for suffix in ("", "-journal", "-wal")}


def test_what_is_no_database_is_told(path):
    path.parent.mkdir()
    path.write_text("model,accuracy\n" * 100)
    assert "this file is not a SQLite database. Move it aside" in refused(path)


def test_a_truncated_database_is_told(path):
    assert_works(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    told = refused(path)
    assert "this database is damaged (database disk image is malformed). Move it aside" in told
    assert "(mlruns) is not affected" in told


def test_damage_that_shows_later_is_told(path):
    assert_works(path)
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorname = "SQLITE_CORRUPT_INDEX"
    with pytest.raises(database.TrackingError, match="damaged"), locked_access(f"sqlite:///{path}"):
        raise RuntimeError from error


def test_damage_among_the_runs_is_told(path):
    assert_works(path)
    with closing(sqlite3.connect(path)) as connection:
        where = "SELECT pageno FROM dbstat WHERE name IN ('runs', 'tags')"
        pages = [number for (number,) in connection.execute(where)]
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    path = path.rename(path.with_name("other.db"))  # MLflow remembers pages of the first
    with path.open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * size)
            file.write(b"\x99" * size)
    where = Tracking(uri=f"sqlite:///{path}")
    with pytest.raises(database.TrackingError, match=r"is damaged .*Move it aside"):
        report_study(
            "study", reference=None, metric="test/accuracy", tracked=where, folder=path.parent
        )
    with pytest.raises(database.TrackingError, match=r"is damaged .*Move it aside"):
        make_ensembles("study", arm=None, size=None, tracked=where)


def test_another_programs_database_is_told(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    assert "by another program, not by MLflow. Move it aside" in refused(path)


def test_a_newer_mlflows_database_is_told(path):
    assert_works(path)
    set_revision(path, "ffffffffffff")
    told = refused(path)
    assert "by a newer MLflow than the installed one (MLflow 3." in told
    assert "mv " not in told  # its runs are wanted


@pytest.mark.slow
def test_an_older_mlflows_database_is_copied_and_upgraded(path, tmp_path):
    """As MLflow's migrations up to some point leave it, with a run in it."""
    path.parent.mkdir()
    upgrade_to(path, "acf3f17fdcc7")
    with closing(sqlite3.connect(path)) as old:
        columns = "experiment_id, name, lifecycle_stage"
        old.execute(f"INSERT INTO experiments ({columns}) VALUES (0, 'Default', 'active')")  # noqa: S608
        old.commit()
    before = path.read_bytes()
    told = refused(path)
    assert "by an older MLflow than the installed one (MLflow 3." in told
    assert re.search(rf"upgrade it: cp {path} {path}\.before && \S*mlflow db upgrade \S+$", told)
    command = told.rpartition("upgrade it: ")[2]
    subprocess.run(["bash", "-ec", command], check=True, capture_output=True)
    assert Path(f"{path}.before").read_bytes() == before
    assert_works(path)


def set_revision(path, revision):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
        connection.commit()


def upgrade_to(path, revision):
    """Make the tables of an older MLflow."""
    from alembic import command
    from alembic.config import Config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = Config()
    scripts = Path(mlflow.__file__).parent / "store" / "db_migrations"
    config.set_main_option("script_location", str(scripts))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_without_an_experiment_it_is_left_to_mlflow_to_say_what_is_wrong(path):
    """A database has one once MLflow is through with making it."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT, lifecycle_stage TEXT)")
        refuse_unknown_study("s", f"sqlite:///{path}")
        connection.execute("INSERT INTO experiments VALUES ('Default', 'active')")
        connection.commit()
    with pytest.raises(UserError, match="study=s: no such study"):
        refuse_unknown_study("s", f"sqlite:///{path}")


@pytest.mark.slow
def test_the_command_line_says_it_in_a_line_and_exits_with_2(path, tmp_path):
    half_made(path)
    words = ("compare", "study=s", f"tracking.uri=sqlite:///{path}")
    done = run_python("-m", "melanoma_lab", *words, folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"melanoma_lab: tracking.uri=sqlite:///{path}: MLflow's tables in ")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot be used \(unable to open database"):
        connect(tmp_path)


def test_options_of_the_uri_are_no_part_of_the_file(path):
    uri = f"sqlite:///{path}?timeout=5"
    tracker_module.connect(Tracking(uri=uri), "study").result()
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == ["mlflow.db"]
    assert make_absolute_uri(uri) == uri


def test_paths_with_odd_characters(tmp_path):
    assert_works(tmp_path / "100 % naïve#" / "runs & more.db")
