"""A run's files where MLflow keeps them: on this disk, or to be fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melanoma_lab.core.shell_commands import format_program
from melanoma_lab.tracking.uris import local_folder


def fetch_artifact(client: Any, run: Any, name: str, scratch: Path) -> Path:
    """An artifact of a run, from the disk where it lies there, else downloaded.

    Args:
        client: an MlflowClient.
        run: as MLflow has it.
        name: of the file.
        scratch: a folder for what has to be downloaded.

    Raises:
        OSError: it is not there; the text says where it was expected, and what to do where all of
            the run's files are gone.
    """
    folder = local_folder(run.info.artifact_uri)
    if folder is not None:
        # Not by the client, which remembers in one process where the files of a run lay.
        if (folder / name).is_file():
            return folder / name
        raise FileNotFoundError(
            f"{name} is not in {folder}{explain_missing_folder(folder, run.info.run_id)}"
        )
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run.info.run_id, name, str(scratch)))
    except MlflowException as error:
        raise OSError(f"{name}: {error}") from error


def explain_missing_folder(folder: Path, run_id: str | None) -> str:
    """What to do where a run's folder is gone; nothing where it is there.

    Args:
        folder: of its files.
        run_id: MLflow's; None where it is not known.
    """
    if folder.is_dir():
        return ""
    delete = f" ({format_program('mlflow')} runs delete --run-id {run_id})" if run_id else ""
    return (
        ", a folder that is gone: put it back there (mlruns belongs beside mlflow.db, and moves "
        f"with it), or delete the run{delete} and train it again"
    )
