"""What a problem of a dataset is: what it spoils, how, and what resolves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from melanoma_lab.audit.findings import Group


class ProblemKind(StrEnum):
    """What a problem spoils."""

    leakage = "leakage"
    labels = "labels"
    bias = "bias"
    files = "files"


@dataclass(frozen=True)
class Remedy:
    """A way out.

    Attributes:
        line: what to add to the command; empty where no setting helps.
        effect: what it does.
    """

    line: str
    effect: str


@dataclass(frozen=True)
class Problem:
    """Something wrong with a dataset.

    Attributes:
        key: the list of findings that it is about.
        kind: what it spoils.
        title: what was found, with its number.
        effect: what it does to a result.
        remedies: what resolves it.
        groups: images to look at side by side.
        notes: image_id or class -> what to say of it.
    """

    key: str
    kind: ProblemKind
    title: str
    effect: str
    remedies: tuple[Remedy, ...] = ()
    groups: list[Group] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
