"""Runs without figures and without the page of mistakes: half of what a small one costs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def undrawn_runs() -> Iterator[None]:
    """Let runs in the block, of this process, draw nothing; all else is recorded."""
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("melanoma_lab.runs.run_report")
        patch.setattr(module, "save_run_figures", lambda *_, **__: [])
        patch.setattr(module, "write_error_analysis", lambda *_, **__: None)
        yield
