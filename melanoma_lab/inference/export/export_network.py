"""Export a network in other programs' formats, verify the outputs, and describe the files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from melanoma_lab.config.schema import Config, Format
from melanoma_lab.config.schema.data import Resize
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.console import console, show_note
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.files import write_folder_atomically
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.untrusted_files import parse_json, read_text
from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.decision_rule import DecisionRule, dump_strict_json
from melanoma_lab.inference import prediction_messages
from melanoma_lab.inference.export import formats
from melanoma_lab.inference.export.verification import (
    LIMIT,
    OutputDifference,
    VerificationSample,
    build_verification_inputs,
    choose_sample,
    compare_outputs,
    split_batches,
)
from melanoma_lab.inference.known_images import read_training_run
from melanoma_lab.inference.model_source import (
    MAX_DESCRIPTION_BYTES,
    ModelSource,
    find_model,
    resolve_model_info,
)
from melanoma_lab.input_pipeline.batches import PIXELS, get_named_inputs
from melanoma_lab.reports.model_card import PAGES, write_tracked_run_card
from melanoma_lab.tracking.logged_model import NOTICE, ModelInfo
from melanoma_lab.tracking.run_reader import TrackedRun
from melanoma_lab.training.hardware import choose_threads, start_backend

DEFAULT_FOLDER: Final = "exported"
DESCRIPTION_FILE: Final = "model.json"
DECODING: Final = (
    "RGB; the camera's orientation (EXIF) applied; the first frame; 16 bits scaled to 8; "
    "transparency laid on white; colour profiles not applied"
)
#: How each option treats an image's proportions, in words and as a call of Pillow.
RESIZING: Final = {
    Resize.squash: (
        "not keeping proportions",
        "image.resize((width, height), Image.Resampling.BILINEAR)",
    ),
    Resize.crop: (
        "keeping proportions, the middle of the longer side",
        "ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)",
    ),
    Resize.pad: (
        "keeping proportions, with black on both sides of the shorter one",
        "ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color=0)",
    ),
}


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

    The keys ``model``, ``formats``, ``output`` and ``images`` say what to export.

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
                try:
                    write_tracked_run_card(run, partial)
                except UserError as error:  # the run's data do not suffice
                    show_note(f"  No model card: {error}")
    files = ", ".join(sorted(entry.name for entry in output.iterdir()))
    console.print(f"written to {output}: {files}", markup=False)
    prediction_messages.show_notice()
    return ExportResult(
        output,
        {kind.value: output / formats.EXPORT_BACKENDS[kind].file for kind in kinds},
        {kind.value: parity.greatest for kind, parity in parities.items()},
    )


def check_output_folder(typed: str | None) -> Path:
    """Return the folder that ``output`` names, or the default; an earlier export will be replaced.

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
        content = parse_json(read_text(path, MAX_DESCRIPTION_BYTES)) if path.is_file() else None
    except (UserError, ValueError):
        return False
    return isinstance(content, dict) and {"notice", "files", "parity"} <= set(content)


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
        show_note(
            "  It was trained in mixed precision and is exported in float32, which changes its "
            f"probabilities by {mixed:.1e} at most."
        )
    console.print(f"verified on {sample.told}", markup=False)
    parities = {}
    for kind in kinds:
        path = formats.write_format(kind, served, folder)
        parities[kind] = _verify(kind, path, inputs, expected)
    text = _format_description(
        card,
        size=size,
        run_id=source.run or (run.run_id if run else None),
        advice=source.advice,
        sample=sample,
        parities=parities,
    )
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return parities


def _predict(predict: Any, inputs: Mapping[str, Any], network: Any) -> Any:
    """Return a Keras network's probabilities; float32, shape (n, n_classes)."""
    several = get_named_inputs(network) is not None
    return np.concatenate([predict(p if several else p[PIXELS]) for p in split_batches(inputs)])


def _verify(kind: Format, path: Path, inputs: Any, expected: Any) -> OutputDifference:
    """Compare a written file's outputs with the network's, and print the difference."""
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
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    console.print(f"  {difference}  ({size / 2**20:.1f} MiB)", markup=False)
    return parity


def _format_description(
    card: ModelInfo,
    *,
    size: int,
    run_id: str | None,
    advice: DecisionRule | None,
    sample: VerificationSample,
    parities: Mapping[Format, OutputDifference],
) -> str:
    """Format the text of ``model.json``; the input images have ``size`` pixels on each side."""
    calibration = point = None
    if advice is not None:
        calibration = {
            "temperature": advice.temperature.value,
            "apply": "softmax(log(max(probabilities, 1.2e-38)) / temperature)",
            "fitted_to_validation_images": advice.temperature.n,
            "why_not": advice.temperature.why_not or None,
        }
    if advice is not None and advice.slug:
        point = {
            "class": advice.slug,
            "threshold": advice.threshold,
            "of": "the calibrated probability",
            "target_sensitivity_on_validation": advice.target,
        }
    proportions, call = RESIZING[card.resize]
    content = {
        "notice": NOTICE,
        "files": {kind.value: formats.EXPORT_BACKENDS[kind].file for kind in parities},
        "inputs": {
            PIXELS: {
                "dtype": "uint8",
                "shape": [None, size, size, 3],
                "values": "0 to 255; scaling is inside the model",
                "decoding": DECODING,
                "resizing": (
                    f"to the input's height and width, {proportions}; bilinear with the support "
                    f"widened when shrinking (Pillow: {call}); of a JPEG, draft('RGB', (2 * width, "
                    "2 * height)) came before"
                ),
            }
        }
        | {name: _describe_column(column) for name, column in (card.encoding or {}).items()},
        "outputs": {
            formats.PROBABILITIES: {
                "dtype": "float32",
                "shape": [None, len(card.slugs)],
                "classes": list(card.classes or card.slugs),
                "slugs": list(card.slugs),
            }
        },
        "positive_class": card.positive_class,
        "calibration": calibration,
        "operating_point": point,
        "parity": {
            "with": "the network in Keras, in float32",
            "images": sample.told,
            "limit": LIMIT,
            "greatest_difference_of_a_probability": {
                kind.value: parity.greatest for kind, parity in parities.items()
            },
        },
        "trained": {
            "run_id": run_id,
            "dataset": card.dataset or None,
            "melanoma_lab": card.version,
        },
        "exported": {
            "melanoma_lab": __version__,
            **{name: version(name) for name in ("tensorflow", "keras")},
        },
    }
    return dump_strict_json(content)


def _describe_column(column: Any) -> dict[str, Any]:
    """Describe the input of a metadata column; its shape is (n, 1)."""
    if isinstance(column, dict) and "values" in column:
        meaning = "a place in values, counted from 0; -1: not known"
        return {"dtype": "int32", "shape": [None, 1], "means": meaning, "values": column["values"]}
    return {"dtype": "float32", "shape": [None, 1], "means": "years; below 0: not known"}
