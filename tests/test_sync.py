"""The tracking server dies, hangs, is slow or full: no training is lost, and `sync` sends it."""

import json
import math
import shutil
import signal
import time

import mlflow
import numpy as np
import pytest
from omegaconf import OmegaConf

from melanoma_lab.commands.sync import sync_runs
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.tracking import tracker as tracker_module
from melanoma_lab.tracking import upload
from melanoma_lab.tracking.client import DEFAULT_TIMEOUTS
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.tracking.offline_store import (
    RECORD_FILE,
    MetricPoint,
    RunRecord,
    load_offline_runs,
    save_offline_run,
)
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.tracking.upload import BackgroundSender
from tests.support.tracking_server import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running tracking server."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A fresh folder, a fresh process, and the patience that a busy machine needs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracker_module, "_PROVEN", set())
    for name, value in DEFAULT_TIMEOUTS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    return tmp_path


@pytest.fixture(scope="module")
def network():
    import keras

    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x))


def record_all(tracker, folder, *, network=None, midway=lambda: None, fingerprint="f"):
    """A run of two epochs, with everything that a run has; something happens between the two."""
    (folder / "out" / "plots").mkdir(parents=True, exist_ok=True)
    (folder / "out" / "plots" / "a.png").write_bytes(b"png")
    (folder / "out" / "predictions.csv").write_text("image_id\n")
    tags = {"arm": "baseline", "fingerprint": fingerprint}
    with tracker.run("baseline seed=0", tags, {"seed": "0"}):
        tracker.log_metrics({"epoch/val_loss": 2.0}, step=1)
        midway()
        tracker.log_metrics({"epoch/val_loss": 1.0}, step=2)
        tracker.log_metrics({"test/accuracy": 0.5, "test/macro_auroc": math.nan})
        tracker.set_tags({"outcome": "learned"})
        tracker.log_folder(folder / "out")
        if network is not None:
            tracker.log_network(network, ModelInfo(("melanoma", "nevus")))


def assert_complete(uri, run_id, *, model=False):
    """The run has everything that record_all recorded, once."""
    client = mlflow.MlflowClient(uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "baseline seed=0"
    assert run.info.end_time >= run.info.start_time
    assert run.data.params == {"seed": "0"}
    assert (run.data.tags["arm"], run.data.tags["outcome"]) == ("baseline", "learned")
    assert "reason" not in run.data.tags
    history = client.get_metric_history(run_id, "epoch/val_loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert len(client.get_metric_history(run_id, "test/accuracy")) == 1
    assert math.isnan(run.data.metrics["test/macro_auroc"])
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"plots", "predictions.csv"} <= names
    if model:
        found = client.search_logged_models([run.info.experiment_id])
        assert [m.status for m in found if m.source_run_id == run_id] == ["READY"]
        mlflow.set_tracking_uri(uri)
        loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
        assert loaded.predict(np.zeros((3, 4, 4, 3), np.uint8)).shape == (3, 2)
    return run


def test_a_server_that_is_killed_in_mid_run_gets_the_run_later(server, here, network, capsys):
    where = Tracking(uri=server.uri)
    tracker = connect(where, "killed").result()
    with pytest.raises(RunError, match=r"Connection refused.*nothing is lost.*melanoma_lab sync$"):
        record_all(tracker, here, network=network, midway=server.kill)
    ((folder, record),) = load_offline_runs(here / "unsent")
    assert folder == here / "unsent" / tracker.run_id == here / tracker.kept
    assert {path.suffix for path in folder.rglob("*") if path.is_file()}.isdisjoint({".pkl"})
    assert json.loads((folder / RECORD_FILE).read_text())["metrics"][-1]["value"] == "nan"
    assert not mlflow.active_run()

    with pytest.raises(RunError, match=r"1 of 1 runs were not sent and stay in unsent .*refused"):
        sync_runs(where, elsewhere=False)
    assert folder.exists()

    server.start()
    connect(where, "killed").result()  # another command may find it RUNNING
    sync_runs(where, elsewhere=False)
    assert f"sent: baseline seed=0 (study killed), run {record.run_id}" in capsys.readouterr().out
    assert_complete(server.uri, record.run_id, model=True)
    assert not (here / "unsent").exists()
    sync_runs(where, elsewhere=False)
    assert "Nothing to send" in capsys.readouterr().out


def test_a_server_that_hangs_is_not_waited_for(server, here, monkeypatch):
    tracker = connect(Tracking(uri=server.uri), "hung").result()
    trained = []

    def freeze():
        server.signal(signal.SIGSTOP)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        start = time.perf_counter()
        for epoch in range(50):
            tracker.log_metrics({"epoch/train_loss": 1.0}, step=epoch)
        trained.append(time.perf_counter() - start)

    try:
        with pytest.raises(RunError, match="no answer in time"):
            record_all(tracker, here, midway=freeze)
    finally:
        server.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    assert trained[0] < 1
    sync_runs(Tracking(), elsewhere=False)
    assert_complete(server.uri, tracker.run_id)


def test_a_sync_that_is_interrupted_anywhere_is_repeated_without_doubling(
    server, here, network, monkeypatch
):
    tracker = connect(Tracking(offline=True), "again").result()
    record_all(tracker, here, network=network)
    client = mlflow.MlflowClient(server.uri)
    steps = (
        (mlflow.MlflowClient, "log_batch"),
        (mlflow.MlflowClient, "log_artifacts"),
        (mlflow.MlflowClient, "log_model_artifacts"),
        (mlflow.MlflowClient, "set_terminated"),
    )
    for owner, name in steps:
        real = getattr(owner, name)

        def interrupted(*arguments, real=real, **options):
            real(*arguments, **options)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                sync_runs(Tracking(uri=server.uri), elsewhere=True)
        assert list(load_offline_runs(here / "unsent"))
    sync_runs(Tracking(uri=server.uri), elsewhere=True)
    experiment = client.get_experiment_by_name("again")
    (run,) = client.search_runs([experiment.experiment_id])
    assert_complete(server.uri, run.info.run_id, model=True)
    assert run.data.tags[upload.SYNCED_TAG] == tracker.run_id


def test_offline_runs_are_kept_and_found(here):
    where = Tracking(offline=True, unsent="elsewhere/kept")
    for fingerprint in ("a", "b"):
        tracker = connect(where, "study").result()
        record_all(tracker, here, fingerprint=fingerprint)
    assert tracker.find_finished({"fingerprint": "b"}).run_id == tracker.run_id
    assert tracker.find_finished({"fingerprint": "c"}) is None
    assert len(list(load_offline_runs(here / "elsewhere" / "kept"))) == 2
    database = f"sqlite:///{here / 'mlflow.db'}"
    sync_runs(Tracking(unsent="elsewhere/kept", uri=database), elsewhere=True)
    client = mlflow.MlflowClient(database)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert_complete(database, run.info.run_id)


def test_a_finished_training_survives_an_interrupted_upload(here, monkeypatch, capsys):
    uri = f"sqlite:///{here / 'mlflow.db'}"
    tracker = connect(Tracking(uri=uri), "study").result()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_artifacts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record_all(tracker, here)
    assert "(interrupted). The run is saved in" in capsys.readouterr().out
    assert mlflow.MlflowClient(uri).get_run(tracker.run_id).info.status == "FAILED"
    sync_runs(Tracking(uri=uri), elsewhere=False)
    assert_complete(uri, tracker.run_id)


def test_a_run_that_failed_offline_is_told_as_failed(here):
    tracker = connect(Tracking(offline=True), "study").result()
    with pytest.raises(ValueError, match="no luck"), tracker.run("name", {}, {}):
        raise ValueError("no luck")
    ((_, record),) = load_offline_runs(here / "unsent")
    assert (record.status, record.tags["reason"]) == ("FAILED", "ValueError: no luck")


def test_where_nobody_answers_nothing_is_trained(here):
    start = time.perf_counter()
    with pytest.raises(UserError) as raised:
        connect(Tracking(uri="http://127.0.0.1:9"), "study").result()
    assert "tracking.uri=http://127.0.0.1:9: cannot be used (Connection refused)" in str(
        raised.value
    )
    assert "tracking.offline=true" in str(raised.value)
    assert time.perf_counter() - start < 60


def test_a_server_that_worked_before_may_be_down_for_the_next_job(here, monkeypatch):
    gone = "http://127.0.0.1:9"
    monkeypatch.setattr(tracker_module, "_PROVEN", {gone})
    tracker = connect(Tracking(uri=gone), "study").result()
    with pytest.raises(RunError, match=r"Connection refused.*melanoma_lab sync"):
        record_all(tracker, here)
    ((_, record),) = load_offline_runs(here / "unsent")
    assert (record.uri, record.status) == (gone, "FINISHED")


def test_a_read_only_server_is_refused_before_training(here, monkeypatch):
    uri = f"sqlite:///{here / 'mlflow.db'}"
    tracker = connect(Tracking(uri=uri), "study").result()
    from mlflow.exceptions import MlflowException

    def forbidden(*_, **__):
        raise MlflowException("API request failed with error code 403: read only")

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", forbidden)
    with (
        pytest.raises(UserError, match=r"tracking\.uri=.*403: read only"),
        tracker.run("name", {}, {}),
    ):
        raise AssertionError("trained")


def test_a_full_disk_sends_the_run_to_another(here, monkeypatch):
    blocked = here / "file"
    blocked.write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(here / "tmp"))
    (here / "tmp").mkdir()
    record = RunRecord("a1", "n", "s", "sqlite:////x", None, 1, {}, {})
    (here / "files").mkdir()
    kept = save_offline_run(record, here / "files", blocked)
    assert kept.parent.parent == here / "tmp"
    shutil.rmtree(here / "tmp")
    (here / "tmp").write_text("no folder either")
    with pytest.raises(RunError, match="could not be saved anywhere"):
        save_offline_run(record, here / "files", blocked)


def test_a_record_comes_back_as_it_was(here):
    points = [MetricPoint("a", value, 5, 1) for value in (0.1, math.inf, -math.inf)]
    record = RunRecord("1", "n", "s", "u", None, 1, {"t": "é"}, {"p": "x"}, 2, "FAILED", points)
    record.write(here / RECORD_FILE)
    assert RunRecord.read(here / RECORD_FILE) == record
    json.loads((here / RECORD_FILE).read_text(), parse_constant=pytest.fail)  # no NaN or Infinity


def test_the_sender_batches_what_waits_and_tries_again():
    sent, fail = [], [True]

    def send(things):
        time.sleep(0.05)
        if fail:
            fail.pop()
            raise OSError("down")
        sent.append(things)

    sender = BackgroundSender(send)
    for number in range(20):
        sender.put([number])
        time.sleep(0.01)
    assert sender.close() is None
    assert [thing for things in sent for thing in things] == list(range(20))
    assert 1 < len(sent) < 20


def test_the_sender_gives_up_in_time():
    def hang(_):
        time.sleep(30)

    sender = BackgroundSender(hang)
    sender.put([1])
    start = time.perf_counter()
    assert isinstance(sender.close(0.2), TimeoutError)
    assert time.perf_counter() - start < 5


def test_only_a_typed_address_redirects(monkeypatch, composed):
    from melanoma_lab.commands.sync import _is_typed

    typed = {"overrides": {"task": ["task=sync", "tracking.uri=sqlite:///x.db"]}}
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: OmegaConf.create(typed))
    assert _is_typed("tracking.uri")
    assert not _is_typed("tracking.artifacts")
    assert composed("task=sync").tracking.unsent == "unsent"
