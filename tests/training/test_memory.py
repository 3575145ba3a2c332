"""What a fit leaves behind in a process that trains many networks."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import EagerTensor

from melanoma_lab.config.schema.training import Training
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.batches import make_evaluation_batches, make_training_batches
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.train_steps import AugmentedNetwork, Stage, free_registered_gradients

pytestmark = [pytest.mark.component, pytest.mark.slow]

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
        lambda first: make_training_batches(
            images, batch_size=N, seed=0, first_step=first, last_step=1
        ),
        make_evaluation_batches(PIXELS, np.arange(N), LABELS, n_classes=K, batch_size=N),
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


def variables():
    gc.collect()
    return sum(isinstance(thing, EagerTensor) for thing in gc.get_objects())


def test_a_fit_leaves_no_graphs_and_no_weights_behind():
    with free_registered_gradients():
        fit()
    before = graphs(), variables()
    for _ in range(3):
        with free_registered_gradients():
            fit()
    assert (graphs(), variables()) == before


def test_a_fit_would_leave_them_behind():
    """Once TensorFlow does not, the module can go."""
    fit()
    before = graphs()
    fit()
    assert graphs() > before


def test_what_was_registered_before_stays():
    @tf.custom_gradient
    def twice(x):
        return 2 * x, lambda upstream: 5 * upstream

    with tf.Graph().as_default():
        x = tf.constant(1.0)
        y = twice(x)
        with free_registered_gradients():
            twice(x)
        (gradient,) = tf.gradients(y, x)
        with tf.compat.v1.Session() as session:
            assert session.run(gradient) == 5
