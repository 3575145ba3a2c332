"""``tracking.register``: a run's model under a name, once, on whatever keeps the runs."""

import keras
import mlflow
import pytest

from melanoma_lab.commands.sync import sync_runs
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.model_source import find_model
from melanoma_lab.tracking.logged_model import NOTICE, ModelInfo, register_model
from melanoma_lab.tracking.offline_store import load_offline_runs
from melanoma_lab.tracking.tracker import connect

pytestmark = pytest.mark.integration

CARD = ModelInfo(("melanoma", "nevus"), positive_class="melanoma", dataset="d")


@pytest.fixture(scope="module")
def network():
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One database for the module, because a new one takes seconds."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def client(folder):
    """By a whole path: MLflow keeps a connection for each URI, whatever the folder was."""
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def recorded(where, network):
    tracker = connect(where, "named").result()
    with tracker.run("baseline seed=0", {"arm": "baseline"}, {"seed": "0"}) as run_id:
        if network is not None:
            tracker.log_network(network, CARD)
    return tracker, run_id


def versions(client, name):
    return {int(v.version): v.run_id for v in client.search_model_versions(f"name = '{name}'")}


def test_every_run_is_a_version_that_predict_finds(network, client, tmp_path):
    where = Tracking(register="lesions")
    ids = []
    for version in (1, 2):
        tracker, run_id = recorded(where, network)
        assert tracker.registered == f"lesions/{version}"
        ids.append(run_id)
    assert versions(client, "lesions") == dict(enumerate(ids, start=1))
    assert client.get_registered_model("lesions").description == NOTICE
    source = find_model("models:/lesions/2", Tracking(), tmp_path)
    assert source.run == ids[1]
    assert source.card == CARD
    assert source.network.is_file()
    assert register_model(client, ids[0], "lesions") == "1"  # again: nothing is doubled
    assert len(versions(client, "lesions")) == 2


def test_a_run_without_a_model_is_no_version(network, client):
    tracker, _ = recorded(Tracking(register="none_of_it"), None)
    assert tracker.registered is None
    assert versions(client, "none_of_it") == {}


def test_a_run_that_waits_is_registered_when_it_is_sent(network, client, tmp_path):
    where = Tracking(register="later", offline=True, unsent=str(tmp_path / "unsent"))
    tracker, run_id = recorded(where, network)
    assert tracker.registered is None
    ((_, record),) = load_offline_runs(tmp_path / "unsent")
    assert record.register == "later"
    sync_runs(Tracking(unsent=where.unsent), elsewhere=False)
    ((version, sent),) = versions(client, "later").items()
    assert version == 1
    assert client.get_run(sent).data.tags["synced_from"] == run_id
    assert find_model("models:/later/1", Tracking(), tmp_path).card == CARD


def test_mlflows_own_way_works_too(network, folder, tmp_path):
    """As the documentation says of a finished run."""
    tracker, run_id = recorded(Tracking(), network)
    assert tracker.registered is None
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.register_model(f"runs:/{run_id}/model", "afterwards")
    assert find_model("models:/afterwards/1", Tracking(), tmp_path).card == CARD


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["tracking.register=a/b"], "tracking.register: expected a name of letters"),
        (["tracking.register=..."], "tracking.register: expected a name"),
        (["tracking.register=a", "tracking.model=false"], "saves no model to register"),
        (["tracking.register=a", "+experiment=majority"], "a trivial classifier has no model"),
        (["tracking.register=a", "task=compare"], "compare creates no model"),
        (["tracking.register=a", "task=tune"], r"mlflow.register_model\('runs:/RUN_ID/model'"),
    ],
)
def test_a_name_for_nothing_is_refused(composed, overrides, told):
    with pytest.raises(UserError, match=told):
        composed(*overrides)
