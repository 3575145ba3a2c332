"""Several processes use an empty PostgreSQL database at once."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import pytest
from test_tracking import CONNECT

from melanoma_lab.tracking.client import locked_access
from melanoma_lab.tracking.database import TrackingError
from tests.support.processes import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def server():
    """The port of a PostgreSQL server that needs no password, in a folder of its own."""
    pytest.importorskip("psycopg")
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *os.get_exec_path()]
    programs = next((p for p in map(Path, places) if (p / "initdb").is_file()), None)
    if programs is None:
        pytest.skip("no PostgreSQL is installed (Debian: apt-get install postgresql)")
    # It does not run as root.
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    # Not below pytest's folders, which are root's alone.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as place:
        folder = Path(place)
        if user:
            shutil.chown(folder, "postgres")
        yield from _served(programs, user, folder)


def _served(programs, user, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    setup = [programs / "initdb", "-D", data, "-U", "lab", "--auth", "trust", "--no-sync"]
    subprocess.run([*user, *setup], check=True, capture_output=True, cwd=folder)
    options = ["-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off"]
    process = subprocess.Popen(
        [*user, programs / "postgres", *options], cwd=folder, stderr=subprocess.DEVNULL
    )
    yield port
    process.terminate()
    process.wait()


@pytest.fixture
def uri(server, request):
    """An empty database."""
    import psycopg

    for _ in range(600):
        try:
            connection = psycopg.connect(
                host="127.0.0.1", port=server, user="lab", dbname="postgres", autocommit=True
            )
        except psycopg.OperationalError:  # it is starting
            time.sleep(0.1)
            continue
        with connection:
            connection.execute("CREATE DATABASE runs")
        yield f"postgresql://lab:secret@127.0.0.1:{server}/runs"
        return
    raise TimeoutError("PostgreSQL does not answer")


def test_processes_share_an_empty_database(uri, tmp_path):
    # A folder for temporary files of its own, and so no lock file that they share: as if each ran
    # on a machine of its own.
    processes = []
    for k in range(4):
        (tmp_path / str(k)).mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", CONNECT, uri, "live"],
                cwd=REPOSITORY,
                env=os.environ | {"TMPDIR": str(tmp_path / str(k))},
                stderr=subprocess.PIPE,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    client = mlflow.MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "study"]
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


def test_a_server_that_is_not_there_is_told_at_once():
    pytest.importorskip("psycopg")
    uri = "postgresql://lab:secret@127.0.0.1:1/runs"
    with pytest.raises(TrackingError) as told, locked_access(uri):
        pytest.fail("it was used")
    assert "Connection refused" in str(told.value)
