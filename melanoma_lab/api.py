"""The lab from Python: what the command line does, with the same overrides.

The names are those of the package: ``import melanoma_lab as lab``. Nothing here ends the process,
takes over signals or leaves Hydra or MLflow other than they were; mistakes raise ``UserError`` and
failures ``RunError``. Relative paths are relative to the current folder. TensorFlow's state is one
for the whole process, so calls from several threads wait for each other.
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

if TYPE_CHECKING:  # their modules take a while to load
    import pandas as pd

    from melanoma_lab.audit.findings import Findings
    from melanoma_lab.comparison.result import ComparedStudy
    from melanoma_lab.inference.export.export_network import ExportResult
    from melanoma_lab.tuning.result import TuningResult

_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        run_id: MLflow's.
        arm: what a study calls it; of an evaluation, its model's.
        study: the study that it belongs to.
        seed: its seed; of an evaluation, its model's.
        metrics: by name, such as ``test/balanced_accuracy``; NaN where undefined.
        params: the resolved configuration, dotted keys.
        tags: as MLflow has them.
        uri: MLflow's tracking URI, absolute.
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
        """Every image's probabilities: image_id, group, split, y_true, ``prob/<class>``."""
        from melanoma_lab.evaluation.predictions import Predictions

        return Predictions.read(self.artifact("predictions.csv")).table

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The images with path, label, group, source, split and digests."""
        import pandas as pd

        from melanoma_lab.data.untrusted_tables import MAX_MANIFEST_BYTES, check_table

        path = self.artifact("manifest.csv")
        check_table(path, MAX_MANIFEST_BYTES)
        return pd.read_csv(path, keep_default_na=False)

    def artifact(self, name: str) -> Path:
        """Where an artifact of the run lies on this machine; downloaded where it did not.

        Args:
            name: such as ``"plots/confusion_matrix.png"``, ``"config.yaml"`` or ``"plots"``.
        """
        import mlflow

        return Path(mlflow.MlflowClient(self.uri).download_artifacts(self.run_id, name))


def train(*overrides: str, config_dir: str | Path | None = None, verbose: bool = True) -> Run:
    """Train, evaluate and track one arm, as ``python -m melanoma_lab OVERRIDES`` does.

    Args:
        *overrides: as on the command line: ``"+experiment=dropout", "seed=1"``.
        config_dir: a folder of your own presets and options.
        verbose: show what the command line shows.

    Returns:
        The run, finished.

    Raises:
        UserError: an override or the data cannot be used; nothing was recorded.
        RunError: the run failed, and is recorded as such.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32")
        >>> run = lab.train("+experiment=majority", *tiny, verbose=False)
        >>> round(run.metrics["test/balanced_accuracy"], 3)  # one of nine classes
        0.111
        >>> sorted(run.predictions["split"].unique())
        ['test', 'train', 'val']
    """
    with _working(verbose):
        if len(expand_multirun(overrides)) > 1:
            raise UserError(f"{' '.join(overrides)}: several runs; study(...) trains them all.")
        config, arm = compose_config([*overrides, "task=train"], config_dir)
        with _mlflow_left_alone():
            return _run(train_arm(config, arm))


def study(
    *overrides: str, config_dir: str | Path | None = None, verbose: bool = True
) -> ComparedStudy:
    """Train every combination of the values listed and compare the arms, as ``-m`` does.

    Runs that have finished before are not trained again, and an arm that fails does not stop the
    others.

    Args:
        *overrides: as on the command line: ``"+experiment=baseline,dropout", "seed=0,1,2"``.
        config_dir: a folder of your own presets and options.
        verbose: show what the command line shows.

    Returns:
        The study compared, with all its finished runs, also those of earlier calls.

    Raises:
        UserError: an override or the data cannot be used, or the runs cannot be compared.
        RunError: some runs failed, which are named; the others were trained and compared.

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
    with _working(verbose):
        listed = expand_multirun(overrides)
        check_jobs_distinct(listed)
        jobs = [compose_config([*job, "task=train"], config_dir) for job in listed]
        asked = {(config.study, config.tracking.uri, config.metric) for config, _ in jobs}
        if len(asked) > 1:
            raise UserError("study, metric and tracking.uri: expected one of each in a study.")
        done = []
        with _mlflow_left_alone():
            for number, (config, arm) in enumerate(jobs):
                with multirun.catch_failures() as ending:
                    train_arm(config, arm, skip_finished=True)
                done.append(multirun.build_job_status(config, arm, number, ending))
            return multirun.finish_multirun(done)[0]


def tune(
    *overrides: str, config_dir: str | Path | None = None, verbose: bool = True
) -> TuningResult:
    """Search better values for one arm, as ``tune`` does; the test split is not looked at.

    Args:
        *overrides: as on the command line: ``"+experiment=dropout", "tuner=hyperband"``.
        config_dir: a folder of your own presets and options.
        verbose: show what the command line shows.

    Returns:
        What came of it: the best values, the preset's file, the report, every trial.

    Raises:
        UserError: an override, the space or the data cannot be used; nothing was recorded.
        RunError: too many trials failed in a row, or none completed.
    """
    from melanoma_lab.tuning.plan import plan_search
    from melanoma_lab.tuning.space_validation import TuneCommand

    with _working(verbose):
        if len(expand_multirun(overrides)) > 1:
            raise UserError(f"{' '.join(overrides)}: several searches; one at a time.")
        config, arm = compose_config([*overrides, "task=tune"], config_dir)
        plan = plan_search(config, arm, TuneCommand.typed(overrides, config_dir))
        from melanoma_lab.tuning.tune import tune_arm

        with _mlflow_left_alone():
            return tune_arm(plan)


def compare(
    study: str = "ablation",
    *,
    reference: str | None = None,
    metric: str = "balanced_accuracy",
    tracking_uri: str | None = None,
    verbose: bool = True,
) -> ComparedStudy:
    """Compare the arms of a study from its tracked runs, as ``compare`` does; trains nothing.

    In MLflow the runs are then found under one that stands for the study and has the report.

    Args:
        study: its name.
        reference: compare all arms with this one; None: each with the one that it names.
        metric: the one that gives the verdicts.
        tracking_uri: where the runs are recorded; None: ``mlflow.db`` in the current folder.
        verbose: show what the command line shows.

    Returns:
        The study compared; its report has been written to ``experiments/<study>/``.

    Raises:
        UserError: there is no such study, arm or metric, or its runs cannot be compared.
    """
    from melanoma_lab.comparison.study_report import report_study

    with _working(verbose), _mlflow_left_alone():
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
    """Let the finished runs of an arm answer together, as ``ensemble`` does; trains nothing.

    Args:
        study: its name.
        arm: the arm, as ``compare`` shows it or in full; None: the only one of the study.
        members: seeds of each ensemble; None: one ensemble of all.
        tracking_uri: where the runs are recorded; None: ``mlflow.db`` in the current folder.
        model: keep the members' networks as one model, where they kept theirs.
        verbose: show what the command line shows.

    Returns:
        The ensembles, as runs of the study, which ``compare`` sees; those that were there already
        are not made again.

    Raises:
        UserError: there is no such study or arm, or its runs cannot answer together.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32", "study=together")
        >>> result = lab.study("+experiment=colour_histogram", "seed=0,1", *tiny, verbose=False)
        >>> (both,) = lab.ensemble("together", verbose=False)
        >>> both.arm.endswith(",ensemble=2"), both.tags["members"]
        (True, '0,1')
    """
    from melanoma_lab.inference.ensembles.build_ensembles import make_ensembles

    with _working(verbose), _mlflow_left_alone():
        tracked = Tracking(uri=tracking_uri or "", model=model)
        return [
            _run(each) for each in make_ensembles(study, arm=arm, size=members, tracked=tracked)
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
    """What a kept network says of images, as ``predict`` does. Research use only: no diagnosis.

    Args:
        model: a run or its id, a model's folder or ``.keras`` file, or ``models:/name/version``.
        images: a folder, a file, or a pattern such as ``"DIR/*.jpg"``.
        batch_size: images that are looked at together; None: 32.
        grad_cam: a folder for a map over each image of where the network looked; None: none.
        tracking_uri: where the run is recorded; None: where a run of ``train`` is, else
            ``mlflow.db`` in the current folder.
        verbose: show what the command line shows.

    Returns:
        A row for every image, columns image_id, predicted, probability, ``prob/<class>`` and
        ``seen``: the split that it had where it is one of the run's images, ``no`` where it is
        none, ``not known`` where the run is not there. In
        ``attrs["unreadable"]`` image_id -> reason of what cannot be read.

    Raises:
        UserError: the model or the images cannot be used.
        RunError: none of the images can be read.
    """
    overrides = ["task=predict"]
    overrides += [] if batch_size is None else [f"training.batch_size={batch_size}"]
    named, tracked = _named(model, tracking_uri)
    with _working(verbose), _mlflow_left_alone():
        config, _ = compose_config(overrides)
        from melanoma_lab.inference.predict import predict_table

        return predict_table(
            replace(
                config,
                model=named,
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
    """How good a kept network is on another dataset, as ``evaluate`` does; trains nothing.

    Images that show what the network was trained on are left out of all figures, unless asked for.

    Args:
        model: a run or its id, a model's folder, or ``models:/name/version``.
        *overrides: as on the command line: ``"dataset=isic9_verified", "dataset.root=isic9"``,
            ``"mapping=isic9_to_ham10000"``.
        config_dir: a folder of your own presets and options.
        verbose: show what the command line shows.

    Returns:
        The evaluation, as a run of no arm, which no comparison sees: ``arm`` and ``seed`` are
        those of the model. Its ``test`` metrics are of the images that the network had not seen.

    Raises:
        UserError: the model or the dataset cannot be used, or their classes do not match.
    """
    named, _ = _named(model, None)
    with _working(verbose), _mlflow_left_alone():
        config, _ = compose_config([*overrides, "task=evaluate"], config_dir)
        tracked = config.tracking
        if isinstance(model, Run) and not any("tracking.uri=" in each for each in overrides):
            tracked = replace(tracked, uri=model.uri)
        from melanoma_lab.inference.external_validation.evaluate import evaluate_model

        return _run(evaluate_model(replace(config, model=named, tracking=tracked)))


def export(
    model: str | Path | Run,
    output: str | Path,
    *,
    formats: Sequence[str] = ("saved_model",),
    images: str | Path | None = None,
    tracking_uri: str | None = None,
    verbose: bool = True,
) -> ExportResult:
    """Write a kept network in formats of other programs, as ``export`` does.

    Args:
        model: as for ``predict``.
        output: a folder, which is made, or holds an earlier export.
        formats: any of ``"saved_model"``, ``"onnx"`` and ``"litert"``.
        images: as for ``predict``: on which every file is held against the network; None: those
            that its run was tested on.
        tracking_uri: as for ``predict``.
        verbose: show what the command line shows.

    Returns:
        The files, and the greatest difference of a probability that each shows.

    Raises:
        UserError: the model, the images or the output cannot be used, or a package is missing.
        RunError: a file does not answer as the network does; nothing is left of it.
    """
    named, tracked = _named(model, tracking_uri)
    with _working(verbose), _mlflow_left_alone():
        config, _ = compose_config(["task=export", f"formats=[{','.join(formats)}]"])
        from melanoma_lab.inference.export.export_network import export_network

        return export_network(
            replace(
                config,
                model=named,
                output=str(output),
                images=None if images is None else str(images),
                tracking=tracked,
            )
        )


def audit_dataset(*overrides: str, verbose: bool = True) -> Findings:
    """Find what is wrong with a folder of images, as ``audit`` does.

    Args:
        *overrides: as on the command line: ``"dataset=isic9", "dataset.root=DIR"``.
        verbose: show what the command line shows.

    Returns:
        What was found; ``audit.html`` and ``audit.json`` are in ``experiments/audit-<dataset>/``.

    Raises:
        UserError: the dataset cannot be read.
        RunError: something leaks and ``audit.strict=true`` was asked for.

    Example:
        >>> import melanoma_lab as lab
        >>> tiny = ("dataset.lesions=110", "dataset.image_size=32")
        >>> findings = lab.audit_dataset(*tiny, verbose=False)
        >>> findings.n_images, len(findings.label_conflicts)
        (206, 0)
    """
    with _working(verbose):
        config, _ = compose_config([*overrides, "task=audit"])
        from melanoma_lab.commands.audit import audit_dataset as audit

        return audit(config)


def _named(model: str | Path | Run, tracking_uri: str | None) -> tuple[str, Tracking]:
    """What ``model=`` says of a model, and where its run is recorded."""
    if isinstance(model, Run):
        return model.run_id, Tracking(uri=tracking_uri or model.uri)
    return str(model), Tracking(uri=tracking_uri or "")


@contextmanager
def _working(verbose: bool) -> Iterator[None]:
    """One call at a time, heard or not."""
    with _ONE_AT_A_TIME:
        before = console.quiet
        console.quiet = not verbose
        try:
            yield
        finally:
            console.quiet = before


@contextmanager
def _mlflow_left_alone() -> Iterator[None]:
    """The caller's tracking URI comes back; a run that the caller has open is not touched."""
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


def _run(run_id: str) -> Run:
    """A run as MLflow has it, where it was just recorded."""
    import mlflow

    found: Any = mlflow.get_run(run_id)
    tags = dict(found.data.tags)
    return Run(
        run_id=run_id,
        arm=tags.get("arm") or tags.get("evaluated_arm", ""),
        study=tags["study"],
        seed=int(tags.get("seed") or tags.get("evaluated_seed", 0)),
        metrics=dict(found.data.metrics),
        params=dict(found.data.params),
        tags=tags,
        uri=mlflow.get_tracking_uri(),
    )
