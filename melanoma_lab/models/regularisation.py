"""Regularisation inside a network: dropout, weight penalties and stochastic depth.

Regularisation outside the network (label smoothing in the loss, weight decay in the optimizer) is
read from the option's ``strengths`` elsewhere.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from melanoma_lab.config.schema.regularisation import Regularisation
from melanoma_lab.core.errors import UserError

#: Part of the seeds of stochastic depth, so that they differ from other seeds of a run.
DEPTH = 0xDE

#: What a message says about an architecture that does not support a kind of regularisation.
PLACES = {
    "dropout": "has no blocks after which dropout could be added",
    "l2": "adds no penalty to its kernels",
    "stochastic_depth": "has no residual blocks that stochastic depth could skip",
}


def compute_frozen_penalty(network: keras.Model) -> float:
    """Compute the weight penalty of frozen kernels, which Keras leaves out of the loss.

    The loss plus this penalty does not depend on which part of the network is frozen.
    """
    return sum(
        float(variable.regularizer(keras.ops.convert_to_numpy(variable)))
        for variable in network.non_trainable_variables
        if variable.regularizer is not None
    )


class Regulariser:
    """Adds the configured regularisation while an architecture is being built.

    Args:
        seed: seed of the run, from which the seeds of dropout masks are made.
    """

    def __init__(self, options: Regularisation, seed: int) -> None:
        self._name = options.name
        self._strengths = options.strengths()
        self._seed = seed
        self._used: set[str] = set()

    def after_block(self, x: Any, block: int, blocks: int) -> Any:
        """Add dropout after a block, if a rate is configured for it.

        Args:
            block: index of the block, from 0.
            blocks: number of blocks of the network. The configured rates are for the last ones.


        Raises:
            UserError: there are more rates than blocks.
        """
        self._used.add("dropout")
        rates = self._strengths.dropout
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
        """Add stochastic depth to the branch of a residual block.

        In training, an image's branch is set to 0 with probability ``rate * (block + 1) / blocks``:
        the linear rule of Huang et al. (2016), drawn for each image instead of each batch. A branch
        that remains is divided by its probability to remain, so that inference needs no scaling.

        Args:
            branch: output of the branch, before it is added to the block's input; a Keras tensor,
                shape (b, ...).
            block: index of the residual block, from 0.
        """
        self._used.add("stochastic_depth")
        rate = self._strengths.stochastic_depth * (block + 1) / blocks
        if not rate:
            return branch
        # One draw for each image: Keras repeats it along axes of length 1.
        one_per_image = (None, *(1 for _ in branch.shape[1:]))
        seed = int(np.random.SeedSequence([DEPTH, self._seed, block]).generate_state(1)[0])
        layer = keras.layers.Dropout(
            rate, noise_shape=one_per_image, seed=seed, name=f"skip{block + 1}"
        )
        return layer(branch)

    def kernel_penalty(self) -> keras.Regularizer | None:
        """Return the penalty on a kernel, a factor times the sum of squares; None if unset."""
        self._used.add("l2")
        return keras.regularizers.L2(self._strengths.l2) if self._strengths.l2 else None

    def require_taken(self, architecture: str) -> None:
        """Raise an error if the network has not used a configured regularisation.

        Call it after the network is built.

        Raises:
            UserError: a configured regularisation was not used by the network.
        """
        for kind, lacking in PLACES.items():
            if getattr(self._strengths, kind) and kind not in self._used:
                raise UserError(
                    f"regularisation={self._name}: architecture={architecture} {lacking}; choose "
                    "another architecture or another regularisation."
                )
