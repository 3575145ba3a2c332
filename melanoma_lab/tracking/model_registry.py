"""A run's model under a name of MLflow's model registry, once, however often it is asked for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from melanoma_lab.tracking.logged_model import find_logged_models
from melanoma_lab.tracking.model_info import NOTICE


def register_model(client: Any, run_id: str, name: str) -> str:
    """Register the model of a run as a new version of a name; the version that is there stays.

    Args:
        client: an MlflowClient.
        run_id: of a run that has logged a model, whole.
        name: of the registered model; made where there is none.

    Returns:
        The version, as ``models:/NAME/VERSION`` has it.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    run = client.get_run(run_id)
    model = [m for m in find_logged_models(client, run) if m.status == LoggedModelStatus.READY][-1]
    there = client.search_model_versions(f"run_id = '{run_id}'")
    versions = [str(version.version) for version in there if version.name == name]
    if versions:
        return versions[0]
    with suppress(MlflowException):  # it is there; any other reason shows below
        client.create_registered_model(name, description=NOTICE)
    made = client.create_model_version(
        name, source=f"models:/{model.model_id}", run_id=run_id, model_id=model.model_id
    )
    return str(made.version)
