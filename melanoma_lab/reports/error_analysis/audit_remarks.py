"""What the audit of a dataset has to say of single images: a confident mistake may be a label's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AuditRemark:
    """A sentence about an image.

    Attributes:
        text: the sentence, without a full stop.
        of_label: whether it puts the label in doubt.
    """

    text: str
    of_label: bool


def collect_audit_remarks(
    audit: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, list[AuditRemark]]:
    """What an audit found, by image.

    Args:
        audit: ``audit.json``.
        labels: image_id -> class as the run took it; images that were left out may be missing.

    Returns:
        image_id -> remarks, those that put the label in doubt first; other images are not there.
    """
    said: dict[str, list[AuditRemark]] = defaultdict(list)
    told: set[tuple[str, str]] = set()

    def tell(groups: Sequence[Sequence[str]], what: str, *, of_label: bool) -> None:
        for group in groups:
            for image_id in group:
                others = [one for one in group if one != image_id and (image_id, one) not in told]
                if others:
                    said[image_id].append(AuditRemark(f"{what} {_named(others, labels)}", of_label))
                    told.update((image_id, one) for one in others)

    for found in audit.get("metadata_conflicts", ()):
        text = f"labelled {found['label']}, but the metadata's diagnosis is {found['diagnosis']}"
        said[found["image_id"]].append(AuditRemark(text, of_label=True))
    tell(
        audit.get("label_conflicts", ()), "an identical image is labelled otherwise:", of_label=True
    )
    tell(
        audit.get("near_label_conflicts", ()),
        "a copy of this photograph is labelled otherwise; copies:",
        of_label=True,
    )
    tell(audit.get("exact_duplicate_groups", ()), "the same file:", of_label=False)
    tell(audit.get("pixel_duplicate_groups", ()), "the same pixels:", of_label=False)
    tell(audit.get("near_duplicate_groups", ()), "copies of this photograph:", of_label=False)
    for found in audit.get("suspicious", ()):
        said[found["image_id"]].append(AuditRemark(str(found["reason"]), of_label=False))
    return {name: sorted(all_, key=lambda one: not one.of_label) for name, all_ in said.items()}


def _named(image_ids: Sequence[str], labels: Mapping[str, str], most: int = 3) -> str:
    """Images with their classes, the first few of them."""
    shown = [
        f"{one} ({labels[one]})" if one in labels else f"{one} (left out)"
        for one in image_ids[:most]
    ]
    more = [f"and {len(image_ids) - most} more"] if len(image_ids) > most else []
    return ", ".join([*shown, *more])
