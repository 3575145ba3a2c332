"""An arm with metadata is tracked whole: how it encodes them, and a model that takes them raw."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server import invocations
from PIL import Image

from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import Arm
from melanoma_lab.evaluation.predictions import Predictions

pytestmark = pytest.mark.integration

ARM = (
    *("architecture=compact_cnn", "architecture.filters=[4,8]", "architecture.blocks=[0,1]"),
    *("metadata=patient", "dataset.lesions=40", "dataset.image_size=16", "training.epochs=1"),
    *("dataset.classes=[melanoma,nevus,vascular lesion]", "training.batch_size=64"),
)


@pytest.fixture(scope="module")
def run(composed, session_cache, tmp_path_factory):
    """The client and the finished run."""
    folder = tmp_path_factory.mktemp("patient")
    uri = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_id = train_arm(composed(*ARM, f"cache={session_cache}"), Arm("patient", "custom"))
        client = mlflow.MlflowClient(uri)
        yield client, client.get_run(run_id)


def test_the_encoding_is_kept_beside_the_figures(run):
    client, done = run
    text = client.download_artifacts(done.info.run_id, "metadata.json")
    with open(text, encoding="utf-8") as file:  # noqa: PTH123
        kept = json.load(file)
    manifest = pd.read_csv(client.download_artifacts(done.info.run_id, "manifest.csv"))
    train = manifest[manifest["split"] == "train"]
    assert kept["age"]["mean"] == pytest.approx(train["age"].mean())
    assert kept["site"]["values"] == sorted(train["site"].dropna().unique())
    assert done.data.params["metadata.columns"]
    assert done.data.tags["metadata_digest"]


def test_what_is_known_of_the_patient_goes_into_the_maps_too(run):
    client, done = run
    assert client.download_artifacts(done.info.run_id, "plots/grad_cam.png")
    with open(client.download_artifacts(done.info.run_id, "mistakes.html")) as file:  # noqa: PTH123
        page = file.read()
    assert page.count("<img") == 2 * page.count("<article") > 0
    assert "<dt>age</dt>" in page


def test_the_served_model_takes_years_and_codes(run):
    client, done = run
    (model,) = client.search_logged_models([done.info.experiment_id])
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    values = loaded.metadata.metadata["melanoma_lab"]["encoding"]
    names = [spec.name for spec in loaded.metadata.signature.inputs]
    assert names == ["pixels", "age", "sex", "site"]
    read = {"keep_default_na": False, "na_values": {"age": [""]}}
    manifest = pd.read_csv(client.download_artifacts(done.info.run_id, "manifest.csv"), **read)
    table = Predictions.read(
        Path(client.download_artifacts(done.info.run_id, "predictions.csv"))
    ).table
    rows = manifest[manifest["split"] == "test"].index
    pixels = np.stack([np.asarray(Image.open(path)) for path in manifest["path"][rows]])
    codes = {
        name: [[values[name]["values"].index(w) if w in values[name]["values"] else -1]
               for w in manifest[name][rows]]
        for name in ("sex", "site")
    }  # fmt: skip
    ages = [[-1.0 if np.isnan(age) else age] for age in manifest["age"][rows]]
    body = json.dumps({"inputs": {"pixels": pixels.tolist(), "age": ages, **codes}})
    answer = invocations(body, "application/json", loaded, loaded.metadata.get_input_schema())
    assert answer.status == 200, answer.response
    found = np.array(json.loads(answer.response)["predictions"])
    expected = table.set_index("image_id").loc[manifest["image_id"][rows]].filter(like="prob/")
    np.testing.assert_allclose(found, expected.to_numpy(float), rtol=1e-3, atol=1e-5)
