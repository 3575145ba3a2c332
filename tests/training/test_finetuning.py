"""Which layers of a backbone train."""

import keras
import pytest
from keras import layers

from melanoma_lab.config.schema.training import ALL_BLOCKS
from melanoma_lab.core.errors import UserError
from melanoma_lab.training.finetuning import check_block, freeze, unfreeze

pytestmark = pytest.mark.component


@pytest.fixture
def nested():
    """A backbone of one layer and a model of its own, as Keras's applications are taken."""
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(2, 3, name="stem"),
            layers.BatchNormalization(name="stem_bn"),
            layers.Conv2D(2, 3, name="top"),
            layers.BatchNormalization(name="top_bn"),
        ],
        name="inner",
    )
    outer = [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), inner, layers.Flatten()]
    return keras.Sequential(outer, name="backbone")


def names_of(variables):
    return {variable.path.split("/")[-2] for variable in variables}


@pytest.mark.parametrize(
    ("block", "batch_norm", "trains"),
    [
        (ALL_BLOCKS, True, {"stem", "stem_bn", "top", "top_bn"}),
        (ALL_BLOCKS, False, {"stem", "top"}),
        ("top", False, {"top"}),
        ("top", True, {"top", "top_bn"}),
        ("stem_bn", False, {"top"}),
    ],
)
def test_layers_of_a_model_within_count_one_by_one(nested, block, batch_norm, trains):
    check_block(nested, block, batch_norm=batch_norm)
    freeze(nested)
    assert not nested.trainable_variables
    unfreeze(nested, block, batch_norm=batch_norm)
    assert names_of(nested.trainable_variables) == trains


def test_statistics_of_a_model_within_stay_as_they_are(nested):
    unfreeze(nested, ALL_BLOCKS, batch_norm=False)
    before = nested.get_layer("inner").get_layer("stem_bn").get_weights()
    nested(keras.random.uniform((4, 8, 8, 3), 0, 255), training=True)
    after = nested.get_layer("inner").get_layer("stem_bn").get_weights()
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_what_is_frozen_is_no_variable_of_a_network_that_trains(nested):
    freeze(nested)
    network = keras.Sequential([nested, layers.Dense(2, name="head")])
    network.build((None, 8, 8, 3))
    assert names_of(network.trainable_variables) == {"head"}


def test_a_check_changes_nothing(nested):
    check_block(nested, "top", batch_norm=False)
    with pytest.raises(UserError, match="the backbone has no trainable layer from there on"):
        check_block(nested, "top_bn", batch_norm=False)
    assert names_of(nested.trainable_variables) == {"stem", "stem_bn", "top", "top_bn"}


def test_a_backbone_without_weights_has_nothing_to_train():
    pooled = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten()])
    with pytest.raises(UserError, match="=all: the backbone has no trainable layer"):
        check_block(pooled, ALL_BLOCKS, batch_norm=False)
