"""Importing TensorFlow and MLflow without the garbage collections that their objects would cost."""

from __future__ import annotations

import gc
import importlib
import sys


def import_heavy(name: str) -> None:
    """Import a module and leave every object that exists then out of later garbage collections.

    TensorFlow and MLflow are half a million objects that live as long as the process. Each full
    collection would look at all of them: a tenth of the processor time of a short run.

    Args:
        name: of the module; nothing happens if it is imported already.
    """
    if name in sys.modules:
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(name)
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
