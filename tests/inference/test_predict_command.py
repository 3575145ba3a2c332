"""``predict`` on a run that was trained here: the same numbers, whatever names the model."""

import json
import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import melanoma_lab as lab
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.predict import predict_to_file
from melanoma_lab.inference.prediction_files import build_map_path
from tests.support.processes import run_python

pytestmark = pytest.mark.integration

LOOKS = ("unlike_training", "warning")


@pytest.fixture(scope="module")
def work(tmp_path_factory, train_tiny):
    """A folder with one run, of a network that sees mirrored views too, and its images."""
    folder = tmp_path_factory.mktemp("work")
    return folder, train_tiny(folder, "evaluation.tta=flips", "training.precision=mixed_bfloat16")


@pytest.fixture(autouse=True)
def _there(work, monkeypatch):
    monkeypatch.chdir(work[0])


@pytest.fixture
def predict(composed):
    """Predict with overrides; returns the file."""

    def command(**keys):
        return predict_to_file(composed("task=predict", *(f"{k}='{v}'" for k, v in keys.items())))

    return command


def model_folder(run):
    client = mlflow.MlflowClient(run.uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    (model,) = client.search_logged_models([experiment])
    return Path(model.artifact_location.removeprefix("file://"))


def test_the_same_numbers_as_in_the_runs_own_table(work, tree, predict, capsys):
    _, run = work
    output = predict(model=run.run_id, images=tree)
    assert output == Path("predictions.csv")
    told = capsys.readouterr().out
    assert f"run {run.run_id}: 3 classes, trained on folder, input 16x16 pixels (squash)" in told
    assert "27 images: " in told
    assert "Research use only: not a medical device; no diagnosis." in told
    table = pd.read_csv(output, dtype={"image_id": str}, keep_default_na=False)
    own = run.predictions.set_index("image_id")
    assert sorted(table["image_id"]) == sorted(own.index)
    columns = [name for name in own if name.startswith("prob/")]
    calibrated = [name.replace("prob/", "calibrated/") for name in columns]
    read = [*calibrated, "operating_point", *LOOKS, "seen"]
    assert list(table) == ["image_id", "predicted", "probability", *columns, *read]
    expected = own.loc[table["image_id"], columns].to_numpy()
    np.testing.assert_allclose(table[columns], expected, rtol=0, atol=1e-5)
    best = table[columns].idxmax(axis=1).str.removeprefix("prob/")
    assert list(table["predicted"]) == list(best)
    np.testing.assert_array_equal(table["probability"], table[columns].max(axis=1))
    assert not Path("predictions.unreadable.csv").exists()
    assert not list(Path().glob("*.part"))


def test_answers_are_read_as_was_chosen_on_val(work, tree, predict):
    _, run = work
    beside = model_folder(run) / "advice.json"
    kept = beside.read_text()
    threshold = json.loads(kept)["threshold"]
    assert json.loads(kept)["slug"] == "melanoma"
    table = pd.read_csv(predict(model=run.run_id, images=tree), keep_default_na=False)
    reached = table["calibrated/melanoma"] >= threshold - 1e-6
    assert list(table["operating_point"]) == ["melanoma" if each else "" for each in reached]
    assert 0 < reached.sum() <= len(table)
    hot = json.loads(kept) | {"temperature": {"value": 4.0, "n": 99, "why_not": ""}}
    try:
        beside.write_text(json.dumps(hot | {"threshold": 1.0, "target": 0.9}))
        hotter = pd.read_csv(predict(model=run.run_id, images=tree), keep_default_na=False)
        beside.write_text("{}")
        with pytest.raises(UserError, match=r"advice.json: cannot be read"):
            predict(model=run.run_id, images=tree)
    finally:
        beside.write_text(kept)
    assert not any(hotter["operating_point"])
    columns = [name for name in table if name.startswith("prob/")]
    scaled = np.log(hotter[columns].to_numpy()) / 4
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    found = hotter[[name.replace("prob/", "calibrated/") for name in columns]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_whatever_names_the_model_the_answer_is_the_same(work, tree, predict):
    _, run = work
    folder = model_folder(run)
    client = mlflow.MlflowClient(run.uri)
    client.create_registered_model("lesions")
    version = client.create_model_version("lesions", str(folder), run.run_id)
    names = [run.run_id, f"runs:/{run.run_id}/model", f"models:/lesions/{version.version}"]
    names += [folder, folder / "data" / "model.keras", shutil.copytree(folder, "copied")]
    answers = {predict(model=name, images=tree, output="same.csv").read_text() for name in names}
    assert len(answers) == 1
    shutil.copy(folder / "data" / "model.keras", "bare.keras")
    numbered = predict(model="bare.keras", images=tree, output="same.csv").read_text()
    first, _, rest = numbered.partition("\n")
    assert first == "image_id,predicted,probability,prob/class_0,prob/class_1,prob/class_2,seen"
    (named,) = answers
    assert rest.count("\n") == named.count("\n") - 1


def test_pictures_of_another_kind_get_a_warning(work, tree, predict, tmp_path, capsys):
    _, run = work
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "noise.png")
    Image.new("RGB", (40, 40), (255, 0, 255)).save(tmp_path / "magenta.png")
    shutil.copy(tree / "melanoma" / "0.png", tmp_path / "lesion.png")
    output = predict(model=run.run_id, images=tmp_path, output="looks.csv")
    table = pd.read_csv(output, keep_default_na=False).set_index("image_id")
    assert dict(table["warning"]) == {
        "lesion.png": "",
        "magenta.png": "unlike the training images",
        "noise.png": "unlike the training images",
    }
    assert list(table["unlike_training"] > 1) == [False, True, True]
    told = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 images look unlike the training images (column warning)" in told


def test_a_run_that_waits_to_be_sent(work, tree, predict):
    _, run = work
    shutil.copytree(model_folder(run), "unsent/0123/model")
    sent, kept = (
        pd.read_csv(predict(model=name, images=tree, output="sent.csv")).drop(columns="seen")
        for name in (run.run_id, "0123")
    )
    pd.testing.assert_frame_equal(sent, kept)
    shutil.rmtree("unsent")


def test_every_format_has_the_same_rows(work, tree, predict):
    _, run = work
    files = [
        predict(model=run.run_id, images=f"{tree}/n*/*.png", output=f"rows.{kind}")
        for kind in ("csv", "json", "jsonl")
    ]
    rows = pd.read_csv(files[0], dtype={"image_id": str}, keep_default_na=False).to_dict("records")
    assert len(rows) == 9
    assert rows[0]["image_id"] == f"{tree.as_posix()}/nevus/0.png"
    whole = json.loads(files[1].read_text())
    assert whole.pop("predictions") == rows
    assert whole.pop("advice")["slug"] == "melanoma"
    assert whole == {
        "notice": "Research use only: not a medical device; no diagnosis.",
        "model": run.run_id,
        "run_id": run.run_id,
        "dataset": "folder",
        "classes": {"vascular_lesion": "Vascular lesion", "melanoma": "melanoma", "nevus": "nevus"},
        "positive_class": "melanoma",
    }
    assert [json.loads(line) for line in files[2].read_text().splitlines()] == rows


@pytest.fixture
def mixed(tree, tmp_path):
    """Good images, in a folder that is linked to, and files that are none, of every kind."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "linked").symlink_to(tree / "melanoma")
    shutil.copy(tree / "nevus" / "0.png", folder / "é, (1).PNG")
    (folder / "._hidden.png").write_bytes(b"no")
    (folder / "notes.txt").write_text("no image by its name")
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "gone.tif").symlink_to("nowhere.tif")
    whole = (tree / "nevus" / "1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(folder / "pipe.bmp")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(whole)
    return folder


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(work, mixed, predict, capsys):
    _, run = work
    output = predict(model=run.run_id, images=mixed, output="mixed.csv")
    table = pd.read_csv(output, dtype={"image_id": str}, keep_default_na=False)
    assert table["image_id"][0] == "é, (1).PNG"
    assert set(table["image_id"][1:]) == {f"linked/{i}.png" for i in range(12)}
    listed = pd.read_csv("mixed.unreadable.csv").set_index("image_id")["reason"]
    assert set(listed.index) == {
        *("text.jpg", "empty.png", "gone.tif", "cut.png", "pipe.bmp", r"\udcff.png")
    }
    assert listed["empty.png"] == "an empty file"
    assert "UTF-8" in listed[r"\udcff.png"]
    told = capsys.readouterr().out
    assert "6 of 19 images cannot be read" in told
    assert "and 1 more" in told
    # The next result of the same name has nothing to list.
    predict(model=run.run_id, images=mixed / "linked", output="mixed.csv")
    assert not Path("mixed.unreadable.csv").exists()


def test_where_nothing_can_be_read_the_work_has_failed(work, mixed, predict):
    _, run = work
    with pytest.raises(lab.RunError, match="none of 1 images can be read"):
        predict(model=run.run_id, images=mixed / "text.jpg", output="none.csv")
    assert Path("none.unreadable.csv").is_file()
    assert not Path("none.csv").exists()
    assert not Path("none.csv.part").exists()


def test_files_are_decoded_as_for_training(work, tree, predict, tmp_path):
    """Turned by the camera, transparent: the same picture, and so the same answer."""
    _, run = work
    with Image.open(tree / "nevus" / "0.png") as picture:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
        picture.convert("RGBA").save(tmp_path / "b.png")
        picture.save(tmp_path / "c.tiff")
    table = pd.read_csv(predict(model=run.run_id, images=tmp_path, output="d.csv"))
    probabilities = table.filter(like="prob/").to_numpy()
    np.testing.assert_allclose(probabilities, probabilities[[0, 0, 0]], rtol=0, atol=1e-5)


def test_maps_of_where_the_network_looked(work, tree, predict, capsys):
    """One over each image, of what was predicted, with the names and folders of the images."""
    import keras

    from melanoma_lab.data.decoding import decode_image
    from melanoma_lab.models.grad_cam import GradCam
    from melanoma_lab.plots.grad_cam import overlay_heat_map

    _, run = work
    plain = pd.read_csv(predict(model=run.run_id, images=tree), keep_default_na=False)
    shutil.rmtree("maps", ignore_errors=True)
    keys = {"model": run.run_id, "images": tree, "grad_cam": "maps"}
    table = pd.read_csv(predict(**keys), keep_default_na=False)
    pd.testing.assert_frame_equal(table, plain)
    assert "Grad-CAM maps: maps" in capsys.readouterr().out
    made = {path.relative_to("maps").as_posix() for path in Path("maps").rglob("*.*")}
    assert made == {f"{image_id}.png" for image_id in table["image_id"]}
    network = keras.saving.load_model(next(model_folder(run).rglob("model.keras")))
    slugs = [name.removeprefix("prob/") for name in table if name.startswith("prob/")]
    for _, row in table.iloc[[0, 11, -1]].iterrows():
        pixels = decode_image(str(tree / row["image_id"]), 16)
        heat = GradCam(network)(pixels[None], np.array([slugs.index(row["predicted"])]))[0]
        with Image.open(Path("maps") / f"{row['image_id']}.png") as picture:
            assert "not a medical device" in picture.text["Comment"]
            shown = np.asarray(picture).astype(int)
        assert (
            np.abs(shown - overlay_heat_map(pixels, heat)).mean() < 3
        )  # another batch, other last bits
    # An earlier result is replaced, and nothing else is.
    before = Path("maps", "melanoma", "0.png.png").read_bytes()
    predict(**keys)
    assert Path("maps", "melanoma", "0.png.png").read_bytes() == before
    Path("maps", "melanoma", "0.png.png").write_bytes(b"mine")
    with pytest.raises(
        UserError,
        match=r"0.png.png exists already and is not a map written by "
        "predict",
    ):
        predict(**keys)
    assert Path("maps", "melanoma", "0.png.png").read_bytes() == b"mine"


def test_maps_do_not_end_up_among_the_images(work, tree, predict):
    _, run = work
    with pytest.raises(UserError, match="lies in images="):
        predict(model=run.run_id, images=tree, grad_cam=tree / "maps")
    with pytest.raises(UserError, match="contains images that are to be predicted"):
        predict(model=run.run_id, images=tree / "melanoma" / "0.png", grad_cam=tree)
    Path("a file").write_text("mine")
    with pytest.raises(UserError, match="this is a file"):
        predict(model=run.run_id, images=tree, grad_cam="a file")
    assert not (tree / "maps").exists()


@pytest.mark.parametrize(
    ("image_id", "place"),
    [("a/b.jpg", "a/b.jpg.png"), ("/etc/b.jpg", "etc/b.jpg.png"), ("../../b.jpg", "b.jpg.png")],
)
def test_whatever_an_image_is_called_its_map_lies_in_the_folder(image_id, place):
    assert build_map_path(Path("maps"), image_id) == Path("maps") / place


def test_from_python(work, tree, predict, capsys):
    _, run = work
    written = pd.read_csv(
        predict(model=run.run_id, images=tree), dtype={"image_id": str}, keep_default_na=False
    )
    capsys.readouterr()
    table = lab.predict(run, tree, batch_size=5, verbose=False)
    assert capsys.readouterr().out == ""
    assert list(table) == list(written)
    assert list(table["image_id"]) == list(written["image_id"])
    columns = [name for name in table if name.startswith("prob/")]
    np.testing.assert_allclose(table[columns], written[columns], rtol=0, atol=1e-5)
    assert table.attrs["unreadable"] == {}
    with pytest.raises(lab.UserError, match="images=nowhere: no such file or folder"):
        lab.predict(run, "nowhere")


def test_an_interrupted_one_has_no_result(work, tree, predict, monkeypatch):
    _, run = work
    monkeypatch.setattr("melanoma_lab.inference.predict.show_progress", interrupting)
    with pytest.raises(KeyboardInterrupt):
        predict(model=run.run_id, images=tree, output="cut.json")
    assert not Path("cut.json").exists()
    assert Path("cut.json.part").stat().st_size > 0


class interrupting:  # noqa: N801 - stands for a function
    def __init__(self, _what):
        pass

    def __enter__(self):
        def tell(_done, _total):
            raise KeyboardInterrupt

        return tell

    def __exit__(self, *_):
        pass


@pytest.mark.slow
def test_mistakes_are_told_without_tensorflow_and_then_the_command_works(work, tree):
    script = """
import sys
from melanoma_lab.__main__ import main
mistakes = [
    [],
    ["model=x"],
    ["images=one"],
    ["model=x", "images=nowhere"],
    ["model=x", "images=empty"],
    ["model=nowhere.keras", "images=one"],
    ["model=x", "images=one", "output=x.txt"],
    ["model=0123abcd", "images=one"],
]
for words in mistakes:
    sys.argv[1:] = ["predict", *words]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, (words, end.code)
assert not {"tensorflow", "keras", "mlflow"} & set(sys.modules)
sys.argv[1:] = ["predict", "model=RUN", "images=one/ISIC_1(1).png", "output=one.csv"]
main()
"""
    _, run = work
    Path("one").mkdir()
    Path("empty").mkdir()
    shutil.copy(tree / "nevus" / "0.png", "one/ISIC_1(1).png")
    done = run_python("-c", script.replace("RUN", run.run_id))
    assert done.returncode == 0, done.stderr
    told = (
        "model is not set; add model=",
        "images is not set; add images=DIR",
        "images is not set; add images=DIR",
        "model is not set; add model=",
        "images=nowhere: no such file or folder",
        "images=empty: no images in it; expected files ending in",
        "model=nowhere.keras: no such file or folder; expected a run's id",
        "output=x.txt: expected a name that ends in .csv, .json or .jsonl",
        f"The newest: {run.run_id} (",
    )
    for line, expected in zip(done.stderr.splitlines(), told, strict=True):
        assert expected in line
    (row,) = pd.read_csv("one.csv").to_dict("records")
    assert row["image_id"] == "one/ISIC_1(1).png"
    assert not Path("experiments").exists()


def test_nothing_of_somebody_elses_is_replaced(work, tree, predict):
    _, run = work
    Path("labels.csv").write_text("image_id,label\n")
    with pytest.raises(lab.UserError, match=r"labels\.csv: exists already and is not a result"):
        predict(model=run.run_id, images=tree, output="labels.csv")
    assert Path("labels.csv").read_text() == "image_id,label\n"


def test_runs_without_a_model_say_why(work, tree, predict):
    _, run = work
    where = ("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16")
    trivial = lab.train("+experiment=majority", *where, verbose=False)
    with pytest.raises(lab.UserError, match=r"a trivial classifier \(majority.*predictions\.csv"):
        predict(model=trivial.run_id, images=tree)
    client = mlflow.MlflowClient(run.uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    failed = client.create_run(experiment, tags={"reason": "out of memory"}).info.run_id
    client.set_terminated(failed, "FAILED")
    with pytest.raises(lab.UserError, match=r"FAILED \(out of memory\) and has no model"):
        predict(model=failed, images=tree)
    bare = client.create_run(experiment).info.run_id
    client.log_param(bare, "tracking.model", "False")
    with pytest.raises(lab.UserError, match=r"tracking\.model=false and saved no model"):
        predict(model=bare, images=tree)
    for run_id in (failed, bare):
        client.delete_run(run_id)
    with pytest.raises(lab.UserError, match="this run was deleted"):
        predict(model=bare, images=tree)
    with pytest.raises(lab.UserError, match=f"Did you mean {run.run_id}"):
        predict(model=run.run_id[:9], images=tree)
    with pytest.raises(lab.UserError, match=r"models:/none/1: not in tracking\.uri"):
        predict(model="models:/none/1", images=tree)
