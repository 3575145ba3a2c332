"""Start TensorFlow once in a process: quiet, seeded, deterministic, with fixed threads."""

from __future__ import annotations

import os
import sys
from typing import Any

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.heavy_imports import load_tensorflow, quiet_stderr
from melanoma_lab.core.interrupts import defer_interrupts


def count_available_threads(shared_by: int = 1) -> int:
    """Return how many processors this process may use.

    A scheduler may allow fewer than the machine has.

    Args:
        shared_by: number of processes that share the processors equally.

    Returns:
        This process's share, at least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return max(1, available // shared_by)


def choose_threads(configured: int | None, shared_by: int = 1) -> int:
    """Return how many threads a command gives to TensorFlow.

    Args:
        configured: the value of ``training.threads``. None stands for the number that TensorFlow
            already uses in this process, which cannot change any more, or, if TensorFlow has not
            started, for as many as the process may use.
        shared_by: number of processes that share the processors equally.
    """
    if configured is not None:
        return configured
    running = count_threads_in_use() if "tensorflow" in sys.modules else 0
    return running or count_available_threads(shared_by)


def start_backend(*, threads: int, seed: int, precision: Precision, devices: int = 1) -> None:
    """Import TensorFlow and Keras and make the next run repeatable.

    It may be called again for another run in the same process; Keras's global state of the previous
    run is cleared.

    Args:
        threads: number of threads of TensorFlow's kernels; results depend on it.
        seed: seed of the global random generators of Python, NumPy and Keras.
        precision: Keras dtype policy.
        devices: number of devices that share a batch, as ``resolve_hardware_options`` returns it:
            GPUs, or parts of the processor if there is no GPU.

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
            running = count_threads_in_use() or "its default number of threads"
            raise UserError(
                f"training.threads={threads}: TensorFlow already runs in this process with "
                f"{running}; use the same number for all jobs of a command and all calls of a "
                "session, and call the lab before other code that uses TensorFlow."
            ) from error
        _provide_devices(tf, devices)
        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")  # it mistakes the next run for retracing
        with defer_interrupts():
            keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        keras.config.set_dtype_policy(precision.value)


def count_threads_in_use() -> int:
    """Return the number of threads that ``start_backend`` has set; 0 if it was not called yet."""
    return int(load_tensorflow().config.threading.get_intra_op_parallelism_threads())


def _provide_devices(tf: Any, devices: int) -> None:
    """Let GPUs allocate memory as needed; without a GPU, divide the processor into devices."""
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
            "use the same number for all jobs of a command."
        ) from error
