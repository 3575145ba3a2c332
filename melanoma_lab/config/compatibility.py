"""Checks that options fit together, and that a command has the keys that it needs."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

from melanoma_lab.config.schema import Config, Task
from melanoma_lab.config.schema.architecture import RANDOM_WEIGHTS, TrivialArchitecture
from melanoma_lab.config.schema.data import Dataset, FoldSplit, SyntheticDataset
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS, TRAINING_RUN_KEYS, Evaluation
from melanoma_lab.config.schema.training import Frozen, FrozenStart, LogitAdjusted, Plateau, Staged
from melanoma_lab.core.errors import UserError, suggest_similar

#: The ways to name a network, for messages.
MODEL_FORMS = "a run's id, a folder with MLflow's MLmodel, a .keras file, or models:/NAME/VERSION"
NO_MODEL = f"model is not set; add model=... to the command: {MODEL_FORMS}."
NO_RUN = "model is not set; add model=RUN_ID to the command."
NO_IMAGES = "images is not set; add images=DIR, images=FILE or images='DIR/*.jpg' to the command."
NO_ROOT = "dataset.root is not set: add dataset.root=DIR, the folder that holds the images."
NO_TARGET = "dataset.root is not set: add dataset.root=DIR, the folder to download to."

#: Task -> required key -> message if the key is not set.
REQUIRED_KEYS = {
    Task.card: {"model": NO_RUN},
    Task.demo: {"model": NO_MODEL},
    Task.download: {"dataset.root": NO_TARGET},
    Task.evaluate: {"model": NO_MODEL},
    Task.export: {"model": NO_MODEL},
    Task.predict: {"model": NO_MODEL, "images": NO_IMAGES},
}


def check_required_keys(config: Config) -> None:
    """Refuse a configuration that lacks keys which its command needs.

    Raises:
        UserError: keys are missing; the message has a sentence for each.
    """
    needed = dict(REQUIRED_KEYS.get(config.task, {}))
    if not isinstance(config.dataset, SyntheticDataset):
        needed.setdefault("dataset.root", NO_ROOT)
    values = {"model": config.model, "images": config.images, "dataset.root": config.dataset.root}
    unset = [message for key, message in needed.items() if not values[key]]
    if unset:
        raise UserError("\n".join(unset))


def check_dataset_root(dataset: Dataset) -> None:
    """Refuse a root that is not set, does not exist or is not a folder.

    The synthetic dataset needs no root.

    Raises:
        UserError: the root cannot be used; the message says what to set.
    """
    if isinstance(dataset, SyntheticDataset):
        return
    if not dataset.root:
        raise UserError(NO_ROOT)
    root = Path(dataset.root).expanduser()
    if not root.exists():
        raise UserError(f"dataset.root={dataset.root}: no such folder.{_suggest_sibling(root)}")
    if not root.is_dir():
        raise UserError(f"dataset.root={dataset.root}: a file; expected the folder of the images.")


def _suggest_sibling(root: Path) -> str:
    """Return a sentence that suggests a similarly named folder in the same place, or ""."""
    try:
        names = [path.name for path in root.absolute().parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    close = suggest_similar(root.name, names)
    return f" {close}" if close else ""


#: Key or section that only some tasks use -> those tasks.
TASKS_OF_KEY: dict[str, tuple[Task, ...]] = {
    "output": (Task.predict, Task.export, Task.card, Task.leaky_protocol),
    "against": (Task.audit,),
    "arm": (Task.ensemble,),
    "members": (Task.ensemble,),
    "model": (Task.predict, Task.evaluate, Task.demo, Task.export, Task.card),
    "images": (Task.predict, Task.export),
    "grad_cam": (Task.predict,),
    "formats": (Task.export,),
    "audit": (Task.audit,),
    "demo": (Task.demo,),
}


def check_compatibility(config: Config) -> None:
    """Refuse choices that contradict, repeat or disable each other.

    Raises:
        UserError: two choices do not fit together; the message names both.
    """
    _check_keys_of_task(config)
    _check_registering(config)
    _check_evaluation(config)
    training, schedule = config.training, config.schedule
    if (
        getattr(config.optimizer, "weight_decay", 0)
        and config.regularisation.strengths().weight_decay
    ):
        raise UserError(
            f"optimizer={config.optimizer.name} regularisation={config.regularisation.name}: both "
            "decay the weights; set optimizer.weight_decay=0 or leave weight decay out of the "
            "regularisation."
        )
    if schedule.warmup_epochs >= training.epochs:
        raise UserError(
            f"schedule.warmup_epochs={schedule.warmup_epochs:g}: expected less than "
            f"training.epochs={training.epochs}."
        )
    _check_finetuning(config)
    patience = training.patience
    if isinstance(schedule, Plateau) and patience is not None and patience <= schedule.patience:
        raise UserError(
            f"training.patience={patience}: training stops before schedule=plateau lowers the "
            f"learning rate; expected more than schedule.patience={schedule.patience}."
        )


def _check_keys_of_task(config: Config) -> None:
    """Refuse keys that the task would ignore."""
    for entry in fields(Config):
        tasks = TASKS_OF_KEY.get(entry.name)
        if tasks is None or config.task in tasks:
            continue
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if getattr(config, entry.name) != default:
            raise UserError(
                f"{entry.name}: {config.task} ignores it; it applies to "
                f"{' and '.join(tasks) if len(tasks) < 3 else ', '.join(tasks)}."
            )


def _check_evaluation(config: Config) -> None:
    """Refuse keys of ``evaluation``, and splits, that the task would ignore."""
    evaluating = config.task is Task.evaluate
    default = Evaluation()
    for key in TRAINING_RUN_KEYS if evaluating else EVALUATE_KEYS:
        if getattr(config.evaluation, key) != getattr(default, key):
            fault = (
                "is fixed when a model is trained, and saved with it; leave it out here."
                if evaluating
                else "a key of python -m melanoma_lab evaluate; other commands ignore it."
            )
            raise UserError(f"evaluation.{key}: {fault}")
    if evaluating and isinstance(config.split, FoldSplit):
        raise UserError(
            f"split={config.split.name}: evaluate does not split a dataset; leave the option out "
            "(all images), or set split=predefined (only the published test images)."
        )


def _check_registering(config: Config) -> None:
    """Refuse ``tracking.register`` for a command that makes no model to register."""
    if config.tracking.register is None:
        return
    if config.task is Task.train and isinstance(config.architecture, TrivialArchitecture):
        raise UserError("tracking.register: a trivial classifier has no model to register.")
    if config.task not in {Task.train, Task.ensemble}:
        raise UserError(
            f"tracking.register: {config.task} creates no model; it applies to training and "
            "ensemble. To register the model of a finished run: "
            "mlflow.register_model('runs:/RUN_ID/model', NAME)."
        )


def _check_finetuning(config: Config) -> None:
    """Refuse stages without epochs, and options without effect on a frozen backbone."""
    training, finetuning, schedule = config.training, config.finetuning, config.schedule
    if isinstance(finetuning, Staged):
        left = training.epochs - finetuning.head_epochs
        if left < 1:
            raise UserError(
                f"finetuning.head_epochs={finetuning.head_epochs}: expected less than "
                f"training.epochs={training.epochs}, so that some are left for the backbone."
            )
        if schedule.warmup_epochs >= min(finetuning.head_epochs, left):
            raise UserError(
                f"schedule.warmup_epochs={schedule.warmup_epochs:g}: with finetuning=staged the "
                f"schedule runs once over the {finetuning.head_epochs} epochs of the head and "
                f"again over the {left} after them; expected less than both."
            )
    if isinstance(finetuning, Frozen) and config.regularisation.strengths().stochastic_depth:
        raise UserError(
            f"finetuning=frozen regularisation={config.regularisation.name}: stochastic depth "
            "skips blocks of the backbone, which is not trained."
        )


def find_doubtful_choices(config: Config) -> list[str]:
    """List choices that are allowed but doubtful together, a sentence each."""
    found = []
    if (
        isinstance(config.loss, LogitAdjusted)
        and config.loss.tau
        and config.balancing.name != "none"
    ):
        found.append(
            f"loss=logit_adjusted and balancing={config.balancing.name} both correct for class "
            "frequencies: together they overcorrect and favour rare classes."
        )
    if (
        isinstance(config.finetuning, FrozenStart)
        and getattr(config.architecture, "weights", None) == RANDOM_WEIGHTS
    ):
        found.append(
            f"finetuning={config.finetuning.name} architecture.weights={RANDOM_WEIGHTS}: the "
            "frozen backbone computes random features."
        )
    return found
