"""What is shown of an image by a run that was trained here, without a page."""

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.demo.image_answer import DemoService
from melanoma_lab.inference.demo.training_images import build_embedder, load_reference_set
from melanoma_lab.inference.ensembles.average import build_mean_network
from melanoma_lab.inference.model_source import find_model
from melanoma_lab.inference.predict import predict_table
from melanoma_lab.inference.predictor import load_predictor
from melanoma_lab.models.grad_cam import GradCam
from melanoma_lab.training.hardware import count_available_threads
from tests.support.pictures import paint

pytestmark = pytest.mark.integration


@pytest.fixture
def model(trained, monkeypatch, tmp_path):
    folder, run = trained
    monkeypatch.chdir(folder)
    source = find_model(run.run_id, Tracking(), tmp_path)
    return load_predictor(source, threads=count_available_threads(), seed=0)


@pytest.fixture
def prepared(model, session_cache):
    def make(model=model, *, root=None, count=4, cache=session_cache, uri="sqlite:///mlflow.db"):
        tracked = Tracking(uri=uri)
        return load_reference_set(
            model, tracked=tracked, root=root, count=count, cache=cache, threads=1
        )

    return make


def demo_of(model, reference):
    return DemoService(model, reference, GradCam(model.network))


def test_the_answer_is_that_of_predict(trained, model, prepared, tree, composed):
    demo = demo_of(model, prepared(count=0))
    for file in (tree / "melanoma" / "0.png", tree / "nevus" / "3.png"):
        keys = (f"model={trained[1].run_id}", f"images='{file}'")
        (row,) = predict_table(composed("task=predict", *keys)).to_dict("records")
        shown = demo.look_at(str(file), "mine.png")
        slug = dict(zip(model.card.names, model.card.slugs, strict=True))
        found = {f"calibrated/{slug[bar.name]}": np.float32(bar.share) for bar in shown.said.bars}
        assert found == {name: row[name] for name in found}
        assert slug[shown.said.bars[0].name] == row["predicted"]
        assert ("it counts as" in shown.said.decision) == (row["operating_point"] == "melanoma")
        assert bool(shown.said.warnings) >= (row["warning"] != "")
        assert (shown.neighbours, shown.no_neighbours) == ((), "")


def test_the_nearest_training_images_are_shown_with_their_labels(trained, model, prepared):
    manifest = trained[1].manifest
    demo = demo_of(model, prepared())
    for _, row in manifest[manifest["split"] == "train"].iloc[::6].iterrows():
        shown = demo.look_at(row["path"], "again.png")
        assert len(shown.neighbours) == 4
        assert (shown.neighbours[0].label, shown.neighbours[0].text) == (row["label"], "1.00")
        assert shown.neighbours[0].uri.startswith("data:image/jpeg;base64,")
        assert shown.labels
        assert f"training images, labelled {row['label']}" in shown.said.warnings[-1]
        names = [one.name for one in shown.explanations]
        assert names == [bar.name for bar in shown.said.bars]


def test_features_are_kept_by_network_and_images(model, prepared, tmp_path, monkeypatch):
    first = prepared(cache=tmp_path)
    (kept,) = (tmp_path / "embeddings").glob("*.npy")
    monkeypatch.setattr(
        "melanoma_lab.inference.demo.training_images.load_pixels",
        lambda *_, **__: pytest.fail("again"),
    )
    again = prepared(cache=tmp_path)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_allclose(np.linalg.norm(first.features, axis=1), 1, rtol=1e-5)
    kept.unlink()
    with pytest.raises(pytest.fail.Exception):
        prepared(cache=tmp_path)


def test_a_dataset_that_has_moved(trained, model, prepared, tree, tmp_path):
    moved = shutil.copytree(tree, tmp_path / "moved")
    there = prepared(root=str(moved), cache=tmp_path)
    assert there.why_none == ""
    assert all(Path(path).is_relative_to(moved) for path in there.images.paths)
    # A file that has changed is not shown for the one that the network has seen.
    demo = demo_of(model, there)
    paint(Path(there.images.paths[0]), [0, 200, 0], seed=5)
    shown = demo.look_at(str(tree / Path(there.images.paths[0]).relative_to(moved)), "a.png")
    assert shown.neighbours[0].uri == ""
    with_change = prepared(root=str(moved), cache=tmp_path / "other")
    assert "1 of the" in with_change.why_none
    assert "have changed since" in with_change.why_none
    Path(there.images.paths[1]).unlink()
    gone = prepared(root=str(moved), cache=tmp_path)
    assert "are missing, such as" in gone.why_none
    assert "dataset.root=DIR" in gone.why_none
    shown = demo_of(model, gone).look_at(str(tree / "nevus" / "0.png"), "a.png")
    assert shown.neighbours == ()
    assert shown.no_neighbours == gone.why_none


def test_a_model_of_no_known_run_works_without(model, prepared, tree, tmp_path):
    unknown = replace(model, source=replace(model.source, run=None))
    assert prepared(unknown).why_none == "the run that trained this model is not known"
    elsewhere = prepared(uri=f"sqlite:///{tmp_path}/none.db")
    assert "nothing has been trained" in elsewhere.why_none
    shown = demo_of(unknown, elsewhere).look_at(str(tree / "nevus" / "0.png"), "a.png")
    assert len(shown.said.bars) == 3
    assert shown.said.warnings == ()


def test_a_folder_says_which_run_it_is_of(trained, model, tmp_path):
    folder = model.source.network.parent.parent
    assert (folder / "MLmodel").is_file()
    assert find_model(str(folder), Tracking(), tmp_path).run == trained[1].run_id


def test_what_is_no_image_is_said_in_a_few_words(model, prepared, tmp_path):
    (tmp_path / "a.png").write_text("no")
    demo = demo_of(model, prepared(count=0))
    assert demo.look_at(str(tmp_path / "a.png"), "a.png") == "not an image"


def test_a_network_without_a_place_to_map_is_answered_without_a_map(model, prepared, tree):
    why_not = "it has no convolution"
    shown = DemoService(model, prepared(count=0), why_not).look_at(
        str(tree / "nevus" / "0.png"), "a"
    )
    assert (shown.explanations, shown.no_explanations) == ((), why_not)


def network(seed, *, head=True):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(inputs))
    outputs = keras.layers.Dense(3, activation="softmax")(x) if head else x
    return keras.Model(inputs, outputs)


def test_features_are_what_the_last_dense_layer_takes():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    one, two = network(1), network(2)
    of_one, of_two = build_embedder(one)(pixels), build_embedder(two)(pixels)
    by_hand = keras.Model(one.inputs, one.layers[-1].input).predict_on_batch(pixels)
    by_hand = by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(of_one, by_hand, rtol=1e-5)
    together = build_embedder(build_mean_network([one, two]))(pixels)
    np.testing.assert_allclose(together, np.hstack([of_one, of_two]) / np.sqrt(2), atol=1e-6)
    with pytest.raises(UserError, match="does not end in a dense layer"):
        build_embedder(network(1, head=False))


def test_the_table_of_a_run_is_what_neighbours_are_by(model, prepared):
    known = prepared(count=0).known
    assert {split for split, _ in known.values()} == {"train", "val", "test"}
    assert isinstance(pd.Series(known).iloc[0], tuple)
