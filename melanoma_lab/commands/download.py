"""Download a published dataset."""

from __future__ import annotations

import shlex
from pathlib import Path

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.compatibility import NO_TARGET
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import console
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.data.download import download_from_kaggle, make_kaggle_client
from melanoma_lab.data.image_files import find_images


def run(config: Config, _arm: Arm) -> None:
    """Download a published dataset."""
    download_dataset(config)


def download_dataset(config: Config) -> None:
    """Download a published dataset into the folder ``dataset.root``.

    Raises:
        UserError: ``dataset.root`` is missing or not free, this dataset cannot be downloaded, or
            the client is not installed.
        RunError: the download failed.
    """
    dataset = config.dataset
    if not dataset.root:
        raise UserError(NO_TARGET)
    root = Path(dataset.root).expanduser()
    download_from_kaggle(dataset.name, root, make_kaggle_client)
    words = (f"dataset={dataset.name}", f"dataset.root={shlex.quote(dataset.root)}")
    console.print(
        f"{root}: {len(find_images(root))} images.\n"
        f"What is wrong with them: {format_lab_command('audit', *words)}",
        markup=False,
    )
