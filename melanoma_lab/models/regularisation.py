"""Regularisation: where a network takes dropout, weight penalties and stochastic depth.

What does not act in the network (label smoothing in the loss, weight decay in the optimizer) is
said by the option's ``strengths`` as well and taken from there.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from melanoma_lab.config.schema.regularisation import Regularisation
from melanoma_lab.core.errors import UserError

#: Keeps the random numbers of stochastic depth apart from others that are drawn from one seed.
DEPTH = 0xDE

#: What an architecture must offer, by the amount that asks for it.
PLACES = {
    "dropout": "has no blocks for dropout to follow",
    "l2": "puts no penalty on any kernel",
    "stochastic_depth": "has no residual blocks for stochastic depth to skip",
}


def compute_frozen_penalty(network: keras.Model) -> float:
    """The penalty on kernels that do not train now, which Keras leaves out of a loss.

    A loss and this together are the same of the same weights, whichever part of them trains.
    """
    return sum(
        float(variable.regularizer(keras.ops.convert_to_numpy(variable)))
        for variable in network.non_trainable_variables
        if variable.regularizer is not None
    )


class Regulariser:
    """Adds what the configuration asks for while an architecture is being built.

    Args:
        options: the regularisation's configuration.
        seed: of the dropout masks.
    """

    def __init__(self, options: Regularisation, seed: int) -> None:
        self._name = options.name
        self._amounts = options.strengths()
        self._seed = seed
        self._taken: set[str] = set()

    def after_block(self, x: Any, block: int, blocks: int) -> Any:
        """Dropout after one of a network's blocks, where there is a rate for it.

        Args:
            x: the block's output, a Keras tensor.
            block: which block, from 0.
            blocks: how many the network has; the rates belong to the last ones.

        Raises:
            UserError: there are more rates than blocks.
        """
        self._taken.add("dropout")
        rates = self._amounts.dropout
        if len(rates) > blocks:
            raise UserError(
                f"regularisation.rates: {len(rates)} rates for a network of {blocks} blocks."
            )
        position = block - (blocks - len(rates))
        if position < 0:
            return x
        layer = keras.layers.Dropout(
            rates[position], seed=self._seed + block, name=f"dropout{block + 1}"
        )
        return layer(x)

    def residual(self, branch: Any, block: int, blocks: int) -> Any:
        """Stochastic depth on the branch of a residual block, before it is added to its input.

        In training an image's whole branch is zero with a chance of ``rate * (block + 1) /
        blocks``: the linear rule of Huang et al. (2016), drawn for every image rather than every
        batch. A branch that stays is divided by its chance to stay, so that nothing has to be
        scaled afterwards.

        Args:
            branch: what the block adds to its input, a Keras tensor, shape (b, ...).
            block: which residual block, from 0.
            blocks: how many the network has.

        Returns:
            The branch to add.
        """
        self._taken.add("stochastic_depth")
        rate = self._amounts.stochastic_depth * (block + 1) / blocks
        if not rate:
            return branch
        # One draw an image: Keras repeats it along axes of length 1.
        one_an_image = (None, *(1 for _ in branch.shape[1:]))
        seed = int(np.random.SeedSequence([DEPTH, self._seed, block]).generate_state(1)[0])
        layer = keras.layers.Dropout(
            rate, noise_shape=one_an_image, seed=seed, name=f"skip{block + 1}"
        )
        return layer(branch)

    def kernel_penalty(self) -> keras.Regularizer | None:
        """The penalty on a layer's kernel: factor times the sum of squares."""
        self._taken.add("l2")
        return keras.regularizers.L2(self._amounts.l2) if self._amounts.l2 else None

    def require_taken(self, architecture: str) -> None:
        """Refuse to do nothing silently; called when the network is built.

        Args:
            architecture: its name.

        Raises:
            UserError: the network never asked for something that the configuration sets.
        """
        for amount, lacking in PLACES.items():
            if getattr(self._amounts, amount) and amount not in self._taken:
                raise UserError(
                    f"regularisation={self._name}: architecture={architecture} {lacking}; choose "
                    "another architecture or another regularisation."
                )
