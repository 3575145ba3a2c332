import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from melanoma_lab.models.augmentation_layers import CutMixLayer, MixUpLayer, mix_labels

pytestmark = pytest.mark.component

RNG = np.random.default_rng(0)
B, K = 16, 4
PIXELS = RNG.integers(0, 256, (B, 20, 20, 3)).astype("float32")
LABELS = np.eye(K, dtype="float32")[np.arange(B) % K]
WEIGHTS = RNG.uniform(0.2, 3, B).astype("float32")
ONES = np.ones(B, "float32")


def numpy(values):
    return [keras.ops.convert_to_numpy(value) for value in values]


def test_labels_and_weights_by_hand():
    labels = np.eye(3, dtype="float32")[[0, 1, 2]]
    kept = np.array([0.75, 0.5, 0.4], "float32")
    other = np.array([1, 0, 2])
    mixed, weights = numpy(mix_labels(labels, np.ones(3, "float32"), other, kept))
    np.testing.assert_allclose(mixed, [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(weights, 1)
    # Weights 2 and 6: 0.75 * 2 + 0.25 * 6 = 3, half of it from either; 0.5 * 6 + 0.5 * 2 = 4.
    mixed, weights = numpy(mix_labels(labels, np.array([2, 6, 1.0], "float32"), other, kept))
    np.testing.assert_allclose(mixed, [[0.5, 0.5, 0], [0.25, 0.75, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(weights, [3, 4, 1])


@given(st.integers(0, 2**31))
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(seed):
    rng = np.random.default_rng(seed)
    labels = np.eye(K, dtype="float32")[rng.integers(0, K, B)]
    scores = rng.dirichlet(np.ones(K), B).astype("float32") + 1e-3
    weights, kept = rng.uniform(0.1, 9, B).astype("float32"), rng.random(B).astype("float32")
    other = rng.permutation(B)
    mixed, mixed_weights = numpy(mix_labels(labels, weights, other, kept))
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-5)

    def loss(labels, weights):
        return -weights * (labels * np.log(scores)).sum(1)

    expected = kept * loss(labels, weights) + (1 - kept) * loss(labels[other], weights[other])
    np.testing.assert_allclose(loss(mixed, mixed_weights), expected, rtol=1e-4, atol=1e-5)


def test_a_mixed_up_image_is_what_its_labels_say():
    pixels, labels, weights = numpy(
        MixUpLayer(alpha=1.0, seed=0)((PIXELS, LABELS, ONES), training=True)
    )
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    mixed = 0
    for image, shares, own in zip(pixels, labels, range(B), strict=True):
        share = shares[own % K]
        assert share >= 0.5 - 1e-6  # the larger part is the image's own
        if share > 0.999:
            continue
        mixed += 1
        rest = (image - share * PIXELS[own]) / (1 - share)
        other = np.abs(PIXELS - rest).max(axis=(1, 2, 3)).argmin()
        np.testing.assert_allclose(rest, PIXELS[other], atol=0.5)
        assert shares[other % K] == pytest.approx(1 - share, abs=1e-5)
    assert mixed > B / 2


def test_a_cut_image_has_as_much_of_each_as_its_labels_say():
    pixels, labels, weights = numpy(
        CutMixLayer(alpha=1.0, seed=1)((PIXELS, LABELS, ONES), training=True)
    )
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    cut = 0
    for image, shares, own in zip(pixels, labels, range(B), strict=True):
        foreign = (image != PIXELS[own]).any(axis=-1)
        if not foreign.any() or shares[own % K] > 0.999:
            continue
        cut += 1
        other = next(j for j in range(B) if (image[foreign] == PIXELS[j][foreign]).all())
        expected = np.zeros(K)
        expected[own % K] += 1 - foreign.mean()
        expected[other % K] += foreign.mean()
        np.testing.assert_allclose(shares, expected, atol=0.01)  # pixels may agree by chance
        rows, columns = np.flatnonzero(foreign.any(1)), np.flatnonzero(foreign.any(0))
        assert foreign.mean() > 0.95 * len(rows) * len(columns) / foreign.size
    assert cut > B / 2


@pytest.mark.parametrize("kind", [MixUpLayer, CutMixLayer])
def test_weights_are_mixed_too_and_nothing_outside_training(kind):
    layer = kind(alpha=0.5, seed=2)
    batch = (PIXELS, LABELS, WEIGHTS)
    for before, after in zip(batch, numpy(layer(batch, training=False)), strict=True):
        np.testing.assert_array_equal(before, after)
    pixels, labels, weights = numpy(layer(batch, training=True))
    assert not np.allclose(pixels, PIXELS)
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
    assert not np.allclose(weights, WEIGHTS)
    assert WEIGHTS.min() <= weights.min() <= weights.max() <= WEIGHTS.max()


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 4.0])
def test_lambda_is_beta_distributed_however_small_alpha_is(alpha):
    drawn = keras.ops.convert_to_numpy(MixUpLayer(alpha=alpha, seed=3).shares(2000))
    assert np.isfinite(drawn).all()
    assert len(np.unique(drawn[(drawn > 1e-3) & (drawn < 1 - 1e-3)])) > 2  # one for each image
    inner = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    share = (drawn[:, None] < inner).mean(0)
    np.testing.assert_allclose(share, stats.beta(alpha, alpha).cdf(inner), atol=0.04)
