"""The first lines of a command; this module imports nothing slow, so they appear at once."""

from __future__ import annotations

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.compatibility import find_doubtful_choices
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.tracking import (
    DEFAULT_TRACKING_URI,
    Tracking,
    describe_tracking_uri,
)
from melanoma_lab.core.console import console, show_note


def show_headline(config: Config, arm: Arm) -> None:
    """Print the arm, seed, study and dataset of a training, and doubtful choices."""
    console.print(
        f"[bold]{arm.name}[/]  seed {config.seed}  study {config.study}  "
        f"dataset {config.dataset.name}"
    )
    show_tracking_uri(config.tracking)
    for doubt in find_doubtful_choices(config):
        show_note(f"  {doubt}")


def show_tracking_uri(tracking: Tracking) -> None:
    """Print the tracking URI unless it is the default."""
    if not tracking.offline and tracking.uri != DEFAULT_TRACKING_URI:
        console.print(
            f"  recorded in {describe_tracking_uri(tracking.uri)}", markup=False, soft_wrap=True
        )
