"""How a slow step tells how far it has come."""

from __future__ import annotations

from collections.abc import Callable

#: Called with (done, total).
ProgressCallback = Callable[[int, int], None]
