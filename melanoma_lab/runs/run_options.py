"""How much of a run is measured and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from melanoma_lab.runs.run_lock import RunLock


@dataclass(frozen=True)
class RunOptions:
    """How much of a run is measured and kept; the whole unless said otherwise.

    Attributes:
        splits: those that the trained network is applied to, and so those of the predictions table
            and the metrics; None: all. The network never meets the images of another.
        pictures: keep plots and the model.
        tags: of the run, beside those that every run has.
        after: the claim to a run that did the first epochs of this one, if there is any.
        keep_state: leave the last checkpoint, for another run to go on from.
        said: what the progress bar begins with; None: every epoch and the results are printed.
    """

    splits: tuple[str, ...] | None = None
    pictures: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    after: RunLock | None = None
    keep_state: bool = False
    said: str | None = None


WHOLE_RUN = RunOptions()
