"""Marks that tests share."""

from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A case of a grid of which the fast tests have others."""
    return pytest.param(*values, marks=pytest.mark.slow)
