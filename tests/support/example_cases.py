"""A run's predictions with everything that its examples show, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_lab.evaluation import predictions
from melanoma_lab.evaluation.evaluated_run import evaluate_run
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.reports.error_analysis import write_error_analysis
from melanoma_lab.reports.explained_images import ImageExplainer

SLUGS = ("melanoma", "nevus", "vascular_lesion")
SIDE = 24


def table_of(n: int = 90, seed: int = 0, splits: tuple[str, ...] = ("val", "test")) -> pd.DataFrame:
    """n images a split, two of a lesion, a third of them decided wrongly."""
    rng = np.random.default_rng(seed)
    labels = np.tile(rng.integers(len(SLUGS), size=n), len(splits))
    logits = rng.normal(size=(len(labels), len(SLUGS))) + 1.2 * np.eye(len(SLUGS))[labels]
    powers = np.exp(logits)
    names = [split for split in splits for _ in range(n)]
    ids = [f"{SLUGS[label]}/{split}-{i}.jpg"
           for i, (split, label) in enumerate(zip(names, labels, strict=True))]  # fmt: skip
    return predictions.build_predictions(
        image_ids=ids,
        groups=[f"{split}-{i // 2}" for i, split in enumerate(names)],
        splits=names,
        labels=labels,
        probabilities=powers / powers.sum(axis=1, keepdims=True),
        slugs=SLUGS,
    ).table


def manifest_of(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """With a picture file for every image, wider than high, and what is known of half of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = []
    for i in range(len(table)):
        paths.append(str(folder / f"{i}.png"))
        pixels = rng.integers(0, 255, (12, 18, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((180, 120)).save(paths[-1])
    known = np.arange(len(table)) % 2 == 0
    return table[["image_id", "group", "split"]].assign(
        path=paths,
        label=table["y_true"],
        lesion=np.where(known, "L" + table["group"], ""),
        age=np.where(known, 55.0, np.nan),
        sex=np.where(known, "female", ""),
        site=np.where(known, "lower extremity", "unknown"),
        source=np.where(known, "rosendahl", ""),
    )


def explain(manifest: pd.DataFrame, *, at: Any = None, maps: bool = True) -> ImageExplainer:
    """Squares of what the files show; a network that looks at a spot."""
    path = manifest.set_index("image_id")["path"]

    def pixels(ids):
        return np.stack([np.asarray(Image.open(path[one]).resize((SIDE, SIDE))) for one in ids])

    def heat(ids, pixels, classes):
        if at is not None:
            at.update(zip(ids, classes, strict=True))
        y, x = np.mgrid[:SIDE, :SIDE]
        spot = np.exp(-((x - 8) ** 2 + (y - 14) ** 2) / 30).astype(np.float32)
        return np.stack([spot] * len(pixels))

    return ImageExplainer(pixels, heat, lambda: (3, 3)) if maps else ImageExplainer(pixels)


def write(folder: Path, **given: Any) -> Path:
    """Write a run's examples with what is given for the usual; returns the page."""
    table = given.pop("table", None)
    table = table_of() if table is None else table
    manifest = given.pop("manifest", None)
    manifest = manifest_of(table, folder / "images") if manifest is None else manifest
    run = evaluate_run(
        {},
        Predictions(table),
        manifest,
        audit=given.pop("audit", None),
        positive_class=given.pop("positive_class", "melanoma"),
        sensitivity=0.9,
        costs={},
    )
    explainer = given.pop("explainer") if "explainer" in given else explain(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    write_error_analysis(folder, run, name="dropout seed 0", explainer=explainer, **given)
    return folder / "mistakes.html"
