"""Augmentor's operations, chosen in the configuration and applied in memory.

Augmentor draws from the global generators of ``random`` and ``numpy.random``, so that results would
depend on other code that draws from them, especially other threads. Here its operations run from a
private copy of their module, in which ``random`` and ``np.random`` belong to the calling thread. A
copy of an image then depends on its seed only, and neither the global generators nor Augmentor
change.
"""

from __future__ import annotations

import importlib.util
import inspect
import random
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.core.errors import UserError, suggest_choice

#: Number of times that an operation is tried on noise before it is applied to images: a few
#: milliseconds, and enough to find ranges that are partly invalid.
TRIALS = 8

OPERATIONS_KEY = "balancing.operations"
EXAMPLE = "{rotate: {probability: 0.7, max_left_rotation: 10, max_right_rotation: 10}}"


class OperationSpec(NamedTuple):
    """A configured operation, in plain values that can be written as JSON.

    Attributes:
        name: method of ``Augmentor.Pipeline`` that adds the operation.
        arguments: all arguments of that method, including defaults.
    """

    name: str
    arguments: dict[str, Any]


class Operation(Protocol):
    """An operation object of Augmentor, which is performed with a probability in (0, 1]."""

    probability: float

    def perform_operation(self, images: list[Image.Image]) -> list[Image.Image]:
        """Return the changed images; use the calling thread's random numbers."""
        ...


def check_operations(operations: object, image_size: tuple[int, int] = (180, 180)) -> None:
    """Refuse operations that Augmentor does not have or that fail, before any image is read.

    Cropping depends on the images' height and width in pixels.

    Raises:
        UserError: a name or argument is unknown, missing or invalid.
    """
    specs = parse_operations(operations)
    noise = np.random.default_rng(0).integers(0, 256, (*image_size, 3), np.uint8)
    with silence_augmentor():
        for position, (spec, operation) in enumerate(
            zip(specs, build_operations(specs), strict=True)
        ):
            operation.probability = 1
            try:
                for seed in range(TRIALS):
                    augment_image(noise, [operation], seed)
            except Exception as error:  # Augmentor may raise anything; an argument is the cause
                height, width = image_size
                raise UserError(
                    f"{OPERATIONS_KEY}[{position}].{spec.name}: fails on an image of "
                    f"{width}x{height} pixels with these arguments: {error}"
                ) from error


def parse_operations(operations: object) -> tuple[OperationSpec, ...]:
    """Parse and check the configured list, such as ``[{"rotate": {"probability": 0.7, ...}}]``.

    Raises:
        UserError: the list is empty or malformed; Augmentor has no such operation or argument; a
            probability is not in (0, 1].
    """
    if not isinstance(operations, Sequence) or isinstance(operations, str) or not operations:
        raise UserError(
            f"{OPERATIONS_KEY}: expected a list of at least one operation, such as [{EXAMPLE}]; "
            f"received {operations!r}. Copies without operations would be plain repeats, as of "
            "balancing=oversample."
        )
    return tuple(
        _parse_operation(f"{OPERATIONS_KEY}[{position}]", entry)
        for position, entry in enumerate(operations)
    )


def _parse_operation(where: str, entry: object) -> OperationSpec:
    """Parse and check one entry of the list; ``where`` names it in messages."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UserError(
            f"{where}: expected one operation with its arguments, such as {EXAMPLE}; "
            f"received {entry!r}."
        )
    ((name, arguments),) = entry.items()
    signatures = _get_signatures()
    if name not in signatures:
        raise UserError(
            f"{where}: Augmentor has no operation {name!r}. {suggest_choice(str(name), signatures)}"
        )
    if not isinstance(arguments, Mapping):
        raise UserError(
            f"{where}.{name}: expected arguments by name, such as {{probability: 0.7}}; "
            f"received {arguments!r}."
        )
    signature = signatures[name]
    for argument in arguments:
        if argument not in signature.parameters:
            raise UserError(
                f"{where}.{name}: no argument {argument!r}. "
                f"{suggest_choice(str(argument), signature.parameters)}"
            )
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.name not in arguments
    ]
    if missing:
        raise UserError(f"{where}.{name}: {' and '.join(missing)} must be given.")
    bound = signature.bind(**{key: _to_tuple(value) for key, value in arguments.items()})
    bound.apply_defaults()
    probability = bound.arguments["probability"]
    if (
        not isinstance(probability, int | float)
        or isinstance(probability, bool)
        or not 0 < probability <= 1
    ):
        raise UserError(
            f"{where}.{name}.probability: expected more than 0, at most 1; "
            f"received {probability!r}."
        )
    spec = OperationSpec(name, dict(bound.arguments))
    try:
        build_operations([spec])
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}.{name}: {error}") from error
    return spec


def _to_tuple(value: object) -> object:
    """Convert a list to a tuple: YAML has only lists, but Pillow expects a colour as a tuple."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return value


def _get_signatures() -> dict[str, inspect.Signature]:
    """Return the signatures of the methods of Augmentor's pipeline that add an operation."""
    signatures = {}
    pipeline = _build_empty_pipeline()
    for name, method in inspect.getmembers(pipeline, inspect.ismethod):
        signature = inspect.signature(method)
        if not name.startswith("_") and "probability" in signature.parameters:
            signatures[name] = signature
    return signatures


def _build_empty_pipeline() -> Any:
    """Build a new Augmentor pipeline without folders or operations."""
    with _silence_compilation():
        import Augmentor
    return Augmentor.Pipeline()


@contextmanager
def _silence_compilation() -> Iterator[None]:
    """Ignore Python's warnings about invalid escapes in Augmentor's docstrings when it compiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def build_operations(specs: Sequence[OperationSpec]) -> list[Operation]:
    """Build Augmentor's operation objects, which use the calling thread's random numbers.

    Threads may share them.
    """
    pipeline = _build_empty_pipeline()
    for name, arguments in specs:
        getattr(pipeline, name)(**arguments)
    return [_use_private_random(operation) for operation in pipeline.operations]


def _use_private_random(operation: Any) -> Operation:
    """Copy an operation into an object of the private module's class of the same name."""
    private = object.__new__(getattr(_load_private_module(), type(operation).__name__))
    vars(private).update(vars(operation))
    return cast("Operation", private)


@cache
def _load_private_module() -> ModuleType:
    """Load a second copy of Augmentor's module of operations, with per-thread random numbers."""
    with _silence_compilation():
        spec = importlib.util.find_spec("Augmentor.Operations")
        if spec is None or spec.loader is None:
            raise ImportError("Augmentor has no module Operations.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    vars(module).update(random=_ThreadRandom(), np=_NumpyWithThreadRandom())
    return module


class _Streams(threading.local):
    """The random generators of one thread, of both kinds that Augmentor uses."""

    def __init__(self) -> None:
        self.python = random.Random()  # noqa: S311  not for secrets
        self.numpy = np.random.RandomState()

    def seed(self, seed: int) -> None:
        """Seed both generators; 0 <= seed < 2**128."""
        self.python.seed(seed)
        self.numpy.seed([seed >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)])


_streams = _Streams()


class _ThreadRandom:
    """A replacement of the module ``random``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_streams.python, name)


class _NumpyWithThreadRandom:
    """A replacement of the module ``numpy``."""

    @property
    def random(self) -> Any:
        return _streams.numpy

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@contextmanager
def silence_augmentor() -> Iterator[None]:
    """Ignore warnings about ``numpy.matrix``, which Augmentor uses for skewing, in this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


def augment_image(
    pixels: NDArray[np.uint8], operations: Sequence[Operation], seed: int
) -> NDArray[np.uint8]:
    """Apply operations to one image, uint8, shape (height, width, 3), each with its probability.

    ``Augmentor.Pipeline.sample`` rounds its draws to tenths, so that 0.7 becomes 0.75. This
    function follows ``Pipeline.torch_transform``, which does not round. If an operation changes the
    colour mode or the size, the image is converted back to RGB, and to its size at the end. All
    random numbers depend on the seed, 0 <= seed < 2**128; threads may call the function at the same
    time.
    """
    _streams.seed(seed)
    image = Image.fromarray(pixels)
    size = image.size
    for operation in operations:
        if _streams.python.random() < operation.probability:
            (image,) = operation.perform_operation([image])
            if image.mode != "RGB":
                image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)
