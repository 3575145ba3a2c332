"""The tutorials: run them, and store what they print in them.

    python -m tests.support.notebooks [NAME ...] [--into FOLDER]

runs docs/tutorials/NAME.ipynb, or all, from top to bottom and stores short outputs in it, or in a
copy in FOLDER.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

TUTORIALS = Path(__file__).resolve().parent.parent.parent / "docs" / "tutorials"
#: Pictures are stored no wider than this, with this number of colours.
WIDTH, COLOURS = 600, 48
#: Seconds for one cell.
TIMEOUT = 900


def run_notebook(path: Path, folder: Path) -> Any:
    """Run a notebook from top to bottom in this Python's environment; return it with its outputs.

    Args:
        path: the notebook, which is not changed.
        folder: where its commands are typed.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    kernels = folder / ".kernels" / "this"
    kernels.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(kernels.parent)], ensure_native_kernel=False)
    manager = AsyncKernelManager(kernel_name="this", kernel_spec_manager=specs)
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=TIMEOUT,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def _store(path: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        notebook = run_notebook(path, Path(folder))
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
            cell["metadata"] = {}
            if cell.cell_type == "code":
                # On stderr, packages warn of what this machine has not (ipywidgets).
                outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
                cell["outputs"] = [_shorten(output, folder) for output in outputs]
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, target / path.name)


def _shorten(output: Any, folder: str) -> Any:
    """Make a cell's output independent of this machine, and its picture small."""
    output.pop("metadata", None)
    if output.output_type in {"display_data", "execute_result"}:
        output["metadata"] = {}
        data = output.data
        data.pop("image/jpeg", None)
        if "image/png" in data:
            picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
            picture.thumbnail((WIDTH, 10 * WIDTH))
            file = io.BytesIO()
            picture.quantize(COLOURS).save(file, "PNG", optimize=True)
            data["image/png"] = base64.b64encode(file.getvalue()).decode()
        for kind in ("text/html", "text/plain"):
            if kind in data:
                data[kind] = _make_portable(data[kind], folder)
    elif output.output_type == "stream":
        output["text"] = _make_portable(output.text, folder)
    return output


def _make_portable(text: str, folder: str) -> str:
    text = text.replace(f"{folder}/", "").replace(folder, ".")
    text = text.replace(str(Path(sys.executable).parent) + "/", "")
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--into", type=Path, default=TUTORIALS)
    options = parser.parse_args()
    for found in sorted(TUTORIALS.glob("*.ipynb")):
        if not options.names or found.stem in options.names:
            print(found.name, flush=True)
            _store(found, options.into)
