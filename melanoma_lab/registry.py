"""What can be chosen in the configuration, and what builds it: the lab's own and a user's.

An option is a dataclass of its keys, declared with ``option``, and a function, declared with
``builder``. Both are found by the names that stand in the configuration, so YAML carries no import
paths, and a function that needs TensorFlow imports it when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore

from melanoma_lab.core.errors import UserError

Node = TypeVar("Node", bound=type)
Build = TypeVar("Build", bound=Callable[..., Any])

#: (group, option) -> the dataclass that describes its keys.
OPTIONS: dict[tuple[str, str], type] = {}
#: (group, option) -> the function that builds it.
BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {}


def option(group: str, name: str) -> Callable[[Node], Node]:
    """Declare the keys that ``group=name`` has; a decorator of a dataclass.

    Args:
        group: a configuration group, such as ``"architecture"``.
        name: the option's name. A YAML file ``<group>/<name>.yaml`` makes it selectable; it starts
            with ``defaults: [/schema/<group>/<name>@_here_]``.

    Returns:
        The class, unchanged.
    """

    def declare(node: Node) -> Node:
        OPTIONS[group, name] = node
        ConfigStore.instance().store(group=f"schema/{group}", name=name, node=node)
        return node

    return declare


def builder(group: str, name: str) -> Callable[[Build], Build]:
    """Declare the function that builds ``group=name``; a decorator.

    Args:
        group: ``"architecture"``, ``"augmentation"``, ``"loss"``, ``"optimizer"`` or
            ``"schedule"``.
        name: the option's name.

    Returns:
        The function, unchanged; what it takes and returns is said by the group's own module.
    """

    def declare(build: Build) -> Build:
        BUILDERS[group, name] = build
        return build

    return declare


#: What a user declared: options and their builders.
UserOptions = tuple[dict[tuple[str, str], type], dict[tuple[str, str], Callable[..., Any]]]


def get_user_options() -> UserOptions:
    """What a user declared, to take along to processes that do not run the user's script."""
    return (
        {key: node for key, node in OPTIONS.items() if not _is_built_in(node)},
        {key: build for key, build in BUILDERS.items() if not _is_built_in(build)},
    )


def register_user_options(theirs: UserOptions) -> None:
    """Declare in this process what ``get_user_options`` gave in another; Hydra brings its part."""
    OPTIONS.update(theirs[0])
    BUILDERS.update(theirs[1])


def _is_built_in(thing: Any) -> bool:
    return str(thing.__module__).startswith("melanoma_lab.")


def find_builder(group: str, name: str) -> Callable[..., Any]:
    """The function that builds ``group=name``.

    Raises:
        UserError: the option has keys but nobody declared how to build it.
    """
    if (group, name) not in BUILDERS:
        raise UserError(
            f"{group}={name}: nothing builds it; declare a function with "
            f'@builder("{group}", "{name}").'
        )
    return BUILDERS[group, name]
