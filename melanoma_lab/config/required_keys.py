"""Checks that a command's required keys are set and that the dataset's root exists."""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.config.schema import Config, Task
from melanoma_lab.config.schema.data import Dataset, SyntheticDataset
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

    Args:
        config: the checked configuration.

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

    Args:
        dataset: the dataset's configuration.

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
