"""Registry of the options that a configuration can choose, and of the functions that build them.

An option is a dataclass of its keys, declared with ``option``, and a function, declared with
``builder``. Users can declare their own. Both are found by the names in the configuration, so that
YAML files contain no import paths, and a function that needs TensorFlow imports it when it is
called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from melanoma_lab.core.errors import UserError

Node = TypeVar("Node", bound=type)
Build = TypeVar("Build", bound=Callable[..., Any])

#: Dataclasses of the options' keys, by (group, option).
OPTIONS: dict[tuple[str, str], type] = {}
#: Functions that build the options, by (group, option).
BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {}


@dataclass
class Option:
    """Base class of the options of all groups."""

    name: str = MISSING


def option(group: str, name: str) -> Callable[[Node], Node]:
    """Return a decorator that declares a dataclass as the keys of ``group=name``.

    Args:
        name: name of the option. To select it, a YAML file ``<group>/<name>.yaml`` is needed that
            begins with ``defaults: [/schema/<group>/<name>@_here_]``.
    """

    def declare(node: Node) -> Node:
        OPTIONS[group, name] = node
        schema = OmegaConf.structured(node)
        if issubclass(node, Option):
            schema.name = name
        ConfigStore.instance().store(group=f"schema/{group}", name=name, node=schema)
        return node

    return declare


def builder(group: str, name: str) -> Callable[[Build], Build]:
    """Return a decorator that declares a function as the builder of ``group=name``.

    The module of a group documents the arguments and the return value of its builders.

    Args:
        group: ``"architecture"``, ``"augmentation"``, ``"loss"``, ``"optimizer"`` or
            ``"schedule"``.
    """

    def declare(build: Build) -> Build:
        BUILDERS[group, name] = build
        return build

    return declare


#: The options that a user declared, and their builders, as ``OPTIONS`` and ``BUILDERS``.
UserOptions = tuple[dict[tuple[str, str], type], dict[tuple[str, str], Callable[..., Any]]]


def get_user_options() -> UserOptions:
    """Return the user's options and builders, for processes that do not run the user's script."""
    return (
        {key: node for key, node in OPTIONS.items() if not _is_built_in(node)},
        {key: build for key, build in BUILDERS.items() if not _is_built_in(build)},
    )


def register_user_options(theirs: UserOptions) -> None:
    """Register options and builders of another process; Hydra passes on its own store itself."""
    OPTIONS.update(theirs[0])
    BUILDERS.update(theirs[1])


def _is_built_in(thing: Any) -> bool:
    return str(thing.__module__).startswith("melanoma_lab.")


def find_builder(group: str, name: str) -> Callable[..., Any]:
    """Return the function that builds ``group=name``.

    Raises:
        UserError: no builder is declared for the option.
    """
    if (group, name) not in BUILDERS:
        raise UserError(
            f"{group}={name}: no function builds it; declare a function with "
            f'@builder("{group}", "{name}").'
        )
    return BUILDERS[group, name]
