"""The environment of a training: what its exact bits depend on in addition to its fingerprint.

An interrupted training is resumed only if its environment has not changed. Otherwise no single
environment could reproduce the result.
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

from melanoma_lab.registry import get_user_options
from melanoma_lab.training.hardware import detect_hardware

PACKAGE = Path(__file__).resolve().parent.parent
#: The files of this package that affect a training's exact bits. Others, such as plots or reports,
#: may be repaired between a failure and the attempt that resumes the training.
TRAINING_CODE = (
    "core/checksummed_files.py",
    "core/files.py",
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
    """Describe everything besides the fingerprint that affects the exact bits of a training.

    Call ``start_backend`` first.

    Returns:
        Texts by name: threads, device, versions of libraries, environment variables and a digest of
        the source code.
    """
    return {
        "threads": str(threads),
        "device": detect_hardware().describe(devices),
        **{name: version(name) for name in DISTRIBUTIONS},
        **{name: os.environ.get(name, "unset") for name in ENVIRONMENT_VARIABLES},
        "code": compute_code_digest(),
    }


def describe_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the differences between two environments as text, such as ``"threads (4, now 2)"``."""
    differing = [name for name in now if before.get(name) != now[name]]
    return [
        "the code" if name == "code" else f"{name} ({before.get(name, 'unknown')}, now {now[name]})"
        for name in differing
    ]


def compute_code_digest() -> str:
    """Return a digest of the source code that trains: this package's and a user's builders'."""
    own = [path for pattern in TRAINING_CODE for path in PACKAGE.glob(pattern)]
    users = {_source(build) for build in get_user_options()[1].values()}
    digest = hashlib.sha256()
    for path in sorted(own):
        digest.update(path.name.encode() + path.read_bytes())
    for source in sorted(users):
        digest.update(source)
    return digest.hexdigest()[:16]


def _source(build: Any) -> bytes:
    """Return the source that defines a builder.

    That is the content of its file; of a notebook, the function's own lines; of a function without
    source, such as one typed at a prompt, its bytecode.
    """
    if isinstance(build, functools.partial):
        return _source(build.func) + repr((build.args, build.keywords)).encode()
    with suppress(OSError, TypeError):
        return Path(inspect.getsourcefile(build) or "").read_bytes()
    with suppress(OSError, TypeError):
        return inspect.getsource(build).encode()
    code = getattr(build, "__code__", None)
    return _bytecode(code) if code else repr(build).encode()


def _bytecode(code: CodeType) -> bytes:
    """Return a function's bytecode with its nested functions', the same in every process."""
    constants = (
        _bytecode(value) if isinstance(value, CodeType) else repr(value).encode()
        for value in code.co_consts
    )
    return b"\0".join([code.co_code, repr(code.co_names).encode(), *constants])
