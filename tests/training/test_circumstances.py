"""What may not change between two parts of one training."""

import importlib.util

import pytest

from melanoma_lab import registry
from melanoma_lab.training.circumstances import changed, circumstances, code_digest


def test_what_differs_is_named():
    before = {"threads": "4", "keras": "3.15.1", "code": "a"}
    assert changed(before, before) == []
    now = {"threads": "2", "keras": "3.15.1", "code": "b", "numpy": "2"}
    assert changed(before, now) == ["threads (4, now 2)", "the code", "numpy (unknown, now 2)"]


def test_threads_versions_and_switches_count(monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    before = circumstances(2, 1)
    assert {"threads", "device", "tensorflow", "keras", "numpy", "code"} <= before.keys()
    assert circumstances(2, 1) == before
    assert changed(before, circumstances(3, 1)) == ["threads (2, now 3)"]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert changed(before, circumstances(2, 1)) == ["TF_ENABLE_ONEDNN_OPTS (unset, now 0)"]


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
    first = code_digest()
    mine("def build():\n    return 2\n")
    assert code_digest() != first
    mine("def build():\n    return 1\n")
    assert code_digest() == first
