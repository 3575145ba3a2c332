"""TensorFlow, started once a process: quietly, with pinned threads, seeded and deterministic."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.errors import UserError


def available_threads() -> int:
    """Processors that this process may use; fewer than the machine has under a scheduler."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_backend(*, threads: int, seed: int, precision: Precision) -> None:
    """Import TensorFlow and Keras and set what makes a run repeatable.

    May be called again for another run in the same process; the state of the last one is dropped.

    Args:
        threads: for TensorFlow's kernels; results depend on it.
        seed: of Python's, NumPy's and Keras's global generators.
        precision: Keras dtype policy.

    Raises:
        UserError: TensorFlow already runs in this process with another number of threads.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet_stderr():
        import keras
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError as error:
            raise UserError(
                f"training.threads={threads}: TensorFlow already runs in this process with "
                f"{tf.config.threading.get_intra_op_parallelism_threads()}; "
                "use one number for all jobs of a command."
            ) from error
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")  # it takes the next run of a process for retracing
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        keras.config.set_dtype_policy(precision.value)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
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


def describe_device() -> str:
    """What the network is computed on: the GPUs' names, or the processor's."""
    import tensorflow as tf

    gpus = [
        str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU"))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join(gpus) or describe_processor()


def describe_processor() -> str:
    """The processor's name; TensorFlow is not asked."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
