import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.training import Adam, AdamW, RmsProp, Sgd
from melanoma_lab.models.optimizers import build_optimizer
from melanoma_lab.registry import BUILDERS, OPTIONS

pytestmark = pytest.mark.component


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, bias_initializer="ones")(x))


def build(options, model=None, learning_rate=0.02, weight_decay=0.0):
    return build_optimizer(
        options, model or network(), learning_rate=learning_rate, weight_decay=weight_decay
    )


def steps(optimizer, model, n=3):
    """Apply the same gradients n times; returns the weights."""
    for step in range(n):
        rng = np.random.default_rng(step)
        gradients = [
            keras.ops.convert_to_tensor(rng.normal(size=v.shape), "float32")
            for v in model.trainable_variables
        ]
        optimizer.apply(gradients, model.trainable_variables)
    return [np.array(v) for v in model.trainable_variables]


def test_adam_has_keras_defaults():
    optimizer = build(Adam("adam"))
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.9, 0.999)
    assert optimizer.weight_decay is None


def test_sgd_is_configured():
    optimizer = build(Sgd("sgd", momentum=0.9, nesterov=True), learning_rate=0.1)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


def test_rmsprop_is_configured():
    optimizer = build(RmsProp("rmsprop", rho=0.8, momentum=0.5))
    assert isinstance(optimizer, keras.optimizers.RMSprop)
    assert (optimizer.rho, optimizer.momentum) == (0.8, 0.5)


def test_adamw_is_configured():
    optimizer = build(AdamW("adamw", weight_decay=0.3))
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert optimizer.weight_decay == 0.3


@pytest.mark.parametrize("options", [Adam("adam"), Sgd("sgd"), RmsProp("rmsprop")])
def test_a_schedule_sets_the_rate_of_every_step(options):
    first = build(options, model := network(), learning_rate=piecewise([0.5, 0.0, 0.0]))
    once = steps(first, model, n=3)
    constant = build(options, model := network(), learning_rate=0.5)
    for found, expected in zip(once, steps(constant, model, n=1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert int(first.iterations) == 3


def piecewise(values):
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        list(range(len(values) - 1)), [float(v) for v in values]
    )


@pytest.mark.parametrize("options", [Sgd("sgd"), Adam("adam"), RmsProp("rmsprop")])
def test_weight_decay_shrinks_kernels_and_nothing_else(options):
    plain = steps(build(options, model := network(), 0.1), model, n=1)
    start = [np.array(v) for v in network().trainable_variables]
    decayed = steps(build(options, model := network(), 0.1, weight_decay=0.5), model, n=1)
    names = [v.name for v in model.trainable_variables]
    assert names == ["kernel", "bias", "gamma", "beta", "kernel", "bias"]
    for name, before, without, found in zip(names, start, plain, decayed, strict=True):
        # Decoupled: 0.1 * 0.5 of the weight itself, whatever the gradient.
        expected = without - 0.05 * before if name == "kernel" else without
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_adam_with_weight_decay_is_adamw():
    one = steps(build(Adam("adam"), model := network(), weight_decay=0.3), model)
    other = steps(build(AdamW("adamw", weight_decay=0.3), model := network()), model)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_optimizer_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "optimizer"}
    assert options <= set(BUILDERS)
