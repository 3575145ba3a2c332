"""The audit's remarks on single images: the cause of a confident mistake may be a wrong label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AuditRemark:
    """A remark on an image.

    Attributes:
        text: a sentence without a full stop.
        of_label: whether the label may be wrong.
    """

    text: str
    of_label: bool


def collect_audit_remarks(
    audit: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, list[AuditRemark]]:
    """Collect an audit's remarks by image.

    Args:
        audit: the result of the audit, as in ``audit.json``.
        labels: the class that the run used, by image_id; images that were left out may be missing.

    Returns:
        The remarks by image_id, those that doubt the label first; images without any are missing.
    """
    remarks: dict[str, list[AuditRemark]] = defaultdict(list)
    # A pair of images gets only its first remark, because later ones are weaker.
    mentioned: set[tuple[str, str]] = set()

    def add_remarks(groups: Sequence[Sequence[str]], what: str, *, of_label: bool) -> None:
        for group in groups:
            for image_id in group:
                others = [
                    one for one in group if one != image_id and (image_id, one) not in mentioned
                ]
                if others:
                    remarks[image_id].append(
                        AuditRemark(f"{what} {_list_images(others, labels)}", of_label)
                    )
                    mentioned.update((image_id, one) for one in others)

    for found in audit.get("metadata_conflicts", ()):
        text = f"labelled {found['label']}, but the metadata's diagnosis is {found['diagnosis']}"
        remarks[found["image_id"]].append(AuditRemark(text, of_label=True))
    add_remarks(
        audit.get("label_conflicts", ()), "an identical image is labelled otherwise:", of_label=True
    )
    add_remarks(
        audit.get("near_label_conflicts", ()),
        "a copy of this photograph is labelled otherwise; copies:",
        of_label=True,
    )
    add_remarks(audit.get("exact_duplicate_groups", ()), "the same file:", of_label=False)
    add_remarks(audit.get("pixel_duplicate_groups", ()), "the same pixels:", of_label=False)
    add_remarks(
        audit.get("near_duplicate_groups", ()), "copies of this photograph:", of_label=False
    )
    for found in audit.get("suspicious", ()):
        remarks[found["image_id"]].append(AuditRemark(str(found["reason"]), of_label=False))
    return {name: sorted(all_, key=lambda one: not one.of_label) for name, all_ in remarks.items()}


def _list_images(image_ids: Sequence[str], labels: Mapping[str, str], most: int = 3) -> str:
    """List the first few images with their classes, and the number of the others."""
    shown = [
        f"{one} ({labels[one]})" if one in labels else f"{one} (left out)"
        for one in image_ids[:most]
    ]
    more = [f"and {len(image_ids) - most} more"] if len(image_ids) > most else []
    return ", ".join([*shown, *more])
