"""Download a published dataset to a temporary folder, and move it into place when complete."""

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

#: Option of the group ``dataset`` -> its handle on Kaggle.
KAGGLE_HANDLES: Final = {
    "isic9": "nodoubttome/skin-cancer9-classesisic",
    "isic9_verified": "nodoubttome/skin-cancer9-classesisic",
}
#: Folders that the download must contain, at any depth.
EXPECTED_FOLDERS: Final = ("Train", "Test")

#: Function from a handle on Kaggle to the folder of downloaded files; it may raise any exception.
DownloadClient = Callable[[str], str]


def download_from_kaggle(name: str, root: Path, connect: Callable[[], DownloadClient]) -> None:
    """Download a published dataset to a new or empty folder.

    The files go to a hidden folder next to ``root``. If the download fails, they stay there and the
    next call resumes it. ``root`` appears complete, or not at all.

    Args:
        name: name of the option of the group ``dataset``.
        connect: returns the download client, such as ``make_kaggle_client``.

    Raises:
        UserError: this dataset cannot be downloaded, or ``root`` is a file or is not empty.
        RunError: the download failed, or it lacks the expected folders.
    """
    if name not in KAGGLE_HANDLES:
        raise UserError(
            f"dataset={name}: it cannot be downloaded; expected {', '.join(KAGGLE_HANDLES)}."
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
            root.rmdir()  # fails if it is not empty
        arrived.rename(root)
    shutil.rmtree(staging)


def _check_free(root: Path) -> None:
    """Refuse a folder that would be overwritten."""
    if root.is_file():
        raise UserError(
            f"dataset.root={root}: this is a file; expected a folder that does not exist yet."
        )
    if root.is_dir() and any(root.iterdir()):
        raise UserError(
            f"dataset.root={root}: this folder is not empty; nothing was downloaded. Choose an "
            "empty or a new folder."
        )


def _fetch(handle: str, staging: Path, client: DownloadClient) -> Path:
    """Download a dataset and return the folder that contains ``EXPECTED_FOLDERS``."""
    try:
        with _kaggle_cache(staging):
            folder = Path(client(handle)).resolve()
    except Exception as error:  # the client raises its own errors, requests' and the system's
        reason = get_first_line(error)
        raise RunError(
            f"{handle} was not downloaded from Kaggle: {reason}\nIs there a network connection? "
            f"The files received so far are kept in {staging}; the same command resumes the "
            "download."
        ) from error
    for found in sorted(folder.rglob(EXPECTED_FOLDERS[0])):
        if all((found.parent / part).is_dir() for part in EXPECTED_FOLDERS):
            return found.parent
    raise RunError(f"{handle}: no {' and '.join(EXPECTED_FOLDERS)} in the download in {folder}.")


@contextmanager
def _kaggle_cache(folder: Path) -> Iterator[None]:
    """Make Kaggle's client store its files in a folder, by an environment variable it reads."""
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
    """Return a client that downloads with Kaggle's own package.

    It needs no account for public data, resumes downloads and verifies the files.

    Raises:
        UserError: the package is not installed.
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
