"""Studies that the tests of the comparison share; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.fake_studies import FakeStudies, draw_table, make_ablation


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Any]:
    return draw_table


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> FakeStudies:
    """Studies in memory."""
    return FakeStudies.in_memory(tmp_path_factory.mktemp("tracked"))


@pytest.fixture(scope="session")
def ablation(tracked: FakeStudies) -> str:
    """Four arms at four seeds: one much better, one much worse, one the same."""
    return make_ablation(tracked)
