"""Download of a published dataset: elsewhere first, into place when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from melanoma_lab.core.errors import RunError, UserError, get_first_line
from melanoma_lab.core.locks import hold_lock
from melanoma_lab.core.shell_commands import format_extra_install

#: Dataset option -> what its publisher calls it on Kaggle.
KAGGLE_HANDLES: Final = {
    "isic9": "nodoubttome/skin-cancer9-classesisic",
    "isic9_verified": "nodoubttome/skin-cancer9-classesisic",
}
#: What the downloaded folder must hold, at whatever depth, to be the one that is wanted.
EXPECTED_FOLDERS: Final = ("Train", "Test")

#: From a name on Kaggle to the folder with its files; raises whatever it likes.
DownloadClient = Callable[[str], str]


def download_from_kaggle(name: str, root: Path, connect: Callable[[], DownloadClient]) -> None:
    """Put a published dataset into a folder that is not there yet, or is empty.

    The download goes to a hidden folder beside ``root`` and stays there where it breaks off, so
    that the same call goes on with it; ``root`` appears whole, or not at all.

    Args:
        name: of the dataset option.
        root: the folder to make.
        connect: gives what does the download; ``make_kaggle_client``.

    Raises:
        UserError: nothing downloads this dataset, or ``root`` is a file or holds something.
        RunError: the download failed, or what came is something else.
    """
    if name not in KAGGLE_HANDLES:
        raise UserError(
            f"dataset={name}: nothing downloads it; expected {', '.join(KAGGLE_HANDLES)}."
        )
    _check_free(root)
    client = connect()
    staging = root.with_name(f".{root.name}.download")
    staging.mkdir(parents=True, exist_ok=True)

    def refuse(_holder: str) -> None:
        raise UserError(f"dataset.root={root}: another process is downloading to it.")

    with hold_lock(staging / "lock", on_busy=refuse):
        _check_free(root)
        arrived = _fetch(KAGGLE_HANDLES[name], staging, client)
        if not arrived.is_relative_to(staging.resolve()):  # a mounted copy, as on Kaggle itself
            arrived = Path(shutil.copytree(arrived, staging / "copy", dirs_exist_ok=True))
        if root.is_dir():
            root.rmdir()  # empty, or it fails
        arrived.rename(root)
    shutil.rmtree(staging)


def _check_free(root: Path) -> None:
    """Nothing that is there is written over."""
    if root.is_file():
        raise UserError(f"dataset.root={root}: a file; expected a folder that is not there yet.")
    if root.is_dir() and any(root.iterdir()):
        raise UserError(
            f"dataset.root={root}: holds something already; nothing was downloaded. Choose a "
            "folder that is empty or not there yet."
        )


def _fetch(handle: str, staging: Path, client: DownloadClient) -> Path:
    """The downloaded folder that holds PARTS."""
    try:
        with _kaggle_cache(staging):
            folder = Path(client(handle)).resolve()
    except Exception as error:  # of a client that raises its own, requests' and the system's
        reason = get_first_line(error)
        raise RunError(
            f"{handle} was not downloaded from Kaggle: {reason}\nIs the network there? What has "
            f"arrived is kept in {staging}; the same command goes on with it."
        ) from error
    for found in sorted(folder.rglob(EXPECTED_FOLDERS[0])):
        if all((found.parent / part).is_dir() for part in EXPECTED_FOLDERS):
            return found.parent
    raise RunError(
        f"{handle}: no {' and '.join(EXPECTED_FOLDERS)} in what was downloaded to {folder}."
    )


@contextmanager
def _kaggle_cache(folder: Path) -> Iterator[None]:
    """Let Kaggle's client keep its files in a folder; it reads an environment variable."""
    before = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KAGGLEHUB_CACHE"]
        else:
            os.environ["KAGGLEHUB_CACHE"] = before


def make_kaggle_client() -> DownloadClient:
    """Kaggle's own client: no account for public data, resumes, checks what has arrived.

    Raises:
        UserError: it is not installed.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise UserError(
            f"download needs Kaggle's client: {format_extra_install('download')}"
        ) from error

    def fetch(handle: str) -> str:
        return str(kagglehub.dataset_download(handle))

    return fetch
