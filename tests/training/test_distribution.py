"""Several devices, here parts of the processor: the step of one, computed by two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from melanoma_lab.config.schema.training import Training
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.batches import make_evaluation_batches, make_training_batches
from melanoma_lab.training import distribution
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.train_steps import AugmentedNetwork, Stage
from tests.support.marks import slow

pytestmark = pytest.mark.component

N, K = 41, 3  # the last of the validation's batches of 8 holds one image
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, K, N)
PIXELS = np.clip(
    RNG.normal(40, 20, (N, 8, 8, 3)) + 140 * np.eye(3)[LABELS][:, None, None, :], 0, 255
).astype(np.uint8)
IMAGES = BalancedSet((PIXELS,), np.arange(N), LABELS, K, np.array([1, 2, 5], np.float32))


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.config.set_dtype_policy("float32")


def network(dropout):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(inputs)
    x = keras.layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(0.1))(x)
    if dropout:
        x = keras.layers.Dropout(0.5, seed=3)(x)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(K, activation="softmax", dtype="float32")(x))


def train(devices, *, steps=1, epochs=1, random=False, policy="float32"):
    """A short fit by plain gradient descent; its weights and figures."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(policy)
    options = Training(epochs=epochs, batch_size=8, devices=devices)
    with distribution.scope(options):
        model = network(random)
        flip = [keras.layers.RandomFlip(seed=7, dtype="float32")] if random else []
        optimizer = keras.optimizers.SGD(0.05)
    last = epochs * steps
    stage = Stage(
        range(epochs),
        lambda: AugmentedNetwork(model, flip),
        lambda first: make_training_batches(
            IMAGES, batch_size=8, seed=0, first_step=first * steps, last_step=last
        ),
        make_evaluation_batches(PIXELS, np.arange(N), LABELS, n_classes=K, batch_size=8),
        optimizer,
    )
    done = fit_network(
        model,
        [stage],
        options=options,
        steps_per_epoch=steps,
        loss=keras.losses.CategoricalCrossentropy(),
        on_step=lambda *_: None,
        on_epoch=lambda *_: None,
    )
    figures = [{k: v for k, v in epoch.items() if "second" not in k} for epoch in done.history]
    return model, figures


@pytest.mark.parametrize(("steps", "epochs"), [slow(1, 1), (5, 3)])
def test_two_devices_take_the_step_of_one_and_measure_the_same(steps, epochs):
    one, one_figures = train(1, steps=steps, epochs=epochs)
    two, two_figures = train(2, steps=steps, epochs=epochs)
    assert len(one_figures) == len(two_figures) == epochs
    for expected, found in zip(one_figures, two_figures, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    for expected, found in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", slow("mixed_float16")])
def test_two_devices_are_bit_identical_from_run_to_run(policy):
    first, first_figures = train(2, steps=5, epochs=2, random=True, policy=policy)
    second, second_figures = train(2, steps=5, epochs=2, random=True, policy=policy)
    assert first_figures == second_figures
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


def test_every_batch_is_divided_in_its_order():
    with distribution.scope(Training(devices=2)):
        strategy = tf.distribute.get_strategy()
    batches = make_training_batches(IMAGES, batch_size=8, seed=0, first_step=0, last_step=5)
    shares = strategy.experimental_distribute_dataset(batches)
    for batch, divided in zip(batches, shares, strict=True):
        for whole, divided_whole in zip(batch, divided, strict=True):
            parts = strategy.experimental_local_results(divided_whole)
            assert [len(part) for part in parts] == [4, 4]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def layer_on_two_devices(layer_of):
    """A layer's output in training, share by share, for the same picture everywhere."""
    keras.backend.clear_session()
    with distribution.scope(Training(devices=2)):
        strategy = tf.distribute.get_strategy()
        inputs = keras.Input((6, 6, 3))
        model = keras.Model(inputs, layer_of()(inputs))
        callback = distribution.ReplicaSeedsCallback()
        callback.set_model(model)
    picture = tf.constant(np.random.default_rng(0).random((1, 6, 6, 3)), tf.float32)

    @tf.function
    def run():
        return strategy.run(lambda: model(picture, training=True))

    def shares():
        return [part.numpy() for part in strategy.experimental_local_results(run())]

    return model, callback, shares


@pytest.mark.parametrize(
    "layer_of",
    [
        lambda: keras.layers.Dropout(0.5, seed=3),
        lambda: keras.layers.RandomRotation(0.5, seed=3),
        lambda: keras.layers.RandomZoom(0.5, seed=3),
    ],
)
def test_devices_draw_random_numbers_of_their_own(layer_of):
    _, callback, shares = layer_on_two_devices(layer_of)
    first, second = shares()
    np.testing.assert_array_equal(first, second)  # what Keras does alone
    callback.on_epoch_begin(0)
    first, second = shares()
    assert not np.array_equal(first, second)


def test_the_first_devices_state_is_enough_to_go_on_from():
    """A checkpoint keeps it alone."""
    model, callback, shares = layer_on_two_devices(lambda: keras.layers.Dropout(0.5, seed=3))
    callback.on_epoch_begin(0)
    shares()
    (state,) = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    kept = state.numpy()
    callback.on_epoch_begin(1)
    expected = shares()
    state.assign(kept)  # sets all devices alike
    callback.on_epoch_begin(1)
    np.testing.assert_array_equal(shares(), expected)


def test_an_overflow_on_any_device_skips_the_step():
    keras.config.set_dtype_policy("mixed_float16")
    with distribution.scope(Training(devices=2)):
        inputs = keras.Input((1,))
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", dtype="float32")
        model = keras.Model(inputs, dense(inputs))
        optimizer = distribution.with_loss_scaling(keras.optimizers.SGD(0.1))
        model.compile(optimizer, loss="mse", jit_compile=False)
    y = np.zeros((4, 1), np.float32)
    overflowing = np.array([[1], [1], [1], [1e30]], np.float32)  # in the second device's share

    def step(x):
        data = tf.data.Dataset.from_tensors((x, y))
        model.fit(data, verbose=0, shuffle=False)
        return float(model.get_weights()[0].item()), float(optimizer.dynamic_scale.numpy())

    assert step(overflowing) == (1.0, 2.0**14)
    # mean (1 w)^2 over the whole batch has the gradient 2.
    assert step(np.ones((4, 1), np.float32)) == (pytest.approx(0.8), 2.0**14)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_loss_scale_is_among_the_optimizers_variables(devices):
    """So that a checkpoint of them keeps it."""
    keras.config.set_dtype_policy("mixed_float16")
    with distribution.scope(Training(devices=devices)):
        inputs = keras.Input((2,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        optimizer = distribution.with_loss_scaling(keras.optimizers.Adam())
        model.compile(optimizer, loss="mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    names = {variable.path.rpartition("/")[2] for variable in model.optimizer.variables}
    assert {"dynamic_scale", "step_counter", "learning_rate"} <= names
    assert any("momentum" in name for name in names)  # the inner optimizer's


def test_other_precisions_are_not_scaled():
    optimizer = keras.optimizers.SGD()
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        with distribution.scope(Training(devices=2)):
            assert distribution.with_loss_scaling(optimizer) is optimizer


def test_one_device_needs_no_strategy():
    with distribution.scope(Training(devices=1)):
        assert not tf.distribute.has_strategy()
        model = network(dropout=False)
    assert distribution.rebuild_on_one_device(model) is model
