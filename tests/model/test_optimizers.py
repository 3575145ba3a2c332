import keras
import pytest

from melanoma_lab.config.schema.optimizer import Adam, Sgd
from melanoma_lab.model.optimizers import build_optimizer
from melanoma_lab.registry import BUILDERS, OPTIONS


def test_adam_has_keras_defaults():
    optimizer = build_optimizer(Adam("adam", learning_rate=0.02))
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.9, 0.999)


def test_sgd_is_configured():
    optimizer = build_optimizer(Sgd("sgd", learning_rate=0.1, momentum=0.9, nesterov=True))
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


def test_every_optimizer_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "optimizer"}
    assert options <= set(BUILDERS)
