"""Importing TensorFlow and MLflow in silence, without the garbage collections they would cost."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from melanoma_lab.core.console import show_progress
from melanoma_lab.core.errors import UserError


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


def load_tensorflow() -> Any:
    """Import TensorFlow and Keras without their start-up lines.

    Returns:
        The module ``tensorflow``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" not in sys.modules:
        # Without AVX-512, TensorFlow would leave oneDNN out, and vgg5 take 1.7 times as long.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # Its libraries are loaded in one go of seconds.
        with show_progress("starting TensorFlow", at_once=True), quiet_stderr():
            import_heavy("keras")
    import tensorflow as tf

    return tf


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what native code prints on standard error; show it if the block fails.

    oneDNN and CUDA print start-up lines that TF_CPP_MIN_LOG_LEVEL does not silence.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
