"""``export`` of a run that was trained here: files, what lies beside them, and how it fails."""

import json
import re
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import melanoma_lab as lab
from melanoma_lab.config.schema import Format
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.data.decoding import decode_image
from melanoma_lab.inference.export import formats
from melanoma_lab.inference.export.export_network import (
    DESCRIPTION_FILE,
    check_output_folder,
    export_network,
)
from melanoma_lab.tracking.logged_model import NOTICE
from tests.support.processes import run_command, run_python

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture(scope="module")
def work(tmp_path_factory, tree, train_tiny):
    """A folder with one run, its export in all formats, and a picture."""
    folder = tmp_path_factory.mktemp("handed_over")
    run = train_tiny(folder)
    with chdir(folder):
        every = [kind.value for kind in Format]
        exported = lab.export(run, "exported", formats=every, verbose=False)
        Image.open(tree / "nevus" / "0.png").save("lesion.jpg")
    return folder, run, exported


@pytest.fixture(autouse=True)
def _there(work, monkeypatch):
    monkeypatch.chdir(work[0])


@pytest.fixture
def export(composed):
    def command(*overrides):
        return export_network(composed("task=export", *overrides))

    return command


def test_the_folder_holds_the_files_and_what_describes_them(work):
    _, run, exported = work
    assert exported.folder == Path("exported")
    assert {path.name for path in exported.folder.iterdir()} == {
        *("saved_model", "model.onnx", "model.tflite"),
        *(DESCRIPTION_FILE, "model_card.md", "model_card.html"),
    }
    assert set(exported.files) == set(exported.differences) == {"saved_model", "onnx", "litert"}
    assert max(exported.differences.values()) < 1e-5
    said = json.loads((exported.folder / DESCRIPTION_FILE).read_text())
    assert said["notice"] == NOTICE
    assert said["inputs"]["pixels"]["shape"] == [None, 16, 16, 3]
    assert said["outputs"]["probabilities"]["classes"] == ["Vascular lesion", "melanoma", "nevus"]
    assert said["trained"]["run_id"] == run.run_id
    n_test = int((run.manifest["split"] == "test").sum())
    assert said["parity"]["images"] == f"{n_test} of {n_test} images of its own test split"
    advice = json.loads(next(Path("mlruns").rglob("advice.json")).read_text())
    assert said["calibration"]["temperature"] == advice["temperature"]["value"]
    assert said["operating_point"]["threshold"] == advice["threshold"]
    assert run.run_id in (exported.folder / "model_card.md").read_text()
    assert not list(Path().glob(".exported*"))


def test_a_stranger_gets_the_runs_own_probabilities(work, tree):
    _, run, exported = work
    own = run.predictions.set_index("image_id")
    columns = [name for name in own if name.startswith("prob/")]
    pixels = np.stack([decode_image(str(tree / name), 16) for name in own.index])
    for name, path in exported.files.items():
        found = formats.open_runtime(Format(name), path)({"pixels": pixels})
        np.testing.assert_allclose(found, own[columns], rtol=0, atol=1e-5)


def test_five_lines_of_python_for_each_format(work):
    """Those of the page, as they stand."""
    text = (REPOSITORY / "docs/how-to/export-and-serve.md").read_text(encoding="utf-8")
    blocks = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "exported/" in b]
    assert len(blocks) == 3
    answers = []
    for block in blocks:
        statements = [line for line in block.splitlines() if line and "import" not in line]
        assert len(statements) <= 5
        made = {}
        exec(block, made)  # noqa: S102 - the page's own words
        answers.append(np.asarray(made["probabilities"]).reshape(-1))
    assert {len(answer) for answer in answers} == {3}
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


def test_an_earlier_export_is_replaced_and_nothing_else(work, export, tree, capsys):
    _, run, _ = work
    export(f"model={run.run_id}", "output=again")
    assert "saved_model: greatest difference of a probability" in capsys.readouterr().out
    export(f"model={run.run_id}", "output=again", f"images='{tree}'")
    told = capsys.readouterr().out
    assert "verified on 27 of 27 images that were given" in told
    assert NOTICE in told
    Path("again/mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"output=again: contains other files \(mine.txt\)"):
        check_output_folder("again")
    Path("other").mkdir(exist_ok=True)
    Path("other", "saved_model").mkdir(exist_ok=True)
    with pytest.raises(UserError, match="output=other: contains other files"):
        check_output_folder("other")
    with pytest.raises(UserError, match="is a file"):
        check_output_folder("lesion.jpg")
    with pytest.raises(UserError, match="no such folder"):
        check_output_folder("nowhere/out")


def test_a_file_that_answers_otherwise_is_not_left_behind(work, export, monkeypatch):
    _, run, _ = work
    kind = formats.EXPORT_BACKENDS[Format.saved_model]

    def read(path):
        answer = kind.read(path)
        return lambda inputs: np.roll(answer(inputs), 1, axis=1)

    wrong = formats.ExportBackend(kind.file, {}, kind.write, read)
    monkeypatch.setitem(formats.EXPORT_BACKENDS, Format.saved_model, wrong)
    with pytest.raises(RunError, match=r"more than 0.001, and another class for .*Nothing was exp"):
        export(f"model={run.run_id}", "output=wrong")
    monkeypatch.setitem(
        formats.EXPORT_BACKENDS,
        Format.saved_model,
        formats.ExportBackend(kind.file, {}, kind.write, lambda _: 1 / 0),
    )
    with pytest.raises(RunError, match=r"cannot be used \(ZeroDivisionError"):
        export(f"model={run.run_id}", "output=wrong")
    assert not list(Path().glob("*wrong*"))
    assert not list(Path().glob(".wrong*"))


def test_a_bare_network_is_exported_without_names(work, export, capsys):
    bare = next(Path("mlruns").rglob("model.keras"))
    Path("bare.keras").write_bytes(bare.read_bytes())
    exported = export("model=bare.keras", "output=bare")
    said = json.loads((exported.folder / DESCRIPTION_FILE).read_text())
    assert said["outputs"]["probabilities"]["classes"] == ["class_0", "class_1", "class_2"]
    assert said["calibration"] is None
    assert said["operating_point"] is None
    assert "drawn images" in said["parity"]["images"]
    assert not (exported.folder / "model_card.md").exists()


def test_the_command_line_says_what_is_wrong(work):
    done = run_command("export", "model=bare", "formats=onyx")
    assert done.returncode == 2, done.stderr
    assert "onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_card_of_an_older_run_needs_no_model_and_no_tensorflow(work):
    _, run, _ = work
    script = f"""
import sys
sys.argv = ["melanoma_lab", "card", "model={run.run_id}", "output=card"]
from melanoma_lab.__main__ import main
main()
sys.exit("tensorflow" in sys.modules or "keras" in sys.modules)
"""
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    kept = {name: run.artifact(name).read_text() for name in ("model_card.md", "model_card.html")}
    for name, text in kept.items():
        assert Path("card", name).read_text() == text, name
    assert pd.notna(run.metrics["test/calibrated_ece"])
    assert f"{run.metrics['test/calibrated_ece']:.3f}" in kept["model_card.md"]
