"""Studies made of drawn predictions, in memory or in a real MLflow database; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import numpy as np
from mlflow.entities import Experiment, Metric, Param, Run, RunData, RunInfo, RunTag
from mlflow.store.entities.paged_list import PagedList

from melanoma_lab.comparison.study import Study, load_study
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.evaluation import predictions
from melanoma_lab.evaluation.evaluated_run import compare_with_chance
from melanoma_lab.evaluation.predictions import Predictions

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


def tracking_in(folder: Path) -> Tracking:
    """The configuration that tracks to the database in a folder."""
    return Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}")


class MemoryClient:
    """The methods of MLflow's client that writing and reading a study takes, in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._experiments: dict[str, Experiment] = {}
        self._runs: dict[str, Run] = {}
        self._curves: dict[tuple[str, str], list[Metric]] = {}

    def create_experiment(self, name: str, artifacts: str) -> None:
        self._experiments[name] = Experiment(name, name, artifacts, "active")

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        return self._experiments.get(name)

    def search_experiments(self) -> list[Experiment]:
        return list(self._experiments.values())

    def create_run(self, experiment: str, run_name: str, tags: Mapping[str, str]) -> Run:
        run_id = f"{len(self._runs):032x}"
        folder = self._folder / run_id
        info = RunInfo(
            *(run_id, experiment, "user", "RUNNING", len(self._runs), None, "active"),
            artifact_uri=folder.as_uri(),
            run_name=run_name,
        )
        data = RunData(tags=[RunTag(key, value) for key, value in tags.items()])
        self._runs[run_id] = Run(info, data)
        return self._runs[run_id]

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()
    ) -> None:
        data = self._runs[run_id].data
        for metric in metrics:
            data.metrics[metric.key] = metric.value
            self._curves.setdefault((run_id, metric.key), []).append(metric)
        data.params.update({param.key: param.value for param in params})

    def set_terminated(self, run_id: str, status: str) -> None:
        run = self._runs[run_id]
        fields = dict(run.info) | {"status": status, "end_time": run.info.start_time + 1}
        self._runs[run_id] = Run(RunInfo(**fields), run.data)

    def get_run(self, run_id: str) -> Run:
        return self._runs[run_id]

    def search_runs(self, experiments: Sequence[str], **_options: Any) -> PagedList[Run]:
        found = [run for run in self._runs.values() if run.info.experiment_id in experiments]
        return PagedList(found[::-1], None)

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return self._curves.get((run_id, key), [])


class FakeStudies:
    """Studies to which finished runs are added by hand.

    Attributes:
        client: where they are tracked: MLflow's client, or one in memory.
    """

    def __init__(self, folder: Path, client: mlflow.MlflowClient | MemoryClient) -> None:
        self.folder = folder
        self.client = client
        self._names = 0

    @classmethod
    def in_memory(cls, folder: Path) -> FakeStudies:
        """Hold runs in memory, and their files in ``folder``."""
        return cls(folder, MemoryClient(folder))

    @classmethod
    def in_database(cls, folder: Path) -> FakeStudies:
        """Track them in a database of MLflow in ``folder``, as the lab does."""
        mlflow.set_tracking_uri(tracking_in(folder).uri)
        return cls(folder, mlflow.MlflowClient())

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
        return load_study(self.client, study)


def make_ablation(studies: FakeStudies) -> str:
    """Make a study of four arms at four seeds: one much better, one much worse, one the same."""
    return studies.fill(
        {
            "baseline": (1.0, ""),
            "dropout": (2.0, "baseline"),
            "augmented": (1.9, "dropout"),
            "dropout_sgd": (0.7, "dropout"),
        },
        seeds=(0, 1, 2, 3),
    )
