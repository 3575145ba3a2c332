"""Treatment of files that cannot be read: refuse all in one message, or leave them out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

import pandas as pd

from melanoma_lab.config.schema.dataset import Dataset, OnUnreadable
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_lab_command

#: Largest number of files that a message names; the audit lists all of them.
N_SHOWN: Final = 10


def drop_unreadable(
    manifest: pd.DataFrame, unreadable: Mapping[str, str], dataset: Dataset
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Refuse or leave out images that could not be decoded.

    Args:
        manifest: table with the columns path and digest.
        unreadable: digest -> why its files cannot be decoded.
        dataset: the dataset's configuration; ``on_unreadable`` chooses the treatment.

    Returns:
        The rows that can be read, and a note on those that were left out, if any.

    Raises:
        UserError: images cannot be read and must not be skipped, or none can be read. The message
            names the first ``N_SHOWN`` files, and the command that lists all.
    """
    reason = manifest["digest"].map(unreadable)
    bad = manifest.loc[reason.notna(), "path"]
    if bad.empty:
        return manifest, ()
    what = f"{len(bad)} of {len(manifest)} images cannot be read"
    shown = [f"  {path}: {why}" for path, why in zip(bad, reason.loc[bad.index], strict=True)][
        :N_SHOWN
    ]
    if len(bad) > N_SHOWN:
        root = f" dataset.root={shlex.quote(dataset.root)}" if dataset.root else ""
        shown.append(
            f"  and {len(bad) - N_SHOWN} more, all listed by: "
            + format_lab_command("audit", f"dataset={dataset.name}{root}")
        )
    listed = "\n".join(shown)
    if dataset.on_unreadable is OnUnreadable.error:
        raise UserError(
            f"{what}:\n{listed}\nMend or remove them, or set dataset.on_unreadable=skip."
        )
    if len(bad) == len(manifest):
        raise UserError(f"dataset: none of {len(manifest)} images can be read:\n{listed}")
    return manifest.loc[reason.isna()].reset_index(drop=True), (f"{what}; skipped:\n{listed}",)
