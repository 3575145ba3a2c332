"""The description of exported files (``model.json``): all that is needed to use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from melanoma_lab.config.schema import Format
from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.core.untrusted_files import parse_json
from melanoma_lab.core.version import __version__
from melanoma_lab.evaluation.decision_rule import DecisionRule, dump_strict_json
from melanoma_lab.inference.export.formats import EXPORT_BACKENDS, PROBABILITIES
from melanoma_lab.inference.export.verification import LIMIT, OutputDifference, VerificationSample
from melanoma_lab.input_pipeline.batches import PIXELS
from melanoma_lab.tracking.model_info import NOTICE, ModelInfo

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


def format_description(
    card: ModelInfo,
    *,
    size: int,
    run_id: str | None,
    advice: DecisionRule | None,
    sample: VerificationSample,
    parities: Mapping[Format, OutputDifference],
    versions: Mapping[str, str],
) -> str:
    """Format the text of ``model.json``.

    Args:
        card: the description of the network's inputs and outputs.
        size: the height and width of the input images, in pixels.
        run_id: the MLflow id of the run that trained the network; None if unknown.
        advice: the decision rule chosen on val; None if there is none.
        sample: the images with which the files were verified.
        parities: format -> difference of its outputs from the network's.
        versions: distribution -> version, of the packages that wrote the files.
    """
    content = {
        "notice": NOTICE,
        "files": {kind.value: EXPORT_BACKENDS[kind].file for kind in parities},
        "inputs": {
            PIXELS: {
                "dtype": "uint8",
                "shape": [None, size, size, 3],
                "values": "0 to 255; scaling is inside the model",
                "decoding": DECODING,
                "resizing": _describe_resizing(card.resize),
            }
        }
        | {name: _describe_column(column) for name, column in (card.encoding or {}).items()},
        "outputs": {
            PROBABILITIES: {
                "dtype": "float32",
                "shape": [None, len(card.slugs)],
                "classes": list(card.classes or card.slugs),
                "slugs": list(card.slugs),
            }
        },
        "positive_class": card.positive_class,
        "calibration": _describe_calibration(advice),
        "operating_point": _describe_operating_point(advice),
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
        "exported": {"melanoma_lab": __version__, **versions},
    }
    return dump_strict_json(content)


def is_description(text: str) -> bool:
    """Return whether a text was written by ``format_description``."""
    try:
        content = parse_json(text)
    except ValueError:
        return False
    return isinstance(content, dict) and {"notice", "files", "parity"} <= set(content)


def _describe_resizing(resize: Resize) -> str:
    """Describe how a decoded photograph is resized to the network's input."""
    proportions, call = RESIZING[resize]
    return (
        f"to the input's height and width, {proportions}; bilinear with the support widened when "
        f"shrinking (Pillow: {call}); of a JPEG, draft('RGB', (2 * width, 2 * height)) came before"
    )


def _describe_column(column: Any) -> dict[str, Any]:
    """Describe the input of a metadata column; its shape is (n, 1)."""
    if isinstance(column, dict) and "values" in column:
        meaning = "a place in values, counted from 0; -1: not known"
        return {"dtype": "int32", "shape": [None, 1], "means": meaning, "values": column["values"]}
    return {"dtype": "float32", "shape": [None, 1], "means": "years; below 0: not known"}


def _describe_calibration(advice: DecisionRule | None) -> dict[str, Any] | None:
    if advice is None:
        return None
    fitted = advice.temperature
    return {
        "temperature": fitted.value,
        "apply": "softmax(log(max(probabilities, 1.2e-38)) / temperature)",
        "fitted_to_validation_images": fitted.n,
        "why_not": fitted.why_not or None,
    }


def _describe_operating_point(advice: DecisionRule | None) -> dict[str, Any] | None:
    if advice is None or not advice.slug:
        return None
    return {
        "class": advice.slug,
        "threshold": advice.threshold,
        "of": "the calibrated probability",
        "target_sensitivity_on_validation": advice.target,
    }
