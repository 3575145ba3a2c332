"""What this machine computes with, and what ``auto`` and "all" come to on it."""

from __future__ import annotations

import functools
import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from melanoma_lab.config.schema.training import Precision, Training
from melanoma_lab.core.errors import require
from melanoma_lab.core.formatting import format_count

#: Flags of x86 processors that multiply bfloat16 matrices. Without them TensorFlow emulates it,
#: slower than float32. ARM's instructions do not count: nobody has measured what they gain here.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow can use.

    Attributes:
        name: as its driver calls it.
        capability: NVIDIA's compute capability, such as (8, 0); None for another maker's.
    """

    name: str
    capability: tuple[int, int] | None


@dataclass(frozen=True)
class Hardware:
    """What a network can be computed on.

    Attributes:
        processor: its name.
        flags: the processor's instruction sets, as Linux names them; empty where they are unknown.
        gpus: those that TensorFlow can use.
    """

    processor: str
    flags: frozenset[str]
    gpus: tuple[Gpu, ...] = ()

    def best_precision(self, *, depthwise: bool) -> Precision:
        """The fastest precision that is computed in hardware wherever the network may run.

        bfloat16 comes first: it has the range of float32, so that no gradient overflows. NVIDIA's
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
        """Name what a number of devices are, such as ``"2 GPUs: Tesla T4, Tesla T4"``."""
        if self.gpus:
            names = ", ".join(gpu.name for gpu in self.gpus[:devices])
            return names if devices == 1 else f"{devices} GPUs: {names}"
        return self.processor if devices == 1 else f"{devices} parts of {self.processor}"


@functools.cache
def detect_hardware() -> Hardware:
    """Look at the machine; loads TensorFlow to find out which GPUs it can use."""
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
    """The processor's name; TensorFlow is not asked."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """The first processor's facts, by name, where the system tells them (Linux)."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    return facts


def resolve_hardware_options(
    training: Training, *, threads: int, depthwise: bool = False
) -> Training:
    """Put what ``auto`` and "all devices" come to here in their place.

    TensorFlow is loaded only where the answer depends on the machine.

    Args:
        training: as configured.
        threads: of the processor, which bound its parts where there is no GPU.
        depthwise: whether the network has depthwise convolutions.

    Returns:
        The same with a Keras dtype policy and a number of devices.

    Raises:
        UserError: there are fewer devices, or the batch cannot be divided by all that there are.
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
            f"at most what there is, {there}",
            devices,
        )
    return replace(training, precision=precision, devices=devices)


def require_device_count(training: Training) -> int:
    """The number of devices that share a batch; ``resolve_hardware_options`` has been asked for it.

    Raises:
        ValueError: it is still "all".
    """
    if training.devices is None:
        raise ValueError(
            "Expected a number of devices. Received: None, as resolve_hardware_options takes."
        )
    return training.devices
