"""How photographs become squares: chosen once, in training, and kept wherever the model is used."""

from __future__ import annotations

import importlib
import io
import json
from base64 import b64decode
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

import melanoma_lab as lab
from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.decoding import decode_image, read_for_display
from melanoma_lab.inference.demo import image_answer
from melanoma_lab.inference.export.export_network import RESIZING
from melanoma_lab.inference.predict import predict_to_file
from melanoma_lab.reports.explained_images import ExplainedImage
from melanoma_lab.tracking.logged_model import ModelInfo

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("undrawn")]

CROP = "dataset.resize=crop"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Photographs of 40 x 20 pixels: noise, brighter in the middle for one of two classes."""
    root = tmp_path_factory.mktemp("wide")
    draw = np.random.default_rng(0)
    for name, bright in (("melanoma", 80), ("nevus", 0)):
        (root / name).mkdir()
        for i in range(10):
            pixels = draw.integers(0, 170, (20, 40, 3))
            pixels[:, 10:30] += bright
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def work(tmp_path_factory, train_tiny, wide):
    """A folder with two runs of one arm, which sees the middle of a photograph."""
    folder = tmp_path_factory.mktemp("work")
    keys = (f"dataset.root={wide}", CROP, "study=wide")
    return folder, [train_tiny(folder, *keys, f"seed={seed}") for seed in (0, 1)]


@pytest.fixture(autouse=True)
def _there(work, monkeypatch, session_cache):
    monkeypatch.chdir(work[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(session_cache))


def probabilities(table):
    return table.set_index("image_id").sort_index().filter(like="prob/")


def test_training_sees_what_was_chosen(work, train_tiny, wide, tmp_path):
    _, (run, _) = work
    squashed = train_tiny(tmp_path, f"dataset.root={wide}", "study=wide")
    difference = probabilities(run.predictions) - probabilities(squashed.predictions)
    assert difference.abs().to_numpy().max() > 1e-3
    assert CROP in run.arm


def test_predict_gives_the_runs_own_numbers(work, wide, composed):
    _, (run, _) = work
    output = predict_to_file(composed("task=predict", f"model={run.run_id}", f"images={wide}"))
    own, table = probabilities(run.predictions), probabilities(pd.read_csv(output))
    np.testing.assert_allclose(table, own, rtol=0, atol=1e-5)


def test_so_does_evaluate_whatever_is_asked_for(work, wide, capsys):
    _, (run, _) = work
    again = lab.evaluate(
        run,
        *("dataset=folder", f"dataset.root={wide}", "evaluation.overlap=keep"),
        "dataset.resize=pad",
    )
    assert "input 16x16 pixels (crop)" in " ".join(capsys.readouterr().out.split())
    own = probabilities(run.predictions)
    np.testing.assert_allclose(probabilities(again.predictions), own, rtol=0, atol=1e-5)


def test_the_models_papers_say_it(work):
    _, (run, _) = work
    card = Path(mlflow.MlflowClient(run.uri).download_artifacts(run.run_id, "model_card.md"))
    assert "the middle of the longer side" in card.read_text(encoding="utf-8")
    exported = lab.export(run, "exported", formats=["onnx"], verbose=False)
    said = json.loads((exported.folder / "model.json").read_text())
    assert RESIZING[Resize.crop][1] in said["inputs"]["pixels"]["resizing"]


def test_an_ensemble_keeps_it(work, wide, composed):
    _, runs = work
    (together,) = lab.ensemble("wide", verbose=False)
    keys = (f"model={together.run_id}", f"images={wide}", "output=together.csv")
    table = probabilities(pd.read_csv(predict_to_file(composed("task=predict", *keys))))
    expected = np.mean([probabilities(run.predictions) for run in runs], axis=0)
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("resize", list(Resize))
def test_what_is_told_of_it_is_what_is_done(wide, resize):
    path = wide / "melanoma" / "0.png"
    told = RESIZING[resize][1]
    names = {"Image": Image, "ImageOps": ImageOps, "width": 16, "height": 16}
    expected = eval(told, names | {"image": Image.open(path)})  # noqa: S307 - our own words
    np.testing.assert_array_equal(decode_image(str(path), 16, resize), np.asarray(expected))


@pytest.mark.parametrize(
    ("resize", "shape"), [("squash", (20, 40)), ("crop", (20, 20)), ("pad", (40, 40))]
)
def test_pages_show_what_the_network_sees_and_the_map_where_it_looked(wide, resize, shape):
    path, resize = str(wide / "nevus" / "0.png"), Resize(resize)
    picture = read_for_display(path, 480, resize)
    assert (picture.height, picture.width) == shape
    assert max(read_for_display(path, 10, resize).size) == 10
    heat = np.zeros((16, 16), np.float32)
    uris = ExplainedImage(decode_image(path, 16, resize), heat, resize).uris(path)
    uris = (
        *uris,
        image_answer.encode_picture(picture),
        image_answer.encode_picture(image_answer.draw_heat_map(picture, heat)),
    )
    shown = [Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))) for uri in uris]
    assert {image.width / image.height for image in shown} == {shape[1] / shape[0]}


@pytest.mark.slow
def test_networks_that_see_differently_are_not_put_together(
    train_tiny, wide, tmp_path, monkeypatch, capsys
):
    for seed in (0, 1):
        train_tiny(tmp_path, f"dataset.root={wide}", f"seed={seed}", "study=mixed")
    cards = iter([ModelInfo(("melanoma", "nevus"), resize=resize) for resize in Resize])
    module = importlib.import_module("melanoma_lab.inference.ensembles.build_ensembles")
    read = module.model_source.read_model_folder
    monkeypatch.setattr(
        module.model_source, "read_model_folder", lambda folder: (read(folder)[0], next(cards))
    )
    monkeypatch.chdir(tmp_path)
    (together,) = lab.ensemble("mixed")
    assert "No model: the members see images of another size" in capsys.readouterr().out
    with pytest.raises(UserError):
        lab.predict(together, wide, verbose=False)
    assert len(together.predictions) == 20
