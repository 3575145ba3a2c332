"""The version of melanoma_lab."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("melanoma-lab")
except PackageNotFoundError:  # imported from a clone that is not installed
    __version__ = "0.1.0"
