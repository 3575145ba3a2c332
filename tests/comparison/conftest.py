"""Studies that the tests of the comparison share; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.fake_studies import Tracked, draw_table


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Any]:
    return draw_table


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    folder = tmp_path_factory.mktemp("tracked")
    made = Tracked(folder)
    made.client.search_experiments()  # makes the database's tables
    return made


@pytest.fixture(scope="session")
def ablation(tracked: Tracked) -> str:
    """Four arms at four seeds: one much better, one much worse, one the same."""
    return tracked.fill(
        {
            "baseline": (1.0, ""),
            "dropout": (2.0, "baseline"),
            "augmented": (1.9, "dropout"),
            "dropout_sgd": (0.7, "dropout"),
        },
        seeds=(0, 1, 2, 3),
    )
