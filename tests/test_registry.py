"""What a user declares is found in processes that do not run the user's script."""

from dataclasses import dataclass

import cloudpickle
import pytest

from melanoma_lab import registry
from melanoma_lab.registry import get_user_options, register_user_options

pytestmark = pytest.mark.unit


@pytest.fixture
def _as_before(monkeypatch):
    for table in ("OPTIONS", "BUILDERS"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


@pytest.mark.usefixtures("_as_before")
def test_a_users_parts_are_taken_along_and_the_labs_are_not(monkeypatch):
    before = get_user_options()

    @registry.option("loss", "mine")
    @dataclass
    class Mine:
        weight: float = 2.0

    @registry.builder("loss", "mine")
    def build(options):
        return options.weight

    there = cloudpickle.loads(cloudpickle.dumps(get_user_options()))
    assert {key for table in there for key in table} - {key for t in before for key in t} == {
        ("loss", "mine")
    }
    for table in ("OPTIONS", "BUILDERS"):  # a process that has imported the lab alone
        monkeypatch.setattr(registry, table, {})
    register_user_options(there)
    options = registry.OPTIONS["loss", "mine"](weight=3.0)
    assert registry.find_builder("loss", "mine")(options) == 3.0
