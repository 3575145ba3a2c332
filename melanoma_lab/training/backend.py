"""TensorFlow, started once a process: quietly, with pinned threads, seeded and deterministic."""

from __future__ import annotations

import os
import sys
from typing import Any

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.heavy_imports import load_tensorflow, quiet_stderr
from melanoma_lab.core.interrupts import defer_interrupts


def count_available_threads(shared_by: int = 1) -> int:
    """Processors that this process may use; fewer than the machine has under a scheduler.

    Args:
        shared_by: processes that each get an equal share of them, one at least.
    """
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return max(1, available // shared_by)


def choose_threads(asked: int | None, shared_by: int = 1) -> int:
    """How many threads a task takes.

    Args:
        asked: ``training.threads``; None: those that an earlier task of this process took, which
            TensorFlow keeps to its end, and else as many as the process may use.
        shared_by: as for ``count_available_threads``.
    """
    if asked is not None:
        return asked
    running = count_threads_in_use() if "tensorflow" in sys.modules else 0
    return running or count_available_threads(shared_by)


def start_backend(*, threads: int, seed: int, precision: Precision, devices: int = 1) -> None:
    """Import TensorFlow and Keras and set what makes a run repeatable.

    May be called again for another run in the same process; the state of the last one is dropped.

    Args:
        threads: for TensorFlow's kernels; results depend on it.
        seed: of Python's, NumPy's and Keras's global generators.
        precision: Keras dtype policy.
        devices: how many share a batch, as ``resolve_hardware_options`` allows: GPUs, or parts of
            the processor where there is none.

    Raises:
        UserError: TensorFlow already runs in this process with another number of threads, or with
            fewer parts of the processor.
    """
    tf = load_tensorflow()
    import keras

    with quiet_stderr():
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError as error:
            running = count_threads_in_use() or "a number of its own choice"
            raise UserError(
                f"training.threads={threads}: TensorFlow already runs in this process with "
                f"{running}; use one number for all jobs of a command and all calls of a session, "
                "and call the lab before anything else that computes with TensorFlow."
            ) from error
        _provide_devices(tf, devices)
        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")  # it takes the next run of a process for retracing
        with defer_interrupts():
            keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        keras.config.set_dtype_policy(precision.value)


def count_threads_in_use() -> int:
    """The threads that ``start_backend`` has given to TensorFlow's kernels; 0: it has not yet."""
    return int(load_tensorflow().config.threading.get_intra_op_parallelism_threads())


def _provide_devices(tf: Any, devices: int) -> None:
    """Let GPUs take memory as they need it; without any, divide the processor."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    processor = tf.config.list_physical_devices("CPU")[0]
    part = tf.config.LogicalDeviceConfiguration()
    parts = len(tf.config.get_logical_device_configuration(processor) or [part])
    if gpus or devices <= parts:
        return
    try:
        tf.config.set_logical_device_configuration(processor, [part] * devices)
    except RuntimeError as error:
        raise UserError(
            f"training.devices={devices}: TensorFlow already runs in this process with {parts}; "
            "use one number for all jobs of a command."
        ) from error
