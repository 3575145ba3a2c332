"""What the bits of a training depend on beside its fingerprint.

A training is continued only where all of it is as it was; else the result would be neither this
run's nor another's.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import Any

from melanoma_lab.registry import BUILDERS
from melanoma_lab.training.hardware import detect_hardware

PACKAGE = Path(__file__).resolve().parent.parent
#: The parts of the lab that a training's bits come from. Others, such as plots or the report, may
#: be repaired between a failure and the attempt that continues it.
TRAINING_CODE = (
    "core/checksummed_files.py",
    "core/checksums.py",
    "core/heavy_imports.py",
    "data/**/*.py",
    "input_pipeline/**/*.py",
    "models/**/*.py",
    "training/**/*.py",
)
DISTRIBUTIONS = ("tensorflow", "keras", "numpy", "pillow", "augmentor")
#: Environment variables that change how TensorFlow computes.
ENVIRONMENT_VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS",
    "ONEDNN_MAX_CPU_ISA",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "NVIDIA_TF32_OVERRIDE",
)


def describe_environment(threads: int, devices: int) -> dict[str, str]:
    """What a training's bits depend on, by name; ``start_backend`` has been called.

    Args:
        threads: TensorFlow's.
        devices: that share a batch.
    """
    return {
        "threads": str(threads),
        "device": detect_hardware().describe(devices),
        **{name: version(name) for name in DISTRIBUTIONS},
        **{name: os.environ.get(name, "unset") for name in ENVIRONMENT_VARIABLES},
        "code": compute_code_digest(),
    }


def describe_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say what is not as it was, such as ``"threads (4, now 2)"``."""
    differing = [name for name in now if before.get(name) != now[name]]
    return [
        "the code" if name == "code" else f"{name} ({before.get(name, 'unknown')}, now {now[name]})"
        for name in differing
    ]


def compute_code_digest() -> str:
    """A digest of the source that computes: the lab's own, and that of a user's builders."""
    own = [path for pattern in TRAINING_CODE for path in PACKAGE.glob(pattern)]
    users = {
        _source(build)
        for build in BUILDERS.values()
        if not str(build.__module__).startswith("melanoma_lab.")
    }
    digest = hashlib.sha256()
    for path in sorted(own):
        digest.update(path.name.encode() + path.read_bytes())
    for source in sorted(users):
        digest.update(source)
    return digest.hexdigest()[:16]


def _source(build: Any) -> bytes:
    """The file that declares a builder; its own lines if of a notebook, its bytecode if typed."""
    if isinstance(build, functools.partial):
        return _source(build.func) + repr((build.args, build.keywords)).encode()
    with suppress(OSError, TypeError):
        return Path(inspect.getsourcefile(build) or "").read_bytes()
    with suppress(OSError, TypeError):
        return inspect.getsource(build).encode()
    code = getattr(build, "__code__", None)
    return _bytecode(code) if code else repr(build).encode()


def _bytecode(code: CodeType) -> bytes:
    """What a function does, with the functions within it, the same in every process."""
    constants = (
        _bytecode(value) if isinstance(value, CodeType) else repr(value).encode()
        for value in code.co_consts
    )
    return b"\0".join([code.co_code, repr(code.co_names).encode(), *constants])
