"""Keys that a command cannot do without; all that are not set are told in one message."""

from __future__ import annotations

from melanoma_lab.config.schema import Config, Task
from melanoma_lab.config.schema.dataset import SyntheticDataset
from melanoma_lab.core.errors import UserError

#: What names a network, for messages.
MODEL_FORMS = "a run's id, a folder with MLflow's MLmodel, a .keras file, or models:/NAME/VERSION"
NO_MODEL = f"model is not set; add model=... to the command: {MODEL_FORMS}."
NO_RUN = "model is not set; add model=RUN_ID to the command."
NO_IMAGES = "images is not set; add images=DIR, images=FILE or images='DIR/*.jpg' to the command."
NO_ROOT = "dataset.root is not set: add dataset.root=DIR, the folder that holds the images."
NO_TARGET = "dataset.root is not set: add dataset.root=DIR, the folder to download to."

#: Task -> key -> what is said where it is not set.
REQUIRED_KEYS = {
    Task.card: {"model": NO_RUN},
    Task.demo: {"model": NO_MODEL},
    Task.download: {"dataset.root": NO_TARGET},
    Task.evaluate: {"model": NO_MODEL},
    Task.export: {"model": NO_MODEL},
    Task.predict: {"model": NO_MODEL, "images": NO_IMAGES},
}


def check_required_keys(config: Config) -> None:
    """Refuse a configuration in which keys are not set that its command needs.

    Args:
        config: the checked configuration.

    Raises:
        UserError: with a sentence for every such key.
    """
    needed = dict(REQUIRED_KEYS.get(config.task, {}))
    if not isinstance(config.dataset, SyntheticDataset):
        needed.setdefault("dataset.root", NO_ROOT)
    values = {"model": config.model, "images": config.images, "dataset.root": config.dataset.root}
    unset = [said for key, said in needed.items() if not values[key]]
    if unset:
        raise UserError("\n".join(unset))
