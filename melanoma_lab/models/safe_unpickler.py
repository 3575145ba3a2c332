"""A restricted unpickler that creates only containers, numbers, strings and tensor descriptions.

Python's own unpickler calls every function that a file names, and restricting it safely requires
knowing all its loopholes. This one is written from scratch. It parses the instructions with
``pickletools.genops``, which executes none of them, and implements only those that PyTorch writes
for a dictionary of tensors. No instruction imports or calls anything. A name such as
``torch._utils._rebuild_tensor_v2`` only selects one of the records below; other names and other
instructions are refused. The length of the file limits time and memory: no allocation depends on a
size that the file states, and keys must be strings, because hashing nested tuples may take
exponential time.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

#: NumPy dtype, little endian, of the elements of PyTorch's storages, by the storage's name.
STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "|i1",
    "torch ByteStorage": "|u1",
    "torch BoolStorage": "|b1",
}
DICTIONARY = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
NAMES = frozenset({*STORAGES, DICTIONARY, TENSOR, PARAMETER})
#: Largest number of instructions. A network needs forty for each tensor, and a file that consists
#: of instructions only must not take unlimited time.
MOST_INSTRUCTIONS = 1_000_000


class UnsafePickleError(Exception):
    """A pickle has instructions that a file of weights does not need, or that are invalid."""


@dataclass(frozen=True)
class PickleName:
    """One of ``NAMES``, as it occurs in a file."""

    name: str


@dataclass(frozen=True)
class TensorStorage:
    """A block of numbers in the file, which several tensors may share; not checked yet."""

    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class TensorDescription:
    """The storage, offset, shape and strides of a tensor, in elements; not checked yet."""

    storage: TensorStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class _Machine:
    """The stack, marks and memo of an unpickler, with its instructions as methods."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise UnsafePickleError("its pickle reads from an empty stack")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        if not self.marks:
            raise UnsafePickleError("its pickle reads from an empty stack")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def recall(self, slot: int) -> Any:
        if slot not in self.memo:
            raise UnsafePickleError("its pickle reads a memo entry that it has not written")
        return self.memo[slot]

    def keep(self, slot: int) -> None:
        if not self.stack:
            raise UnsafePickleError("its pickle reads from an empty stack")
        self.memo[slot] = self.stack[-1]

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        keys, values = pairs[::2], pairs[1::2]
        if (
            type(target) is not dict
            or len(keys) != len(values)
            or any(type(key) is not str for key in keys)
        ):
            raise UnsafePickleError(
                "its pickle sets items of an object that is not a dictionary with strings as keys"
            )
        target.update(zip(keys, values, strict=True))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if type(target) is not list:
            raise UnsafePickleError("its pickle appends to an object that is not a list")
        target.extend(values)

    def build(self) -> None:
        # PyTorch sets an attribute of the dictionary to its modules' versions. They are not needed.
        self.pop()
        if not self.stack or type(self.stack[-1]) is not dict:
            raise UnsafePickleError(
                "its pickle sets attributes of an object that is not a dictionary"
            )

    def reduce(self) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not PickleName or type(arguments) is not tuple:
            raise UnsafePickleError("its pickle calls an object that is not a function's name")
        self.stack.append(_make_record(name.name, arguments))

    def make_tuple(self, n: int) -> None:
        items = [self.pop() for _ in range(n)]
        self.stack.append(tuple(reversed(items)))


def _make_record(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return a plain record of what PyTorch's function of that name would return."""
    match arguments:
        case () if name == DICTIONARY:
            return {}
        case (
            TensorStorage() as storage,
            int() as offset,
            tuple() as shape,
            tuple() as strides,
            *_,
        ) if name == TENSOR and all(type(number) is int for number in (*shape, *strides)):
            return TensorDescription(storage, offset, shape, strides)
        case (TensorDescription() as tensor, *_) if name == PARAMETER:
            return tensor
    raise UnsafePickleError(f"its pickle calls {name.replace(' ', '.')} as PyTorch never does")


def _make_storage(identity: Any) -> TensorStorage:
    match identity:
        case ("storage", PickleName(name), str() as key, str(), int() as length, *more):
            if name in STORAGES and more in ([], [None]):
                return TensorStorage(key, STORAGES[name], length)
    raise UnsafePickleError("its pickle describes a storage as PyTorch never does")


#: Functions that execute an instruction with its argument, by the instruction's name.
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
        lambda machine, value: machine.stack.append(value),
    ),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_marked())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.keep),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, slot: machine.stack.append(machine.recall(slot))
    ),
    "GLOBAL": lambda machine, name: machine.stack.append(PickleName(name)),
    "BINPERSID": lambda machine, _: machine.stack.append(_make_storage(machine.pop())),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


def execute_pickle(file: BinaryIO) -> Any:
    """Execute one pickle with the allowed instructions only.

    Args:
        file: file whose position is the pickle's first byte; afterwards it is behind the last one.

    Returns:
        The pickled object: dictionaries with strings as keys, lists, tuples, numbers, strings,
        None, ``TensorDescription`` records and ``PickleName`` objects.

    Raises:
        UnsafePickleError: a name or an instruction is not allowed, or the file is not a pickle.
    """
    machine = _Machine()
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if number == MOST_INSTRUCTIONS:
                raise UnsafePickleError(
                    f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions"
                )
            if instruction.name == "GLOBAL" and argument not in NAMES:
                raise UnsafePickleError(f"its pickle names {str(argument).replace(' ', '.')}")
            if instruction.name == "STOP":
                return machine.pop()
            if instruction.name == "PROTO":  # instructions do not depend on the version
                continue
            if instruction.name not in _INSTRUCTIONS:
                raise UnsafePickleError(f"its pickle uses the instruction {instruction.name}")
            _INSTRUCTIONS[instruction.name](machine, argument)
    except (ValueError, UnicodeError) as error:
        raise UnsafePickleError("it is cut short or damaged") from error
    raise UnsafePickleError("it is cut short or damaged")
