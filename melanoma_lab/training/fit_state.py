"""The state of a fit in memory: taken after an epoch, and put back into a fit just built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import keras
import numpy as np

from melanoma_lab.core.errors import RunError
from melanoma_lab.training.checkpoint import Checkpoint


class Stateful(Protocol):
    """Something that remembers from epoch to epoch, such as a callback."""

    def state(self) -> Mapping[str, Any]:
        """What it remembers: arrays that nobody changes, and what JSON can hold."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what ``state`` gave, in this process or another."""


class FitState:
    """All that changes while a model is fitted.

    That is its variables (weights, moving averages, the states of its layers' random generators),
    its optimizer's (moments, step, learning rate, loss scale), and what callbacks remember. What a
    step draws is a function of the seed and the step, and needs no keeping.

    Args:
        model: compiled.
        memories: by name.
    """

    def __init__(self, model: keras.Model, memories: Mapping[str, Stateful]) -> None:
        model.optimizer.build(model.trainable_variables)  # else its variables come with a step
        self._variables = [*model.variables, *model.optimizer.variables]
        self._memories = memories

    def take(self, epoch: int) -> Checkpoint:
        """A copy of the state.

        Args:
            epoch: epochs done.
        """
        arrays = {
            f"variable/{i}": keras.ops.convert_to_numpy(variable)
            for i, variable in enumerate(self._variables)
        }
        facts: dict[str, dict[str, Any]] = {}
        for name, memory in self._memories.items():
            facts[name] = {}
            for key, value in memory.state().items():
                if isinstance(value, np.ndarray):
                    arrays[f"{name}/{key}"] = value
                else:
                    facts[name][key] = value
        return Checkpoint(epoch, arrays, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Bring everything into the state that was taken.

        Raises:
            RunError: it was taken from another model.
        """
        taken = [checkpoint.arrays.get(f"variable/{i}") for i in range(len(self._variables))]
        for variable, value in zip(self._variables, taken, strict=True):
            if value is None or value.shape != tuple(variable.shape):
                raise RunError(
                    f"The checkpoint of epoch {checkpoint.epoch} is of another network: "
                    f"{variable.path} has shape {tuple(variable.shape)}, there "
                    f"{None if value is None else value.shape}. training.resume=false starts over."
                )
        for variable, value in zip(self._variables, taken, strict=True):
            variable.assign(value)
        for name, memory in self._memories.items():
            prefix = f"{name}/"
            arrays = {
                key.removeprefix(prefix): value
                for key, value in checkpoint.arrays.items()
                if key.startswith(prefix)
            }
            memory.restore({**checkpoint.facts[name], **arrays})
