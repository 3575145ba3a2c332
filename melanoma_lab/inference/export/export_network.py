"""Export a network in other programs' formats, and verify that the outputs stay the same."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from melanoma_lab.config.schema import Config, Format
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.atomic_files import write_folder_atomically
from melanoma_lab.core.console import console
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.untrusted_files import read_text
from melanoma_lab.inference import prediction_messages
from melanoma_lab.inference.export import formats
from melanoma_lab.inference.export.model_description import (
    DESCRIPTION_FILE,
    format_description,
    is_description,
)
from melanoma_lab.inference.export.verification import (
    LIMIT,
    OutputDifference,
    build_verification_inputs,
    choose_sample,
    compare_outputs,
    split_batches,
)
from melanoma_lab.inference.known_images import read_training_run
from melanoma_lab.inference.mlmodel import MAX_DESCRIPTION_BYTES
from melanoma_lab.inference.model_source import ModelSource, find_model, resolve_model_info
from melanoma_lab.input_pipeline.batches import PIXELS, get_named_inputs
from melanoma_lab.reports.model_card.content import PAGES, write_tracked_run_card
from melanoma_lab.tracking.run_reader import TrackedRun
from melanoma_lab.training.backend import choose_threads, start_backend

DEFAULT_FOLDER: Final = "exported"


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Attributes:
        folder: the folder with the exported files, ``model.json`` and, if the network's run is
            known, its model card.
        files: format -> path of the file or folder.
        differences: format -> greatest absolute difference of a probability from the network's.
    """

    folder: Path
    files: Mapping[str, Path]
    differences: Mapping[str, float]


def export_network(config: Config) -> ExportResult:
    """Write a saved network in other formats, verify each against the network, describe them.

    Args:
        config: the validated configuration; its keys ``model``, ``formats``, ``output`` and
            ``images`` say what to export.

    Raises:
        UserError: the model, the images or the output cannot be used, or a package is missing.
        RunError: an exported file's outputs differ from the network's; nothing was written.
    """
    output = check_output_folder(config.output)
    kinds = list(dict.fromkeys(config.formats))
    formats.refuse_missing_packages(kinds)
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as folder:
        scratch = Path(folder)
        source = find_model(config.model, config.tracking, scratch)
        run = read_training_run(source, config.tracking, scratch)
        with write_folder_atomically(output, replace=True) as partial:
            parities = _write(config, kinds, source, run, partial)
            if run is not None:
                _add_card(run, partial)
    files = ", ".join(sorted(entry.name for entry in output.iterdir()))
    console.print(f"written to {output}: {files}", markup=False)
    prediction_messages.show_notice()
    return ExportResult(
        output,
        {kind.value: output / formats.EXPORT_BACKENDS[kind].file for kind in kinds},
        {kind.value: parity.greatest for kind, parity in parities.items()},
    )


def check_output_folder(typed: str | None) -> Path:
    """Return the folder to write; an earlier export in it will be replaced.

    Args:
        typed: the value of ``output``; None for the default folder.

    Raises:
        UserError: the parent folder does not exist, or the path exists and is no earlier export.
    """
    path = Path(typed or DEFAULT_FOLDER).expanduser()
    typed_output = f"output={truncate(path)}"
    if not path.parent.is_dir():
        raise UserError(f"{typed_output}: no such folder: {path.parent}.")
    if not path.exists():
        return path
    if not path.is_dir():
        raise UserError(f"{typed_output}: is a file; name a folder, which will hold the export.")
    written = {DESCRIPTION_FILE, *PAGES, *(kind.file for kind in formats.EXPORT_BACKENDS.values())}
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in written)
    description = path / DESCRIPTION_FILE
    if others or (any(path.iterdir()) and not _is_export_description(description)):
        holds = f" ({truncate(others[0])})" if others else ""
        raise UserError(
            f"{typed_output}: contains other files{holds}; name a folder that does not exist yet."
        )
    return path


def _is_export_description(path: Path) -> bool:
    """Return whether a file exists and describes an export, whose folder may be replaced."""
    try:
        return path.is_file() and is_description(read_text(path, MAX_DESCRIPTION_BYTES))
    except UserError:
        return False


def _write(
    config: Config, kinds: list[Format], source: ModelSource, run: TrackedRun | None, folder: Path
) -> dict[Format, OutputDifference]:
    """Write all formats and their description into a folder, and verify the formats."""
    threads = choose_threads(config.training.threads)
    start_backend(threads=threads, seed=config.seed, precision=Precision.float32)
    from melanoma_lab.inference.export.serving_signature import (
        build_serving_network,
        convert_to_float32,
    )
    from melanoma_lab.inference.network import (
        build_predict_function,
        count_classes,
        image_size,
        load_classifier,
    )

    loaded = load_classifier(source.network)
    card = resolve_model_info(source, count_classes(loaded))
    prediction_messages.show_source(source, card)
    network = convert_to_float32(loaded)
    served = build_serving_network(network, source.network)
    size = image_size(network)
    sample = choose_sample(config.images, run, size=size, resize=card.resize, threads=threads)
    inputs = build_verification_inputs(sample.pixels, card.encoding, network)
    expected = _predict(build_predict_function(network), inputs, network)
    if network is not loaded:
        mixed = np.abs(_predict(build_predict_function(loaded), inputs, loaded) - expected).max()
        console.print(
            f"  It was trained in mixed precision and is exported in float32, which changes its "
            f"probabilities by {mixed:.1e} at most.",
            style="yellow",
            markup=False,
        )
    console.print(f"verified on {sample.told}", markup=False)
    parities = {}
    for kind in kinds:
        path = formats.write_format(kind, served, folder)
        parities[kind] = _verify(kind, path, inputs, expected)
    text = format_description(
        card,
        size=size,
        run_id=source.run or (run.run_id if run else None),
        advice=source.advice,
        sample=sample,
        parities=parities,
        versions={name: version(name) for name in ("tensorflow", "keras")},
    )
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return parities


def _predict(predict: Any, inputs: Mapping[str, Any], network: Any) -> Any:
    """Return a Keras network's probabilities; float32, shape (n, n_classes).

    The network gets a dictionary if it has named inputs, else the pixels alone.
    """
    several = get_named_inputs(network) is not None
    return np.concatenate([predict(p if several else p[PIXELS]) for p in split_batches(inputs)])


def _verify(kind: Format, path: Path, inputs: Any, expected: Any) -> OutputDifference:
    """Compare a written file's outputs with the network's, and print the difference.

    Raises:
        RunError: they differ too much, or the format's runtime cannot use the file.
    """
    try:
        parity = compare_outputs(formats.open_runtime(kind, path), inputs, expected)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # runtimes raise exceptions of any type
        raise RunError(
            f"formats={kind}: the written file cannot be used ({type(error).__name__}: "
            f"{truncate(str(error).strip(), 300)}). Nothing was exported."
        ) from error
    difference = f"{kind}: greatest difference of a probability {parity.greatest:.1e}"
    if parity.greatest > LIMIT:
        raise RunError(
            f"{difference}, more than {LIMIT:g}, and another class for {parity.other_class} of "
            f"{len(expected)} images: the exported file disagrees with the network. Nothing was "
            "exported."
        )
    size = _measure_bytes(path)
    console.print(f"  {difference}  ({size / 2**20:.1f} MiB)", markup=False)
    return parity


def _measure_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _add_card(run: TrackedRun, folder: Path) -> None:
    """Write the run's model card into the export, or say why the run's data do not suffice."""
    try:
        write_tracked_run_card(run, folder)
    except UserError as error:
        console.print(f"  No model card: {error}", style="yellow", markup=False)
