"""The tutorials run from top to bottom, and what is stored in them is short and of no machine."""

import re

import nbformat
import pytest

from tests.support.documentation import REPOSITORY
from tests.support.processes import run_python

pytestmark = pytest.mark.unit

TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.ipynb"))
every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def test_there_are_five():
    assert [path.stem[0] for path in TUTORIALS] == ["1", "2", "3", "4", "5"]


def list_outputs(cell):
    """The kinds of a cell's outputs; what it prints may come in several parts."""
    outputs = [o.output_type for o in cell.get("outputs", []) if o.get("name") != "stderr"]
    return list(dict.fromkeys(outputs))


@pytest.mark.slow
@every_tutorial
def test_a_tutorial_runs_from_top_to_bottom(path, tmp_path):
    # In a process of its own: Jupyter's client leaves sockets and event loops behind.
    command = ("-m", "tests.support.notebooks", path.stem, "--into", str(tmp_path))
    done = run_python(*command, folder=REPOSITORY, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    run = nbformat.read(tmp_path / path.name, as_version=4)
    kept = nbformat.read(path, as_version=4)
    for cell, stored in zip(run.cells, kept.cells, strict=True):
        assert list_outputs(cell) == list_outputs(stored), cell.source


@every_tutorial
def test_stored_outputs_are_short_and_name_no_place(path):
    text = path.read_text()
    assert len(text) < 200_000
    assert not re.search(r"/(home|root|tmp|work|Users|opt)/", text)
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert len(cell.outputs) <= 2, cell.source
            printed = "".join(
                output.get("text", output.get("data", {}).get("text/plain", ""))
                for output in cell.outputs
            )
            assert len(printed.splitlines()) <= 30, cell.source
            assert all(output.output_type != "error" for output in cell.outputs)
