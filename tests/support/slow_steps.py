"""Steps of a command that count as slow, however quick they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from melanoma_lab.core import console


class AtOnce:
    """A timer whose time is over as it starts."""

    daemon = False

    def __init__(
        self,
        _seconds: float,
        function: Callable[..., None],
        args: Sequence[Any],
    ) -> None:
        self._call = lambda: function(*args)

    def start(self) -> None:
        self._call()

    def cancel(self) -> None:
        pass

    def join(self) -> None:
        pass


def make_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step of a command be told as a slow one is."""
    monkeypatch.setattr(console, "Timer", AtOnce)
