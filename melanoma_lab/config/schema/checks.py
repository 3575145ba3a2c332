"""Refusals of values that their type allows and their meaning does not."""

from __future__ import annotations

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate


def require(condition: object, key: str, expected: str, received: object) -> None:
    """Refuse a value that its type allows and its meaning does not."""
    if not condition:
        raise UserError(f"{key}: expected {expected}; received {truncate(received)}.")


def require_share(key: str, value: float) -> None:
    """Refuse what is no share of a whole."""
    require(0 < value < 1, key, "a share between 0 and 1", value)
