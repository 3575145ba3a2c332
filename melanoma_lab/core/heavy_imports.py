"""Import TensorFlow and MLflow silently, and exclude their objects from garbage collection."""

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
    """Import a module, then exclude all existing objects from later garbage collections.

    TensorFlow and MLflow make half a million objects that live as long as the process. Each full
    collection would visit all of them, which takes a tenth of the CPU time of a short run.

    Args:
        name: name of the module; nothing happens if it has been imported already.
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
    """Return the module ``tensorflow``, imported with Keras and without start-up messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" not in sys.modules:
        # On CPUs without AVX-512, TensorFlow does not use oneDNN by default, and vgg5 then takes
        # 1.7 times as long.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # Loading its libraries blocks all threads for seconds.
        with show_progress("starting TensorFlow", at_once=True), quiet_stderr():
            import_heavy("keras")
    import tensorflow as tf

    return tf


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back the output of native code on standard error; show it if the block fails.

    oneDNN and CUDA print start-up messages that TF_CPP_MIN_LOG_LEVEL does not silence.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
