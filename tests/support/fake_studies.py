"""Studies made of drawn predictions, tracked in a real MLflow database; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import numpy as np
from mlflow.entities import Metric, Param

from melanoma_lab.comparison.study import Study, load_study
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.evaluation import predictions
from melanoma_lab.evaluation.evaluated_run import compare_with_chance
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.tracking.client import connect_for_reading

SLUGS = ("melanoma", "nevus", "keratosis", "vascular_lesion")
LESIONS = (10, 40, 20, 10)
PICTURES = 2


def draw_table(skill: float, *, seed: int, fold: int = 0, arm: str = "", n: int = 1):
    """Predictions of lesions with two pictures each: train, val and test by turns of the lesion."""
    data = np.random.default_rng(fold)
    y = np.tile(np.repeat(np.arange(len(SLUGS)), np.multiply(LESIONS, PICTURES)), 3 * n)
    lesion = np.arange(len(y)) // PICTURES
    split = np.repeat(["train", "val", "test"], len(y) // 3)
    difficulty = data.normal(size=(lesion.max() + 1, len(SLUGS)))[lesion]
    own = np.random.default_rng([seed, fold, *arm.encode()])
    scores = (skill + own.normal(scale=0.1)) * np.eye(len(SLUGS))[y] + difficulty
    scores += own.normal(scale=0.4, size=scores.shape) + (split == "train")[:, None] * np.eye(4)[y]
    scores = np.exp(scores)
    return predictions.build_predictions(
        image_ids=[f"{fold}/{i:05}.jpg" for i in range(len(y))],
        groups=[f"lesion {fold}-{i:04}" for i in lesion],
        splits=list(split),
        labels=y,
        probabilities=scores / scores.sum(axis=1, keepdims=True),
        slugs=SLUGS,
    ).table


class Tracked:
    """An MLflow database to which finished runs are added by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tracking = Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.set_tracking_uri(self.tracking.uri)
        self.client = mlflow.MlflowClient()
        self._names = 0

    def study(self) -> str:
        """Make a new, empty study."""
        self._names += 1
        name = f"study-{self._names}"
        self.client.create_experiment(name, str(self.folder / "mlruns" / name))
        return name

    def add(
        self,
        study: str,
        arm: str,
        seed: int,
        *,
        skill: float = 1.0,
        fold: int = 0,
        status: str = "FINISHED",
        table: Any = None,
        steps: int = 300,
        **tags: str,
    ) -> str:
        """Add a run; returns its id."""
        experiment = self.client.get_experiment_by_name(study).experiment_id
        if table is None:
            table = draw_table(skill, seed=seed, fold=fold, arm=arm)
        run = self.client.create_run(
            experiment,
            run_name=f"{arm} seed={seed}",
            tags={
                "study": study,
                "experiment": arm.partition(",")[0],
                "arm": arm,
                "reference": "",
                "seed": str(seed),
                "fold": str(fold),
                "fingerprint": f"{arm} {seed} {fold}",
                "split_hash": f"split {fold}",
                "dataset_digest": "data",
                "protocol": "grouped",
                "notes": "",
                "git_commit": "0" * 40,
                "outcome": compare_with_chance(Predictions(table)).verdict,
                **tags,
            },
        )
        folder = Path(urlparse(run.info.artifact_uri).path)
        folder.mkdir(parents=True)
        Predictions(table).write(folder / "predictions.csv")
        dataset = "{name: synthetic, root: null, positive_class: melanoma}"
        config = f"seed: {seed}\ndataset: {dataset}\n"
        (folder / "config.yaml").write_text(config)
        table[["image_id", "split"]].to_csv(folder / "manifest.csv", index=False)
        figures = {"fit_seconds": 12.5 + seed, "optimizer_steps": steps, "parameters": 1234}
        metrics = [Metric(name, value, 0, 0) for name, value in figures.items()]
        for epoch in (1, 2, 3):
            for name, value in (("train_accuracy", 0.3), ("val_accuracy", 0.25)):
                metrics.append(Metric(f"epoch/{name}", value * epoch + seed / 50, epoch, epoch))
            metrics.append(Metric("epoch/images_per_second", 100.0, epoch, epoch))
        params = [Param("dataset.positive_class", "melanoma"), Param("dataset.name", "synthetic")]
        self.client.log_batch(run.info.run_id, metrics=metrics, params=params)
        self.client.set_terminated(run.info.run_id, status)
        return str(run.info.run_id)

    def fill(
        self,
        arms: dict[str, tuple[float, str]],
        seeds: Sequence[int] = (0, 1, 2),
        folds: Sequence[int] = (0,),
        **tags: str,
    ) -> str:
        """Make a study of arms, each with a skill and the reference that it names."""
        study = self.study()
        for arm, (skill, reference) in arms.items():
            for seed in seeds:
                for fold in folds:
                    self.add(study, arm, seed, fold=fold, skill=skill, reference=reference, **tags)
        return study

    def load(self, study: str) -> Study:
        """Read a study as the program does."""
        return load_study(connect_for_reading(self.tracking), study)
