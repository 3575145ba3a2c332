"""What may not change between two parts of one training."""

import functools
import importlib.util
import linecache

import pytest

from melanoma_lab import registry
from melanoma_lab.training.environment import (
    compute_code_digest,
    describe_changes,
    describe_environment,
)

pytestmark = pytest.mark.component


def test_what_differs_is_named():
    before = {"threads": "4", "keras": "3.15.1", "code": "a"}
    assert describe_changes(before, before) == []
    now = {"threads": "2", "keras": "3.15.1", "code": "b", "numpy": "2"}
    assert describe_changes(before, now) == [
        "threads (4, now 2)",
        "the code",
        "numpy (unknown, now 2)",
    ]


def test_threads_versions_and_switches_count(monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    before = describe_environment(2, 1)
    assert {"threads", "device", "tensorflow", "keras", "numpy", "code"} <= before.keys()
    assert describe_environment(2, 1) == before
    assert describe_changes(before, describe_environment(3, 1)) == ["threads (2, now 3)"]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert describe_changes(before, describe_environment(2, 1)) == [
        "TF_ENABLE_ONEDNN_OPTS (unset, now 0)"
    ]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Declare a builder of the user's own, from a file with the given text."""
    monkeypatch.setitem(registry.BUILDERS, ("architecture", "mine"), None)
    path = tmp_path / "mine.py"

    def declare(text):
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("mine", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        registry.BUILDERS["architecture", "mine"] = module.build

    return declare


def test_a_users_own_builder_counts(mine):
    mine("def build():\n    return 1\n")
    first = compute_code_digest()
    mine("def build():\n    return 2\n")
    assert compute_code_digest() != first
    mine("def build():\n    return 1\n")
    assert compute_code_digest() == first


def declared_at_a_prompt(value):
    """A builder of ``python -c``, a prompt or standard input: its lines are nowhere."""
    names = {}
    text = f"def build(): return (lambda: {value})()"
    exec(compile(text, "<stdin>", "exec"), names)  # noqa: S102
    return names["build"]


def declared_in_a_cell(value):
    """A builder of a notebook: its file is not there, its lines are in Python's ``linecache``."""
    name, text = f"/nowhere/ipykernel_1/{value}.py", f"def build():\n    return {value}\n"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), names)  # noqa: S102
    return names["build"]


def declared_with_a_value(value):
    return functools.partial(max, value)


@pytest.mark.parametrize(
    "declared", [declared_at_a_prompt, declared_in_a_cell, declared_with_a_value]
)
def test_a_builder_without_a_file_counts_too(monkeypatch, declared):
    digests = []
    for value in (1, 2, 1):
        monkeypatch.setitem(registry.BUILDERS, ("architecture", "mine"), declared(value))
        digests.append(compute_code_digest())
    assert digests[0] == digests[2] != digests[1]
