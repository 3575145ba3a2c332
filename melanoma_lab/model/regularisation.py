"""Regularisation: where a network takes dropout and weight penalties."""

from __future__ import annotations

from typing import Any

import keras

from melanoma_lab.config.schema.regularisation import L2, Dropout, Regularisation
from melanoma_lab.errors import UserError


class Regulariser:
    """Adds what the configuration asks for while an architecture is being built.

    Args:
        options: the regularisation's configuration.
        seed: of the dropout masks.
    """

    def __init__(self, options: Regularisation, seed: int) -> None:
        self._rates = options.rates if isinstance(options, Dropout) else []
        self._l2 = options.factor if isinstance(options, L2) else 0.0
        self._seed = seed

    def after_block(self, x: Any, block: int, blocks: int) -> Any:
        """Dropout after one of a network's blocks, where there is a rate for it.

        Args:
            x: the block's output, a Keras tensor.
            block: which block, from 0.
            blocks: how many the network has; the rates belong to the last ones.

        Raises:
            UserError: there are more rates than blocks.
        """
        if len(self._rates) > blocks:
            raise UserError(
                f"regularisation.rates: {len(self._rates)} rates for a network of {blocks} blocks."
            )
        position = block - (blocks - len(self._rates))
        if position < 0:
            return x
        layer = keras.layers.Dropout(
            self._rates[position], seed=self._seed + block, name=f"dropout{block + 1}"
        )
        return layer(x)

    def kernel_penalty(self) -> keras.Regularizer | None:
        """The penalty on a layer's kernel: factor times the sum of squares."""
        return keras.regularizers.L2(self._l2) if self._l2 else None
