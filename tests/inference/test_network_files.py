"""Models of others: no code of theirs is run, and what is no plain network is refused."""

import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.model_source import read_model_folder
from melanoma_lab.inference.network import build_predict_function, load_network
from melanoma_lab.models.safe_loading import check_keras_file
from melanoma_lab.tracking.logged_model import NOTICE, ModelInfo, save_network

pytestmark = pytest.mark.component

CARD = ModelInfo(
    ("mel", "nv"), ("Melanoma", "Nevus"), positive_class="mel", dataset="d", image_size=4
)


def build(last="softmax", units=2, size=4, channels=3):
    pixels = keras.Input((size, size, channels))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(units, activation=last)(x))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_network(build(), CARD, folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def rewrite(folder, change):
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def test_a_folder_says_what_its_network_is(saved):
    network, card = read_model_folder(saved)
    assert network == saved / "data" / "model.keras"
    assert card == CARD
    assert card.notice == NOTICE
    load_network(network)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["flavors"].pop("tensorflow"), "expected a network of Keras.*python_function"),
        (lambda m: m.update(flavors=[]), "no flavors"),
        (
            lambda m: m["flavors"]["python_function"].update(loader_module="trap"),
            r"its own loader \(trap\); code from a model is not run",
        ),
        (
            lambda m: m["flavors"].update(python_function={"loader_module": "mlflow.sklearn"}),
            "its own loader",
        ),
        (lambda m: m["flavors"]["tensorflow"].update(code="code"), "contains code"),
        (lambda m: m["flavors"]["python_function"].update(code="code"), "contains code"),
        (lambda m: m["flavors"]["tensorflow"].update(model_type="tf2-module"), "a network of Kera"),
        (lambda m: m["flavors"]["tensorflow"].update(data="../../elsewhere"), "outside of its"),
        (lambda m: m["flavors"]["tensorflow"].update(data="nothing"), "no such file"),
        (lambda m: m["flavors"]["tensorflow"].update(data=None), "the path of its network"),
        (lambda m: m.update(metadata={"melanoma_lab": {"slugs": ["a", "a"]}}), "different names"),
        (lambda m: m.update(metadata={"melanoma_lab": 3}), "different names"),
    ],
)
def test_a_folder_of_another_kind_is_refused(folder, change, told):
    rewrite(folder, change)
    (folder.parent / "trap.py").write_text("raise SystemExit('run')")
    with pytest.raises(UserError, match=told):
        read_model_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir ['sprung']",
        "[",
        "\x00",
        "3",
        "a: " + "[" * 5000,
        "# " * 2**20,
    ],
    ids=["runs code", "cut", "binary", "number", "deep", "long"],
)
def test_an_mlmodel_that_is_none_is_refused(folder, text, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "MLmodel").write_text(text)
    with pytest.raises(UserError, match="MLmodel"):
        read_model_folder(folder)
    assert not (folder / "sprung").exists()


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    network = folder / "data" / "model.keras"
    network.rename(tmp_path / "elsewhere.keras")
    network.symlink_to(tmp_path / "elsewhere.keras")
    with pytest.raises(UserError, match="outside of its folder"):
        read_model_folder(folder)


def test_code_in_a_file_is_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    name = str(sprung)
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Lambda(lambda x: (Path(name).mkdir(), x)[1])(keras.layers.Flatten()(pixels))
    sprung.rmdir()  # building it has run it
    path = tmp_path / "lambda.keras"
    keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x)).save(path)
    with pytest.raises(UserError, match="does not load this in its safe mode"):
        load_network(path)
    assert not sprung.exists()


def altered(saved, path, members):
    """The saved network's archive with other members."""
    with zipfile.ZipFile(saved / "data" / "model.keras") as whole:
        content = {name: whole.read(name) for name in whole.namelist()} | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return path


@pytest.mark.parametrize("name", ["../../out.txt", "assets/x", "model.weights.npz"])
def test_an_archive_with_more_than_a_network_is_refused(saved, tmp_path, name):
    path = altered(saved, tmp_path / "m.keras", {name: b"x"})
    with pytest.raises(UserError, match=f"expected a .keras file.* Received {name}"):
        check_keras_file(path)
    assert {p.name for p in tmp_path.rglob("*")} == {"m.keras"}


@pytest.mark.parametrize(
    "members",
    [
        {"config.json": b"{}"},
        {"config.json": b'{"module": "os", "class_name": "system", "config": {"command": "true"}}'},
        {"model.weights.h5": b"damaged"},
    ],
    ids=["empty", "another module", "weights"],
)
def test_a_damaged_file_is_refused(saved, tmp_path, members):
    path = altered(saved, tmp_path / "m.keras", members)
    with pytest.raises(UserError, match="does not load this in its safe mode"):
        load_network(path)


def two_inputs():
    pixels, age = keras.Input((4, 4, 3)), keras.Input((1,), name="age")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(pixels), age])
    return keras.Model([pixels, age], keras.layers.Dense(2, activation="softmax")(x))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (two_inputs, "this model also needs age, which image files do not contain"),
        (lambda: build(channels=1), r"Received \(None, 4, 4, 1\) to \(None, 2\)"),
        (lambda: build(units=1, last="sigmoid"), r"to \(None, 1\)"),
        (
            lambda: keras.Sequential([keras.Input((None, None, 3)), keras.layers.ReLU()]),
            "expected a network from",
        ),
    ],
)
def test_a_network_that_takes_something_else_is_refused(tmp_path, network, told):
    network().save(tmp_path / "m.keras")
    with pytest.raises(UserError, match=told):
        load_network(tmp_path / "m.keras")


def test_answers_that_are_no_probabilities_are_refused():
    answer = build_predict_function(build(last=None))
    with pytest.raises(UserError, match="outputs are not class probabilities"):
        answer(np.full((1, 4, 4, 3), 200, np.uint8))
