"""What a fit leaves behind in a process that trains many networks."""

import gc

import keras
import numpy as np
from tensorflow.python.framework.func_graph import FuncGraph

from melanoma_lab.balancing import BalancedSet
from melanoma_lab.config.schema.training import Training
from melanoma_lab.training.augmented import AugmentedNetwork
from melanoma_lab.training.feed import evaluation_batches, training_batches
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.stages import Stage

N, K = 8, 2
PIXELS = np.zeros((N, 4, 4, 3), np.uint8)
LABELS = np.arange(N) % K


def fit():
    keras.backend.clear_session()
    inputs = x = keras.Input((4, 4, 3))
    for width in (4, 4, K):
        x = keras.layers.Dense(width)(keras.layers.Flatten()(x))
    images = BalancedSet((PIXELS,), np.arange(N), LABELS, K)
    network = keras.Model(inputs, keras.layers.Softmax()(x))
    stage = Stage(
        range(1),
        lambda: AugmentedNetwork(network, []),
        lambda first: training_batches(images, batch_size=N, seed=0, first_step=first, last_step=1),
        evaluation_batches(PIXELS, np.arange(N), LABELS, n_classes=K, batch_size=N),
        keras.optimizers.Adam(),
    )
    fit_network(
        network,
        [stage],
        options=Training(epochs=1, batch_size=N),
        steps_per_epoch=1,
        loss=keras.losses.CategoricalCrossentropy(),
        on_step=lambda step, figures: None,
        on_epoch=lambda number, figures: None,
    )


def graphs():
    gc.collect()
    return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())


def test_a_fit_leaves_next_to_no_graphs_behind():
    """TensorFlow frees no graph in which variables were made: 2 for each of the optimizer's.

    One graph is left for the step of the training and one for that of the evaluation.
    """
    fit()
    before = graphs()
    for _ in range(3):
        fit()
    assert graphs() - before <= 3 * 2
