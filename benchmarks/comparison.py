"""How long ``compare`` takes over many tracked runs, and whether it grows linearly.

    python benchmarks/comparison.py --runs 100 1000 --images 500

Runs are not trained: their predictions are drawn and tracked as a training would have tracked them.
Prints the seconds to read, to judge and to write the report, for each number of runs; and what the
whole task takes the first time, when it also records the study in MLflow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import numpy as np
from mlflow.entities import Metric, Param, RunTag

from melanoma_lab.comparison.compare import compare_study
from melanoma_lab.comparison.report import write_comparison_report
from melanoma_lab.comparison.study import load_study
from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.evaluation import predictions
from melanoma_lab.tracking.client import connect_for_reading

SLUGS = ("melanoma", "nevus", "keratosis", "carcinoma", "naevus_flammeus")
ARMS = 10


def track(client: mlflow.MlflowClient, folder: Path, n_runs: int, n_images: int) -> None:
    """Track a study of ten arms."""
    experiment = client.create_experiment("many", str(folder / "mlruns" / "many"))
    n = n_images * 20 // 3  # 70 / 15 / 15
    splits = np.repeat(["train", "val", "test"], [n - 2 * n_images, n_images, n_images])
    labels = np.random.default_rng(0).integers(len(SLUGS), size=n)
    for i in range(n_runs):
        arm, seed = f"arm{i % ARMS}", i // ARMS
        tags = {
            "arm": arm,
            "reference": "" if arm == "arm0" else "arm0",
            "seed": str(seed),
            "fold": "0",
            "fingerprint": str(i),
            "split_hash": "split",
            "dataset": "drawn",
            "dataset_digest": "data",
        }
        run = client.create_run(experiment)
        logits = np.random.default_rng(i).normal(size=(n, len(SLUGS))) + np.eye(len(SLUGS))[labels]
        scores = np.exp(logits)
        found = predictions.build_predictions(
            image_ids=[f"{row:06}.jpg" for row in range(n)],
            groups=[f"lesion{row // 2:06}" for row in range(n)],
            splits=list(splits),
            labels=labels,
            probabilities=scores / scores.sum(axis=1, keepdims=True),
            slugs=SLUGS,
        )
        artifacts = Path(urlparse(run.info.artifact_uri).path)
        artifacts.mkdir(parents=True)
        found.write(artifacts / "predictions.csv")
        points = [
            Metric(f"epoch/{name}", 0.5, 0, epoch)
            for name in ("train_accuracy", "val_accuracy")
            for epoch in range(1, 31)
        ]
        client.log_batch(
            run.info.run_id,
            metrics=points,
            params=[Param("dataset.positive_class", "melanoma")],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        client.set_terminated(run.info.run_id)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--images", type=int, default=500, help="test images of each run")
    arguments = parser.parse_args()
    for n_runs in arguments.runs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            tracking = Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}")
            mlflow.set_tracking_uri(tracking.uri)
            track(mlflow.MlflowClient(), folder, n_runs, arguments.images)
            times = [time.perf_counter()]
            study = load_study(connect_for_reading(tracking), "many")
            times.append(time.perf_counter())
            comparison = compare_study(study)
            times.append(time.perf_counter())
            warnings = find_warnings(study, comparison)
            write_comparison_report(folder / "many", study, comparison, warnings, again="")
            times.append(time.perf_counter())
            read, judge, write = np.diff(times)
            begin = time.perf_counter()
            report_study(
                "many",
                reference=None,
                metric="balanced_accuracy",
                tracked=tracking,
                folder=folder,
            )
            whole = time.perf_counter() - begin
            print(
                f"{n_runs} runs of {arguments.images} test images: read {read:.1f} s, "
                f"judge {judge:.1f} s, write {write:.1f} s, together {times[-1] - times[0]:.1f} s; "
                f"the whole task {whole:.1f} s"
            )


if __name__ == "__main__":
    main()
