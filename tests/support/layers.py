"""The layers of the tests: what each test needs, and that a unit test does without TensorFlow."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

#: From the lightest to the heaviest. A test belongs to the heaviest one that it is marked with.
LAYERS = ("unit", "component", "integration", "slow")
#: The processor seconds that all tests of a layer may take, on two quiet cores. No test fails by
#: it, because machines differ; what is over its budget is said.
BUDGETS = {"unit": 400, "component": 230, "integration": 700, "slow": 1000}
#: Packages that take seconds to import.
TENSORFLOW = frozenset({"tensorflow", "keras", "keras_tuner"})

_PACKAGE = Path(__file__).resolve().parent.parent.parent / "melanoma_lab"


def sort_into_layers(items: Iterable[pytest.Item]) -> None:
    """Leave each test the mark of one layer: the heaviest of its own and its module's.

    Args:
        items: the collected tests; their marks, and those of their modules, are changed.

    Raises:
        UsageError: a test has no layer, or a file of unit tests imports TensorFlow.
    """
    found = {item: find_layer(item) for item in items}
    for item, layer in found.items():
        for node in item.listchain():
            node.own_markers[:] = [mark for mark in node.own_markers if mark.name not in LAYERS]
        if layer is None:
            raise pytest.UsageError(f"{item.nodeid}: mark it with its layer, one of {LAYERS}.")
        if layer == "unit" and _needs_tensorflow(item.path):
            raise pytest.UsageError(
                f"{item.path}: imports TensorFlow, so its tests are no unit tests."
            )
    for item, layer in found.items():
        item.add_marker(str(layer))


def find_layer(item: pytest.Item) -> str | None:
    """Return the heaviest layer that a test, its class or its module is marked with."""
    names = {mark.name for mark in item.iter_markers()}
    return max(names & set(LAYERS), key=LAYERS.index, default=None)


def forbid_tensorflow(patch: pytest.MonkeyPatch) -> None:
    """Let imports of TensorFlow fail, and of the package's modules that import it themselves.

    Other tests of this process may have loaded them before: they are hidden until ``patch`` ends.
    """
    for name in find_tensorflow_modules():
        patch.setitem(sys.modules, name, None)  # type: ignore[arg-type]  # Python's own sign for it


@functools.cache
def find_tensorflow_modules() -> frozenset[str]:
    """Return TensorFlow's packages, and the modules of ours that cannot be imported without."""
    imports = {_name(path): _list_imports(path) for path in _PACKAGE.rglob("*.py")}
    found, n = set(TENSORFLOW), 0
    while len(found) > n:
        n = len(found)
        found |= {name for name, imported in imports.items() if imported & found}
    return frozenset(found)


@functools.cache
def _needs_tensorflow(test_file: Path) -> bool:
    return bool(_list_imports(test_file) & find_tensorflow_modules())


def _name(path: Path) -> str:
    parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _list_imports(path: Path) -> set[str]:
    """List the modules that importing a file imports: not those of functions, nor for types."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text("utf-8")).body)
    while waiting:
        match waiting.pop():
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, *(f"{module}.{alias.name}" for alias in names)}
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                waiting += orelse
            case ast.If(body=body, orelse=orelse) | ast.Try(body=body, orelse=orelse):
                waiting += [*body, *orelse]
            case _:
                pass
    # With a module, the packages that it is in are imported.
    return {".".join(name.split(".")[:n]) for name in found for n in range(1, name.count(".") + 2)}


def describe_costs(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Describe what the tests of each layer cost.

    Args:
        reports: the reports of a session; those of teardowns know what their test cost.

    Returns:
        A line for each layer: its tests, and the processor seconds that they and the processes
        that they waited for took, beside the layer's budget.
    """
    found: dict[str, tuple[int, float]] = {}
    for report in reports:
        for name, seconds in report.user_properties:
            if name in LAYERS:
                n, total = found.get(name, (0, 0.0))
                found[name] = (n + 1, total + float(str(seconds)))
    return [
        f"{name}: {n} tests, {seconds:.0f} processor seconds, "
        f"{'over' if seconds > BUDGETS[name] else 'of'} a budget of {BUDGETS[name]}"
        for name, (n, seconds) in sorted(found.items(), key=lambda item: LAYERS.index(item[0]))
    ]
