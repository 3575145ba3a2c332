"""The model card's limitations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.core.formatting import format_count, format_percent, label_split
from melanoma_lab.evaluation.clinical_evaluation import FEW_LESIONS
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.evaluation.predictions import SplitPredictions

#: Datasets of photographs through a dermatoscope.
DERMOSCOPIC = frozenset({"isic9", "isic9_verified", "ham10000", "leaky_protocol"})
#: Losses that make rare classes look more frequent than they are.
_BALANCED_LOSSES = frozenset({"logit_adjusted"})


def describe_limitations(run: EvaluatedRun, tags: Mapping[str, str]) -> Iterator[str]:
    """Yield sentences on the limitations of a run's metrics, most serious first.

    Args:
        run: the run that the card describes.
        tags: the run's tags.
    """
    split = run.predictions.evaluated
    if tags.get("outcome") == "at_chance":
        yield "This run stayed at chance: the network does not distinguish the classes."
    if tags.get("outcome") == "diverged":
        yield "This run diverged; the weights kept are from before."
    if tags.get("protocol") == "leaking":
        yield (
            "Test lesions, or copies of their images, are in the training split: metrics are "
            "too optimistic."
        )
    if tags.get("protocol") == "ungrouped":
        yield (
            "The dataset names no lesions or patients: photographs of one lesion may be in "
            "training and in test, so metrics may be too optimistic."
        )
    if split.name != "test":
        yield (
            "It was not applied to its test split; the metrics here are of the validation "
            "split, by which its weights were chosen."
        )
    yield (
        "Not validated externally: test images are from the same dataset as the training images. "
        "Expect lower performance on images from elsewhere."
    )
    yield from _describe_images(run.manifest, tags)
    yield from _describe_prevalence(split, run.positive_class)
    yield (
        "One network: another seed gives other metrics. Intervals cover the sampling of lesions "
        "only, not of seeds."
        if "members" not in tags
        else "Its intervals cover the sampling of lesions, not the seeds of its members."
    )
    yield from _list_small_classes(split)
    if _is_balanced(run.config):
        yield (
            "It was trained as if classes were more balanced than they are, and overestimates "
            "rare ones, after calibration too: read its probabilities as a ranking."
        )
    yield (
        "It returns a class for any image, whatever the image shows. The lab's predict warns of "
        "images unlike the training images; an exported file does not."
    )


def _describe_images(manifest: pd.DataFrame, tags: Mapping[str, str]) -> Iterator[str]:
    name = tags.get("dataset", "")
    if name in DERMOSCOPIC:
        yield (
            "Dermoscopic photographs only: it was not trained on photographs taken with a phone "
            "or a camera without a dermatoscope."
        )
    elif name == "synthetic":
        yield "Trained on images that the lab generated: it has seen no real skin."
    else:
        yield "It was trained on the kind of photographs in its dataset, and on no other."
    if "source" in manifest and (manifest["source"] != "").any():
        n = manifest.loc[manifest["source"] != "", "source"].nunique()
        yield f"Its images come from {format_count(n, 'source')}; others may look different."
    else:
        yield "The dataset does not name the clinics or cameras of its images."


def _describe_prevalence(split: SplitPredictions, positive_class: str | None) -> Iterator[str]:
    if positive_class is None:
        return
    positive, _ = split.one_vs_rest(positive_class)
    share = format_percent(float(np.mean(positive)))
    yield (
        f"{share} of the {label_split(split.name)} images are of the positive class "
        f"({positive_class.replace('_', ' ')}). Predictive values and calibrated probabilities "
        "hold for this prevalence, which is not that of a clinic; and such a dataset contains "
        "only lesions that somebody chose to photograph, and often to excise."
    )


def _list_small_classes(split: SplitPredictions) -> Iterator[str]:
    n_groups = {
        slug: len(np.unique(split.groups[split.one_vs_rest(slug)[0]])) for slug in split.slugs
    }
    few = [f"{slug.replace('_', ' ')} ({n})" for slug, n in n_groups.items() if n < FEW_LESIONS]
    if few:
        name = label_split(split.name)
        yield f"Classes with few {name} lesions, whose metrics are uncertain: {', '.join(few)}."


def _is_balanced(config: Mapping[str, Any]) -> bool:
    """Return whether balancing or the loss makes rare classes look more frequent."""
    balancing = config.get("balancing", {}).get("name", "none")
    return balancing != "none" or config.get("loss", {}).get("name") in _BALANCED_LOSSES
