"""Augmentor's operations, named in the configuration and applied in memory.

Augmentor draws from the global generators of ``random`` and ``numpy.random``, which makes results
depend on whatever else draws from them, other threads first of all. Here its operations run from a
private copy of their module, in which ``random`` and ``np.random`` are the calling thread's own: a
copy depends on its seed alone, and nobody else's numbers or Augmentor change.
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

#: An operation is tried this often on noise before it is let near the images: enough for a range
#: of which a part is invalid to show, in a few milliseconds.
TRIALS = 8

OPERATIONS_KEY = "balancing.operations"
EXAMPLE = "{rotate: {probability: 0.7, max_left_rotation: 10, max_right_rotation: 10}}"


class OperationSpec(NamedTuple):
    """One operation as configured: plain values only, so that it pickles and hashes.

    Attributes:
        name: method of ``Augmentor.Pipeline`` that adds the operation.
        arguments: every argument of that method, its defaults filled in.
    """

    name: str
    arguments: dict[str, Any]


class Operation(Protocol):
    """What Augmentor calls an operation."""

    @property
    def probability(self) -> float:
        """How often the operation is performed, in (0, 1]."""
        ...

    def perform_operation(self, images: list[Image.Image]) -> list[Image.Image]:
        """Return the changed images; draws from the calling thread's random numbers."""
        ...


def check_operations(operations: object, image_size: tuple[int, int] = (180, 180)) -> None:
    """Refuse operations that Augmentor lacks or that fail, before any image is read.

    Args:
        operations: a list such as ``[{"rotate": {"probability": 0.7, ...}}]``.
        image_size: height and width of the images in pixels; cropping depends on it.

    Raises:
        UserError: an unknown name or argument, a missing or an invalid one.
    """
    specs = parse_operations(operations)
    noise = np.random.default_rng(0).integers(0, 256, (*image_size, 3), np.uint8)
    with silence_augmentor():
        for position, (spec, operation) in enumerate(
            zip(specs, build_operations(specs), strict=True)
        ):
            always = _Always(operation)
            try:
                for seed in range(TRIALS):
                    augment_image(noise, [always], seed)
            except Exception as error:  # whatever Augmentor raises, an argument caused it
                height, width = image_size
                raise UserError(
                    f"{OPERATIONS_KEY}[{position}].{spec.name}: fails on an image of "
                    f"{width}x{height} pixels with these arguments: {error}"
                ) from error


def parse_operations(operations: object) -> tuple[OperationSpec, ...]:
    """Turn the configured list into checked specifications.

    Args:
        operations: a list of mappings, each from one method's name to its arguments.

    Returns:
        One specification an operation, in order.

    Raises:
        UserError: the list is empty or malformed; Augmentor has no such operation or argument; a
            probability is not in (0, 1].
    """
    if not isinstance(operations, Sequence) or isinstance(operations, str) or not operations:
        raise UserError(
            f"{OPERATIONS_KEY}: expected a list of at least one operation, such as [{EXAMPLE}]; "
            f"received {operations!r}. Copies without any would be repeats: balancing=oversample."
        )
    return tuple(
        _parse_operation(f"{OPERATIONS_KEY}[{position}]", entry)
        for position, entry in enumerate(operations)
    )


def _parse_operation(where: str, entry: object) -> OperationSpec:
    """Check one entry of the list; ``where`` names it in messages."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UserError(
            f"{where}: expected one operation with its arguments, such as {EXAMPLE}; "
            f"received {entry!r}."
        )
    ((name, arguments),) = entry.items()
    signatures = _signatures()
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
    bound = signature.bind(**{key: _plain(value) for key, value in arguments.items()})
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


def _plain(value: object) -> object:
    """YAML has lists only; Pillow wants a colour as a tuple."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return value


def _signatures() -> dict[str, inspect.Signature]:
    """The methods of Augmentor's pipeline that add an operation, and their parameters."""
    signatures = {}
    pipeline = _empty_pipeline()
    for name, method in inspect.getmembers(pipeline, inspect.ismethod):
        signature = inspect.signature(method)
        if not name.startswith("_") and "probability" in signature.parameters:
            signatures[name] = signature
    return signatures


def _empty_pipeline() -> Any:
    """A new Augmentor pipeline without folders or operations."""
    with _silence_compilation():
        import Augmentor
    return Augmentor.Pipeline()


@contextmanager
def _silence_compilation() -> Iterator[None]:
    """Augmentor's docstrings have invalid escapes, which Python reports when it compiles them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def get_augmentor_version() -> str:
    """Version of the installed Augmentor."""
    _empty_pipeline()
    import Augmentor

    return str(Augmentor.__version__)


def build_operations(specs: Sequence[OperationSpec]) -> list[Operation]:
    """Augmentor's own operation objects, with random numbers of the calling thread's own.

    Args:
        specs: checked specifications.

    Returns:
        One operation a specification, in order; threads may share them.
    """
    pipeline = _empty_pipeline()
    for name, arguments in specs:
        getattr(pipeline, name)(**arguments)
    return [_use_private_random(operation) for operation in pipeline.operations]


def _use_private_random(operation: Any) -> Operation:
    """The same operation as an object of the private module's class."""
    twin = object.__new__(getattr(_private_module(), type(operation).__name__))
    vars(twin).update(vars(operation))
    return cast("Operation", twin)


@cache
def _private_module() -> ModuleType:
    """A second copy of Augmentor's operations, with other sources of random numbers."""
    with _silence_compilation():
        spec = importlib.util.find_spec("Augmentor.Operations")
        if spec is None or spec.loader is None:
            raise ImportError("Augmentor has no module Operations.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    vars(module).update(random=_ThreadRandom(), np=_NumpyWithThreadRandom())
    return module


class _Streams(threading.local):
    """The random numbers of one thread, of both kinds that Augmentor draws."""

    def __init__(self) -> None:
        self.python = random.Random()  # noqa: S311  not for secrets
        self.numpy = np.random.RandomState()

    def seed(self, seed: int) -> None:
        """Start both streams anew; 0 <= seed < 2**128."""
        self.python.seed(seed)
        self.numpy.seed([seed >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)])


_streams = _Streams()


class _ThreadRandom:
    """Stands for the module ``random``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_streams.python, name)


class _NumpyWithThreadRandom:
    """Stands for the module ``numpy``."""

    @property
    def random(self) -> Any:
        return _streams.numpy

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class _Always(NamedTuple):
    """An operation at probability 1."""

    operation: Operation
    probability: float = 1.0

    def perform_operation(self, images: list[Image.Image]) -> list[Image.Image]:
        return self.operation.perform_operation(images)


@contextmanager
def silence_augmentor() -> Iterator[None]:
    """Surround calls of ``augment_image``: its skewing uses ``numpy.matrix``, which warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


def augment_image(
    pixels: NDArray[np.uint8], operations: Sequence[Operation], seed: int
) -> NDArray[np.uint8]:
    """Apply operations to one image, each with its exact probability.

    ``Augmentor.Pipeline.sample`` rounds its draws to tenths, so that 0.7 becomes 0.75; this
    follows ``Pipeline.torch_transform``, which does not. An operation that drops colour gives an
    RGB picture again, and one that changes the size is followed by resizing back at the end, as a
    network takes one size only.

    Threads may call it at the same time.

    Args:
        pixels: uint8, shape (height, width, 3); not changed.
        operations: what ``build_operations`` returned.
        seed: all randomness of the copy, at least 0, below 2**128.

    Returns:
        uint8, shape (height, width, 3).
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
