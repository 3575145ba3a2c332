"""This machine's processor and GPUs, and the start of TensorFlow on them."""

from __future__ import annotations

import functools
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.training import Precision, Training
from melanoma_lab.core.errors import UserError, require
from melanoma_lab.core.formatting import format_count
from melanoma_lab.core.heavy_imports import load_tensorflow, quiet_stderr
from melanoma_lab.core.interrupts import defer_interrupts

#: Flags of x86 processors that multiply bfloat16 matrices. Without them TensorFlow emulates
#: bfloat16, which is slower than float32. ARM's instructions are not listed: their gain was never
#: measured here.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow can use.

    Attributes:
        name: the name that its driver gives.
        capability: NVIDIA's compute capability, such as (8, 0); None for a GPU of another maker.
    """

    name: str
    capability: tuple[int, int] | None


@dataclass(frozen=True)
class Hardware:
    """The processor and GPUs of a machine.

    Attributes:
        processor: name of the processor.
        flags: the processor's instruction sets, as Linux names them; empty if they are unknown.
        gpus: the GPUs that TensorFlow can use.
    """

    processor: str
    flags: frozenset[str]
    gpus: tuple[Gpu, ...] = ()

    def best_precision(self, *, depthwise: bool) -> Precision:
        """Return the fastest precision that all devices of this machine compute in hardware.

        bfloat16 is preferred: it has the range of float32, so that no gradient overflows. NVIDIA's
        GPUs have it from compute capability 8.0 on, and fast float16 from 7.0 on.

        Args:
            depthwise: whether the network has depthwise convolutions, whose gradients TensorFlow
                computes many times slower in bfloat16 on a processor.
        """
        if not self.gpus:
            fast = self.flags & BFLOAT16_FLAGS and not depthwise
            return Precision.mixed_bfloat16 if fast else Precision.float32
        weakest = min(gpu.capability or (0, 0) for gpu in self.gpus)
        if weakest >= (8, 0):
            return Precision.mixed_bfloat16
        return Precision.mixed_float16 if weakest >= (7, 0) else Precision.float32

    def describe(self, devices: int) -> str:
        """Name the devices that a training uses, such as ``"2 GPUs: Tesla T4, Tesla T4"``."""
        if self.gpus:
            names = ", ".join(gpu.name for gpu in self.gpus[:devices])
            return names if devices == 1 else f"{devices} GPUs: {names}"
        return self.processor if devices == 1 else f"{devices} parts of {self.processor}"


@functools.cache
def detect_hardware() -> Hardware:
    """Detect this machine's processor and the GPUs that TensorFlow can use; load TensorFlow."""
    from melanoma_lab.core.heavy_imports import load_tensorflow

    tf = load_tensorflow()
    details = [
        tf.config.experimental.get_device_details(gpu)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return Hardware(
        processor=read_processor_name(),
        flags=frozenset(_cpuinfo().get("flags", "").split()),
        gpus=tuple(
            Gpu(str(found.get("device_name", "GPU")), found.get("compute_capability"))
            for found in details
        ),
    )


def read_processor_name() -> str:
    """Return the processor's name, without loading TensorFlow."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """Read the first processor's entries of ``/proc/cpuinfo``; empty if there is no such file."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    return facts


def resolve_hardware_options(
    training: Training, *, threads: int, depthwise: bool = False
) -> Training:
    """Replace ``auto`` precision and unset devices with this machine's values.

    TensorFlow is loaded only if the result depends on the machine.

    Args:
        threads: number of processor threads, the largest number of devices without a GPU.

    Returns:
        The same options with a Keras dtype policy and a number of devices.

    Raises:
        UserError: more devices are configured than the machine has, or the batch cannot be divided
            by all devices of the machine.
    """
    precision, devices = training.precision, training.devices
    if precision is Precision.auto:
        precision = detect_hardware().best_precision(depthwise=depthwise)
    if devices is None:
        devices = max(1, len(detect_hardware().gpus))
    if devices > 1:
        gpus = len(detect_hardware().gpus)
        there = format_count(gpus, "GPU") if gpus else f"no GPU and {threads} processor threads"
        require(
            devices <= (gpus or threads),
            "training.devices",
            f"at most what is available, {there}",
            devices,
        )
    return replace(training, precision=precision, devices=devices)


def require_device_count(training: Training) -> int:
    """Return the number of devices that share a batch.

    Args:
        training: options that ``resolve_hardware_options`` has returned.

    Raises:
        ValueError: the number is still unset, which means all devices.
    """
    if training.devices is None:
        raise ValueError(
            "Expected a number of devices. Received: None, as resolve_hardware_options takes."
        )
    return training.devices


def count_available_threads(shared_by: int = 1) -> int:
    """Return how many processors this process may use.

    A scheduler may allow fewer than the machine has.

    Args:
        shared_by: number of processes that share the processors equally.
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
