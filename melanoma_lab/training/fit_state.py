"""The state of a fit: copied after an epoch, and restored into a fit that was just built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import keras
import numpy as np

from melanoma_lab.core.errors import RunError
from melanoma_lab.training.checkpoint import Checkpoint


class Stateful(Protocol):
    """An object that keeps state from epoch to epoch, such as a callback."""

    def state(self) -> Mapping[str, Any]:
        """Return the state: arrays that are not modified later, and values that JSON can hold."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that ``state`` returned, in this process or another."""


class FitState:
    """The state that changes while a model is fitted.

    It consists of the model's variables (weights, moving averages, the states of its layers' random
    generators), the optimizer's variables (moments, step, learning rate, loss scale), and the state
    of callbacks. The images of a step depend on the seed and the step only, so that they need no
    state.
    """

    def __init__(self, model: keras.Model, stateful: Mapping[str, Stateful]) -> None:
        # Without this, the optimizer's variables exist only after its first step.
        model.optimizer.build(model.trainable_variables)
        self._variables = [*model.variables, *model.optimizer.variables]
        self._stateful = stateful

    def take(self, epoch: int) -> Checkpoint:
        """Copy the state into a checkpoint."""
        arrays = {
            f"variable/{i}": keras.ops.convert_to_numpy(variable)
            for i, variable in enumerate(self._variables)
        }
        facts: dict[str, dict[str, Any]] = {}
        for name, part in self._stateful.items():
            facts[name] = {}
            for key, value in part.state().items():
                if isinstance(value, np.ndarray):
                    arrays[f"{name}/{key}"] = value
                else:
                    facts[name][key] = value
        return Checkpoint(epoch, arrays, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state from a checkpoint.

        Raises:
            RunError: the checkpoint was taken from another model.
        """
        values = [checkpoint.arrays.get(f"variable/{i}") for i in range(len(self._variables))]
        for variable, value in zip(self._variables, values, strict=True):
            if value is None or value.shape != tuple(variable.shape):
                raise RunError(
                    f"The checkpoint of epoch {checkpoint.epoch} is from another network: "
                    f"{variable.path} has shape {tuple(variable.shape)}, there "
                    f"{None if value is None else value.shape}. training.resume=false starts over."
                )
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        for name, part in self._stateful.items():
            prefix = f"{name}/"
            arrays = {
                key.removeprefix(prefix): value
                for key, value in checkpoint.arrays.items()
                if key.startswith(prefix)
            }
            part.restore({**checkpoint.facts[name], **arrays})
