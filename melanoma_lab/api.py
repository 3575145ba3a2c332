"""Python interface to the commands, with the same overrides as on the command line.

The package exports these names: ``import melanoma_lab as lab``. The functions never exit the
process, do not install signal handlers, and restore the state of Hydra and MLflow. A mistake of the
user raises ``UserError`` and a failure ``RunError``. Paths are relative to the current folder.
TensorFlow's state is global, so that calls from several threads wait for each other.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_lab.cli import multirun
from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import check_jobs_distinct
from melanoma_lab.config.compose import compose_config, expand_multirun
from melanoma_lab.config.schema.tracking import TRACKING_URI_VARIABLE, Tracking
from melanoma_lab.core.console import console
from melanoma_lab.core.errors import UserError
from melanoma_lab.tracking.client import set_tracking_uri

if TYPE_CHECKING:  # these modules load slowly
    import pandas as pd

    from melanoma_lab.audit.findings import Findings
    from melanoma_lab.comparison.study_report import ComparedStudy
    from melanoma_lab.inference.export.export_network import ExportResult
    from melanoma_lab.tuning.sweep import TuningResult

_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        run_id: id of the run in MLflow.
        arm: name of the run's arm; for an evaluation, that of its model.
        seed: seed of the run; for an evaluation, that of its model.
        metrics: metrics by name, such as ``test/balanced_accuracy``; NaN if undefined.
        params: resolved configuration by dotted keys.
        tags: MLflow tags of the run.
        uri: absolute tracking URI of MLflow.
    """

    run_id: str
    arm: str
    study: str
    seed: int
    metrics: Mapping[str, float] = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    tags: Mapping[str, str] = field(repr=False)
    uri: str = field(repr=False)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Table of all images' probabilities: image_id, group, split, y_true, ``prob/<class>``."""
        from melanoma_lab.evaluation.predictions import Predictions

        return Predictions.read(self.artifact("predictions.csv")).table

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Table of all images, with path, label, group, source, split and digests."""
        import pandas as pd

        from melanoma_lab.data.tables import MAX_MANIFEST_BYTES, check_table

        path = self.artifact("manifest.csv")
        check_table(path, MAX_MANIFEST_BYTES)
        return pd.read_csv(path, keep_default_na=False)

    def artifact(self, name: str) -> Path:
        """Return the local path of an artifact of the run; download it first if necessary.

        Args:
            name: path of the artifact, such as ``"plots/confusion_matrix.png"``,
                ``"config.yaml"`` or ``"plots"``.
        """
        import mlflow

        return Path(mlflow.MlflowClient(self.uri).download_artifacts(self.run_id, name))


def train(*overrides: str, config_dir: str | Path | None = None, verbose: bool = True) -> Run:
    """Train, evaluate and track one run, as ``python -m melanoma_lab OVERRIDES`` does.

    Args:
        *overrides: overrides as on the command line: ``"+experiment=dropout", "seed=1"``.
        config_dir: folder of your own presets and options.
        verbose: whether to print the same output as the command.

    Raises:
        UserError: an override or the data cannot be used; no run was recorded.
        RunError: the run failed, and was recorded as failed.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32")
        >>> run = lab.train("+experiment=majority", *tiny, verbose=False)
        >>> round(run.metrics["test/balanced_accuracy"], 3)  # one of nine classes
        0.111
        >>> sorted(run.predictions["split"].unique())
        ['test', 'train', 'val']
    """
    with _exclusive_call(verbose):
        if len(expand_multirun(overrides)) > 1:
            raise UserError(f"{' '.join(overrides)}: several runs; study(...) trains them all.")
        config, arm = compose_config([*overrides, "task=train"], config_dir)
        with _preserve_mlflow():
            return _read_run(train_arm(config, arm))


def study(
    *overrides: str, config_dir: str | Path | None = None, verbose: bool = True
) -> ComparedStudy:
    """Train every combination of the listed values and compare the arms, as ``-m`` does.

    Finished runs are not trained again, and a failed run does not stop the others.

    Args:
        *overrides: overrides as on the command line: ``"+experiment=baseline,dropout",
            "seed=0,1,2"``.
        config_dir: folder of your own presets and options.
        verbose: whether to print the same output as the command.

    Returns:
        The comparison of the study, with all its finished runs, including those of earlier calls.

    Raises:
        UserError: an override or the data cannot be used, or the runs cannot be compared.
        RunError: some runs failed, which the message names; the others were trained and compared.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32", "study=example")
        >>> arms = "+experiment=majority,source_only"
        >>> result = lab.study(arms, "seed=0,1", *tiny, verbose=False)
        >>> result.arms.query("metric == 'accuracy'")["n_runs"].tolist()
        [2, 2]
        >>> result.report.name
        'report.html'
    """
    with _exclusive_call(verbose):
        job_overrides = expand_multirun(overrides)
        check_jobs_distinct(job_overrides)
        jobs = [compose_config([*job, "task=train"], config_dir) for job in job_overrides]
        studies = {(config.study, config.tracking.uri, config.metric) for config, _ in jobs}
        if len(studies) > 1:
            raise UserError("study, metric and tracking.uri: expected one of each in a study.")
        statuses = []
        with _preserve_mlflow():
            for number, (config, arm) in enumerate(jobs):
                with multirun.catch_failures() as result:
                    train_arm(config, arm, skip_finished=True)
                statuses.append(multirun.build_job_status(config, arm, number, result))
            return multirun.finish_multirun(statuses)[0]


def tune(
    *overrides: str, config_dir: str | Path | None = None, verbose: bool = True
) -> TuningResult:
    """Search better hyperparameters for one arm, as ``tune`` does, without using the test split.

    Args:
        *overrides: overrides as on the command line: ``"+experiment=dropout", "tuner=hyperband"``.
        config_dir: folder of your own presets and options.
        verbose: whether to print the same output as the command.

    Returns:
        The result: the best values, the file of the preset, the report and all trials.

    Raises:
        UserError: an override, the search space or the data cannot be used; no run was recorded.
        RunError: too many trials failed in a row, or none completed.
    """
    from melanoma_lab.tuning.plan import plan_search
    from melanoma_lab.tuning.space_validation import TuneCommand

    with _exclusive_call(verbose):
        if len(expand_multirun(overrides)) > 1:
            raise UserError(f"{' '.join(overrides)}: several searches; one at a time.")
        config, arm = compose_config([*overrides, "task=tune"], config_dir)
        plan = plan_search(config, arm, TuneCommand.from_overrides(overrides, config_dir))
        from melanoma_lab.tuning.tune import tune_arm

        with _preserve_mlflow():
            return tune_arm(plan)


def compare(
    study: str = "ablation",
    *,
    reference: str | None = None,
    metric: str = "balanced_accuracy",
    tracking_uri: str | None = None,
    verbose: bool = True,
) -> ComparedStudy:
    """Compare the arms of a study from its tracked runs, as ``compare`` does, without training.

    In MLflow the runs then belong to a parent run, which stands for the study and has the report.

    Args:
        study: name of the study.
        reference: arm to compare all others with; None: each arm's own reference.
        metric: metric of the verdicts.
        tracking_uri: tracking URI of the runs; None: ``mlflow.db`` in the current folder.
        verbose: whether to print the same output as the command.

    Returns:
        The comparison of the study; its report is in ``experiments/<study>/``.

    Raises:
        UserError: the study, arm or metric does not exist, or the runs cannot be compared.
    """
    from melanoma_lab.comparison.study_report import report_study

    with _exclusive_call(verbose), _preserve_mlflow():
        return report_study(
            study,
            reference=reference,
            metric=metric,
            tracked=Tracking(uri=tracking_uri or ""),
            folder=Path("experiments"),
        )


def ensemble(
    study: str = "ablation",
    *,
    arm: str | None = None,
    members: int | None = None,
    tracking_uri: str | None = None,
    model: bool = True,
    verbose: bool = True,
) -> list[Run]:
    """Build ensembles from the finished runs of an arm, as ``ensemble`` does, without training.

    Args:
        study: name of the study.
        arm: name of the arm, short as ``compare`` shows it or in full; None: the only arm of the
            study.
        members: number of seeds in each ensemble; None: one ensemble of all seeds.
        tracking_uri: tracking URI of the runs; None: ``mlflow.db`` in the current folder.
        model: whether to save the members' networks as one model, if the members have saved theirs.
        verbose: whether to print the same output as the command.

    Returns:
        The ensembles, as runs of the study that ``compare`` includes. Existing ensembles are not
        built again.

    Raises:
        UserError: the study or arm does not exist, or its runs cannot form an ensemble.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32", "study=together")
        >>> result = lab.study("+experiment=colour_histogram", "seed=0,1", *tiny, verbose=False)
        >>> (both,) = lab.ensemble("together", verbose=False)
        >>> both.arm.endswith(",ensemble=2"), both.tags["members"]
        (True, '0,1')
    """
    from melanoma_lab.inference.ensembles.build_ensembles import make_ensembles

    with _exclusive_call(verbose), _preserve_mlflow():
        tracked = Tracking(uri=tracking_uri or "", model=model)
        return [
            _read_run(run_id)
            for run_id in make_ensembles(study, arm=arm, size=members, tracked=tracked)
        ]


def predict(
    model: str | Path | Run,
    images: str | Path,
    *,
    batch_size: int | None = None,
    grad_cam: str | Path | None = None,
    tracking_uri: str | None = None,
    verbose: bool = True,
) -> pd.DataFrame:
    """Predict images with a saved network, as ``predict`` does. Research use only: no diagnosis.

    Args:
        model: a run or its id, a model's folder or ``.keras`` file, or ``models:/name/version``.
        images: folder, file, or pattern such as ``"DIR/*.jpg"``.
        batch_size: number of images in a batch; None: 32.
        grad_cam: folder to write each image with its Grad-CAM heat map to; None: no heat maps.
        tracking_uri: tracking URI of the model's run; None: that of the given run, or ``mlflow.db``
            in the current folder.
        verbose: whether to print the same output as the command.

    Returns:
        Table with a row for each image and the columns image_id, predicted, probability,
        ``prob/<class>`` and ``seen``: the image's split in the model's run, ``no`` if it is not an
        image of that run, or ``not known`` if the run is not available. ``attrs["unreadable"]``
        maps the image_id of each unreadable image to the reason.

    Raises:
        UserError: the model or the images cannot be used.
        RunError: none of the images can be read.
    """
    overrides = ["task=predict"]
    overrides += [] if batch_size is None else [f"training.batch_size={batch_size}"]
    name, tracked = _resolve_model(model, tracking_uri)
    with _exclusive_call(verbose), _preserve_mlflow():
        config, _ = compose_config(overrides)
        from melanoma_lab.inference.predict import predict_table

        return predict_table(
            replace(
                config,
                model=name,
                images=str(images),
                grad_cam=None if grad_cam is None else str(grad_cam),
                tracking=tracked,
            )
        )


def evaluate(
    model: str | Path | Run,
    *overrides: str,
    config_dir: str | Path | None = None,
    verbose: bool = True,
) -> Run:
    """Evaluate a saved network on another dataset, as ``evaluate`` does, without training.

    Images that show the same lesions as the network's training images are left out of all metrics,
    unless the configuration includes them.

    Args:
        model: a run or its id, a model's folder, or ``models:/name/version``.
        *overrides: overrides as on the command line: ``"dataset=isic9_verified",
            "dataset.root=isic9"``, ``"mapping=isic9_to_ham10000"``.
        config_dir: folder of your own presets and options.
        verbose: whether to print the same output as the command.

    Returns:
        The evaluation as a run without an arm, which no comparison includes: its ``arm`` and
        ``seed`` are those of the model. Its ``test`` metrics are for the images that the network
        has not seen.

    Raises:
        UserError: the model or the dataset cannot be used, or their classes do not match.
    """
    name, _ = _resolve_model(model, None)
    with _exclusive_call(verbose), _preserve_mlflow():
        config, _ = compose_config([*overrides, "task=evaluate"], config_dir)
        tracked = config.tracking
        if isinstance(model, Run) and not any(
            "tracking.uri=" in override for override in overrides
        ):
            tracked = replace(tracked, uri=model.uri)
        from melanoma_lab.inference.external_validation.evaluate import evaluate_model

        return _read_run(evaluate_model(replace(config, model=name, tracking=tracked)))


def export(
    model: str | Path | Run,
    output: str | Path,
    *,
    formats: Sequence[str] = ("saved_model",),
    images: str | Path | None = None,
    tracking_uri: str | None = None,
    verbose: bool = True,
) -> ExportResult:
    """Export a saved network to other formats, as ``export`` does.

    Args:
        model: a run or its id, a model's folder or ``.keras`` file, or ``models:/name/version``.
        output: folder to write, which does not exist or contains an earlier export.
        formats: any of ``"saved_model"``, ``"onnx"`` and ``"litert"``.
        images: folder, file or pattern of images on which each exported file is compared with the
            network; None: the test images of the network's run.
        tracking_uri: tracking URI of the model's run; None: that of the given run, or ``mlflow.db``
            in the current folder.
        verbose: whether to print the same output as the command.

    Returns:
        The exported files, and for each the largest difference from the network's probabilities.

    Raises:
        UserError: the model, the images or the output cannot be used, or a package is missing.
        RunError: the outputs of an exported file differ from the network's; the file is deleted.
    """
    name, tracked = _resolve_model(model, tracking_uri)
    with _exclusive_call(verbose), _preserve_mlflow():
        config, _ = compose_config(["task=export", f"formats=[{','.join(formats)}]"])
        from melanoma_lab.inference.export.export_network import export_network

        return export_network(
            replace(
                config,
                model=name,
                output=str(output),
                images=None if images is None else str(images),
                tracking=tracked,
            )
        )


def audit_dataset(*overrides: str, verbose: bool = True) -> Findings:
    """Find problems in a folder of images, as ``audit`` does.

    Args:
        *overrides: overrides as on the command line: ``"dataset=isic9", "dataset.root=DIR"``.
        verbose: whether to print the same output as the command.

    Returns:
        The findings; ``audit.html`` and ``audit.json`` are in ``experiments/audit-<dataset>/``.

    Raises:
        UserError: the dataset cannot be read.
        RunError: there is a leak and ``audit.strict=true`` is configured.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32")
        >>> findings = lab.audit_dataset(*tiny, verbose=False)
        >>> findings.n_images, len(findings.label_conflicts)
        (206, 0)
    """
    with _exclusive_call(verbose):
        config, _ = compose_config([*overrides, "task=audit"])
        from melanoma_lab.commands.audit import audit_dataset as audit

        return audit(config)


def _resolve_model(model: str | Path | Run, tracking_uri: str | None) -> tuple[str, Tracking]:
    """Return the value of ``model=`` for a model, and where its run is tracked."""
    if isinstance(model, Run):
        return model.run_id, Tracking(uri=tracking_uri or model.uri)
    return str(model), Tracking(uri=tracking_uri or "")


@contextmanager
def _exclusive_call(verbose: bool) -> Iterator[None]:
    """Run one call at a time in this context, with or without its output."""
    with _ONE_AT_A_TIME:
        before = console.quiet
        console.quiet = not verbose
        try:
            yield
        finally:
            console.quiet = before


@contextmanager
def _preserve_mlflow() -> Iterator[None]:
    """Restore the caller's tracking URI after this context; refuse an active run of the caller."""
    if "mlflow" in sys.modules and sys.modules["mlflow"].active_run() is not None:
        raise UserError("an MLflow run is active: end it first (mlflow.end_run()).")
    before = os.environ.get(TRACKING_URI_VARIABLE)
    if "mlflow" in sys.modules and sys.modules["mlflow"].is_tracking_uri_set():
        before = sys.modules["mlflow"].get_tracking_uri()
    try:
        yield
    finally:
        if "mlflow" in sys.modules:
            set_tracking_uri(before)


def _read_run(run_id: str) -> Run:
    """Read a run that was just recorded from MLflow."""
    import mlflow

    recorded: Any = mlflow.get_run(run_id)
    tags = dict(recorded.data.tags)
    return Run(
        run_id=run_id,
        arm=tags.get("arm") or tags.get("evaluated_arm", ""),
        study=tags["study"],
        seed=int(tags.get("seed") or tags.get("evaluated_seed", 0)),
        metrics=dict(recorded.data.metrics),
        params=dict(recorded.data.params),
        tags=tags,
        uri=mlflow.get_tracking_uri(),
    )
