"""What the command can do; each task is a module of its own, imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config, Task
from melanoma_lab.core.console import show_loading
from melanoma_lab.runs.run_headline import show_headline


def train(config: Config, arm: Arm) -> None:
    """Train, evaluate and track one arm."""
    from melanoma_lab.cli.multirun import in_multirun
    from melanoma_lab.launching.parallel_jobs import count_parallel_jobs

    train_one(config, arm, skip_finished=in_multirun(), side_by_side=count_parallel_jobs())


def train_one(
    config: Config, arm: Arm, *, skip_finished: bool = False, side_by_side: int = 1
) -> str:
    """Say what is about to be trained, load what trains it, and do what ``train_arm`` does."""
    show_headline(config, arm)
    with show_loading():
        from melanoma_lab.runs.train import train_arm

    return train_arm(config, arm, skip_finished=skip_finished, side_by_side=side_by_side)


def audit(config: Config, _arm: Arm) -> None:
    """Find what is wrong with a dataset."""
    with show_loading():
        from melanoma_lab.commands.audit import audit_dataset

    audit_dataset(config)


def leaky_protocol(config: Config, _arm: Arm) -> None:
    """Prepare the dataset that the course project trained on."""
    with show_loading():
        from melanoma_lab.commands.leaky_protocol import prepare_leaky_dataset

    prepare_leaky_dataset(config)


def download(config: Config, _arm: Arm) -> None:
    """Download a published dataset."""
    with show_loading():
        from melanoma_lab.commands.download import download_dataset

    download_dataset(config)


def compare(config: Config, _arm: Arm) -> None:
    """Compare the arms of a study."""
    from pathlib import Path

    from melanoma_lab.tracking.sqlite_reader import refuse_unknown_study

    refuse_unknown_study(config.study, config.tracking.uri)
    with show_loading():
        from melanoma_lab.comparison.study_report import report_study

    report_study(
        config.study,
        reference=config.reference,
        metric=config.metric,
        tracked=config.tracking,
        folder=Path("experiments"),
    )


def ensemble(config: Config, _arm: Arm) -> None:
    """Let the finished runs of an arm answer together."""
    from melanoma_lab.tracking.sqlite_reader import refuse_unknown_study

    refuse_unknown_study(config.study, config.tracking.uri)
    with show_loading():
        from melanoma_lab.inference.ensembles.build_ensembles import make_ensembles

    make_ensembles(config.study, arm=config.arm, size=config.members, tracked=config.tracking)


def tune(config: Config, arm: Arm) -> None:
    """Search better values for one arm."""
    from melanoma_lab.tuning.plan import parse_command, plan_search

    plan = plan_search(
        config, arm, parse_command()
    )  # a mistake shows before anything else is loaded
    if plan.role is not None and not plan.role.is_chief:
        with show_loading():
            from melanoma_lab.tuning.distributed.run_worker import run_worker

        run_worker(plan, plan.role)
        return
    with show_loading():
        from melanoma_lab.tuning.tune import tune_arm

    tune_arm(plan)


def predict(config: Config, _arm: Arm) -> None:
    """Apply a kept network to images."""
    with show_loading():
        from melanoma_lab.inference.predict import predict_to_file

    predict_to_file(config)


def evaluate(config: Config, _arm: Arm) -> None:
    """Evaluate a kept model on a dataset that it was not trained on."""
    with show_loading():
        from melanoma_lab.inference.external_validation.evaluate import evaluate_model

    evaluate_model(config)


def demo(config: Config, _arm: Arm) -> None:
    """Show a page on which a kept network can be tried."""
    with show_loading():
        from melanoma_lab.commands.demo import serve_demo

    serve_demo(config)


def export(config: Config, _arm: Arm) -> None:
    """Write a kept network in formats that other programs read."""
    with show_loading():
        from melanoma_lab.inference.export.export_network import export_network

    export_network(config)


def card(config: Config, _arm: Arm) -> None:
    """Write the model card of a run."""
    with show_loading():
        from melanoma_lab.commands.card import write_run_card

    write_run_card(config)


def sync(config: Config, _arm: Arm) -> None:
    """Send runs that were kept on disk to the tracking server."""
    with show_loading():
        from melanoma_lab.commands.sync import sync_runs

    sync_runs(config.tracking, elsewhere=_typed("tracking.uri"))


def _typed(key: str) -> bool:
    """Whether a key was given a value on the command line."""
    from hydra.core.hydra_config import HydraConfig

    typed = HydraConfig.get().overrides.task
    return any(override.lstrip("+").startswith(f"{key}=") for override in typed)


COMMANDS: dict[Task, Callable[[Config, Arm], None]] = {
    Task.train: train,
    Task.audit: audit,
    Task.card: card,
    Task.compare: compare,
    Task.demo: demo,
    Task.download: download,
    Task.ensemble: ensemble,
    Task.evaluate: evaluate,
    Task.export: export,
    Task.predict: predict,
    Task.leaky_protocol: leaky_protocol,
    Task.sync: sync,
    Task.tune: tune,
}
