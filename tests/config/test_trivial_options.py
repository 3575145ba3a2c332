"""A trivial classifier refuses what it would ignore, and every group is decided upon."""

import pytest

from melanoma_lab.config.schema.architecture import ALLOWED_OPTIONS
from melanoma_lab.core.errors import UserError
from melanoma_lab.registry import OPTIONS

pytestmark = pytest.mark.unit

#: Groups that say something to a trivial classifier, or how any network is trained.
SHARED = {"dataset", "split", "architecture", "optimizer", "schedule", "tuner"}


BALANCINGS = "balancing=none or balancing=class_weight or balancing=effective_number."


@pytest.mark.parametrize("preset", ["majority", "colour_histogram", "source_only"])
@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("regularisation=dropout", "expected regularisation=none."),
        ("loss=focal", "expected loss=cross_entropy."),
        ("metadata=patient", "expected metadata=none."),
        ("augmentation=flip_rotate_zoom", "expected augmentation=none."),
        ("balancing=augmentor", "expected " + BALANCINGS),
        ("balancing=oversample", "expected " + BALANCINGS),
    ],
)
def test_what_needs_a_network_is_refused(composed, preset, override, right):
    with pytest.raises(UserError) as caught:
        composed(f"+experiment={preset}", override)
    assert str(caught.value) == (
        f"{override}: architecture={preset} is a trivial classifier and ignores it; {right}"
    )


@pytest.mark.parametrize("override", ["balancing=class_weight", "training.epochs=3"])
def test_what_means_something_or_is_every_arms_is_accepted(composed, override):
    composed("+experiment=majority", override)


def test_every_group_is_decided_upon():
    """A new group: does it mean anything without a network? Say so in MEANINGFUL or here."""
    assert {group for group, _ in OPTIONS} == SHARED | ALLOWED_OPTIONS.keys()


@pytest.mark.parametrize(
    ("preset", "override", "message"),
    [
        ("colour_histogram", "architecture.bins=0", "architecture.bins: expected 1 to 16"),
        ("colour_histogram", "architecture.c=0", "architecture.c: expected more than 0"),
        ("source_only", "architecture.smoothing=0", "architecture.smoothing: expected more than"),
        ("metadata_only", "architecture.c=0", "architecture.c: expected more than 0"),
        ("metadata_only", "metadata=none", "uses nothing else; expected metadata=patient."),
    ],
)
def test_values_are_checked(composed, preset, override, message):
    with pytest.raises(UserError, match=message):
        composed(f"+experiment={preset}", override)
